# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Question answering: the question × context grid of a data set and its named averages."""

from __future__ import annotations

from collections.abc import Sequence

from xlkd.metrics import averages
from xlkd.reports import badges, grid
from xlkd.reports.files import Record
from xlkd.rows import Cell

METRICS = ("f1", "em")
PIVOT = "en"


def table(rows: Sequence[Record]) -> grid.Table:
    return grid.table(METRICS, rows, lambda row: (row["question_language"], row["context_language"]))


def means(held: grid.Table, set: str, seen: badges.Seen) -> dict[str, grid.Mean]:
    """The named averages that have a cell; `worst` is no mean, see there."""
    cells = dict.fromkeys(held.languages.values(), 0.0)
    named = averages.compute_averages(cells, languages(held, set), set=set, pivot=PIVOT, seen=seen.get("training"))
    found = {}
    for name, average in named.items():
        if name == "worst" or average.value is None:
            continue
        those = tuple(str(Cell("", cell)) for cell in average.cells)
        title = average.title if average.missing else ""
        split = (those[:1], those[1:]) if name == "transfer_gap" else (those, ())
        found[name] = grid.Mean(split[0], title, len(average.missing), split[1])
    return found


def primary(held: grid.Table) -> tuple[str, ...]:
    """What is judged first: the mean of the grid, of the diagonal where there is no grid."""
    return ("gxlt",) if any(len(set(pair)) > 1 for pair in held.languages.values()) else ("xlt",)


def languages(held: grid.Table, set: str) -> list[str]:
    """Over which the averages of a set are defined."""
    known = averages.LANGUAGES.get(set)
    there = {language for pair in held.languages.values() for language in pair}
    return list(known) if known and there <= {*known} else sorted(there)


def worst(cells: dict[str, Record]) -> Record:
    """The lowest cell, with its name, for each metric."""
    found: Record = {}
    for metric in METRICS:
        cell = min(cells, key=lambda name: (cells[name][metric]["value"], name))
        kept = {key: cells[cell][key] for key in ("badges", "word")}
        found[metric] = cells[cell][metric] | {"cell": cell} | kept
    return found
