# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The rank of a question's first exactly right candidate answer, and EM@k: the share of ranks from 1 to k."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Collection, Iterable, Sequence

MOST = 10  # candidates that are looked at


def find_rank(candidates: Iterable[str], golds: Collection[str]) -> int:
    """Returns the place of the first candidate that equals a gold answer, from 1; 0 if none of the first ten does.

    All texts must be normalised.
    """
    first = enumerate(itertools.islice(candidates, MOST), 1)
    return next((place for place, candidate in first if candidate in golds), 0)


def compute_em_at(ranks: Sequence[int]) -> tuple[float, ...]:
    """Returns EM@1 to EM@10 in percent."""
    counts = collections.Counter(ranks)
    return tuple(100.0 * right / len(ranks) for right in itertools.accumulate(counts[k] for k in range(1, MOST + 1)))
