# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run reads of several corpora: joined by languages, capped, and English beside itself."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xlkd.data.corpus import Corpus, Gathered
from xlkd.data.permutation import Permutation
from xlkd.errors import UserError
from xlkd.rows import Pair, make_key


def compose(
    parts: Sequence[Sequence[Pair]], *, cap: int = 0, take: str = "random", seed: int = 0, identities: bool = False
) -> Joined:
    """Rows by pair of languages, each pair joined and capped, and English with itself if asked for."""
    by_pair: dict[tuple[str, str], list[Sequence[Pair]]] = {}
    for languages, rows in _by_languages(parts):
        by_pair.setdefault(languages, []).append(rows)
    if identities and (without := ["-".join(pair) for pair in by_pair if "en" not in pair]):
        raise UserError(f"no English side in {', '.join(without)}", remedy="leave the identity pairs out")
    joined = [found[0] if len(found) == 1 else Joined(found) for found in by_pair.values()]
    capped = [Capped(rows, cap, take, seed) if cap else rows for rows in joined]
    return Joined([*capped, Identities(capped)] if identities else capped)


def _by_languages(parts: Sequence[Sequence[Pair]]) -> Iterator[tuple[tuple[str, str], Sequence[Pair]]]:
    """A corpus as it is; rows of a small set, whose languages may change from row to row, are sorted first."""
    for part in parts:
        corpus = part.rows if isinstance(part, Capped) else part
        if isinstance(part, Joined):
            yield from _by_languages(part.parts)
        elif isinstance(corpus, Corpus):
            yield corpus.languages, part
        else:
            found: dict[tuple[str, str], list[Pair]] = {}
            for row in part:
                found.setdefault((row.source_language, row.target_language), []).append(row)
            yield from found.items()


def many(rows: Sequence[Any], index: np.ndarray) -> list[Any]:
    """Rows by number, together where the sequence can."""
    return rows.many(index) if isinstance(rows, Gathered) else [rows[int(i)] for i in index]


def _gathered(parts: Sequence[Sequence[Any]], of: np.ndarray, index: np.ndarray) -> list[Any]:
    """Row `index[i]` of part `of[i]`, for each i; those of a part together."""
    found: list[Any] = [None] * len(index)
    for number in np.unique(of):
        mine = np.flatnonzero(of == number)
        for at, row in zip(mine, many(parts[number], index[mine]), strict=True):
            found[at] = row
    return found


def _identity(rows: Sequence[Any]) -> str:
    made = getattr(rows, "identity", None)
    return made if isinstance(made, str) else make_key(*(row.key for row in rows))


def _itself(row: Pair) -> Pair:
    text = row.source if row.source_language == "en" else row.target
    key = make_key("identity", row.key)
    return Pair(row.id, key, row.group, row.set, text, text, "en", "en")


class Capped(Gathered):
    """At most `most` rows: the first, or some drawn from the seed."""

    def __init__(self, rows: Sequence[Any], most: int, take: str = "random", seed: int = 0) -> None:
        self.rows, self._size = rows, min(most, len(rows))
        self._order = Permutation(len(rows), seed=seed, purpose="cap") if take == "random" else None
        self._named = f"{most} {take} {seed}"

    def __len__(self) -> int:
        return self._size

    @functools.cached_property
    def identity(self) -> str:
        return f"{self._named} of {_identity(self.rows)}"

    def many(self, index: np.ndarray) -> list[Any]:
        return many(self.rows, self._order.at(index) if self._order else index)


class Joined(Gathered):
    """Rows one after the other."""

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self.parts = tuple(parts)
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @functools.cached_property
    def identity(self) -> str:
        return " and ".join(map(_identity, self.parts))

    def many(self, index: np.ndarray) -> list[Any]:
        index = np.asarray(index)
        of = np.searchsorted(self._starts[1:], index, side="right")
        return _gathered(self.parts, of, index - self._starts[of])


class Identities(Gathered):
    """English with itself: in round j the English side of pair j of language j mod n, where that pair exists."""

    def __init__(self, parts: Sequence[Sequence[Pair]]) -> None:
        self._parts = tuple(parts)
        counts = [max(0, -(-(len(part) - number) // len(parts))) for number, part in enumerate(parts)]
        self._starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @functools.cached_property
    def identity(self) -> str:
        return "identities of " + " and ".join(map(_identity, self._parts))

    def many(self, index: np.ndarray) -> list[Pair]:
        index = np.asarray(index)
        of = np.searchsorted(self._starts[1:], index, side="right")
        rounds = of + (index - self._starts[of]) * len(self._parts)
        return [_itself(row) for row in _gathered(self._parts, of, rounds)]
