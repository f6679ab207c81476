# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cells and means of one data set as numbers with intervals, badges and verdicts, whatever the task."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from xlkd.metrics import statistics
from xlkd.reports import badges
from xlkd.reports.files import Record
from xlkd.rows import Cell

WIDER, NARROWER = "wider", "narrower"  # a gap is no score: neither is better


class Mean(NamedTuple):
    """An unweighted mean over cells; with `against`, what it is above the mean over those."""

    cells: tuple[str, ...]
    title: str = ""
    missing: int = 0
    against: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.cells, *self.against)


@dataclasses.dataclass(frozen=True)
class Table:
    """One run's answers on one data set: rows by cell, and which numbers of a row are scores."""

    metrics: tuple[str, ...]
    rows: Mapping[str, Sequence[Record]]
    languages: Mapping[str, tuple[str, ...]]  # by cell
    learned: bool = True  # from labels, so that a cell is supervised, zero-shot or between

    def cells(self, metric: str) -> dict[str, statistics.Sample]:
        return {cell: _cell(rows, metric) for cell, rows in self.rows.items()}

    def mean(self, metric: str, cell: str) -> float:
        rows = self.rows[cell]
        return sum(row[metric] for row in rows) / len(rows)


def table(
    metrics: tuple[str, ...],
    rows: Sequence[Record],
    languages: Callable[[Record], tuple[str, ...]],
    *,
    learned: bool = True,
) -> Table:
    """Returns rows by cell; `languages` gives those of a row, which are its cell."""
    members: dict[Cell, list[Record]] = {}
    for row in rows:
        members.setdefault(Cell("", languages(row)), []).append(row)
    cells = sorted(members, key=str)
    return Table(
        metrics, {str(cell): members[cell] for cell in cells}, {str(cell): cell.languages for cell in cells}, learned
    )


def by_name(rows: Sequence[Record], name: Callable[[Record], str]) -> dict[str, list[Record]]:
    """Returns rows by a name that each has, sorted."""
    members: dict[str, list[Record]] = {}
    for row in rows:
        members.setdefault(name(row), []).append(row)
    return dict(sorted(members.items()))


def ids(rows: Sequence[Record]) -> list[str]:
    """What names a row in its cell: its id, or its key where ids are not unique."""
    named = [row["id"] for row in rows]
    return named if len(set(named)) == len(named) else [row["key"] for row in rows]


def describe(table: Table, seen: badges.Seen, touched: badges.Touched) -> dict[str, Record]:
    """By cell what stands beside its scores."""
    found = {}
    for cell, rows in table.rows.items():
        languages = table.languages[cell]
        met = touched.count([row["key"] for row in rows], languages)
        known = met != 0 if touched.recorded else None
        found[cell] = {
            "n": len(rows),
            "languages": list(languages),
            "badges": badges.of(seen, languages, known),
            "word": badges.word(seen, languages, known) if table.learned else "",
        } | ({} if met == 0 else {"met_in_training": met})
    return found


def own(
    runs: Sequence[Table], means: Mapping[str, Mean], told: Mapping[str, Record], seed: int
) -> dict[str, dict[str, Record]]:
    """One system's own scores: `cells` and `averages`, each with its metrics, badges and counts."""
    metrics = runs[0].metrics
    samples = [_joined(run, metrics) for run in runs]
    plain = {
        (metric, name): [(metric, cell) for cell in of] for name, of in plain_means(means).items() for metric in metrics
    }
    estimates = statistics.estimate(samples, averages=plain, seed=seed)
    gaps = _gaps(means)
    of_gaps = {
        (metric, name): statistics.estimate(
            [_scaled(run, metric, gap) for run in runs], averages={name: gap.all}, seed=seed
        ).averages[name]
        for name, gap in gaps.items()
        for metric in metrics
    }
    cells = {
        cell: told[cell] | {metric: number(estimates.cells[metric, cell]) for metric in metrics}
        for cell in runs[0].rows
    }
    results = estimates.averages | of_gaps
    averages = {name: _told(mean, told) for name, mean in means.items()}
    for name, entry in averages.items():
        entry |= {metric: number(results[metric, name]) for metric in metrics}
    return {"cells": cells, "averages": averages, "caption": estimates.caption}


