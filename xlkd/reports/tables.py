# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The numbers of a report as plain lines for a console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlkd.reports import badges, goodput, words
from xlkd.reports.files import DONE, Record

WIDTH = 150  # characters of a line
MARKS = {"better": "▲", "worse": "▼"}
FEW = 12  # cells that a glance takes in


def lines(results: Record, *, brief: bool = False) -> Iterator[str]:
    """Stages, budgets, every data set, what it means in words, what was left out; in brief what fits a terminal."""
    yield from _stages(results)
    for title, data in results["sets"].items():
        yield ""
        yield f"{title} ({data['task']}, evaluation set {data['in']})"
        metrics = [data["main"]] if brief else data["metrics"]
        for metric in metrics:
            names = averages(data, metric)
            yield from _averages(data, metric, [name for name in names if "[" not in name] if brief else names)
        for metric in metrics if not brief or len(cells(data)) <= FEW else ():
            yield from _cells(data, metric)
        for compared in () if brief else data["comparisons"].values():
            yield from _difference(data, compared)
    for where, systems in results["plain"].items():
        yield ""
        yield f"{where}: no intervals, for there are no scores by row"
        yield from _table(plain_rows(systems))
    yield ""
    if letters := used(results):
        yield "badges: " + "; ".join(f"{letter} {badges.MEANING[letter]}" for letter in letters)
    yield from (f"warning: {line}" for line in words.warnings(results))
    yield from results["sentences"]
    for one in results["budgets"]:
        yield f"unequal budgets, {one['a']} against {one['b']}: {budget(one['differ'])}"
    for note in results["notes"]:
        yield f"note: {note}"
    for run in results["runs"]:
        if run.get("goodput"):
            where = f"{run['workdir']}: " if len(results["runs"]) > 1 else ""
            yield where + goodput.line(run["goodput"])


def used(results: Record) -> list[str]:
    """The badges that occur."""
    every = {
        letter
        for data in results["sets"].values()
        for system in data["systems"].values()
        for cell in system["cells"].values()
        for letter in cell["badges"]
    }
    return [letter for letter in badges.MEANING if letter in every]


def budget(differing: Mapping[str, Sequence[Any]]) -> str:
    names = {"rows": "training examples", "lr": "learning rate"}
    return ", ".join(f"{names.get(key, key)} {plain(a)} and {plain(b)}" for key, (a, b) in differing.items())


def state(told: Mapping[str, Any]) -> str:
    """How far a stage is."""
    text = told["state"]
    if "step" in told:
        text += f", step {told['step']}" + (f" of {told['of']}" if told.get("of") else "")
    if "checkpoint" in told:
        text += f", last checkpoint {told['checkpoint']} at {told['saved']}"
    for name, score in told.get("scores", {}).items():
        metric = words.METRICS.get(score["main"], score["main"])
        text += f"; {name}: {metric} {words.one(score['mean'])} at step {score['step']}"
    return text + (" (no intervals and no badges before the end)" if told.get("scores") else "")


