# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes named averages over cells (question language, context language); a name means its complete set of cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from xlkd.languages import has_language
from xlkd.rows import Cell

LanguagePair = tuple[str, str]  # (question language, context language)

# The languages of a data set, over which its averages are defined.
LANGUAGES = {
    "mlqa": ("ar", "de", "en", "es", "hi", "vi", "zh"),
    "xquad": ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"),
    "tydiqa": ("ar", "bn", "en", "fi", "id", "ko", "ru", "sw", "te"),
}

# Averages over the diagonal that exist for one data set only; the zero-shot lists are the paper's.
SET_AVERAGES = {
    "xquad": {
        "xquad_zs": ("el", "ru", "th", "tr"),
        "xquad_11": tuple(language for language in LANGUAGES["xquad"] if language != "ro"),
        "xquad_12": LANGUAGES["xquad"],
    },
    "tydiqa": {"tydiqa_zs": ("bn", "fi", "id", "ko", "ru", "sw", "te")},
}


@dataclasses.dataclass(frozen=True)
class Average:
    """An unweighted mean over the cells that were scored; None without any."""

    name: str
    value: float | None
    cells: tuple[LanguagePair, ...]
    missing: tuple[LanguagePair, ...] = ()

    @property
    def title(self) -> str:
        """The official name, or a description of which of its cells are missing."""
        if not self.missing:
            return self.name
        absent = ", ".join(str(Cell("", cell)) for cell in self.missing)
        return f"{len(self.cells)} of {len(self.cells) + len(self.missing)} cells of {self.name} (missing: {absent})"


def compute_averages(
    scores: Mapping[LanguagePair, float],
    languages: Sequence[str],
    *,
    set: str = "",
    pivot: str = "en",
    seen: Collection[str] | None = None,
) -> dict[str, Average]:
    """Returns all averages of a data set; averages over the grid only where a cell off the diagonal was scored.

    seen: the languages with labels in training, as the run recorded them; None where that is not known.
    """
    is_grid = any(question != context for question, context in scores)
    cells_of = list_average_cells(languages, set=set, pivot=pivot, seen=seen, grid=is_grid)
    averages = {name: _make_average(name, cells, scores) for name, cells in cells_of.items()}
    if pivot in languages:
        averages["transfer_gap"] = _compute_transfer_gap(scores, languages, pivot)
    if scores:
        lowest = min(scores, key=lambda cell: (scores[cell], cell))
        missing = tuple(cell for cell in (cells_of["gxlt"] if is_grid else cells_of["xlt"]) if cell not in scores)
        averages["worst"] = Average("worst", scores[lowest], (lowest,), missing)
    return averages


def list_average_cells(
    languages: Sequence[str],
    *,
    set: str = "",
    pivot: str = "en",
    seen: Collection[str] | None = None,
    grid: bool = True,
) -> dict[str, tuple[LanguagePair, ...]]:
    """Returns the cells over which each average is the mean."""
    cells = {"xlt": _list_diagonal(languages)}
    if seen is not None:
        cells["xlt_seen"] = _list_diagonal([language for language in languages if has_language(seen, language)])
        cells["xlt_unseen"] = _list_diagonal([language for language in languages if not has_language(seen, language)])
    cells |= {name: _list_diagonal(members) for name, members in SET_AVERAGES.get(set, {}).items()}
    return cells | _list_grid(languages, pivot, seen) if grid else cells


def _list_diagonal(languages: Sequence[str]) -> tuple[LanguagePair, ...]:
    return tuple((language, language) for language in languages)


def _list_grid(
    languages: Sequence[str], pivot: str, seen: Collection[str] | None
) -> dict[str, tuple[LanguagePair, ...]]:
    cells = tuple((question, context) for question in languages for context in languages)
    off = tuple((question, context) for question, context in cells if question != context)
    averages = {"gxlt": cells, "gxlt_off": off}
    for language in languages:
        averages[f"by_question[{language}]"] = tuple(cell for cell in cells if cell[0] == language)
        averages[f"by_question_off[{language}]"] = tuple(cell for cell in off if cell[0] == language)
        averages[f"by_context[{language}]"] = tuple(cell for cell in cells if cell[1] == language)
        averages[f"by_context_off[{language}]"] = tuple(cell for cell in off if cell[1] == language)
    if pivot in languages:
        averages["pivot_question"] = averages[f"by_question_off[{pivot}]"]
        averages["pivot_context"] = averages[f"by_context_off[{pivot}]"]
    if seen is not None:
        for name, count in (("gxlt_seen", 2), ("gxlt_mixed", 1), ("gxlt_unseen", 0)):
            averages[name] = tuple(
                cell for cell in off if sum(has_language(seen, language) for language in cell) == count
            )
    return averages


def _make_average(name: str, cells: Sequence[LanguagePair], scores: Mapping[LanguagePair, float]) -> Average:
    scored = tuple(cell for cell in cells if cell in scores)
    missing = tuple(cell for cell in cells if cell not in scores)
    value = sum(scores[cell] for cell in scored) / len(scored) if scored else None
    return Average(name, value, scored, missing)


def _compute_transfer_gap(scores: Mapping[LanguagePair, float], languages: Sequence[str], pivot: str) -> Average:
    others = _make_average(
        "transfer_gap", _list_diagonal([language for language in languages if language != pivot]), scores
    )
    pivot_cell = (pivot, pivot)
    if pivot_cell not in scores:
        return dataclasses.replace(others, value=None, missing=(pivot_cell, *others.missing))
    value = None if others.value is None else scores[pivot_cell] - others.value
    return dataclasses.replace(others, value=value, cells=(pivot_cell, *others.cells))
