# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cells and means of one data set as numbers with intervals, badges and verdicts, for any task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from xlkd.metrics import statistics
from xlkd.reports import badges
from xlkd.reports.files import Record
from xlkd.rows import Cell

WIDER, NARROWER = "wider", "narrower"  # verdicts on a gap, of which neither is better
NOT_TESTED = "not tested"  # a difference over draws that is not primary


class Mean(NamedTuple):
    """An unweighted mean over cells; with `against`, its difference from the mean over those."""

    cells: tuple[str, ...]
    title: str = ""
    missing: int = 0
    against: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """The cells that the mean depends on."""
        return (*self.cells, *self.against)


@dataclasses.dataclass(frozen=True)
class Table:
    """The answers of a run on a data set: rows by cell, and the names of the numbers in a row that are scores."""

    metrics: tuple[str, ...]  # names of metrics over examples
    rows: Mapping[str, Sequence[Record]]
    languages: Mapping[str, tuple[str, ...]]  # by cell
    learned: bool = True  # from labels, so that a cell is supervised, zero-shot or transferred
    lower_is_better: frozenset[str] = frozenset()  # metrics

    def cells(self, metric: str) -> dict[str, statistics.Sample]:
        """Returns the scores of each cell, by example."""
        return {cell: _make_sample(rows, metric) for cell, rows in self.rows.items()}

    def list_questions(self) -> set[tuple[str, str]]:
        """Returns cell and name of each question."""
        return {(cell, name) for cell, rows in self.rows.items() for name in list_ids(rows)}

    def mean(self, metric: str, cell: str) -> float:
        """Returns the score of a cell."""
        rows = self.rows[cell]
        return sum(row[metric] for row in rows) / len(rows)


def make_table(
    metrics: tuple[str, ...],
    rows: Sequence[Record],
    languages: Callable[[Record], tuple[str, ...]],
    *,
    learned: bool = True,
) -> Table:
    """Groups rows by cell; `languages` returns the languages of a row, which name its cell."""
    members: dict[Cell, list[Record]] = {}
    for row in rows:
        members.setdefault(Cell("", languages(row)), []).append(row)
    cells = sorted(members, key=str)
    return Table(
        metrics, {str(cell): members[cell] for cell in cells}, {str(cell): cell.languages for cell in cells}, learned
    )


def group_rows(rows: Sequence[Record], name: Callable[[Record], str]) -> dict[str, list[Record]]:
    """Groups rows by what `name` gives for each, in the order of the names."""
    members: dict[str, list[Record]] = {}
    for row in rows:
        members.setdefault(name(row), []).append(row)
    return dict(sorted(members.items()))


def list_ids(rows: Sequence[Record]) -> list[str]:
    """Returns the names of rows within a cell: their ids, or their keys where ids are not unique."""
    ids = [row["id"] for row in rows]
    return ids if len(set(ids)) == len(ids) else [row["key"] for row in rows]


def describe_cells(table: Table, seen: badges.Seen, contaminated: badges.Contamination) -> dict[str, Record]:
    """Returns for each cell `n`, `languages`, `badges` and `word`, and `met_in_training` unless that is 0."""
    entries = {}
    for cell, rows in table.rows.items():
        languages = table.languages[cell]
        contaminated_rows = contaminated.count([row["key"] for row in rows], languages)
        known = contaminated_rows != 0 if contaminated.recorded else None
        entries[cell] = {
            "n": len(rows),
            "languages": list(languages),
            "badges": badges.list_badges(seen, languages, known),
            "word": badges.classify_cell(seen, languages, known) if table.learned else "",
        } | ({} if contaminated_rows == 0 else {"met_in_training": contaminated_rows})
    return entries


def score_system(
    runs: Sequence[Table], means: Mapping[str, Mean], described: Mapping[str, Record], seed: int
) -> Record:
    """Returns one system's scores: `cells` and `averages`, each with its metrics, badges and counts; `caption`."""
    metrics = runs[0].metrics
    samples = [_join_metrics(run, metrics) for run in runs]
    plain = {
        (metric, name): [(metric, cell) for cell in members]
        for name, members in list_plain_means(means).items()
        for metric in metrics
    }
    estimates = statistics.estimate(samples, averages=plain, seed=seed)
    gaps = {
        (metric, name): statistics.estimate(
            [_scale_cells(run, metric, gap) for run in runs], averages={name: gap.all}, seed=seed
        ).averages[name]
        for name, gap in _select_gaps(means).items()
        for metric in metrics
    }
    cells = {
        cell: described[cell] | {metric: make_number(estimates.cells[metric, cell]) for metric in metrics}
        for cell in runs[0].rows
    }
    results = estimates.averages | gaps
    averages = {name: _describe_mean(mean, described) for name, mean in means.items()}
    for name, entry in averages.items():
        entry |= {metric: make_number(results[metric, name]) for metric in metrics}
    return {"cells": cells, "averages": averages, "caption": estimates.caption}


