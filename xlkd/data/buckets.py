# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The padded lengths that cost least for the lengths at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_MULTIPLE = 16  # every padded length is one of these

Cost = Callable[[np.ndarray], np.ndarray]


def encoder_cost(width: int) -> Cost:
    """FLOPs of one encoder layer over one row of a padded length, forward."""
    return lambda length: length * (24.0 * width**2 + 4.0 * length * width)


BASE = encoder_cost(768)


def rounded(length: Any) -> Any:
    """Up to the next padded length, of a number or of an array."""
    return -(-length // _MULTIPLE) * _MULTIPLE


def edges(lengths: Sequence[int] | np.ndarray, k: int, *, cost: Cost = BASE) -> tuple[int, ...]:
    """At most k padded lengths, ascending, of least total cost; the last one holds the longest row."""
    candidates, counts = np.unique(np.maximum(rounded(np.asarray(lengths, np.int64)), _MULTIPLE), return_counts=True)
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
    """Tokens with padding: without any, in buckets, and with all rows padded to the longest bucket."""

    tokens: int
    bucketed_tokens: int
    longest_tokens: int

    @property
    def padding(self) -> float:
        """Share of the positions that are padding, in buckets."""
        return 1 - self.tokens / self.bucketed_tokens

    @property
    def padding_at_longest(self) -> float:
        return 1 - self.tokens / self.longest_tokens


def saved(lengths: Sequence[int] | np.ndarray, edges: Sequence[int]) -> Saved:
    """Tokens of these rows in these buckets."""
    lengths = np.asarray(lengths, np.int64)
    padded = np.asarray(edges, np.int64)[bucket_of(lengths, edges)]
    return Saved(int(lengths.sum()), int(padded.sum()), len(lengths) * int(edges[-1]))
