# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Question answering: the question × context grid of a data set and its named averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.metrics import averages, ranks
from xlkd.reports import badges, grid
from xlkd.reports.files import Record
from xlkd.rows import Cell

PIVOT = "en"
OFFICIAL = ("HasAns_", "NoAns_", "best_")  # with which the names of the numbers of SQuAD 2 begin


def make_table(rows: Sequence[Record], metrics: Sequence[str]) -> grid.Table:
    """Groups rows by question and context language."""
    return grid.make_table(tuple(metrics), rows, lambda row: (row["question_language"], row["context_language"]))


def define_means(table: grid.Table, set: str, seen: badges.Seen) -> dict[str, grid.Mean]:
    """Returns the named averages that have a cell; `worst` is not a mean and is left out."""
    # Only which cells were scored matters here, not their scores
    cells = {(question, context): 0.0 for question, context in table.languages.values()}
    languages = list_languages(table, set)
    scored_averages = averages.compute_averages(cells, languages, set=set, pivot=PIVOT, seen=seen.get("training"))
    means = {}
    for name, average in scored_averages.items():
        if name == "worst" or average.value is None:
            continue
        members = tuple(str(Cell("", cell)) for cell in average.cells)
        title = average.title if average.missing else ""
        cells_of_mean, against = (members[:1], members[1:]) if name == "transfer_gap" else (members, ())
        means[name] = grid.Mean(cells_of_mean, title, len(average.missing), against)
    return means


def choose_primary(table: grid.Table) -> tuple[str, ...]:
    """Returns the mean that is tested first: over the grid, or over the diagonal where there is no grid."""
    return ("gxlt",) if any(len(set(pair)) > 1 for pair in table.languages.values()) else ("xlt",)


def list_languages(table: grid.Table, set: str) -> list[str]:
    """Returns the languages over which the averages of a data set are defined."""
    known = averages.LANGUAGES.get(set)
    present = {language for pair in table.languages.values() for language in pair}
    return list(known) if known and present <= {*known} else sorted(present)


def find_worst_cells(cells: Mapping[str, Record], table: grid.Table) -> Record:
    """Returns the cell with the worst score of each metric, with its name."""
    worst: Record = {}
    for metric in table.metrics:
        sign = -1 if metric in table.lower_is_better else 1
        cell = min(cells, key=lambda name: (sign * cells[name][metric]["value"], name))
        worst[metric] = cells[cell][metric] | {"cell": cell} | {key: cells[cell][key] for key in ("badges", "word")}
    return worst


def compute_em_at(runs: Sequence[grid.Table], means: Mapping[str, grid.Mean]) -> dict[str, list[float]]:
    """Returns EM@1 to EM@10 of each mean that is not a gap: the mean over its cells and then over seeds.

    A mean is left out where a row has no rank: in cells with unanswerable questions, and in runs of earlier versions.
    """
    by_run = [
        {
            cell: ranks.compute_em_at([row["rank"] for row in rows])
            for cell, rows in run.rows.items()
            if all("rank" in row for row in rows)
        }
        for run in runs
    ]
    em_at = {}
    for name, cells in grid.list_plain_means(means).items():
        if all(cell in of_run for of_run in by_run for cell in cells):
            values = np.mean([[of_run[cell] for cell in cells] for of_run in by_run], axis=(0, 1))
            em_at[name] = values.round(6).tolist()
    return em_at


def describe_unanswerable(table: grid.Table, set: str, record: Record) -> Record:
    """Returns the numbers of SQuAD 2 that a stage recorded for its `cells` with unanswerable questions.

    They have no intervals. `null_threshold` is that of the null odds. Without such questions nothing is returned.
    """
    reported = record.get("cells") or {}
    cells = {}
    for cell in table.rows:
        values = reported.get(f"{set} {cell}") or reported.get(cell) or {}
        if "NoAns_total" in values:
            cells[cell] = {name: value for name, value in values.items() if name.startswith(OFFICIAL)}
    return {"null_threshold": record.get("null_threshold"), "cells": cells} if cells else {}
