# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes a pseudo-random permutation of any size place by place, without storing it."""

from __future__ import annotations

import numpy as np

from xlkd.data.draw import draw_uniform


class Permutation:
    """A permutation of 0 … size−1 by a keyed Feistel network, evaluated at any places without memory for the rest."""

    _ROUNDS = 6  # four are the minimum for a random-looking result; two more cost little

    def __init__(self, size: int, *, seed: int, purpose: str, epoch: int = 0) -> None:
        self._size, self._seed, self._purpose, self._epoch = size, seed, purpose, epoch
        self._half = max(-(-(size - 1).bit_length() // 2), 1)  # bits of each half

    def at(self, places: np.ndarray) -> np.ndarray:
        """Returns the values at these places; a value outside the range is permuted again until it falls inside."""
        values = self._cipher(np.asarray(places, np.uint64))
        while (outside := values >= self._size).any():
            values[outside] = self._cipher(values[outside])
        return values.astype(np.int64)

    def _cipher(self, values: np.ndarray) -> np.ndarray:
        """Applies the Feistel rounds once: a bijection of the numbers of 2 × half bits."""
        half = np.uint64(self._half)
        left, right = values >> half, values & np.uint64((1 << self._half) - 1)
        for number in range(self._ROUNDS):
            step = self._epoch * self._ROUNDS + number
            drawn = draw_uniform(self._seed, self._purpose, step, right, 1)[:, 0]
            left, right = right, left ^ (drawn * (1 << self._half)).astype(np.uint64)
        return (left << half) | right
