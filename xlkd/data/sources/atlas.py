# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The embedded imagined world: `atlas?split=train&size=2000&seed=0&languages=en,de`, every row made when asked for."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from xlkd.data import atlas
from xlkd.data.sources import Bad, Spec
from xlkd.errors import UserError
from xlkd.languages import normalise_tag

TASKS = ("qa", "classify", "parallel", "masked")

_COMMON = ("split", "size", "seed", "languages", "limit", "facts", "frames")
_OPTIONS = {
    "qa": (*_COMMON, "pairs", "countries"),
    "classify": _COMMON,
    "parallel": (*_COMMON, "pairs", "pivot"),
    "masked": (*_COMMON, "kind", "share"),
}
# Facts a passage: the default, the least and the most
_FACTS = {"qa": (5, 2, 8), "classify": (3, 1, 7), "parallel": (2, 1, 8), "masked": (5, 3, 8)}


def rows(spec: Spec, task: str, bad: Bad) -> Sequence[Any]:
    """`size` questions, claims, sentences or texts, each in every language (or pair of languages) asked for."""
    if spec.path:
        raise UserError(f"takes no path, got {spec.path!r}", str(spec), "write atlas?split=train&size=2000")
    spec.allow(*_OPTIONS[task])
    make, cells = _MAKERS[task](spec, _world(spec, task), _languages(spec))
    size = spec.number("size", 2000)
    size = min(size * len(cells), spec.number("limit", size * len(cells)))
    return _Made(make, tuple(cells), size, f"atlas {atlas.version()} {task} {spec}")


@dataclasses.dataclass(frozen=True)
class _Made(Sequence):
    """Row i is item i // cells in cell i % cells, so that all languages of an item stand together."""

    make: Callable[..., Any]
    cells: tuple[tuple[Any, ...], ...]
    size: int
    identity: str  # names all rows at once, so that a cache need not make them

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        item, cell = divmod(index % self.size, len(self.cells))
        return self.make(item, *self.cells[cell])


def _world(spec: Spec, task: str) -> atlas.World:
    default, least, most = _FACTS[task]
    facts, countries = spec.number("facts", default), spec.number("countries", 1)
    if not least <= facts <= most:
        raise UserError(f"facts={facts} is not possible", str(spec), f"give {least} to {most}")
    if countries not in (1, 2):
        raise UserError(f"countries={countries} is not possible", str(spec), "give 1 or 2")
    return atlas.World(
        split=spec.choice("split", ("train", "validation", "test")),
        seed=spec.number("seed", 0),
        facts=facts,
        countries=countries,
        frames=spec.choice("frames", ("seen", "held_out", "all")),
    )


def _languages(spec: Spec) -> tuple[str, ...]:
    asked = spec.languages() or atlas.LANGUAGES
    for language in asked:
        _known(language, spec)
    return asked


def _known(language: str, spec: Spec) -> None:
    if language not in atlas.LANGUAGES:
        raise UserError(f"the atlas has no {language!r}", str(spec), f"it has {', '.join(atlas.LANGUAGES)}")


def _qa(spec: Spec, world: atlas.World, languages: tuple[str, ...]):
    return functools.partial(atlas.question, world), spec.pairs(languages)


def _classify(spec: Spec, world: atlas.World, languages: tuple[str, ...]):
    return functools.partial(atlas.statements, world), [(a,) for a in languages]


def _parallel(spec: Spec, world: atlas.World, languages: tuple[str, ...]):
    if spec.choice("pairs", ("pivot", "all")) == "all":
        cells = list(itertools.permutations(languages, 2))
    else:
        pivot = normalise_tag(spec.option("pivot", "en"), str(spec))
        _known(pivot, spec)
        cells = [(pivot, other) for other in languages if other != pivot]
    if not cells:
        raise UserError("bitext needs two languages", str(spec), "name another in languages=")
    return functools.partial(atlas.translation, world), cells


def _masked(spec: Spec, world: atlas.World, languages: tuple[str, ...]):
    kind = spec.choice("kind", ("mixed", "same", "translation"))
    share = spec.number("share", 60)
    if share > 100:
        raise UserError(f"share={share} is not a percentage", str(spec), "give 0 to 100")
    if len(languages) < 2 and kind == "translation":
        raise UserError("kind=translation needs two languages", str(spec), "name another in languages=")
    across = {"same": 0, "translation": 100, "mixed": share}[kind] if len(languages) > 1 else 0
    return functools.partial(atlas.companions, world), [(languages, across)]


_MAKERS = {"qa": _qa, "classify": _classify, "parallel": _parallel, "masked": _masked}
