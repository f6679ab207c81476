# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classification by language: metrics over examples and over cells, means over languages, the majority class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.metrics import labels, statistics
from xlkd.reports import badges, grid
from xlkd.reports.files import Record

PRIMARY = ("supervised_mean", "zero_shot_mean")
PIVOT = "en"


def make_table(rows: Sequence[Record], metrics: Sequence[str]) -> grid.Table:
    """Groups rows by language; those without a label have no scores and are left out."""
    scored = [row for row in rows if row.get("accuracy") is not None]
    return grid.make_table(tuple(metrics), scored, lambda row: (row["language"],))


def define_means(described: Mapping[str, Record]) -> dict[str, grid.Mean]:
    """Returns the named means, by the words that follow from the badges."""

    def find_cells(word: str) -> tuple[str, ...]:
        return tuple(cell for cell, entry in described.items() if entry["word"] == word)

    supervised, zero_shot = find_cells(badges.SUPERVISED), find_cells(badges.ZERO_SHOT)
    means = {"macro_mean": grid.Mean(tuple(described))}
    if supervised:
        means["supervised_mean"] = grid.Mean(supervised)
    if zero_shot:
        means["zero_shot_mean"] = grid.Mean(zero_shot)
        if PIVOT in described and PIVOT not in zero_shot:
            means["transfer_gap"] = grid.Mean((PIVOT,), against=zero_shot)
    return means


def majority_baseline(table: grid.Table) -> dict[str, float]:
    """Returns the accuracy of the most frequent label in each language, and the mean over languages."""
    scores: dict[str, float] = {}
    for cell, rows in table.rows.items():
        order = sorted({row["gold"] for row in rows})
        scores[cell] = round(100 * labels.majority_accuracy([order.index(row["gold"]) for row in rows]), 6)
    return scores | {"macro_mean": round(sum(scores.values()) / len(scores), 6)} if scores else scores


def score_whole_cells(
    score: labels.CellScore, runs: Sequence[grid.Table], means: Mapping[str, grid.Mean], seed: int
) -> dict[str, Record]:
    """Returns a metric that needs all examples of a cell together, in percent, for each cell and each mean.

    The intervals do not cover the choice of seeds.
    """
    order = _order_labels(runs)
    groups = sorted({row["group"] for rows in runs[0].rows.values() for row in rows})
    number = {group: i for i, group in enumerate(groups)}
    answers = [[_collect_answers(rows, order) for rows in run.rows.values()] for run in runs]
    counts = [np.stack([labels.count_by_group(cell, number, len(order)) for cell in run]) for run in answers]
    scores = np.stack([100 * score(run_counts.sum(1)) for run_counts in counts])
    theta = np.concatenate(
        [
            np.mean([100 * labels.score_resamples(score, run_counts, drawn) for run_counts in counts], axis=0)
            for drawn in statistics.draw_group_counts(np.random.default_rng(seed), len(groups), statistics.RESAMPLES)
        ]
    )
    sizes, names = counts[0].sum((-1, -2)), list(runs[0].rows)

    def number_of(cells: Sequence[str]) -> Record:
        at = [names.index(cell) for cell in cells]
        count = int(sizes[at].sum()), int((sizes[at].sum(0) > 0).sum())
        by_seed = scores[:, at].mean(1).tolist()
        return grid.make_number(statistics.summarize(statistics.mean_over_cells(theta[:, at]), by_seed, count))

    members = {cell: (cell,) for cell in names} | grid.list_plain_means(means)
    return {name: number_of(cells) for name, cells in members.items()}


def compare_whole_cells(
    score: labels.CellScore,
    a: grid.Table,
    b: grid.Table,
    means: Mapping[str, grid.Mean],
    seed: int,
    *,
    lower_is_better: bool = False,
) -> dict[str, Record]:
    """Returns A − B of one run each, in percent with its test, for a metric that needs whole cells: by cell and mean.

    `seed` draws the resamples.
    """
    order = _order_labels((a, b))
    left, right = ({cell: _collect_answers(rows, order) for cell, rows in side.rows.items()} for side in (a, b))
    averages = grid.list_plain_means(means)
    compared = labels.compare_whole_cells(score, left, right, len(order), averages=averages, seed=seed)
    results = compared.cells | compared.averages
    return {name: grid.make_number(result, lower_is_better=lower_is_better) for name, result in results.items()}


def _order_labels(tables: Sequence[grid.Table]) -> dict[str, int]:
    """Returns a number for each label that occurs as gold or as prediction."""
    rows = [row for table in tables for rows in table.rows.values() for row in rows]
    names = {row[side] for row in rows for side in ("gold", "prediction")}
    return {label: i for i, label in enumerate(sorted(names))}


def _collect_answers(rows: Sequence[Record], order: Mapping[str, int]) -> labels.Answers:
    by_id = sorted(zip(grid.list_ids(rows), rows, strict=True), key=lambda pair: pair[0])
    ids, ordered = zip(*by_id, strict=True)
    gold, predicted = ([order[row[side]] for row in ordered] for side in ("gold", "prediction"))
    return labels.Answers(ids, [row["group"] for row in ordered], gold, predicted)