def plain(value: Any) -> str:
    """A count, a setting or a name."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def plain_rows(systems: Record) -> list[list[str]]:
    """A row a metric and cell, a column a system, before and after where both are known."""
    names = [(m, cell) for told in systems.values() for cell, of in told["after"].items() for m in of if m != "n"]
    order = list(dict.fromkeys(m for m, _ in names))
    rows = [["", *systems]]
    for metric, cell in sorted(dict.fromkeys(names), key=lambda name: order.index(name[0])):
        shown = [_before_and_after(told, metric, cell) for told in systems.values()]
        rows.append([f"{words.METRICS.get(metric, metric)}, {cell}", *shown])
    return rows


def _before_and_after(told: Record, metric: str, cell: str) -> str:
    before, after = (told.get(side, {}).get(cell, {}).get(metric) for side in ("before", "after"))
    return words.one(after) if before is None else f"{words.one(before)} → {words.one(after)}"


def cells(data: Record) -> list[str]:
    """Every cell that some system has; supervised languages before zero-shot ones."""
    words_of = {cell: entry["word"] for system in data["systems"].values() for cell, entry in system["cells"].items()}
    order = (badges.SUPERVISED, badges.TRANSFERRED, badges.ZERO_SHOT)
    by_word = data["task"] == "classify"
    return sorted(words_of, key=lambda cell: (order.index(words_of[cell]) if by_word else 0, cell))


def averages(data: Record, metric: str) -> list[str]:
    """Every mean that some system has, in the order of the words; those by language last."""
    found = (n for s in data["systems"].values() for n, entry in s["averages"].items() if metric in entry)
    order = {name: i for i, name in enumerate(words.AVERAGES)}
    return sorted(dict.fromkeys(found), key=lambda name: (order.get(name, len(order)), name))


def worst(data: Record, metric: str) -> list[Record]:
    """The lowest cell of each system."""
    return [system["worst"][metric] for system in data["systems"].values()]


def _stages(results: Record) -> Iterator[str]:
    for run in results["runs"]:
        yield f"run {run['workdir']}, seed {run['seed']}, config {run['config']}: {run['state']}"
        for name, told in run["stages"].items():
            if told["state"] != DONE:
                yield f"  stage {name}: {state(told)}"
    rows = [
        [name, *(plain(stage.get(key)) for key in ("rows", "steps", "lr", "parameters", "seconds")), _seeds(stage)]
        for name, stage in results["stages"].items()
    ]
    if rows:
        yield from _table([["stage", "examples", "steps", "lr", "parameters", "seconds", "seeds"], *rows])


def _seeds(stage: Record) -> str:
    return " ".join(map(str, stage["seeds"]))


def _averages(data: Record, metric: str, names: Sequence[str]) -> Iterator[str]:
    """A line an average, a column a system."""
    rows = [[words.METRICS[metric], *data["systems"]]]
    for name in names:
        scores = [_score(system["averages"].get(name), metric) for system in data["systems"].values()]
        entry = next(s["averages"][name] for s in data["systems"].values() if name in s["averages"])
        rows.append([words.average(name, entry), *scores])
    if metric == "accuracy":
        rows.append(["majority class", *[words.one(data["majority"]["macro_mean"])] * len(data["systems"])])
    if data["task"] == "qa":
        rows.append(["worst cell", *(f"{w['cell']} {_score({metric: w, **w}, metric)}" for w in worst(data, metric))])
    yield from _table(rows)


def _score(entry: Record | None, metric: str) -> str:
    if entry is None or metric not in entry:
        return "–"
    return f"{words.score(entry[metric])} {''.join(entry['badges'])}".strip()


def _cells(data: Record, metric: str) -> Iterator[str]:
    """One table of all systems, a line a cell."""
    rows = [[f"{words.METRICS[metric]} by cell", "n", *data["systems"]]]
    for name in cells(data):
        there = [system["cells"].get(name) for system in data["systems"].values()]
        rows.append([name, str(next(cell["n"] for cell in there if cell)), *(_score(cell, metric) for cell in there)])
    yield from _table(rows)


def _difference(data: Record, compared: Record) -> Iterator[str]:
    yield f"{compared['a']} − {compared['b']} ({compared['caption']})"
    rows = [["", *(words.METRICS[metric] for metric in data["metrics"])]]
    for name, entry in (compared["averages"] | compared["cells"]).items():
        label = words.average(name, entry) if name in compared["averages"] else name
        rows.append([label, *(_verdict(entry.get(metric)) for metric in data["metrics"])])
    yield from _table(rows)


def _verdict(number: Record | None) -> str:
    if number is None:
        return "–"
    return f"{words.difference(number)} {MARKS.get(number['verdict'], '')}{number['verdict']}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns side by side; those that do not fit come below, with the first one again."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    fit = next((i for i in range(2, len(widths)) if sum(widths[: i + 1]) + 2 * i > WIDTH), len(widths))
    for row in rows:
        first, *others = row[:fit]
        padded = [text.rjust(width) for text, width in zip(others, widths[1:fit], strict=True)]
        yield "  " + "  ".join([first.ljust(widths[0]), *padded]).rstrip()
    if fit < len(widths):
        yield from _table([[row[0], *row[fit:]] for row in rows])
