# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the numbers of a report as plain lines for a console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlkd.metrics.ranks import MOST
from xlkd.reports import badges, goodput, words
from xlkd.reports.files import DONE, Record

STAGE_COLUMNS = ("rows", "steps", "lr", "parameters", "seconds")
WIDTH = 150  # characters in a line
MARKS = {"better": "▲", "worse": "▼"}
FEW = 12  # with more cells the summary leaves out the table of cells


def format_lines(results: Record, *, brief: bool = False) -> Iterator[str]:
    """Yields stages, budgets, every data set, sentences and notes; with `brief` only the main numbers."""
    yield from _format_stages(results)
    for title, data in results["sets"].items():
        yield ""
        yield f"{title} ({data['task']}, evaluation set {data['in']})"
        metrics = [data["main"]] if brief else data["metrics"]
        for metric in metrics:
            names = list_averages(data, metric)
            yield from _format_averages(data, metric, [name for name in names if "[" not in name] if brief else names)
        for metric in metrics if not brief or len(list_cells(data)) <= FEW else ():
            yield from _format_cells(data, metric)
        if "unanswerable" in data and not brief:
            yield from _format_table(make_unanswerable_rows(data))
        if not brief and (rows := make_em_at_rows(data)):
            yield from _format_table(rows)
        for compared in () if brief else data["comparisons"].values():
            yield from _format_difference(data, compared)
    for where, systems in results["plain"].items():
        yield ""
        yield f"{where}: no intervals, because there are no scores by row"
        yield from _format_table(make_plain_rows(systems))
    yield ""
    if letters := list_used_badges(results):
        yield "badges: " + "; ".join(f"{letter} {badges.MEANING[letter]}" for letter in letters)
    yield from (f"warning: {line}" for line in words.write_warnings(results))
    yield from results["sentences"]
    for budget in results["budgets"]:
        yield f"unequal budgets, {budget['a']} against {budget['b']}: {format_budget(budget['differ'])}"
    for note in results["notes"]:
        yield f"note: {note}"
    for run in results["runs"]:
        if run.get("goodput"):
            where = f"{run['workdir']}: " if len(results["runs"]) > 1 else ""
            yield where + goodput.format_line(run["goodput"])


def list_used_badges(results: Record) -> list[str]:
    """Returns the badges that the results contain."""
    letters = {
        letter
        for data in results["sets"].values()
        for system in data["systems"].values()
        for cell in system["cells"].values()
        for letter in cell["badges"]
    }
    return [letter for letter in badges.MEANING if letter in letters]


def format_budget(differing: Mapping[str, Sequence[Any]]) -> str:
    """Writes the two values of each budget that differs."""
    names = {"rows": "training examples", "lr": "learning rate"}
    pairs = {key: f"{format_plain(a)} and {format_plain(b)}" for key, (a, b) in differing.items()}
    return ", ".join(f"{names.get(key, key)} {pair}" for key, pair in pairs.items())


def describe_state(stage: Mapping[str, Any]) -> str:
    """Describes how far a stage has come."""
    text = stage["state"]
    if "step" in stage:
        text += f", step {stage['step']}" + (f" of {stage['of']}" if stage.get("of") else "")
    if "checkpoint" in stage:
        text += f", last checkpoint {stage['checkpoint']} at {stage['saved']}"
    for name, score in stage.get("scores", {}).items():
        metric = words.label_metric(score["main"])
        text += f"; {name}: {metric} {words.format_number(score['mean'])} at step {score['step']}"
    return text + (" (no intervals and no badges before the end)" if stage.get("scores") else "")


