# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps the numbers of a run as a small file, and judges differences over several runs, the draws of a study.

A draw chooses training examples, evaluation questions and the training seed anew, so that draws share no luck but that
of the data set. Verdicts rest on the differences of the draws alone: a t-interval, and Holm over the primary ones.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence

from scipy import special  # pyrefly: ignore[untyped-import]

from xlkd import processor
from xlkd.errors import UserError
from xlkd.metrics import statistics
from xlkd.reports import files, grid, words
from xlkd.reports.files import Record

VERSION = 1
CURVES = ("loss", "ce", "kl", "coefficient", "teacher_entropy", "agreement", "generation", "spread")  # kept by step
_KEYS = {"seed", "primary", "judged_by", "sets"}
_PROVENANCE = ("command", "git", "git_changes", "devices", "runtime", "flags", "models", "data_sets")


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference between two controls over draws; `low` and `high` are the t-interval, None for a single draw.

    `within` are the intervals over questions in each draw. `adjusted` and `verdict` are those of the Holm family.
    """

    name: str
    by_draw: Mapping[str, float]
    within: Mapping[str, tuple[float, float] | None]
    mean: float
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None = None
    verdict: str = ""


def describe_run(folder: pathlib.Path) -> Record:
    """Returns the numbers of a finished run, and what repeats it: commit, packages, processor and command."""
    run = files.read_run(folder)
    results = json.loads((folder / "results.json").read_bytes())
    environment = {key: run.environment[key] for key in _PROVENANCE if key in run.environment}
    stages = {
        stage.name: {key: stage.results.get(key) for key in ("start", "rows", "steps", "lr", "parameters", "seconds")}
        for stage in run.stages
    }
    report = run.config.get("report") or {}
    return {
        "version": VERSION,
        "seed": run.seed,
        "config": run.digest(),
        "primary": list(report.get("primary") or ()),
        "judged_by": report.get("judged_by") or "",
        "provenance": environment | describe_machine(),
        "stages": stages,
        "contamination": {name: results["stages"][name]["contamination"] for name in stages},
        "sets": {name: _shorten_set(numbers) for name, numbers in results["sets"].items()},
        "curves": {stage.name: curves for stage in run.stages if (curves := _collect_curves(stage))},
    }


def describe_machine() -> Record:
    """Returns processor, cores, Python and the version of every installed package."""
    packages = {
        f"{each.metadata['Name']}=={each.version}" for each in importlib.metadata.distributions() if each.metadata
    }
    return {
        "processor": processor.describe(),
        "cores": processor.count_cores(),
        "python": platform.python_version(),
        "packages": sorted(packages, key=str.lower),
    }


def _shorten_set(numbers: Record) -> Record:
    """Returns metrics, scores and differences of a data set, without what can be computed from them."""
    metrics = numbers["metrics"]

    def shorten(entry: Record) -> Record:
        return {name: [entry[name][key] for key in ("value", "low", "high")] for name in metrics if name in entry}

    systems = {
        name: {
            "averages": {average: shorten(entry) for average, entry in system["averages"].items()},
            "cells": {
                cell: {"n": entry["n"]} | {metric: entry[metric]["value"] for metric in metrics if metric in entry}
                for cell, entry in system["cells"].items()
            },
        }
        | {key: system[key] for key in ("em_at",) if key in system}
        for name, system in numbers["systems"].items()
    }
    comparisons = {
        name: {average: shorten(entry) for average, entry in comparison["averages"].items()}
        for name, comparison in numbers["comparisons"].items()
    }
    return {"metrics": metrics, "systems": systems, "comparisons": comparisons}


def _collect_curves(stage: files.Stage) -> Record:
    """Returns the logged metrics of a stage by step."""
    names = [name for name in CURVES if any(name in line for line in stage.metrics)]
    if not names:
        return {}
    curves: Record = {"step": [line["step"] for line in stage.metrics]}
    for name in names:
        curves[name] = [_round(line.get(name)) for line in stage.metrics]
    return curves


def _round(value: object) -> float | None:
    return round(value, 4) if isinstance(value, int | float) and math.isfinite(value) else None


def format_record(record: Record) -> str:
    """Returns a record as JSON with a line for each key of its blocks, so that it stays small and can be compared."""
    blocks = []
    for name, block in record.items():
        text = json.dumps(block, ensure_ascii=False, allow_nan=False)
        if isinstance(block, dict) and block:
            lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in block.items())
            text = "{\n" + ",\n".join(lines) + "\n }"
        blocks.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def read_draws(folder: pathlib.Path) -> dict[str, Record]:
    """Returns the kept draws of a folder by name, in the order of their seeds; their starts are left out."""
    records = {path.stem: read_record(path) for path in sorted(folder.glob("*.json"))}
    draws = {name: record for name, record in records.items() if record["primary"]}
    return dict(sorted(draws.items(), key=lambda item: item[1]["seed"]))


def read_record(path: pathlib.Path) -> Record:
    """Reads the numbers of a run that a sweep kept."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read: {error}", str(path), "restore it, or delete it and repeat the run") from None
    if not isinstance(record, dict) or record.get("version") != VERSION or not record.keys() >= _KEYS:
        what, remedy = "does not contain the numbers of a run", "restore it, or delete it and repeat the run"
        raise UserError(what, str(path), remedy)
    return record


