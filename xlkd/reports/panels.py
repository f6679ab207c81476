# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Panels of the metrics that were logged in training, a row for each stage; and pictures that methods wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from xlkd.reports import files, plots, shapes, words
from xlkd.reports.files import Record

LOSSES = ("loss", "ce", "kl")
MOST_PANELS = 14  # for each stage
MOST_STAGES = 40
MOST_PARTS = 4  # panels of one metric, if there are too many stages for one
COEFFICIENT = {
    "coefficient": "weight of distillation (the coefficient)",
    "teacher_entropy": "entropy of the teacher",
    "agreement": "agreement of student and teacher",
}


def draw_curves(runs: Sequence[files.Run]) -> str:
    """Draws evaluation and losses by step, then all other logged metrics, each on its own scale."""
    parts, shown = [], 0
    for run in runs:
        for stage in run.stages:
            panels = [panel for panel in _draw_panels(stage) if panel]
            if panels and shown < MOST_STAGES:
                name = f"{run.folder.name}: {stage.name}" if len(runs) > 1 else stage.name
                parts.append(f'<h3>{escape(name)}</h3><div class="panels">{"".join(panels)}</div>')
            shown += bool(panels)
    if shown > MOST_STAGES:
        parts.append(f"<p>{shown - MOST_STAGES} more stages are left out here.</p>")
    return "".join(parts)


def draw_compared(runs: Sequence[files.Run]) -> str:
    """Draws evaluation and losses of all stages in one panel each, so that the stages can be compared."""
    stages = _name_stages(runs)
    panels = []
    for where, metric in dict.fromkeys((e["in"], e["main"]) for _, stage in stages for e in stage.evaluations):
        series = {name: _collect_scores(stage, where, metric) for name, stage in stages}
        panels += _draw_several(f"{where}: {words.label_metric(metric)}, mean over cells", series)
    for loss in LOSSES:
        panels += _draw_several(loss, {name: _collect_points(stage.metrics, loss) for name, stage in stages})
    return f'<div class="panels">{"".join(panels)}</div>' if panels else ""


def draw_coefficient(runs: Sequence[files.Run]) -> str:
    """Draws the weight of distillation by step, a line for each stage that logged it."""
    stages = _name_stages(runs)
    panels = [
        panel
        for name, label in COEFFICIENT.items()
        for panel in _draw_several(label, {stage: _collect_points(each.metrics, name) for stage, each in stages})
    ]
    return f'<div class="panels">{"".join(panels)}</div>' if panels else ""


def draw_pictures(runs: Sequence[files.Run]) -> str:
    """Draws the pictures of methods; the pictures of a run share their axes, so that they can be compared."""
    parts = []
    for run in runs:
        by_stage = [(stage.name, picture) for stage in run.stages for picture in stage.pictures]
        by_stage.sort(key=lambda pair: "before" not in pair[1].get("title", ""))
        bounds = plots.find_bounds([record for _, record in by_stage])
        images = [
            plots.draw_points(record | {"title": f"{name}: {record.get('title', '')}"}, bounds)
            for name, record in by_stage
        ]
        if images:
            parts.append(f'<div class="pictures">{"".join(images)}</div>')
    return "".join(parts)


def _name_stages(runs: Sequence[files.Run]) -> list[tuple[str, files.Stage]]:
    """Returns all stages, with the names of their folders where there are several runs."""
    return [
        (f"{run.folder.name}: {stage.name}" if len(runs) > 1 else stage.name, stage)
        for run in runs
        for stage in run.stages
    ]


def _draw_several(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """Draws as many panels as the lines need that have at least two points."""
    lines = [(name, points) for name, points in series.items() if len({step for step, _ in points}) > 1]
    parts = [lines[i : i + plots.COLOURS] for i in range(0, len(lines), plots.COLOURS)][:MOST_PARTS]
    return [plots.draw_curves(title, dict(part)) for part in parts]


def _collect_scores(stage: files.Stage, where: str, metric: str) -> list[tuple[float, float]]:
    return [(e["step"], e["mean"]) for e in stage.evaluations if (e["in"], e["main"]) == (where, metric)]


def _draw_panels(stage: files.Stage) -> Iterator[str]:
    evaluations = stage.evaluations
    for metric in dict.fromkeys(record["main"] for record in evaluations):
        records = [record for record in evaluations if record["main"] == metric]
        if len({record["step"] for record in records}) < 2:
            continue  # a single point is shown in the tables
        series: dict[str, list[tuple[float, float]]] = {}
        for record in records:
            series.setdefault(record["in"], []).append((record["step"], record["mean"]))
        label = words.label_metric(metric, records[0].get("metrics"))
        yield plots.draw_curves(f"evaluation, mean over cells: {label}", series)
    logged = stage.metrics
    names = [name for name in dict.fromkeys(key for line in logged for key in line) if name != "step"]
    losses = {name: _collect_points(logged, name) for name in LOSSES if name in names}
    yield plots.draw_curves(", ".join(losses) if losses else "", losses)
    others = sorted((name for name in names if name not in LOSSES), key=lambda name: name != "coefficient")
    for name in others[:MOST_PANELS]:
        yield plots.draw_curves(name.replace("_", " "), {name: _collect_points(logged, name)})


def _collect_points(logged: Sequence[Record], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in logged if shapes.is_number(line.get(name))]
