# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Intervals and tests by cluster bootstrap: groups of questions are resampled, with the same draws for all cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from xlkd.errors import UserError

RESAMPLES = 10_000
SEED = 20230917
ZERO = 1e-9  # a resampled difference below it counts as 0
LEVEL = 0.05
LEAST_GROUPS = 20
BETTER, WORSE, CANNOT_TELL, IDENTICAL = "better", "worse", "cannot tell", "identical"
TOO_FEW_GROUPS = "cannot tell: too few groups"

CellName = TypeVar("CellName", bound=Hashable)
AverageName = TypeVar("AverageName", bound=Hashable)
Resamples = Float[np.ndarray, "resamples cells"]
GroupSums = Float[np.ndarray, "groups cells"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """The scores of one system in one cell: each question's id (unique here), its group, its score in 0 … 100."""

    ids: Sequence[str]
    groups: Sequence[str]
    scores: Sequence[float] | Float[np.ndarray, " questions"]


@dataclasses.dataclass(frozen=True)
class Result:
    """A score or a difference. `low` and `high` are the plain 95% interval, None for identical answers.

    A difference has `p`, and `adjusted` and `verdict` from its Holm family; a score has none of these.
    """

    estimate: float
    low: float | None
    high: float | None
    questions: int
    groups: int
    by_seed: tuple[float, ...]
    p: float | None = None
    adjusted: float | None = None
    verdict: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison(Generic[CellName, AverageName]):
    """Results for every cell and every average, and how their intervals were computed."""

    cells: dict[CellName, Result]
    averages: dict[AverageName, Result]
    resamples: int
    seed: int
    caption: str


def compare(
    a: Sequence[Mapping[CellName, Sample]],
    b: Sequence[Mapping[CellName, Sample]],
    *,
    averages: Mapping[AverageName, Sequence[CellName]] | None = None,
    primary: Sequence[AverageName] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
    paired: bool = True,
) -> Comparison[CellName, AverageName]:
    """Returns A − B from the runs of each (one run or several seeds), on the same questions, by paired bootstrap.

    averages: name → the cells whose unweighted mean it is. Holm families: all cells; the primary averages; the others.
    Runs are paired by seed unless `paired` is False. Sets that share nothing are compared by calls with seed, seed + 1.
    """
    if paired and len(a) != len(b):
        raise ValueError(f"{len(a)} runs against {len(b)}: runs that are paired by seed must be as many on both sides")
    layout = _build_layout([*a, *b])
    resamples = max(resamples, 100 * len(layout.names))
    sums_a, sums_b = (np.stack([_sum_by_group(run, layout) for run in runs]) for runs in (a, b))
    if paired:
        sides, by_seed = [(1, sums_a - sums_b)], _compute_scores(sums_a - sums_b, layout)
    else:  # unpaired runs have no differences run by run, only the one between their means
        sides = [(1, sums_a), (-1, sums_b)]
        by_seed = (_compute_scores(sums_a, layout).mean(0) - _compute_scores(sums_b, layout).mean(0))[None]
    theta = _resample_ratios(sides, layout.sizes, resamples, seed)
    cells, means = _make_results(theta, by_seed, layout, averages or {}, _find_identical_cells(a, b, layout))
    first = judge({name: means[name] for name in primary})
    others = judge({name: result for name, result in means.items() if name not in first})
    means = {name: (first | others)[name] for name in means}
    return Comparison(judge(cells), means, resamples, seed, describe_seeds(min(len(a), len(b))))


def estimate(
    runs: Sequence[Mapping[CellName, Sample]],
    *,
    averages: Mapping[AverageName, Sequence[CellName]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison[CellName, AverageName]:
    """Returns one system's scores with their intervals, by the same bootstrap; without p and verdict."""
    layout = _build_layout(runs)
    sums = np.stack([_sum_by_group(run, layout) for run in runs])
    theta = _resample_ratios([(1, sums)], layout.sizes, resamples, seed)
    cells, means = _make_results(theta, _compute_scores(sums, layout), layout, averages or {}, None)
    return Comparison(cells, means, resamples, seed, describe_seeds(len(runs)))


def draw_group_counts(
    rng: np.random.Generator, groups: int, resamples: int, block: int = 0
) -> Iterator[Float[np.ndarray, "block groups"]]:
    """Yields how often each group is drawn in each resample, in blocks; the size of a block changes no number."""
    block = block or max(1, 4_000_000 // groups)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups))
        drawn += np.arange(rows)[:, None] * groups
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def summarize(
    theta: Float[np.ndarray, " resamples"],
    by_seed: Sequence[float] | Float[np.ndarray, " seeds"],
    count: tuple[int, int],
) -> Result:
    """Returns a score with the interval of its resamples; count: questions and groups."""
    return Result(float(np.mean(by_seed)), *percentile_interval(theta), *count, tuple(map(float, by_seed)))


def summarize_difference(
    theta: Float[np.ndarray, " resamples"],
    by_seed: Sequence[float] | Float[np.ndarray, " seeds"],
    count: tuple[int, int],
    identical: bool,
) -> Result:
    """Returns a difference with its interval and p, without adjusted p and verdict."""
    result = dataclasses.replace(summarize(theta, by_seed, count), p=p_value(theta))
    return dataclasses.replace(result, low=None, high=None) if identical else result


def ratio(counts: Float[np.ndarray, "resamples groups"], sums: GroupSums, sizes: GroupSums) -> Resamples:
    """Returns Σ sums / Σ sizes over the drawn groups; NaN where a cell has no question in a resample."""
    with np.errstate(invalid="ignore"):
        return (counts @ sums) / (counts @ sizes)


def percentile_interval(theta: Float[np.ndarray, " resamples"]) -> tuple[float, float]:
    """Returns the 95% percentile interval; resamples without any question (NaN) are left out."""
    low, high = np.quantile(theta[~np.isnan(theta)], [0.025, 0.975])
    return float(low), float(high)


def p_value(theta: Float[np.ndarray, " resamples"]) -> float:
    """Returns the two-sided p, from the resamples on either side of 0; never below 2 / (resamples + 1)."""
    theta = theta[~np.isnan(theta)]
    below, above = np.sum(theta <= ZERO), np.sum(theta >= -ZERO)
    return min(1.0, 2 * (1 + int(min(below, above))) / (len(theta) + 1))


def mean_over_cells(theta: Resamples) -> Float[np.ndarray, " resamples"]:
    """Returns the unweighted mean over cells in each resample; a cell without a question is left out of it."""
    valid = ~np.isnan(theta)
    sums, counts = np.where(valid, theta, 0).sum(1), valid.sum(1)
    return np.divide(sums, counts, out=np.full(len(theta), np.nan), where=counts > 0)


def adjust_holm(p: Sequence[float] | Float[np.ndarray, " tests"]) -> list[float]:
    """Returns the adjusted p values of a family, in the given order; equal ones are ranked by position."""
    m = len(p)
    order = sorted(range(m), key=lambda i: p[i])
    adjusted, running = [0.0] * m, 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (m - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def judge(family: Mapping[CellName, Result]) -> dict[CellName, Result]:
    """Returns differences with their adjusted p and verdict, as one Holm family."""
    adjusted = adjust_holm([result.p for result in family.values() if result.p is not None])
    return {
        name: dataclasses.replace(result, adjusted=p, verdict=choose_verdict(result, p))
        for (name, result), p in zip(family.items(), adjusted, strict=True)
    }


def choose_verdict(result: Result, adjusted: float) -> str:
    """Returns the verdict on a difference; no test can show that two systems are equal."""
    if result.low is None:
        return IDENTICAL
    if result.groups < LEAST_GROUPS:
        return TOO_FEW_GROUPS
    if adjusted > LEVEL:
        return CANNOT_TELL
    return BETTER if result.estimate > 0 else WORSE


def describe_seeds(runs: int) -> str:
    """Describes which variation the intervals over this number of runs include."""
    if runs == 1:
        return "one seed: the interval covers the choice of questions only"
    if runs == 2:
        return "two seeds: the interval covers the choice of questions only"
    spread = f"√({runs - 1}/{runs})"
    return f"{runs} seeds: the interval covers questions and seeds, and understates the seeds' spread by {spread}"


# Sums of scores over groups.


@dataclasses.dataclass(frozen=True)
class _Layout(Generic[CellName]):
    names: list[CellName]
    group_of: dict[CellName, dict[str, int]]  # by cell: question id → the number of its group
    sizes: GroupSums  # questions

    def count(self, columns: Sequence[int] | Int[np.ndarray, " cells"]) -> tuple[int, int]:
        """Returns the numbers of questions and of groups in some cells."""
        sizes = self.sizes[:, columns]
        return int(sizes.sum()), int((sizes.sum(1) > 0).sum())


def _build_layout(runs: Sequence[Mapping[CellName, Sample]]) -> _Layout[CellName]:
    first, *others = runs
    groups = {name: _list_groups_by_id(name, cell) for name, cell in first.items()}
    for run in others:
        _check_same_cells(groups, run)
        for name, cell in run.items():
            _check_same_questions(name, groups[name], _list_groups_by_id(name, cell))
    names = {group for by_id in groups.values() for group in by_id.values()}
    number = {group: i for i, group in enumerate(sorted(names))}
    group_of = {name: {q: number[group] for q, group in by_id.items()} for name, by_id in groups.items()}
    if not number:
        raise UserError("no questions to compare")
    sizes = np.stack([np.bincount(list(by_id.values()), minlength=len(number)) for by_id in group_of.values()], axis=1)
    return _Layout(list(group_of), group_of, sizes.astype(np.float64))


def _list_groups_by_id(name: Hashable, cell: Sample) -> dict[str, str]:
    groups = dict(zip(cell.ids, cell.groups, strict=True))
    if len(groups) < len(cell.ids):
        what = f"{len(cell.ids) - len(groups)} ids occur twice"
        raise UserError(what, str(name), "give ids that are unique in a cell")
    if not groups:
        raise UserError("no questions", str(name), "leave the cell out")
    return groups


def _check_same_cells(a: Mapping[CellName, object], b: Mapping[CellName, object]) -> None:
    if different := a.keys() ^ b.keys():
        what = f"only one side has {_name_some(different)}"
        raise UserError(what, remedy="compare runs that were evaluated on the same sets")


def _check_same_questions(name: Hashable, a: Mapping[str, str], b: Mapping[str, str]) -> None:
    if different := a.keys() ^ b.keys():
        what = (
            f"{len(different)} questions were answered by one of the two compared runs alone: {_name_some(different)}"
        )
        raise UserError(what, str(name), "compare runs that answered the same questions")
    if moved := [question for question in a if a[question] != b[question]]:
        what = f"questions in different groups: {_name_some(moved)}"
        raise UserError(what, str(name), "read both with the same rules")


def _name_some(names: Collection[Hashable]) -> str:
    shown = sorted(map(str, names))
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def _sum_by_group(run: Mapping[CellName, Sample], layout: _Layout[CellName]) -> GroupSums:
    """Sums scores over the questions of each group."""
    columns = []
    for name in layout.names:
        index = [layout.group_of[name][q] for q in run[name].ids]
        columns.append(np.bincount(index, weights=np.asarray(run[name].scores, float), minlength=len(layout.sizes)))
    return np.stack(columns, axis=1)


def _find_identical_cells(
    a: Sequence[Mapping[CellName, Sample]], b: Sequence[Mapping[CellName, Sample]], layout: _Layout[CellName]
) -> list[bool]:
    """Returns for each cell whether all runs of both sides have the same score for each question."""

    def scores(run: Mapping[CellName, Sample], name: CellName) -> dict[str, float]:
        return dict(zip(run[name].ids, run[name].scores, strict=True))

    return [all(scores(x, name) == scores(y, name) for x in a for y in b) for name in layout.names]


# The bootstrap.


def _resample_ratios(
    sides: Sequence[tuple[int, Float[np.ndarray, "_runs groups cells"]]], sizes: GroupSums, resamples: int, seed: int
) -> Resamples:
    """Returns resampled ratios of sums to sizes; `sides` are sums with their sign.

    Seeds are drawn first, then groups, the same groups for all seeds. With one or two runs no seeds are drawn.
    """
    rng = np.random.default_rng(seed)
    weights = [_draw_seed_weights(rng, len(sums), resamples) for _, sums in sides]
    theta, done = np.zeros((resamples, sizes.shape[1])), 0
    for counts in draw_group_counts(rng, len(sizes), resamples):
        rows = slice(done, done + len(counts))
        for (sign, sums), weight in zip(sides, weights, strict=True):
            for run, run_sums in enumerate(sums):
                theta[rows] += sign * weight[rows, run, None] * ratio(counts, run_sums, sizes)
        done += len(counts)
    return theta


def _draw_seed_weights(rng: np.random.Generator, runs: int, resamples: int) -> Float[np.ndarray, "resamples runs"]:
    """Returns the weight of each run in each resample; with fewer than three runs all weights are equal."""
    if runs < 3:
        return np.full((resamples, runs), 1 / runs)
    drawn = rng.integers(0, runs, size=(resamples, runs))
    return np.stack([(drawn == run).mean(1) for run in range(runs)], axis=1)


def _compute_scores(sums: Float[np.ndarray, "runs groups cells"], layout: _Layout) -> Float[np.ndarray, "runs cells"]:
    """Returns the scores without resampling."""
    return sums.sum(1) / layout.sizes.sum(0)


def _make_results(
    theta: Resamples,
    by_seed: Float[np.ndarray, "runs cells"],
    layout: _Layout[CellName],
    averages: Mapping[AverageName, Sequence[CellName]],
    identical: Sequence[bool] | Bool[np.ndarray, " cells"] | None,
) -> tuple[dict[CellName, Result], dict[AverageName, Result]]:
    """Returns results for cells and averages; `identical` is None for scores, which are not tested against 0."""

    def result(members: Sequence[CellName]) -> Result:
        columns = [layout.names.index(member) for member in members]
        resampled, scores = mean_over_cells(theta[:, columns]), by_seed[:, columns].mean(1).tolist()
        if identical is None:
            return summarize(resampled, scores, layout.count(columns))
        return summarize_difference(resampled, scores, layout.count(columns), all(identical[c] for c in columns))

    cells = {name: result([name]) for name in layout.names}
    return cells, {name: result(members) for name, members in averages.items()}
