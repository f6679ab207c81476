# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Joins the numbers of a data set in several draws: means over the draws, with t-intervals over them.

Only the primary differences are tested. All others have an interval and no verdict.
"""

from __future__ import annotations

import dataclasses
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
    last = list(sets.values())[-1]
    caption = _describe(len(sets), same_questions)
    systems = _join_named(_select(sets, "systems"), lambda by_draw: _join_system(by_draw, last, caption))
    comparisons = _join_named(_select(sets, "comparisons"), lambda by_draw: _join_comparison(by_draw, last, caption))
    primary = [name for name in named if name in comparisons] or list(comparisons)
    for metric in last["metrics"]:
        _judge(comparisons, primary, metric, lower_is_better=metric in last["lower_is_better"])
    numbers = {"draws": list(by_draw), "primary": primary, "systems": systems, "comparisons": comparisons}
    if "majority" in last:
        majority = {
            draw: {cell: {"value": value} for cell, value in each["majority"].items()} for draw, each in sets.items()
        }
        numbers["majority"] = _join_named(majority, lambda each: round(_measure(each).mean, 6))
    return next(iter(sets.values())) | numbers


def _describe(count: int, same_questions: bool) -> str:
    if same_questions:
        return f"{count} draws on the same questions: the t-interval covers the draws, not the choice of questions"
    return f"{count} draws, each with its own questions: the t-interval covers the draws"


def _select(sets: Numbers, key: str) -> dict[str, Record]:
    return {draw: numbers[key] for draw, numbers in sets.items() if key in numbers}


def _join_named(sets: Numbers, join: Callable[[dict[str, Any]], Any]) -> Record:
    """Joins the entries of each name, from the draws that have it."""
    names = dict.fromkeys(name for numbers in sets.values() for name in numbers)
    return {name: join(_select(sets, name)) for name in names}


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
        if numbers := _select(entries, metric):
            joined[metric] = _make_number(numbers, _measure(numbers))
    return joined


def _measure(numbers: Numbers) -> draws.Difference:
    values = {draw: (number["value"], number.get("low"), number.get("high")) for draw, number in numbers.items()}
    return draws.measure_difference("", values)


def _make_number(numbers: Numbers, measured: draws.Difference) -> Record:
    """Returns a number over draws; a difference is not tested, unless all answers are identical."""
    parts = list(numbers.values())
    questions, groups = (min(part[key] for part in parts) for key in ("questions", "groups"))
    result = statistics.Result(
        measured.mean, measured.low, measured.high, questions, groups, tuple(measured.by_draw.values())
    )
    if "verdict" not in parts[0]:
        return grid.make_number(result)
    if all(part["verdict"] == statistics.IDENTICAL for part in parts):
        return grid.make_number(dataclasses.replace(result, low=None, high=None)) | {
            "p": 1.0,
            "adjusted": 1.0,
            "verdict": statistics.IDENTICAL,
        }
    return grid.make_number(result) | {"p": measured.p, "adjusted": None, "verdict": grid.NOT_TESTED}


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
        draws.measure_difference(name, {str(i): (value, None, None) for i, value in enumerate(_list_values(number))})
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
