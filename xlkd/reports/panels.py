# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run logged on its way, a row of small panels a stage; and what methods added of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from xlkd.reports import files, plots, words
from xlkd.reports.files import Record

LOSSES = ("loss", "ce", "kl")
MOST_PANELS = 14  # a stage
MOST_STAGES = 40
MOST_ROWS = 100  # of a table that a method added


def curves(runs: Sequence[files.Run]) -> str:
    """Evaluation and losses by step, then everything else that was logged, each on its own scale."""
    parts, shown = [], 0
    for run in runs:
        for stage in run.stages:
            panels = [panel for panel in _panels(stage) if panel]
            if panels and shown < MOST_STAGES:
                name = f"{run.folder.name}: {stage.name}" if len(runs) > 1 else stage.name
                parts.append(f'<h3>{escape(name)}</h3><div class="panels">{"".join(panels)}</div>')
            shown += bool(panels)
    if shown > MOST_STAGES:
        parts.append(f"<p>{shown - MOST_STAGES} more stages are left out here.</p>")
    return "".join(parts)


def pictures(runs: Sequence[files.Run]) -> str:
    """Draws what methods added; pictures of one run share their axes, so that before and after can be compared."""
    parts = []
    for run in runs:
        named = [(stage.name, picture) for stage in run.stages for picture in stage.pictures()]
        named.sort(key=lambda pair: "before" not in pair[1].get("title", ""))
        bounds = plots.bounds([one for _, one in named])
        drawn = [plots.picture(one | {"title": f"{name}: {one.get('title', '')}"}, bounds) for name, one in named]
        if drawn:
            parts.append(f'<div class="pictures">{"".join(drawn)}</div>')
    return "".join(parts)


def _panels(stage: files.Stage) -> Iterator[str]:
    evaluations = stage.evaluations()
    for metric in dict.fromkeys(one["main"] for one in evaluations):
        those = [one for one in evaluations if one["main"] == metric]
        if len({one["step"] for one in those}) < 2:
            continue  # a point is no curve, and stands in the tables
        series: dict[str, list[tuple[float, float]]] = {}
        for one in those:
            series.setdefault(one["in"], []).append((one["step"], one["mean"]))
        yield plots.curves(f"evaluation, mean over cells: {words.METRICS.get(metric, metric)}", series)
    logged = stage.metrics()
    names = [name for name in dict.fromkeys(key for line in logged for key in line) if name != "step"]
    losses = {name: _points(logged, name) for name in LOSSES if name in names}
    yield plots.curves(", ".join(losses) if losses else "", losses)
    others = sorted((name for name in names if name not in LOSSES), key=lambda name: name != "coefficient")
    for name in others[:MOST_PANELS]:
        yield plots.curves(name.replace("_", " "), {name: _points(logged, name)})


def _points(logged: Sequence[Record], name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in logged if isinstance(line.get(name), (int, float))]
