# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The imagined world: real names, dealt to countries anew for every passage."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib

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
    """The names that in some language are part of this one or hold it; itself among them."""
    own = _FOLDED[place]
    return frozenset(
        other for other, names in enumerate(_FOLDED) if any(a in b or b in a for a, b in zip(own, names, strict=True))
    )


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
_FOLDED = [tuple(name.casefold() for name in row) for row in NAMES]
POOLS = {pool: tuple(places.values()) for pool, places in _PLACES.items() if pool != "country"}
COUNTRIES = _split_countries(_PLACES["country"])