def compare(
    a: Sequence[Table],
    b: Sequence[Table],
    means: Mapping[str, Mean],
    *,
    primary: Sequence[str],
    seed: int,
    paired: bool,
) -> dict[str, Any]:
    """A − B: for each metric a Holm family of cells, one of the primary means, one of the other means."""
    cells: dict[str, Record] = {cell: {} for cell in a[0].rows}
    averages: dict[str, Record] = {name: {"title": mean.title or name} for name, mean in means.items()}
    plain = plain_means(means)
    first = [name for name in primary if name in plain]
    caption = ""
    for metric in a[0].metrics:
        sides = [[run.cells(metric) for run in side] for side in (a, b)]
        found = statistics.compare(*sides, averages=plain, primary=first, seed=seed, paired=paired)
        others = {name: result for name, result in found.averages.items() if name not in first}
        others |= {name: _gap(a, b, metric, gap, name, seed, paired) for name, gap in _gaps(means).items()}
        results = found.averages | statistics.judge(others)
        for cell, result in found.cells.items():
            cells[cell][metric] = number(result)
        for name in means:
            averages[name][metric] = number(results[name], gap=bool(means[name].against))
        caption = found.caption
    return {"cells": cells, "averages": averages, "caption": caption, "primary": first}


def plain_means(means: Mapping[str, Mean]) -> dict[str, tuple[str, ...]]:
    """The cells of each mean that stands against no others."""
    return {name: mean.cells for name, mean in means.items() if not mean.against}


def number(result: statistics.Result, gap: bool = False) -> Record:
    """A result as the file holds it."""
    found: Record = {
        "value": round(result.estimate, 6),
        "low": None if result.low is None else round(result.low, 6),
        "high": None if result.high is None else round(result.high, 6),
        "questions": result.questions,
        "groups": result.groups,
    }
    if len(result.by_seed) > 1:
        found["by_seed"] = [round(value, 6) for value in result.by_seed]
    if result.p is not None:
        word = {statistics.BETTER: WIDER, statistics.WORSE: NARROWER}.get(result.verdict) if gap else None
        found |= {"p": result.p, "adjusted": result.adjusted, "verdict": word or result.verdict}
    return found


def fixed_and_broken(a: Table, b: Table, metric: str) -> dict[str, int]:
    """How many questions A gets wholly right and B does not, and the other way round."""
    fixed = broken = 0
    for cell, rows in a.rows.items():
        other = dict(zip(ids(b.rows[cell]), b.rows[cell], strict=True))
        for name, row in zip(ids(rows), rows, strict=True):
            now, was = row[metric] >= 100, other[name][metric] >= 100
            fixed, broken = fixed + (now and not was), broken + (was and not now)
    return {"fixed": fixed, "broken": broken}


def _cell(rows: Sequence[Record], metric: str) -> statistics.Sample:
    return statistics.Sample(ids(rows), [row["group"] for row in rows], [row[metric] for row in rows])


def _joined(run: Table, metrics: Sequence[str]) -> dict[tuple[str, str], statistics.Sample]:
    """All metrics in one set of cells: they share their draws."""
    return {(metric, cell): scores for metric in metrics for cell, scores in run.cells(metric).items()}


def _gaps(means: Mapping[str, Mean]) -> dict[str, Mean]:
    return {name: mean for name, mean in means.items() if mean.against}


def _gap(a, b, metric: str, gap: Mean, name: str, seed: int, paired: bool) -> statistics.Result:
    sides = [[_scaled(run, metric, gap) for run in side] for side in (a, b)]
    return statistics.compare(*sides, averages={name: gap.all}, seed=seed, paired=paired).averages[name]


def _scaled(run: Table, metric: str, gap: Mean) -> dict[str, statistics.Sample]:
    """Cells whose plain mean is the gap: each is scaled by its share of the difference."""
    many = len(gap.all)
    share = {cell: many / len(gap.cells) for cell in gap.cells}
    share |= {cell: -many / len(gap.against) for cell in gap.against}
    cells = {}
    for cell in gap.all:
        one = _cell(run.rows[cell], metric)
        cells[cell] = dataclasses.replace(one, scores=[share[cell] * score for score in one.scores])
    return cells


def _told(mean: Mean, told: Mapping[str, Record]) -> Record:
    entry: Record = {"cells": list(mean.cells), "missing": mean.missing}
    if mean.title:
        entry["title"] = mean.title
    if mean.against:
        entry["against"] = list(mean.against)
    return entry | badges.joined([told[cell] for cell in mean.all])
