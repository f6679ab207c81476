# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""How sure a score or a difference is: groups of questions drawn again and again, the same draw for all cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from xlkd.errors import UserError

RESAMPLES = 10_000
SEED = 20230917
ZERO = 1e-9  # a resampled difference below it counts as 0
LEVEL = 0.05
LEAST_GROUPS = 20
BETTER, WORSE, CANNOT_TELL, IDENTICAL = "better", "worse", "cannot tell", "identical"
TOO_FEW_GROUPS = "cannot tell: too few groups"

Name = Hashable


@dataclasses.dataclass(frozen=True)
class Sample:
    """One score of one system on one set: for each question its id (unique here), its group, its score in 0 … 100."""

    ids: Sequence[str]
    groups: Sequence[str]
    scores: Sequence[float]


Samples = Mapping[Name, Sample]


@dataclasses.dataclass(frozen=True)
class Result:
    """A score or a difference. `low` and `high` are the plain 95% interval, None for identical answers.

    `adjusted` and `verdict` are those of its Holm family; an own score has none, nor has it a p.
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
class Comparison:
    """A against B: every cell and every average, and how the intervals came about."""

    cells: dict[Name, Result]
    averages: dict[Name, Result]
    resamples: int
    seed: int
    caption: str


def compare(
    a: Sequence[Samples],
    b: Sequence[Samples],
    *,
    averages: Mapping[Name, Sequence[Name]] | None = None,
    primary: Sequence[Name] = (),
    resamples: int = RESAMPLES,
    seed: int = SEED,
    paired: bool = True,
) -> Comparison:
    """A − B from the runs of each (one run or several seeds), on the same questions, by paired cluster bootstrap.

    averages: name → the cells whose unweighted mean it is. Holm families: all cells; the primary averages; the others.
    Runs are paired by seed unless `paired` is False. Sets that share nothing are compared by calls with seed, seed + 1.
    """
    if paired and len(a) != len(b):
        raise UserError(f"{len(a)} runs against {len(b)}", remedy="paired seeds need as many runs on both sides")
    layout = _layout([*a, *b])
    resamples = max(resamples, 100 * len(layout.names))
    of_a, of_b = (np.stack([_sums(run, layout) for run in runs]) for runs in (a, b))
    if paired:
        sides, by_seed = [(1, of_a - of_b)], _scores(of_a - of_b, layout)
    else:  # unpaired runs have no differences run by run: the one between the means
        sides = [(1, of_a), (-1, of_b)]
        by_seed = (_scores(of_a, layout).mean(0) - _scores(of_b, layout).mean(0))[None]
    theta = _bootstrap(sides, layout.sizes, resamples, seed)
    cells, means = _results(theta, by_seed, layout, averages or {}, _identical(a, b, layout))
    first = judge({name: means[name] for name in primary})
    others = judge({name: result for name, result in means.items() if name not in first})
    means = {name: (first | others)[name] for name in means}
    return Comparison(judge(cells), means, resamples, seed, caption(min(len(a), len(b))))


def own_scores(
    runs: Sequence[Samples],
    *,
    averages: Mapping[Name, Sequence[Name]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison:
    """The same intervals for one system's own scores; no p, no verdict."""
    layout = _layout(runs)
    sums = np.stack([_sums(run, layout) for run in runs])
    theta = _bootstrap([(1, sums)], layout.sizes, resamples, seed)
    cells, means = _results(theta, _scores(sums, layout), layout, averages or {}, None)
    return Comparison(cells, means, resamples, seed, caption(len(runs)))