def judge_draws(draws: Mapping[str, Record]) -> tuple[list[Difference], list[Difference]]:
    """Returns the primary differences, which are one Holm family, and the others, which have no verdict."""
    if not draws:
        return [], []
    first = next(iter(draws.values()))
    primary, place = first["primary"], first["judged_by"]
    for name, draw in draws.items():
        if (draw["primary"], draw["judged_by"]) != (primary, place):
            raise UserError("is judged by other differences than the first draw", name, "keep it in another folder")
    names = dict.fromkeys([*primary, *(pair for draw in draws.values() for pair in _read_differences(draw))])
    differences = [_measure_difference(name, draws) for name in names]
    family = judge_family([each for each in differences if each.name in primary])
    return family, [each for each in differences if each.name not in primary]


def judge_family(differences: Sequence[Difference]) -> list[Difference]:
    """Returns the differences with their adjusted p and verdict, as one Holm family."""
    tested = [each for each in differences if each.p is not None]
    adjusted = dict(
        zip((each.name for each in tested), statistics.adjust_holm([each.p or 0.0 for each in tested]), strict=True)
    )
    return [
        dataclasses.replace(each, adjusted=adjusted.get(each.name), verdict=_choose_verdict(each, adjusted))
        for each in differences
    ]


def _read_differences(draw: Record) -> dict[str, Sequence[float]]:
    """Returns value, low and high of each difference on the set, average and metric that the study is judged by."""
    check_judged_by(draw)
    title, average, metric = draw["judged_by"].split("/")
    comparisons = draw["sets"][title]["comparisons"]
    return {pair: entry[average][metric] for pair, entry in comparisons.items() if metric in entry.get(average, {})}


def check_judged_by(draw: Record) -> None:
    """Refuses a study that is judged by a set, an average or a metric in which a draw has no difference."""
    place = [*draw["judged_by"].split("/"), "", ""][:3]
    differences = draw["sets"].get(place[0], {}).get("comparisons", {}).values()
    averages = dict.fromkeys(average for entry in differences for average in entry)
    metrics = dict.fromkeys(metric for entry in differences for metric in entry.get(place[1], {}))
    for name, names in zip(place, (draw["sets"], averages, metrics), strict=True):
        if name not in names:
            what = f"no scores of {draw['judged_by']!r}: {name!r} is not among them"
            remedy = f"name one of {', '.join(names)}" if names else "name differences in report.compare"
            raise UserError(what, "config.report.judged_by", remedy)


def _measure_difference(name: str, draws: Mapping[str, Record]) -> Difference:
    numbers = {draw: values for draw, record in draws.items() if (values := _read_differences(record).get(name))}
    by_draw = {draw: values[0] for draw, values in numbers.items()}
    within = {draw: None if low is None else (low, high) for draw, (_, low, high) in numbers.items()}
    return measure_difference(name, by_draw, within)


