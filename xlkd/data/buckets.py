# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the padded lengths that cost least for given lengths of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

_MULTIPLE = 16  # of which every padded length is a multiple

Cost = Callable[[np.ndarray], np.ndarray]


def find_tile(platform: str) -> int:
    """Returns the positions of a tile: a TPU pads the scores of a query to whole lanes, other devices do not."""
    return 128 if platform == "tpu" else 1


def make_encoder_cost(width: int, tile: int = 1) -> Cost:
    """Returns the function from a padded length to the FLOPs of one encoder layer over one row, forward pass.

    Attention costs as much as over whole tiles of keys.
    """
    return lambda length: length * (24.0 * width**2 + 4.0 * width * tile * np.ceil(length / tile))


BASE_WIDTH = 768  # of an encoder of base size
BASE = make_encoder_cost(BASE_WIDTH)


_Length = TypeVar("_Length", int, np.ndarray)


def round_up(length: _Length) -> _Length:
    """Rounds a length, or an array of lengths, up to the next multiple of 16."""
    return -(-length // _MULTIPLE) * _MULTIPLE


def choose_edges(lengths: Sequence[int] | np.ndarray, k: int, *, cost: Cost = BASE) -> tuple[int, ...]:
    """Returns at most k padded lengths, ascending, of least total cost; the last one fits the longest row."""
    candidates, counts = np.unique(np.maximum(round_up(np.asarray(lengths, np.int64)), _MULTIPLE), return_counts=True)
    if not len(candidates):
        return ()
    k = min(k, len(candidates))
    price = cost(candidates.astype(np.float64))
    before = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    # least[j]: cost of the rows of candidates 0 … j-1 in the buckets so far; cuts: where the last bucket begins
    least = np.full(len(candidates) + 1, np.inf)
    least[0] = 0.0
    cuts = []
    for _ in range(k):
        step = least[:, None] + (before[None, 1:] - before[:, None]) * price[None, :]
        step = np.where(np.arange(len(least))[:, None] <= np.arange(len(candidates))[None, :], step, np.inf)
        cuts.append(np.argmin(step, axis=0))
        least = np.concatenate([[np.inf], np.min(step, axis=0)])
    edges, j = [], len(candidates)
    for starts in reversed(cuts):
        edges.append(int(candidates[j - 1]))
        j = int(starts[j - 1])
    return tuple(reversed(edges))


def assign_buckets(lengths: Sequence[int] | np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """Returns the index of each length's bucket: the first edge that is not shorter."""
    index = np.searchsorted(np.asarray(edges), np.asarray(lengths), side="left")
    if len(index) and index.max() >= len(edges):
        raise ValueError(f"a row of length {int(np.max(lengths))} does not fit the longest bucket {edges[-1]}")
    return index


@dataclasses.dataclass(frozen=True)
class Padding:
    """Token counts of rows: without padding, padded to their buckets, and all padded to the longest bucket."""

    tokens: int
    bucketed_tokens: int
    longest_tokens: int

    @property
    def padding(self) -> float:
        """Returns the share of positions that are padding, in buckets."""
        return 1 - self.tokens / self.bucketed_tokens

    @property
    def padding_at_longest(self) -> float:
        """Returns the share of positions that are padding, with all rows at the longest bucket."""
        return 1 - self.tokens / self.longest_tokens


def measure_padding(lengths: Sequence[int] | np.ndarray, edges: Sequence[int]) -> Padding:
    """Counts the tokens of rows of these lengths in these buckets."""
    lengths = np.asarray(lengths, np.int64)
    padded = np.asarray(edges, np.int64)[assign_buckets(lengths, edges)]
    return Padding(int(lengths.sum()), int(padded.sum()), len(lengths) * edges[-1])