def compare_systems(
    a: Sequence[Table],
    b: Sequence[Table],
    means: Mapping[str, Mean],
    *,
    primary: Sequence[str],
    seed: int,
    paired: bool,
) -> Record:
    """Returns A − B as `cells` and `averages` (by name, then by metric), `caption`, and the names of `primary` means.

    For each metric there are three Holm families: the cells, the primary means, and the other means.
    """
    cells: dict[str, Record] = {cell: {} for cell in a[0].rows}
    averages: dict[str, Record] = {name: {"title": mean.title or name} for name, mean in means.items()}
    plain = list_plain_means(means)
    first = [name for name in primary if name in plain]
    caption = ""
    for metric in a[0].metrics:
        lower = metric in a[0].lower_is_better
        left, right = ([run.cells(metric) for run in side] for side in (a, b))
        compared = statistics.compare(left, right, averages=plain, primary=first, seed=seed, paired=paired)
        others = {name: result for name, result in compared.averages.items() if name not in first}
        others |= {
            name: _compare_gap(a, b, metric, gap, name, seed, paired) for name, gap in _select_gaps(means).items()
        }
        results = compared.averages | statistics.judge(others)
        for cell, result in compared.cells.items():
            cells[cell][metric] = make_number(result, lower_is_better=lower)
        for name, mean in means.items():
            averages[name][metric] = make_number(results[name], gap=bool(mean.against), lower_is_better=lower)
        caption = compared.caption
    return {"cells": cells, "averages": averages, "caption": caption, "primary": first}


def list_plain_means(means: Mapping[str, Mean]) -> dict[str, tuple[str, ...]]:
    """Returns the cells of each mean that is not a gap."""
    return {name: mean.cells for name, mean in means.items() if not mean.against}


def make_number(result: statistics.Result, *, gap: bool = False, lower_is_better: bool = False) -> Record:
    """Returns a result as `results.json` stores it: `value`, `low`, `high`, counts, and its test if it has one."""
    number: Record = {
        "value": round(result.estimate, 6),
        "low": None if result.low is None else round(result.low, 6),
        "high": None if result.high is None else round(result.high, 6),
        "questions": result.questions,
        "groups": result.groups,
    }
    if len(result.by_seed) > 1:
        number["by_seed"] = [round(value, 6) for value in result.by_seed]
    if result.p is not None:
        verdicts = {}
        if gap:
            verdicts = {statistics.BETTER: WIDER, statistics.WORSE: NARROWER}
        elif lower_is_better:
            verdicts = {statistics.BETTER: statistics.WORSE, statistics.WORSE: statistics.BETTER}
        verdict = verdicts.get(result.verdict, result.verdict)
        number |= {"p": result.p, "adjusted": result.adjusted, "verdict": verdict}
    return number


def judge_primary(comparisons: Mapping[str, Record], named: Sequence[str]) -> list[str]:
    """Judges the named comparisons together: their primary means are one Holm family; returns their names.

    A verdict can only become weaker, because the family has more differences than that of one comparison.
    """
    primary = [name for name in named if name in comparisons]
    entries = [comparisons[name]["averages"][mean] for name in primary for mean in comparisons[name]["primary"]]
    for metric in dict.fromkeys(key for entry in entries for key, value in entry.items() if isinstance(value, dict)):
        numbers = [entry[metric] for entry in entries if metric in entry]
        for number, adjusted in zip(numbers, statistics.adjust_holm([number["p"] for number in numbers]), strict=True):
            number["adjusted"] = adjusted
            if adjusted > statistics.LEVEL and number["verdict"] in (statistics.BETTER, statistics.WORSE):
                number["verdict"] = statistics.CANNOT_TELL
    return primary


def count_fixed_and_broken(a: Table, b: Table, metric: str) -> dict[str, int]:
    """Counts the examples that A gets exactly right and B does not, and the reverse."""
    fixed = broken = 0
    for cell, rows in a.rows.items():
        other = dict(zip(list_ids(b.rows[cell]), b.rows[cell], strict=True))
        for name, row in zip(list_ids(rows), rows, strict=True):
            now, was = row[metric] >= 100, other[name][metric] >= 100
            fixed, broken = fixed + (now and not was), broken + (was and not now)
    return {"fixed": fixed, "broken": broken}


def _make_sample(rows: Sequence[Record], metric: str) -> statistics.Sample:
    return statistics.Sample(list_ids(rows), [row["group"] for row in rows], [row[metric] for row in rows])


def _join_metrics(run: Table, metrics: Sequence[str]) -> dict[tuple[str, str], statistics.Sample]:
    """Returns all metrics as one set of cells, so that they share their draws."""
    return {(metric, cell): scores for metric in metrics for cell, scores in run.cells(metric).items()}


def _select_gaps(means: Mapping[str, Mean]) -> dict[str, Mean]:
    return {name: mean for name, mean in means.items() if mean.against}


def _compare_gap(
    a: Sequence[Table], b: Sequence[Table], metric: str, gap: Mean, name: str, seed: int, paired: bool
) -> statistics.Result:
    left, right = ([_scale_cells(run, metric, gap) for run in side] for side in (a, b))
    return statistics.compare(left, right, averages={name: gap.all}, seed=seed, paired=paired).averages[name]


def _scale_cells(run: Table, metric: str, gap: Mean) -> dict[str, statistics.Sample]:
    """Scales the scores of each cell so that the plain mean over cells is the gap."""
    many = len(gap.all)
    share = {cell: many / len(gap.cells) for cell in gap.cells}
    share |= {cell: -many / len(gap.against) for cell in gap.against}
    cells = {}
    for cell in gap.all:
        sample = _make_sample(run.rows[cell], metric)
        cells[cell] = dataclasses.replace(sample, scores=[share[cell] * score for score in sample.scores])
    return cells


def _describe_mean(mean: Mean, described: Mapping[str, Record]) -> Record:
    entry: Record = {"cells": list(mean.cells), "missing": mean.missing}
    if mean.title:
        entry["title"] = mean.title
    if mean.against:
        entry["against"] = list(mean.against)
    return entry | badges.join_badges([described[cell] for cell in mean.all])
