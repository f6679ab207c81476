# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Deals real names as facts to countries, anew for every passage."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Sequence

from xlkd.data.atlas.draw import Draw

_CLDR = json.loads(pathlib.Path(__file__).with_name("cldr.json").read_text(encoding="utf-8"))

LANGUAGES: tuple[str, ...] = tuple(_CLDR["languages"])
RELATIONS = ("currency", "language", "city", "region", "weekday", "script", "year", "neighbour")
SPLITS = {"test": 45, "validation": 30, "train": 130}
YEARS = range(1750, 2000)


@dataclasses.dataclass(frozen=True, slots=True)
class Fact:
    """A fact of a passage: the country has this value; both are indices of NAMES."""

    country: int
    relation: str
    value: int


@dataclasses.dataclass(frozen=True, slots=True)
class Passage:
    """The facts of a passage in order, and for each relation a value that the passage does not give."""

    countries: tuple[int, ...]
    facts: tuple[Fact, ...]
    unsaid: dict[str, int]


def deal_passage(draw: Draw, split: str, facts: int, countries: int = 1) -> Passage:
    """Draws countries of the split, and for each of them values of the same drawn relations.

    No name in a passage is part of another in any language, so a span of text has one meaning.
    """
    taken: list[int] = []
    for _ in range(countries):
        taken.append(_draw_distinct(draw, COUNTRIES[split], taken))
    country_numbers = tuple(taken)
    relations = draw.some(RELATIONS, facts)
    stated = [Fact(country, r, _draw_value(draw, split, r, taken)) for country in country_numbers for r in relations]
    unstated = {r: _draw_value(draw, split, r, taken) for r in RELATIONS} if countries == 1 else {}
    return Passage(country_numbers, tuple(draw.some(stated, len(stated))), unstated)


def _draw_value(draw: Draw, split: str, relation: str, taken: list[int]) -> int:
    """Draws a value of a relation and adds it to `taken`."""
    value = _draw_distinct(draw, COUNTRIES[split] if relation == "neighbour" else POOLS[relation], taken)
    taken.append(value)
    return value


def _draw_distinct(draw: Draw, pool: tuple[int, ...], taken: list[int]) -> int:
    """Draws from the pool until the name is not part of a taken one, and no taken one is part of it."""
    while True:
        value = draw.pick(pool)
        if find_alike(value).isdisjoint(taken):
            return value


@functools.cache
def find_alike(place: int) -> frozenset[int]:
    """Returns the names that are part of this one in some language, or contain it; including itself."""
    return frozenset().union(*(names.find_alike(name) for name, names in zip(NAMES[place], _BY_LANGUAGE, strict=True)))


class _NameIndex:
    """Finds the names of one language that are part of a name or contain it, whatever their case."""

    def __init__(self, names: Sequence[str]) -> None:
        folded = [name.casefold() for name in names]
        self._text = "\n".join(folded)
        self._starts = list(itertools.accumulate((len(name) + 1 for name in folded[:-1]), initial=0))
        self._places: dict[str, list[int]] = {}
        for place, name in enumerate(folded):
            self._places.setdefault(name, []).append(place)

    def find_alike(self, name: str) -> set[int]:
        """Returns the indices of the names that are part of this name, or contain it."""
        name = name.casefold()
        parts = {name[start:stop] for start in range(len(name)) for stop in range(start + 1, len(name) + 1)}
        places = {place for part in parts & self._places.keys() for place in self._places[part]}
        position = self._text.find(name)
        while position >= 0:
            places.add(bisect.bisect_right(self._starts, position) - 1)
            position = self._text.find(name, position + 1)
        return places


def _split_countries(places: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Splits the countries by a fixed draw that is the same for every seed: held-out countries always stay held out."""
    order = Draw("atlas", "split of the countries").some(sorted(places), len(places))
    splits, start = {}, 0
    for split, size in SPLITS.items():
        splits[split] = tuple(sorted(places[code] for code in order[start : start + size]))
        start += size
    return splits


def _build_tables() -> tuple[list[tuple[str, ...]], dict[str, dict[str, int]]]:
    """Returns all names in one table, a row per name, a column per language, and the pools as indices of it."""
    names: list[tuple[str, ...]] = []
    pools: dict[str, dict[str, int]] = {}
    years = {str(year): (str(year),) * len(LANGUAGES) for year in YEARS}
    for pool, rows in {**_CLDR["pools"], "year": years}.items():
        pools[pool] = {code: len(names) + i for i, code in enumerate(rows)}
        names += [tuple(row) for row in rows.values()]
    return names, pools


NAMES, _PLACES = _build_tables()
_BY_LANGUAGE = [_NameIndex(column) for column in zip(*NAMES, strict=True)]
POOLS = {pool: tuple(places.values()) for pool, places in _PLACES.items() if pool != "country"}
COUNTRIES = _split_countries(_PLACES["country"])
