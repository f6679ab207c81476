# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The synthetic atlas: `atlas?split=train&size=2000&seed=0&languages=en,de`, each row generated when it is read."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from xlkd.data import atlas
from xlkd.data.sources import BadRows, Source
from xlkd.errors import UserError
from xlkd.languages import normalise_tag

TASKS = ("qa", "classify", "parallel", "masked")

_Maker = tuple[Callable[..., Any], Sequence[tuple[Any, ...]]]  # makes an item in a cell; the cells

_COMMON = ("split", "size", "seed", "languages", "limit", "facts", "frames")
OPTIONS = {
    "qa": (*_COMMON, "pairs", "countries"),
    "classify": _COMMON,
    "parallel": (*_COMMON, "pairs", "pivot"),
    "masked": (*_COMMON, "kind", "share"),
}
_LARGEST = 10**9  # `size`
_REMEMBERED = 2**14  # a source with more rows makes them whenever they are read
# Facts a passage: the default, the least and the most
_FACTS = {"qa": (5, 2, 8), "classify": (3, 1, 7), "parallel": (2, 1, 8), "masked": (5, 3, 8)}


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Any]:
    """Returns `size` questions, claims, sentences or texts, each in every language, or pair of them, of the options."""
    if source.path:
        raise UserError(f"takes no path, got {source.path!r}", str(source), "write atlas?split=train&size=2000")
    make, cells = _MAKERS[task](source, _parse_world(source, task), _parse_languages(source))
    size = source.number("size", 2000)
    if size > _LARGEST:
        raise UserError(f"size={size} is not possible", str(source), f"give at most {_LARGEST:,}")
    size = min(size * len(cells), source.number("limit", size * len(cells)))
    return _AtlasRows(make, tuple(cells), size, f"atlas {atlas.VERSION} {task} {source}")


@dataclasses.dataclass(frozen=True)
class _AtlasRows(Sequence[Any]):
    """Row i is item i // cells in cell i % cells, so that all languages of an item are adjacent."""

    make: Callable[..., Any]
    cells: tuple[tuple[Any, ...], ...]
    size: int
    identity: str  # names all rows in a cache without generating them
    remembered: dict[int, Any] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.make, self.cells, self.size, self.identity)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        if index % self.size in self.remembered:  # a run goes through its rows several times
            return self.remembered[index % self.size]
        item, cell = divmod(index % self.size, len(self.cells))
        row = self.make(item, *self.cells[cell])
        if self.size <= _REMEMBERED:
            self.remembered[index % self.size] = row
        return row


def _parse_world(source: Source, task: str) -> atlas.World:
    """Returns the settings of the generated data from the options."""
    default, least, most = _FACTS[task]
    facts, countries = source.number("facts", default), source.number("countries", 1)
    if not least <= facts <= most:
        raise UserError(f"facts={facts} is not possible", str(source), f"give {least} to {most}")
    if countries not in (1, 2):
        raise UserError(f"countries={countries} is not possible", str(source), "give 1 or 2")
    return atlas.World(
        split=source.choice("split", ("train", "validation", "test")),
        seed=source.number("seed", 0),
        facts=facts,
        countries=countries,
        frames=source.choice("frames", ("seen", "held_out", "all")),
    )


def _parse_languages(source: Source) -> tuple[str, ...]:
    """Returns the languages of the option `languages`, all of the atlas by default."""
    languages = source.languages() or atlas.LANGUAGES
    for language in languages:
        _check_language(language, source)
    return languages


def _check_language(language: str, source: Source) -> None:
    """Refuses a language that the atlas does not have."""
    if language not in atlas.LANGUAGES:
        raise UserError(f"the atlas has no {language!r}", str(source), f"it has {', '.join(atlas.LANGUAGES)}")


def _prepare_questions(source: Source, world: atlas.World, languages: tuple[str, ...]) -> _Maker:
    """Returns the function that makes a question, and its pairs of languages."""
    return functools.partial(atlas.make_question, world), source.pairs(languages)


def _prepare_statements(source: Source, world: atlas.World, languages: tuple[str, ...]) -> _Maker:
    """Returns the function that makes a labelled pair of passage and claim, and its languages."""
    return functools.partial(atlas.make_statement, world), [(a,) for a in languages]


def _prepare_translations(source: Source, world: atlas.World, languages: tuple[str, ...]) -> _Maker:
    """Returns the function that makes a translation, and its pairs of languages."""
    if source.choice("pairs", ("pivot", "all")) == "all":
        cells = list(itertools.permutations(languages, 2))
    else:
        pivot = normalise_tag(source.option("pivot", "en"), str(source))
        _check_language(pivot, source)
        cells = [(pivot, other) for other in languages if other != pivot]
    if not cells:
        raise UserError("bitext needs two languages", str(source), "name another in languages=")
    return functools.partial(atlas.make_translation, world), cells


def _prepare_companions(source: Source, world: atlas.World, languages: tuple[str, ...]) -> _Maker:
    """Returns the function that makes a pair of texts for pre-training, and its arguments."""
    kind = source.choice("kind", ("mixed", "same", "translation"))
    share = source.number("share", 60)
    if share > 100:
        raise UserError(f"share={share} is not a percentage", str(source), "give 0 to 100")
    if len(languages) < 2 and kind == "translation":
        raise UserError("kind=translation needs two languages", str(source), "name another in languages=")
    across = {"same": 0, "translation": 100, "mixed": share}[kind] if len(languages) > 1 else 0
    return functools.partial(atlas.make_companions, world), [(languages, across)]


_MAKERS = {
    "qa": _prepare_questions,
    "classify": _prepare_statements,
    "parallel": _prepare_translations,
    "masked": _prepare_companions,
}
