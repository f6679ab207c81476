# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The imagined world: real names, dealt to countries anew for every passage."""

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
    """In this passage the country has this value; both are places in NAMES."""

    country: int
    relation: str
    value: int


@dataclasses.dataclass(frozen=True, slots=True)
class Deal:
    """What one passage says, in order, and for each relation a value that it does not say."""

    countries: tuple[int, ...]
    facts: tuple[Fact, ...]
    unsaid: dict[str, int]


def deal(draw: Draw, split: str, facts: int, countries: int = 1) -> Deal:
    """Countries of the split, and for each of them values for the same drawn relations.

    No two names in it are alike in any language (none is part of another), so a span of text means one thing.
    """
    taken: list[int] = []
    for _ in range(countries):
        taken.append(_free(draw, COUNTRIES[split], taken))
    chosen = tuple(taken)
    relations = draw.some(RELATIONS, facts)
    said = [Fact(country, r, _deal_value(draw, split, r, taken)) for country in chosen for r in relations]
    unsaid = {r: _deal_value(draw, split, r, taken) for r in RELATIONS} if countries == 1 else {}
    return Deal(chosen, tuple(draw.some(said, len(said))), unsaid)


def _deal_value(draw: Draw, split: str, relation: str, taken: list[int]) -> int:
    value = _free(draw, COUNTRIES[split] if relation == "neighbour" else POOLS[relation], taken)
    taken.append(value)
    return value


def _free(draw: Draw, pool: tuple[int, ...], taken: list[int]) -> int:
    while True:
        value = draw.pick(pool)
        if alike(value).isdisjoint(taken):
            return value


@functools.cache
def alike(place: int) -> frozenset[int]:
    """Returns the names that in some language are part of this one or hold it; itself among them."""
    return frozenset().union(*(names.alike(name) for name, names in zip(NAMES[place], _BY_LANGUAGE, strict=True)))


class _Names:
    """Finds among the names of one language, whatever their case, those that are part of a name or hold it."""

    def __init__(self, names: Sequence[str]) -> None:
        folded = [name.casefold() for name in names]
        self._text = "\n".join(folded)
        self._starts = list(itertools.accumulate((len(name) + 1 for name in folded[:-1]), initial=0))
        self._places: dict[str, list[int]] = {}
        for place, name in enumerate(folded):
            self._places.setdefault(name, []).append(place)

    def alike(self, name: str) -> set[int]:
        name = name.casefold()
        parts = {name[start:stop] for start in range(len(name)) for stop in range(start + 1, len(name) + 1)}
        places = {place for part in parts & self._places.keys() for place in self._places[part]}
        position = self._text.find(name)
        while position >= 0:
            places.add(bisect.bisect_right(self._starts, position) - 1)
            position = self._text.find(name, position + 1)
        return places


def _split_countries(places: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """A fixed draw, the same for every seed: countries held out are held out for good."""
    order = Draw("atlas", "split of the countries").some(sorted(places), len(places))
    cut, at = {}, 0
    for split, size in SPLITS.items():
        cut[split] = tuple(sorted(places[code] for code in order[at : at + size]))
        at += size
    return cut


def _tables():
    """All names in one table, a row a name, a column a language; pools are places in it."""
    names: list[tuple[str, ...]] = []
    pools: dict[str, dict[str, int]] = {}
    written = {str(year): (str(year),) * len(LANGUAGES) for year in YEARS}
    for pool, rows in {**_CLDR["pools"], "year": written}.items():
        pools[pool] = {code: len(names) + i for i, code in enumerate(rows)}
        names += [tuple(row) for row in rows.values()]
    return names, pools


NAMES, _PLACES = _tables()
_BY_LANGUAGE = [_Names(column) for column in zip(*NAMES, strict=True)]
POOLS = {pool: tuple(places.values()) for pool, places in _PLACES.items() if pool != "country"}
COUNTRIES = _split_countries(_PLACES["country"])