def measure_difference(
    name: str, by_draw: Mapping[str, float], within: Mapping[str, tuple[float, float] | None]
) -> Difference:
    """Returns a difference over draws from its values in each, without adjusted p and verdict."""
    mean, low, high, p = compute_t_interval(list(by_draw.values()))
    return Difference(name, by_draw, within, mean, low, high, p)


def format_lines(draws: Mapping[str, Record]) -> list[str]:
    """Returns the differences over draws as lines of text."""
    if not draws:
        return []
    primary, others = judge_draws(draws)
    place = next(iter(draws.values()))["judged_by"]
    lines = [
        f"{each.name.replace(':', ' − ')}: {format_difference(each)}; by draw {format_draws(each)}"
        for each in (*primary, *others)
    ]
    return [f"{len(draws)} draws, {place}", *lines]


def format_difference(difference: Difference) -> str:
    """Writes a difference with its interval over draws, and its verdict if it has one."""
    number = {"value": difference.mean, "low": difference.low, "high": difference.high}
    verdict = f", {words.VERDICTS[difference.verdict]}" if difference.verdict else ""
    return f"{words.format_difference(number)}{verdict}"


def format_draws(difference: Difference) -> str:
    """Writes the difference of each draw."""
    return ", ".join(map(words.format_signed, difference.by_draw.values()))


def compute_t_interval(values: Sequence[float]) -> tuple[float, float | None, float | None, float | None]:
    """Returns the mean of the values, their 95% t-interval, and the two-sided p of a mean of 0."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, None, None, None
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(special.stdtrit(n - 1, 1 - statistics.LEVEL / 2)) * error
    p = 2 * float(special.stdtr(n - 1, -abs(mean) / error)) if error else float(mean == 0)
    return mean, mean - half, mean + half, p


def compute_detectable(spread: float, draws: int, power: float = 0.8) -> float:
    """Returns the smallest difference that a t-test over draws shows with this power, by the usual approximation.

    `spread` is the standard deviation of the difference between draws.
    """
    quantiles = special.stdtrit(draws - 1, 1 - statistics.LEVEL / 2) + special.stdtrit(draws - 1, power)
    return float(quantiles) * spread / math.sqrt(draws)


def _choose_verdict(difference: Difference, adjusted: Mapping[str, float]) -> str:
    if difference.name not in adjusted:  # a single draw
        return grid.NOT_TESTED
    if adjusted[difference.name] > statistics.LEVEL:
        return statistics.CANNOT_TELL
    return statistics.BETTER if difference.mean > 0 else statistics.WORSE


def measure_deviation(a: Record, b: Record) -> tuple[float, str]:
    """Returns the largest difference between the averages of two records of the same run, and what it is, as a text.

    Where no stage has a score, it is the difference between their last training losses, in per cent.
    """
    first, second = dict(_list_averages(a)), dict(_list_averages(b))
    if first or second:
        deviation, where = _find_largest(first, second, lambda x, y: abs(x - y))
        return deviation, f"averages differ by at most {deviation:.2f} points ({where})"
    first, second = dict(_list_losses(a)), dict(_list_losses(b))
    deviation, where = _find_largest(first, second, lambda x, y: 100 * abs(x - y) / max(abs(x), 1e-9))
    return deviation, f"last training losses differ by at most {deviation:.2f}% ({where})"


def _find_largest(
    first: Mapping[str, float], second: Mapping[str, float], compare: Callable[[float, float], float]
) -> tuple[float, str]:
    """Returns the largest difference, and its name; infinity where only one of the two has a name."""
    if unmatched := sorted(first.keys() ^ second.keys()):
        return math.inf, f"{unmatched[0]} is only in one"
    return max(((compare(first[name], second[name]), name) for name in first), default=(0.0, "none is logged"))


def _list_losses(record: Record) -> Iterator[tuple[str, float]]:
    for stage, curves in record.get("curves", {}).items():
        yield from ((stage, loss) for loss in curves.get("loss", ())[-1:] if loss is not None)


def _list_averages(record: Record) -> Iterator[tuple[str, float]]:
    for title, numbers in record["sets"].items():
        for name, system in numbers["systems"].items():
            for average, entry in system["averages"].items():
                yield from ((f"{title}, {name}, {average}, {metric}", value) for metric, (value, *_) in entry.items())
