# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classification by language: accuracy, macro-F1, the means over supervised and zero-shot languages, the majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.metrics import labels, statistics
from xlkd.reports import badges, grid
from xlkd.reports.files import Record

METRICS = ("accuracy",)
PRIMARY = ("supervised_mean", "zero_shot_mean")
PIVOT = "en"


def table(rows: Sequence[Record]) -> grid.Table:
    """Rows without a label have no score."""
    scored = [row for row in rows if row.get("accuracy") is not None]
    return grid.table(METRICS, scored, lambda row: (row["language"],))


def means(told: Mapping[str, Record]) -> dict[str, grid.Mean]:
    """The named means, by the words that follow from the badges."""

    def of(word: str) -> tuple[str, ...]:
        return tuple(cell for cell, held in told.items() if held["word"] == word)

    supervised, zero_shot = of(badges.SUPERVISED), of(badges.ZERO_SHOT)
    found = {"macro_mean": grid.Mean(tuple(told))}
    if supervised:
        found["supervised_mean"] = grid.Mean(supervised)
    if zero_shot:
        found["zero_shot_mean"] = grid.Mean(zero_shot)
        if PIVOT in told and PIVOT not in zero_shot:
            found["transfer_gap"] = grid.Mean((PIVOT,), against=zero_shot)
    return found


def majority(held: grid.Table) -> dict[str, float]:
    """By language the accuracy of always giving its most frequent label, and the mean over languages."""
    found = {}
    for cell, rows in held.rows.items():
        order = sorted({row["gold"] for row in rows})
        found[cell] = round(100 * labels.majority_accuracy([order.index(row["gold"]) for row in rows]), 6)
    return found | {"macro_mean": round(sum(found.values()) / len(found), 6)} if found else found


def macro_f1(runs: Sequence[grid.Table], means: Mapping[str, grid.Mean], seed: int) -> dict[str, Record]:
    """Macro-F1 in percent by language and mean; over several seeds the interval speaks of the questions only."""
    order = _order(runs)
    groups = sorted({row["group"] for rows in runs[0].rows.values() for row in rows})
    number = {group: i for i, group in enumerate(groups)}
    answers = [[_answers(rows, order) for rows in run.rows.values()] for run in runs]
    counts = [np.stack([labels.count_by_group(one, number, len(order)) for one in run]) for run in answers]
    scores = np.stack([100 * labels.macro_f1_from_counts(of.sum(1)) for of in counts])
    theta = np.concatenate(
        [
            np.mean([100 * labels.resample_macro_f1(of, drawn) for of in counts], axis=0)
            for drawn in statistics.draw_group_counts(np.random.default_rng(seed), len(groups), statistics.RESAMPLES)
        ]
    )
    sizes, names = counts[0].sum((-1, -2)), list(runs[0].rows)

    def result(cells: Sequence[str]) -> Record:
        at = [names.index(cell) for cell in cells]
        count = int(sizes[at].sum()), int((sizes[at].sum(0) > 0).sum())
        return grid.number(statistics.summarize(statistics.mean_over_cells(theta[:, at]), scores[:, at].mean(1), count))

    of = {cell: (cell,) for cell in names} | grid.plain_means(means)
    return {name: result(cells) for name, cells in of.items()}


def compare_macro_f1(a: grid.Table, b: grid.Table, means: Mapping[str, grid.Mean], seed: int) -> dict[str, Record]:
    """A − B of one seed, by language and mean."""
    order = _order((a, b))
    sides = ({cell: _answers(rows, order) for cell, rows in one.rows.items()} for one in (a, b))
    found = labels.compare_macro_f1(*sides, len(order), averages=grid.plain_means(means), seed=seed)
    return {name: grid.number(result) for name, result in (found.cells | found.averages).items()}


def _order(tables: Sequence[grid.Table]) -> dict[str, int]:
    every = [row for one in tables for rows in one.rows.values() for row in rows]
    named = {row[side] for row in every for side in ("gold", "prediction")}
    return {label: i for i, label in enumerate(sorted(named))}


def _answers(rows: Sequence[Record], order: Mapping[str, int]) -> labels.Answers:
    named = sorted(zip(grid.ids(rows), rows, strict=True), key=lambda pair: pair[0])
    ids, those = zip(*named, strict=True)
    gold, predicted = ([order[row[side]] for row in those] for side in ("gold", "prediction"))
    return labels.Answers(ids, [row["group"] for row in those], gold, predicted)
