# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The padded lengths that cost least for the lengths at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

Cost = Callable[[np.ndarray], np.ndarray]


def encoder_cost(width: int) -> Cost:
    """FLOPs of one encoder layer over one row of a padded length, forward."""
    return lambda length: length * (24.0 * width**2 + 4.0 * length * width)


def linear_cost(length: np.ndarray) -> np.ndarray:
    """Tokens: for what is paid by position alone."""
    return length * 1.0


BASE = encoder_cost(768)


def edges(lengths: Sequence[int] | np.ndarray, k: int, *, multiple: int = 16, cost: Cost = BASE) -> tuple[int, ...]:
    """At most k padded lengths, ascending, of least total cost; the last one holds the longest row."""
    candidates, counts = _histogram(lengths, multiple)
    if not len(candidates):
        return ()
    k = min(k, len(candidates))
    price = cost(candidates.astype(np.float64))
    before = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    # best[j]: least cost of the rows of candidates 0 ... j-1 in the buckets so far; cut: where the last one begins
    best = np.full(len(candidates) + 1, np.inf)
    best[0] = 0.0
    cut = []
    for _ in range(k):
        step = best[:, None] + (before[None, 1:] - before[:, None]) * price[None, :]
        step = np.where(np.arange(len(best))[:, None] <= np.arange(len(candidates))[None, :], step, np.inf)
        cut.append(np.argmin(step, axis=0))
        best = np.concatenate([[np.inf], np.min(step, axis=0)])
    chosen, j = [], len(candidates)
    for starts in reversed(cut):
        chosen.append(int(candidates[j - 1]))
        j = int(starts[j - 1])
    return tuple(reversed(chosen))


def bucket_of(lengths: Sequence[int] | np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """The index of each length's bucket: the first edge that holds it."""
    index = np.searchsorted(np.asarray(edges), np.asarray(lengths), side="left")
    if len(index) and index.max() >= len(edges):
        raise ValueError(f"a row of length {int(np.max(lengths))} does not fit the longest bucket {edges[-1]}")
    return index


@dataclasses.dataclass(frozen=True)
class Saved:
    """What padding costs: without any, in buckets, and with all rows padded to the longest bucket."""

    tokens: int
    bucketed_tokens: int
    longest_tokens: int
    cost: float
    bucketed_cost: float
    longest_cost: float

    @property
    def padding(self) -> float:
        """Share of the positions that are padding, in buckets."""
        return 1 - self.tokens / self.bucketed_tokens

    @property
    def padding_at_longest(self) -> float:
        return 1 - self.tokens / self.longest_tokens

    @property
    def speedup(self) -> float:
        """Cost with all rows at the longest bucket over cost in buckets."""
        return self.longest_cost / self.bucketed_cost


def saved(lengths: Sequence[int] | np.ndarray, edges: Sequence[int], *, cost: Cost = BASE) -> Saved:
    """Padding and cost of these rows in these buckets."""
    lengths = np.asarray(lengths, np.int64)
    padded = np.asarray(edges, np.int64)[bucket_of(lengths, edges)]
    longest = np.full_like(lengths, edges[-1])

    def price(of: np.ndarray) -> float:
        return float(np.sum(cost(of.astype(np.float64))))

    return Saved(
        tokens=int(lengths.sum()),
        bucketed_tokens=int(padded.sum()),
        longest_tokens=int(longest.sum()),
        cost=price(lengths),
        bucketed_cost=price(padded),
        longest_cost=price(longest),
    )


def _histogram(lengths: Sequence[int] | np.ndarray, multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """The rounded-up lengths that occur, and how often."""
    rounded = -(-np.asarray(lengths, np.int64) // multiple) * multiple
    return np.unique(np.maximum(rounded, multiple), return_counts=True)
