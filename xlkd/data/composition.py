# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Composes the training pairs of several corpora: joined by languages, capped, with English identity pairs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xlkd.data.corpus import BulkRows, Corpus
from xlkd.data.permutation import Permutation
from xlkd.errors import UserError
from xlkd.languages import is_english
from xlkd.rows import Pair, make_key


def compose(
    parts: Sequence[Sequence[Pair]], *, cap: int = 0, take: str = "random", seed: int = 0, identities: bool = False
) -> JoinedRows:
    """Joins and caps the rows of each pair of languages; with `identities` it adds pairs of English with itself."""
    by_pair: dict[tuple[str, ...], list[Sequence[Pair]]] = {}
    for languages, rows in _group_by_languages(parts):
        by_pair.setdefault(languages, []).append(rows)
    if identities and (without_english := ["-".join(pair) for pair in by_pair if not any(map(is_english, pair))]):
        raise UserError(f"no English side in {', '.join(without_english)}", remedy="leave the identity pairs out")
    joined = [group[0] if len(group) == 1 else JoinedRows(group) for group in by_pair.values()]
    capped = [CappedRows(rows, cap, take, seed) if cap else rows for rows in joined]
    return JoinedRows([*capped, IdentityPairs(capped)] if identities else capped)


def _group_by_languages(parts: Sequence[Sequence[Pair]]) -> Iterator[tuple[tuple[str, ...], Sequence[Pair]]]:
    """Yields rows with their languages: a corpus as it is, a small set grouped, since its languages may vary by row."""
    for part in parts:
        corpus = part.rows if isinstance(part, CappedRows) else part
        if isinstance(part, JoinedRows):
            yield from _group_by_languages(part.parts)
        elif isinstance(corpus, Corpus):
            yield corpus.languages, part
        else:
            groups: dict[tuple[str, str], list[Pair]] = {}
            for row in part:
                groups.setdefault((row.source_language, row.target_language), []).append(row)
            yield from groups.items()


def read_many(rows: Sequence[Any], index: np.ndarray) -> list[Any]:
    """Returns rows by number, read together where the sequence can do that."""
    return rows.read_many(index) if isinstance(rows, BulkRows) else [rows[int(i)] for i in index]


def _gather(parts: Sequence[Sequence[Any]], part_of: np.ndarray, index: np.ndarray) -> list[Any]:
    """Returns row `index[i]` of part `part_of[i]` for each i; the rows of a part are read together."""
    rows: list[Any] = [None] * len(index)
    for number in np.unique(part_of):
        members = np.flatnonzero(part_of == number)
        for at, row in zip(members, read_many(parts[number], index[members]), strict=True):
            rows[at] = row
    return rows


def _identify(rows: Sequence[Any]) -> str:
    """Returns the identity of rows in a cache: their own, or a hash of their keys."""
    identity = getattr(rows, "identity", None)
    return identity if isinstance(identity, str) else make_key(*(row.key for row in rows))


def _make_identity_pair(row: Pair) -> Pair:
    """Returns the English side of a pair, paired with itself."""
    text = row.source if is_english(row.source_language) else row.target
    key = make_key("identity", row.key)
    return Pair(row.id, key, row.group, row.set, text, text, "en", "en")


class CappedRows(BulkRows):
    """The first `most` rows, or a random choice of `most` rows by the seed."""

    def __init__(self, rows: Sequence[Any], most: int, take: str = "random", seed: int = 0) -> None:
        self.rows, self._size = rows, min(most, len(rows))
        self._order = Permutation(len(rows), seed=seed, purpose="cap") if take == "random" else None
        self._description = f"{most} {take} {seed}"

    def __len__(self) -> int:
        return self._size

    @functools.cached_property
    def identity(self) -> str:
        """Names these rows in a cache."""
        return f"{self._description} of {_identify(self.rows)}"

    def read_many(self, index: np.ndarray) -> list[Any]:
        """Returns the rows of these numbers, in this order."""
        return read_many(self.rows, self._order.at(index) if self._order else index)


class JoinedRows(BulkRows):
    """The rows of several parts, one part after the other."""

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @functools.cached_property
    def identity(self) -> str:
        """Names these rows in a cache."""
        return " and ".join(map(_identify, self.parts))

    def read_many(self, index: np.ndarray) -> list[Any]:
        """Returns the rows of these numbers, in this order."""
        index = np.asarray(index)
        part_of = np.searchsorted(self._starts[1:], index, side="right")
        return _gather(self.parts, part_of, index - self._starts[part_of])


class IdentityPairs(BulkRows):
    """English paired with itself: in round j the English side of pair j of language j mod n, where that pair exists."""

    def __init__(self, parts: Sequence[Sequence[Pair]]) -> None:
        self._parts = tuple(parts)
        counts = [max(0, -(-(len(part) - number) // len(parts))) for number, part in enumerate(parts)]
        self._starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @functools.cached_property
    def identity(self) -> str:
        """Names these rows in a cache."""
        return "identities of " + " and ".join(map(_identify, self._parts))

    def read_many(self, index: np.ndarray) -> list[Pair]:
        """Returns the rows of these numbers, in this order."""
        index = np.asarray(index)
        part_of = np.searchsorted(self._starts[1:], index, side="right")
        rounds = part_of + (index - self._starts[part_of]) * len(self._parts)
        return [_make_identity_pair(row) for row in _gather(self._parts, part_of, rounds)]