def draws(rng: np.random.Generator, groups: int, resamples: int, block: int = 0) -> Iterator[np.ndarray]:
    """How often each group stands in each resample, in blocks [rows, groups]; their size changes no number."""
    block = block or max(1, 4_000_000 // groups)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, groups, size=(rows, groups))
        drawn += np.arange(rows)[:, None] * groups
        yield np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def summary(theta: np.ndarray, by_seed: Sequence[float], count: tuple[int, int]) -> Result:
    """A score with its interval from its resamples; count: questions and groups."""
    return Result(float(np.mean(by_seed)), *interval(theta), *count, tuple(map(float, by_seed)))


def tested(theta: np.ndarray, by_seed: Sequence[float], count: tuple[int, int], identical: bool) -> Result:
    """A difference with its interval and p, not yet judged."""
    result = dataclasses.replace(summary(theta, by_seed, count), p=p_value(theta))
    return dataclasses.replace(result, low=None, high=None) if identical else result


def ratio(counts: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Σ sums / Σ sizes over the drawn groups [resamples, cells]; NaN where a cell has no question in a resample."""
    with np.errstate(invalid="ignore"):
        return (counts @ sums) / (counts @ sizes)


def interval(theta: np.ndarray) -> tuple[float, float]:
    """The percentile interval of 95%; resamples without any question (NaN) are left out."""
    low, high = np.quantile(theta[~np.isnan(theta)], [0.025, 0.975])
    return float(low), float(high)


def p_value(theta: np.ndarray) -> float:
    """Two-sided, from how many resamples lie on either side of 0; never below 2 / (resamples + 1)."""
    theta = theta[~np.isnan(theta)]
    below, above = np.sum(theta <= ZERO), np.sum(theta >= -ZERO)
    return min(1.0, 2 * (1 + int(min(below, above))) / (len(theta) + 1))


def mean_over_cells(theta: np.ndarray) -> np.ndarray:
    """By resample the unweighted mean over cells [resamples, cells]; a cell without a question is left out of it."""
    there = ~np.isnan(theta)
    sums, counts = np.where(there, theta, 0).sum(1), there.sum(1)
    return np.divide(sums, counts, out=np.full(len(theta), np.nan), where=counts > 0)


def holm(p: Sequence[float]) -> list[float]:
    """The adjusted p values of a family, in the order given; ties by position."""
    m = len(p)
    order = sorted(range(m), key=lambda i: p[i])
    adjusted, running = [0.0] * m, 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (m - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def judge(family: Mapping[Name, Result]) -> dict[Name, Result]:
    """The results with their adjusted p and verdict, as one Holm family."""
    adjusted = holm([result.p for result in family.values()])
    return {
        name: dataclasses.replace(result, adjusted=p, verdict=verdict(result, p))
        for (name, result), p in zip(family.items(), adjusted, strict=True)
    }


def verdict(result: Result, adjusted: float) -> str:
    """What may be said of a difference; there is no "equal"."""
    if result.low is None:
        return IDENTICAL
    if result.groups < LEAST_GROUPS:
        return TOO_FEW_GROUPS
    if adjusted > LEVEL:
        return CANNOT_TELL
    return BETTER if result.estimate > 0 else WORSE


def caption(runs: int) -> str:
    """What the intervals of so many runs speak of."""
    if runs == 1:
        return "one seed: the interval speaks of the questions only"
    if runs == 2:
        return "two seeds: the interval speaks of the questions only"
    spread = f"√({runs - 1}/{runs})"
    return f"{runs} seeds: the interval speaks of questions and seeds, and understates the seeds' spread by {spread}"


# How questions become sums over groups.


@dataclasses.dataclass(frozen=True)
class _Layout:
    names: list[Name]
    group_of: dict[Name, dict[str, int]]  # by cell: question id → the number of its group
    sizes: np.ndarray  # [groups, cells], questions

    def count(self, columns: Sequence[int]) -> tuple[int, int]:
        """Questions and groups of some cells."""
        sizes = self.sizes[:, columns]
        return int(sizes.sum()), int((sizes.sum(1) > 0).sum())


def _layout(runs: Sequence[Samples]) -> _Layout:
    first, *others = runs
    groups: dict[Name, dict[str, str]] = {name: _by_id(name, cell, cell.groups) for name, cell in first.items()}
    for run in others:
        _same_names(groups, run)
        for name, cell in run.items():
            _same_questions(name, groups[name], _by_id(name, cell, cell.groups))
    number = {group: i for i, group in enumerate(sorted({g for of in groups.values() for g in of.values()}))}
    group_of = {name: {q: number[group] for q, group in of.items()} for name, of in groups.items()}
    if not number:
        raise UserError("no questions to compare")
    sizes = np.stack([np.bincount(list(of.values()), minlength=len(number)) for of in group_of.values()], axis=1)
    return _Layout(list(group_of), group_of, sizes.astype(np.float64))


def _by_id(name: Name, cell: Sample, values: Sequence) -> dict[str, object]:
    found = dict(zip(cell.ids, values, strict=True))
    if len(found) < len(cell.ids):
        raise UserError(
            f"{len(cell.ids) - len(found)} ids occur twice", str(name), "give ids that are unique in a cell"
        )
    if not found:
        raise UserError("no questions", str(name), "leave the cell out")
    return found


def _same_names(a: Mapping, b: Mapping) -> None:
    if different := set(a) ^ set(b):
        raise UserError(
            f"only one side has {_some(different)}", remedy="compare runs that were evaluated on the same sets"
        )


def _same_questions(name: Name, a: dict[str, object], b: dict[str, object]) -> None:
    if different := set(a) ^ set(b):
        raise UserError(
            f"{len(different)} questions on one side only: {_some(different)}",
            str(name),
            "compare runs that answered the same questions",
        )
    if different := [q for q in a if a[q] != b[q]]:
        raise UserError(
            f"questions in different groups: {_some(different)}", str(name), "read both with the same rules"
        )


def _some(names: Sequence | set) -> str:
    shown = sorted(map(str, names))
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def _sums(run: Samples, layout: _Layout) -> np.ndarray:
    """Sums of scores over the questions of each group [groups, cells]."""
    columns = []
    for name in layout.names:
        index = [layout.group_of[name][q] for q in run[name].ids]
        columns.append(np.bincount(index, weights=np.asarray(run[name].scores, float), minlength=len(layout.sizes)))
    return np.stack(columns, axis=1)


def _identical(a: Sequence[Samples], b: Sequence[Samples], layout: _Layout) -> list[bool]:
    """By cell: no question differs in any pair of runs."""

    def scores(run: Samples, name: Name) -> dict[str, object]:
        return dict(zip(run[name].ids, run[name].scores, strict=True))

    return [all(scores(x, name) == scores(y, name) for x in a for y in b) for name in layout.names]


# The bootstrap.


def _bootstrap(sides: Sequence[tuple[int, np.ndarray]], sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Resampled ratios of sums to sizes [resamples, cells]; sides are signed sums [runs, groups, cells].

    Seeds are drawn first, then groups, the same groups for all seeds. With one or two runs no seeds are drawn.
    """
    rng = np.random.default_rng(seed)
    weights = [_seed_weights(rng, len(sums), resamples) for _, sums in sides]
    theta, done = np.zeros((resamples, sizes.shape[1])), 0
    for counts in draws(rng, len(sizes), resamples):
        rows = slice(done, done + len(counts))
        for (sign, sums), weight in zip(sides, weights, strict=True):
            for run, of_run in enumerate(sums):
                theta[rows] += sign * weight[rows, run, None] * ratio(counts, of_run, sizes)
        done += len(counts)
    return theta


def _seed_weights(rng: np.random.Generator, runs: int, resamples: int) -> np.ndarray:
    """The weight of each run in each resample [resamples, runs]."""
    if runs < 3:
        return np.full((resamples, runs), 1 / runs)
    drawn = rng.integers(0, runs, size=(resamples, runs))
    return np.stack([(drawn == run).mean(1) for run in range(runs)], axis=1)


def _scores(sums: np.ndarray, layout: _Layout) -> np.ndarray:
    """The scores themselves [runs, cells]."""
    return sums.sum(1) / layout.sizes.sum(0)


def _results(
    theta: np.ndarray,
    by_seed: np.ndarray,
    layout: _Layout,
    averages: Mapping[Name, Sequence[Name]],
    identical: Sequence[bool] | None,
) -> tuple[dict[Name, Result], dict[Name, Result]]:
    """Of cells and of averages; `identical` is None for own scores, which are not tested against 0."""

    def result(members: Sequence[Name]) -> Result:
        columns = [layout.names.index(member) for member in members]
        resampled, scores = mean_over_cells(theta[:, columns]), by_seed[:, columns].mean(1)
        if identical is None:
            return summary(resampled, scores, layout.count(columns))
        return tested(resampled, scores, layout.count(columns), all(identical[c] for c in columns))

    cells = {name: result([name]) for name in layout.names}
    return cells, {name: result(members) for name, members in averages.items()}
