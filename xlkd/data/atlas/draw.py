# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws random numbers that are a pure function of the draw's name: the same in every process, at every index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_MASK = (1 << 64) - 1


class Draw:
    """A stream of draws named by its parts, for example (seed, split, view, index); splitmix64 seeded by blake2b."""

    __slots__ = ("_state",)

    def __init__(self, *parts: object) -> None:
        name = "\x1f".join(map(str, parts)).encode()
        self._state = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")

    def below(self, n: int) -> int:
        """Draws a whole number from 0 to n - 1."""
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) * n) >> 64

    def pick(self, items: Sequence[T]) -> T:
        """Draws one of the items."""
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], n: int) -> list[T]:
        """Draws n different items, in the order of the draw."""
        remaining = list(items)
        for i in range(n):
            j = i + self.below(len(remaining) - i)
            remaining[i], remaining[j] = remaining[j], remaining[i]
        return remaining[:n]