def format_plain(value: Any) -> str:
    """Writes a count, a setting or a name."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def make_plain_rows(systems: Record) -> list[list[str]]:
    """Returns a row for each metric and cell, a column for each system, before and after where both are known."""
    names = [
        (metric, cell)
        for scores in systems.values()
        for cell, values in scores["after"].items()
        for metric in values
        if metric != "n"
    ]
    order = list(dict.fromkeys(m for m, _ in names))
    rows = [["", *systems]]
    for metric, cell in sorted(dict.fromkeys(names), key=lambda name: order.index(name[0])):
        shown = [_format_before_and_after(scores, metric, cell) for scores in systems.values()]
        recorded = next(iter(systems.values())).get("metrics")
        rows.append([f"{words.label_metric(metric, recorded)}, {cell}", *shown])
    return rows


def make_unanswerable_rows(data: Record) -> list[list[str]]:
    """Returns a row for each number of each cell with unanswerable questions, a column for each system."""
    systems = data["unanswerable"]
    rows = [["unanswerable questions", *systems]]
    rows.append(["no answer above null odds of", *map(_format_threshold, systems.values())])
    cells = [scores.get("cells", {}) for scores in systems.values()]
    names = dict.fromkeys((cell, name) for each in cells for cell, values in each.items() for name in values)
    for cell, name in names:
        values = (each.get(cell, {}).get(name) for each in cells)
        digits = ".4g" if name.endswith("_thresh") else ".2f"
        rows.append([f"{cell}, {name}", *(_format_official(value, digits) for value in values)])
    return rows


def make_em_at_rows(data: Record) -> list[list[str]]:
    """Returns EM@1 to EM@10 of the main means, a row for each system; nothing where no system has them."""
    rows = []
    for name in words.IN_SENTENCES:
        for system, scores in data["systems"].items():
            if values := scores.get("em_at", {}).get(name):
                label = f"{system}, {words.describe_average(name, scores['averages'][name])}"
                rows.append([label, *map(words.format_number, values)])
    return [["EM@k: exactly right among the first k", *map(str, range(1, MOST + 1))], *rows] if rows else []


def _format_threshold(scores: Record) -> str:
    threshold = scores.get("null_threshold")
    return f"{threshold['value']:.4g}, {threshold['origin']}".replace("-", "−", 1) if threshold else "–"


def _format_official(value: float | None, digits: str) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:{digits}}".replace("-", "−")


def _format_before_and_after(scores: Record, metric: str, cell: str) -> str:
    before, after = (scores.get(side, {}).get(cell, {}).get(metric) for side in ("before", "after"))
    text = words.format_number(after)
    return text if before is None else f"{words.format_number(before)} → {text}"


def list_cells(data: Record) -> list[str]:
    """Returns every cell of any system; supervised languages before zero-shot ones."""
    words_of = {cell: entry["word"] for system in data["systems"].values() for cell, entry in system["cells"].items()}
    order = (badges.SUPERVISED, badges.TRANSFERRED, badges.ZERO_SHOT)
    by_word = data["task"] == "classify"
    return sorted(words_of, key=lambda cell: (order.index(words_of[cell]) if by_word else 0, cell))


def list_averages(data: Record, metric: str) -> list[str]:
    """Returns every mean of any system, in the order of `words.AVERAGES`; those by language last."""
    names = (n for s in data["systems"].values() for n, entry in s["averages"].items() if metric in entry)
    order = {name: i for i, name in enumerate(words.AVERAGES)}
    return sorted(dict.fromkeys(names), key=lambda name: (order.get(name, len(order)), name))


def list_worst_cells(data: Record, metric: str) -> list[Record]:
    """Returns the worst cell of each system; only question answering has one."""
    return [system["worst"][metric] for system in data["systems"].values()]


def _format_stages(results: Record) -> Iterator[str]:
    for run in results["runs"]:
        yield f"run {run['workdir']}, seed {run['seed']}, config {run['config']}: {run['state']}"
        for name, stage in run["stages"].items():
            if stage["state"] != DONE:
                yield f"  stage {name}: {describe_state(stage)}"
    rows = [
        [name, *(format_plain(stage.get(key)) for key in STAGE_COLUMNS), _format_seeds(stage)]
        for name, stage in results["stages"].items()
    ]
    if rows:
        yield from _format_table([["stage", "examples", "steps", "lr", "parameters", "seconds", "seeds"], *rows])


def _format_seeds(stage: Record) -> str:
    return " ".join(map(str, stage["seeds"]))


def _format_averages(data: Record, metric: str, names: Sequence[str]) -> Iterator[str]:
    """Yields a line for each average, with a column for each system."""
    rows = [[words.label_in_set(data, metric), *data["systems"]]]
    for name in names:
        scores = [_format_score(system["averages"].get(name), metric) for system in data["systems"].values()]
        entry = next(s["averages"][name] for s in data["systems"].values() if name in s["averages"])
        rows.append([words.describe_average(name, entry), *scores])
    if metric == "accuracy":
        rows.append(["majority class", *[words.format_number(data["majority"]["macro_mean"])] * len(data["systems"])])
    if data["task"] == "qa":
        worst = list_worst_cells(data, metric)
        rows.append(
            ["worst cell", *(f"{cell['cell']} {_format_score({metric: cell, **cell}, metric)}" for cell in worst)]
        )
    yield from _format_table(rows)


def _format_score(entry: Record | None, metric: str) -> str:
    if entry is None or metric not in entry:
        return "–"
    return f"{words.format_score(entry[metric])} {''.join(entry['badges'])}".strip()


def _format_cells(data: Record, metric: str) -> Iterator[str]:
    """Yields a line for each cell, with a column for each system."""
    rows = [[f"{words.label_in_set(data, metric)} by cell", "n", *data["systems"]]]
    for name in list_cells(data):
        entries = [system["cells"].get(name) for system in data["systems"].values()]
        size = next(entry["n"] for entry in entries if entry)
        rows.append([name, str(size), *(_format_score(entry, metric) for entry in entries)])
    yield from _format_table(rows)


def _format_difference(data: Record, compared: Record) -> Iterator[str]:
    yield f"{compared['a']} − {compared['b']} ({compared['caption']})"
    rows = [["", *(words.label_in_set(data, metric) for metric in data["metrics"])]]
    for name, entry in (compared["averages"] | compared["cells"]).items():
        label = words.describe_average(name, entry) if name in compared["averages"] else name
        rows.append([label, *(_format_verdict(entry.get(metric)) for metric in data["metrics"])])
    yield from _format_table(rows)


def _format_verdict(number: Record | None) -> str:
    if number is None:
        return "–"
    return f"{words.format_difference(number)} {MARKS.get(number['verdict'], '')}{words.VERDICTS[number['verdict']]}"


def _format_table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Writes columns side by side; those that do not fit come below, with the first one repeated."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    fit = next((i for i in range(2, len(widths)) if sum(widths[: i + 1]) + 2 * i > WIDTH), len(widths))
    for row in rows:
        first, *others = row[:fit]
        padded = [text.rjust(width) for text, width in zip(others, widths[1:fit], strict=True)]
        yield "  " + "  ".join([first.ljust(widths[0]), *padded]).rstrip()
    if fit < len(widths):
        yield from _format_table([[row[0], *row[fit:]] for row in rows])
