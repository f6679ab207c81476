# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A shuffle of any size that is computed where it is asked for, and never stored."""

from __future__ import annotations

import numpy as np

from xlkd.data.draw import uniform


class Permutation:
    """A shuffle of 0 … size−1 by a keyed Feistel network: any place of it at once, none of it in memory."""

    _ROUNDS = 6  # four are the least that look random; the others cost little

    def __init__(self, size: int, *, seed: int, purpose: str, epoch: int = 0) -> None:
        self._size, self._seed, self._purpose, self._epoch = size, seed, purpose, epoch
        self._half = max(-(-int(size - 1).bit_length() // 2), 1)  # bits of either half

    def at(self, places: np.ndarray) -> np.ndarray:
        """What stands at these places; a value outside is sent through again until it falls inside."""
        values = self._cipher(np.asarray(places, np.uint64))
        while (outside := values >= self._size).any():
            values[outside] = self._cipher(values[outside])
        return values.astype(np.int64)

    def _cipher(self, values: np.ndarray) -> np.ndarray:
        half = np.uint64(self._half)
        left, right = values >> half, values & np.uint64((1 << self._half) - 1)
        for number in range(self._ROUNDS):
            step = self._epoch * self._ROUNDS + number
            drawn = uniform(self._seed, self._purpose, step, right, 1)[:, 0]
            left, right = right, left ^ (drawn * (1 << self._half)).astype(np.uint64)
        return (left << half) | right
