# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The named averages over cells (question language, context language); a name stands for its whole set only."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from xlkd.rows import Cell

LanguagePair = tuple[str, str]  # (question language, context language)

# The languages of a set, over which its averages are defined.
LANGUAGES = {
    "mlqa": ("ar", "de", "en", "es", "hi", "vi", "zh"),
    "xquad": ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"),
    "tydiqa": ("ar", "bn", "en", "fi", "id", "ko", "ru", "sw", "te"),
}

# Averages of the diagonal that belong to one set; the zero-shot lists are the paper's.
OF_A_SET = {
    "xquad": {
        "xquad_zs": ("el", "ru", "th", "tr"),
        "xquad_11": tuple(language for language in LANGUAGES["xquad"] if language != "ro"),
        "xquad_12": LANGUAGES["xquad"],
    },
    "tydiqa": {"tydiqa_zs": ("bn", "fi", "id", "ko", "ru", "sw", "te")},
}


@dataclasses.dataclass(frozen=True)
class Average:
    """An unweighted mean over the cells at hand; None without any."""

    name: str
    value: float | None
    cells: tuple[LanguagePair, ...]
    missing: tuple[LanguagePair, ...] = ()

    @property
    def title(self) -> str:
        """The official name, or what is missing of it."""
        if not self.missing:
            return self.name
        absent = ", ".join(str(Cell("", cell)) for cell in self.missing)
        return f"{len(self.cells)} of {len(self.cells) + len(self.missing)} cells of {self.name} (missing: {absent})"


def averages(
    scores: Mapping[LanguagePair, float],
    languages: Sequence[str],
    *,
    set: str = "",
    pivot: str = "en",
    seen: Collection[str] | None = None,
) -> dict[str, Average]:
    """All averages of one set's cells; those of the grid only where a cell off the diagonal was evaluated.

    seen: the languages with labels in training, as the run recorded them; None where that is not known.
    """
    grid = any(question != context for question, context in scores)
    named = definitions(languages, set=set, pivot=pivot, seen=seen, grid=grid)
    found = {name: _average(name, cells, scores) for name, cells in named.items()}
    if pivot in languages:
        found["transfer_gap"] = _transfer_gap(scores, languages, pivot)
    if scores:
        lowest = min(scores, key=lambda cell: (scores[cell], cell))
        absent = tuple(cell for cell in (named["gxlt"] if grid else named["xlt"]) if cell not in scores)
        found["worst"] = Average("worst", scores[lowest], (lowest,), absent)
    return found


def definitions(
    languages: Sequence[str],
    *,
    set: str = "",
    pivot: str = "en",
    seen: Collection[str] | None = None,
    grid: bool = True,
) -> dict[str, tuple[LanguagePair, ...]]:
    """Which cells each average is the mean of."""
    named = {"xlt": _diagonal(languages)}
    if seen is not None:
        named["xlt_seen"] = _diagonal([language for language in languages if language in seen])
        named["xlt_unseen"] = _diagonal([language for language in languages if language not in seen])
    named |= {name: _diagonal(of) for name, of in OF_A_SET.get(set, {}).items()}
    return named | _grid(languages, pivot, seen) if grid else named


def _diagonal(languages: Sequence[str]) -> tuple[LanguagePair, ...]:
    return tuple((language, language) for language in languages)


def _grid(languages: Sequence[str], pivot: str, seen: Collection[str] | None) -> dict[str, tuple[LanguagePair, ...]]:
    cells = tuple((question, context) for question in languages for context in languages)
    off = tuple((question, context) for question, context in cells if question != context)
    named = {"gxlt": cells, "gxlt_off": off}
    for language in languages:
        named[f"by_question[{language}]"] = tuple(cell for cell in cells if cell[0] == language)
        named[f"by_question_off[{language}]"] = tuple(cell for cell in off if cell[0] == language)
        named[f"by_context[{language}]"] = tuple(cell for cell in cells if cell[1] == language)
        named[f"by_context_off[{language}]"] = tuple(cell for cell in off if cell[1] == language)
    if pivot in languages:
        named["pivot_question"] = named[f"by_question_off[{pivot}]"]
        named["pivot_context"] = named[f"by_context_off[{pivot}]"]
    if seen is not None:
        for name, count in (("gxlt_seen", 2), ("gxlt_mixed", 1), ("gxlt_unseen", 0)):
            named[name] = tuple(cell for cell in off if sum(language in seen for language in cell) == count)
    return named


def _average(name: str, cells: Sequence[LanguagePair], scores: Mapping[LanguagePair, float]) -> Average:
    here = tuple(cell for cell in cells if cell in scores)
    absent = tuple(cell for cell in cells if cell not in scores)
    return Average(name, sum(scores[cell] for cell in here) / len(here) if here else None, here, absent)


def _transfer_gap(scores: Mapping[LanguagePair, float], languages: Sequence[str], pivot: str) -> Average:
    others = _average("transfer_gap", _diagonal([language for language in languages if language != pivot]), scores)
    own = (pivot, pivot)
    if own not in scores:
        return dataclasses.replace(others, value=None, missing=(own, *others.missing))
    value = None if others.value is None else scores[own] - others.value
    return dataclasses.replace(others, value=value, cells=(own, *others.cells))
