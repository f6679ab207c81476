# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Panels of the metrics that were logged in training, a row for each stage; and pictures that methods wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from xlkd.reports import files, plots, shapes, systems, words
from xlkd.reports.files import Record

Points = Sequence[tuple[float, float]]  # step and value
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
    evaluations = [evaluation for same in stages.values() for stage in same for evaluation in stage.evaluations]
    for where, metric in dict.fromkeys((each["in"], each["main"]) for each in evaluations):
        title = f"{where}: {words.label_metric(metric)}, mean over cells"
        panels += _draw_several(
            title, stages, lambda stage, where=where, metric=metric: _collect_scores(stage, where, metric)
        )
    for loss in LOSSES:
        panels += _draw_several(loss, stages, lambda stage, loss=loss: _collect_points(stage.metrics, loss))
    return f'<div class="panels">{"".join(panels)}</div>' if panels else ""


def draw_coefficient(runs: Sequence[files.Run]) -> str:
    """Draws the weight of distillation by step, a line for each stage that logged it."""
    stages = _name_stages(runs)
    panels = [
        panel
        for name, label in COEFFICIENT.items()
        for panel in _draw_several(label, stages, lambda stage, name=name: _collect_points(stage.metrics, name))
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


def _name_stages(runs: Sequence[files.Run]) -> dict[str, list[files.Stage]]:
    """Returns by name the stages of each config, with those of all its seeds."""
    groups = systems.group_runs(runs)
    return {
        label + name: [stage for run in same for stage in run.stages if stage.name == name]
        for label, same in zip(systems.make_prefixes(groups), groups, strict=True)
        for name in dict.fromkeys(stage.name for run in same for stage in run.stages)
    }


def _draw_several(
    title: str, stages: Mapping[str, Sequence[files.Stage]], collect: Callable[[files.Stage], Points]
) -> list[str]:
    """Draws as many panels as the lines need that have at least two points; a line is the mean over seeds."""
    curves = {name: [points for stage in same if (points := collect(stage))] for name, same in stages.items()}
    most = max(map(len, curves.values()), default=0)
    series = {name: _average_points(each) for name, each in curves.items()}
    lines = [(name, points) for name, points in series.items() if len({step for step, _ in points}) > 1]
    parts = [lines[i : i + plots.COLOURS] for i in range(0, len(lines), plots.COLOURS)][:MOST_PARTS]
    return [plots.draw_curves(f"{title}, mean of {most} runs" if most > 1 else title, dict(part)) for part in parts]


def _average_points(curves: Sequence[Points]) -> Points:
    """Returns the mean of the curves at the steps that all of them have."""
    if len(curves) < 2:
        return next(iter(curves), [])
    first, *others = map(dict, curves)
    return [
        (step, sum([value, *(other[step] for other in others)]) / len(curves))
        for step, value in first.items()
        if all(step in other for other in others)
    ]


def _collect_scores(stage: files.Stage, where: str, metric: str) -> Points:
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


def _collect_points(logged: Sequence[Record], name: str) -> Points:
    return [(line["step"], line[name]) for line in logged if shapes.is_number(line.get(name))]
