# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Joins the numbers of a data set in several draws: means over the draws, with t-intervals over them.

Only the primary differences are tested. All others have an interval and no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xlkd.metrics import statistics
from xlkd.reports import badges, draws, grid
from xlkd.reports.files import Record

Numbers = Mapping[str, Record]  # the same number in each draw, by the name of the draw


def join_draws(by_draw: Mapping[int, Record], named: Sequence[str], *, same_questions: bool) -> Record:
    """Returns the numbers of a data set over draws, in the form that each of them has, and `draws`: their seeds.

    `named` are the primary comparisons; where the data set has none of them, all of its comparisons are primary.
    """
    sets = {str(draw): numbers for draw, numbers in by_draw.items()}
    first = next(iter(sets.values()))
    caption = _describe(len(sets), same_questions)
    systems = _join_named(_select(sets, "systems"), lambda by_draw: _join_system(by_draw, first, caption))
    comparisons = _join_named(_select(sets, "comparisons"), lambda by_draw: _join_comparison(by_draw, first, caption))
    primary = [name for name in named if name in comparisons] or list(comparisons)
    for metric in first["metrics"]:
        _judge(comparisons, primary, metric, lower_is_better=metric in first["lower_is_better"])
    numbers = {"draws": list(by_draw), "primary": primary, "systems": systems, "comparisons": comparisons}
    if "majority" in first:
        numbers["majority"] = _join_named(_select(sets, "majority"), _average)
    return first | numbers


def _describe(count: int, same_questions: bool) -> str:
    if same_questions:
        return f"{count} draws on the same questions: the t-interval covers the draws, not the choice of questions"
    return f"{count} draws, each with its own questions: the t-interval covers the draws"


def _select(sets: Numbers, key: str) -> dict[str, Any]:
    return {draw: numbers[key] for draw, numbers in sets.items() if key in numbers}


def _join_named(sets: Numbers, join: Callable[[dict[str, Any]], Any]) -> Record:
    """Joins the entries of each name, from the draws that have it."""
    names = dict.fromkeys(name for numbers in sets.values() for name in numbers)
    return {name: join(_select(sets, name)) for name in names}


def _average(by_draw: Mapping[str, float]) -> float:
    return round(sum(by_draw.values()) / len(by_draw), 6)


def _join_system(by_draw: Numbers, data: Record, caption: str) -> Record:
    joined: Record = {
        key: _join_named(_select(by_draw, key), lambda entries: _join_entry(entries, data))
        for key in ("cells", "averages")
    }
    joined |= {"caption": caption, "seeds": [int(draw) for draw in by_draw]}
    if "worst" in next(iter(by_draw.values())):
        metrics = [metric for metric in data["metrics"] if metric in next(iter(by_draw.values()))["worst"]]
        joined["worst"] = {metric: _find_worst(joined["cells"], metric, data) for metric in metrics}
    if len(ranked := _select(by_draw, "em_at")) == len(by_draw):
        joined["em_at"] = _join_named(ranked, _join_em_at)
    return joined


def _join_comparison(by_draw: Numbers, data: Record, caption: str) -> Record:
    first = next(iter(by_draw.values()))
    joined = {
        key: _join_named(_select(by_draw, key), lambda entries: _join_entry(entries, data))
        for key in ("cells", "averages")
    }
    not_compared = sorted({name for each in by_draw.values() for name in each.get("not_compared", ())})
    return first | joined | {"caption": caption} | ({"not_compared": not_compared} if not_compared else {})


def _join_entry(entries: Numbers, data: Record) -> Record:
    """Joins a cell or a mean; its counts are the smallest of the draws."""
    parts = list(entries.values())
    joined = parts[0] | badges.join_badges(parts)
    if "n" in joined:
        joined["n"] = min(part["n"] for part in parts)
    if contaminated := [part["met_in_training"] for part in parts if "met_in_training" in part]:
        joined["met_in_training"] = None if None in contaminated else max(contaminated)
    for metric in data["metrics"]:
        if numbers := [part[metric] for part in parts if metric in part]:
            joined[metric] = _join_number(numbers)
    return joined


def _join_number(numbers: Sequence[Record]) -> Record:
    """Returns a number over draws; a difference is not tested, unless all answers are identical."""
    values = tuple(number["value"] for number in numbers)
    mean, low, high, p = draws.compute_t_interval(values)
    questions, groups = (min(number[key] for number in numbers) for key in ("questions", "groups"))
    joined = grid.make_number(statistics.Result(mean, low, high, questions, groups, values))
    if "verdict" not in numbers[0]:
        return joined
    if all(number["verdict"] == statistics.IDENTICAL for number in numbers):
        return joined | {"low": None, "high": None, "p": 1.0, "adjusted": 1.0, "verdict": statistics.IDENTICAL}
    return joined | {"p": p, "adjusted": None, "verdict": grid.NOT_TESTED}


def _judge(comparisons: Numbers, primary: Sequence[str], metric: str, *, lower_is_better: bool) -> None:
    """Writes adjusted p and verdict into the primary means of the primary comparisons, which are one Holm family."""
    numbers = {
        f"{name} {mean}": entry[metric]
        for name in primary
        for mean in comparisons[name]["primary"]
        if metric in (entry := comparisons[name]["averages"][mean])
    }
    flipped = {statistics.BETTER: statistics.WORSE, statistics.WORSE: statistics.BETTER} if lower_is_better else {}
    family = [
        draws.measure_difference(name, {str(i): value for i, value in enumerate(_list_values(number))}, {})
        for name, number in numbers.items()
    ]
    for number, each in zip(numbers.values(), draws.judge_family(family), strict=True):
        if number["verdict"] != statistics.IDENTICAL:
            number |= {"adjusted": each.adjusted, "verdict": flipped.get(each.verdict, each.verdict)}


def _list_values(number: Record) -> Sequence[float]:
    return number.get("by_seed") or [number["value"]]


def _find_worst(cells: Numbers, metric: str, data: Record) -> Record:
    sign = -1 if metric in data["lower_is_better"] else 1
    name = min(cells, key=lambda cell: (sign * cells[cell][metric]["value"], cell))
    return cells[name][metric] | {"cell": name} | {key: cells[name][key] for key in ("badges", "word")}


def _join_em_at(by_draw: Mapping[str, Sequence[float]]) -> list[float]:
    columns = zip(*by_draw.values(), strict=True)
    return [round(sum(column) / len(column), 6) for column in columns]
