# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws curves and point clouds as inline SVG, with the colours of the page's style for light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from xlkd.reports.files import Record

COLOURS = 10
MOST_POINTS = 240  # of a curve; longer curves are drawn as means of neighbouring points
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 190, 54, 10, 10, 24
SIDE = 360  # of a picture

Series = Mapping[str, Sequence[tuple[float, float]]]
Scale = Callable[[float], float]


def draw_curves(title: str, series: Series) -> str:
    """Draws one panel: a line for each series over the steps, with a legend."""
    curves = {name: _thin_points(_select_finite(points)) for name, points in series.items()}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return ""
    xs, ys = ([point[i] for points in curves.values() for point in points] for i in (0, 1))
    x, y = (
        _make_scale(min(xs), max(xs), LEFT, WIDTH - RIGHT),
        _make_scale(*widen_range(min(ys), max(ys)), HEIGHT - BOTTOM, TOP),
    )
    parts = [_draw_axes(x, y, min(xs), max(xs), *widen_range(min(ys), max(ys)))]
    for i, points in enumerate(curves.values()):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        parts.append(f'<polyline class="line s{i % COLOURS}" points="{path}"/>')
        if len(points) < 16:
            parts += [
                f'<circle class="dot s{i % COLOURS}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.4"/>' for a, b in points
            ]
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return _draw_figure(title, svg, list(curves))


def draw_points(record: Record, bounds: tuple[float, float, float, float]) -> str:
    """Draws points coloured by language, and lines between translations, as a figure in HTML.

    `record` has `points` (`x`, `y`, `language`, `id`) and may have `links` and a `title`. Compared figures share their
    `bounds`: lowest and highest x, lowest and highest y.
    """
    x, y = _make_scale(bounds[0], bounds[1], 8, SIDE - 8), _make_scale(bounds[2], bounds[3], SIDE - 8, 8)
    points = [point for point in record.get("points", ()) if _is_point(point)]
    languages = sorted({str(point.get("language", "")) for point in points})
    parts = [f'<rect class="frame" x="1" y="1" width="{SIDE - 2}" height="{SIDE - 2}"/>']
    for a, b in _find_links(record, points):
        ends = f'x1="{x(a["x"]):.1f}" y1="{y(a["y"]):.1f}" x2="{x(b["x"]):.1f}" y2="{y(b["y"]):.1f}"'
        parts.append(f'<line class="link" {ends}/>')
    for point in points:
        language = str(point.get("language", ""))
        place, colour = f'cx="{x(point["x"]):.1f}" cy="{y(point["y"]):.1f}"', languages.index(language) % COLOURS
        label = escape(f"{language} {point.get('id', '')}".strip())
        parts.append(f'<circle class="dot s{colour}" {place} r="3"><title>{label}</title></circle>')
    title = str(record.get("title", ""))
    svg = f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return _draw_figure(title, svg, languages)


def find_bounds(records: Sequence[Record]) -> tuple[float, float, float, float]:
    """Returns bounds that include the points of all these figures."""
    points = [point for record in records for point in record.get("points", ()) if _is_point(point)]
    if not points:
        return 0.0, 1.0, 0.0, 1.0
    xs, ys = ([float(point[axis]) for point in points] for axis in ("x", "y"))
    return *widen_range(min(xs), max(xs)), *widen_range(min(ys), max(ys))


def _draw_figure(title: str, svg: str, names: Sequence[str]) -> str:
    legend = "".join(f'<li class="s{i % COLOURS}">{escape(name)}</li>' for i, name in enumerate(names))
    return f'<figure><figcaption>{escape(title)}</figcaption>{svg}<ul class="legend">{legend}</ul></figure>'


def _is_point(point: Record) -> bool:
    return all(isinstance(point.get(axis), (int, float)) and math.isfinite(point[axis]) for axis in ("x", "y"))


def _find_links(record: Record, points: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Returns linked points: by the numbers that the method wrote, or else each with the first of the same id."""
    if record.get("links"):
        all_points = record["points"]
        links = [(i, j) for i, j in record["links"] if max(i, j) < len(all_points)]
        return [
            (all_points[i], all_points[j]) for i, j in links if _is_point(all_points[i]) and _is_point(all_points[j])
        ]
    first: dict[object, Record] = {}
    pairs = []
    for point in points:
        if "id" in point:
            other = first.setdefault(point["id"], point)
            pairs += [(other, point)] if other is not point else []
    return pairs


def _select_finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]


def _thin_points(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // MOST_POINTS)
    blocks = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else [[p] for p in points]
    return [(sum(a for a, _ in block) / len(block), sum(b for _, b in block) / len(block)) for block in blocks]


def widen_range(low: float, high: float) -> tuple[float, float]:
    """Widens a range a little, so that it is never empty."""
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _make_scale(low: float, high: float, start: float, end: float) -> Scale:
    """Returns the linear map from values to positions."""
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (float(value) - low) / span


def _draw_axes(x: Scale, y: Scale, first: float, last: float, low: float, high: float) -> str:
    parts = [f'<line class="axis" x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - RIGHT}" y2="{HEIGHT - BOTTOM}"/>']
    for value in choose_ticks(low, high):
        parts.append(f'<line class="tick" x1="{LEFT}" y1="{y(value):.1f}" x2="{WIDTH - RIGHT}" y2="{y(value):.1f}"/>')
        parts.append(f'<text class="yl" x="{LEFT - 5}" y="{y(value) + 3.5:.1f}">{value:.3g}</text>')
    ends = [(first, "xl start"), (last, "xl end")] if last > first else [(first, "xl start")]
    for value, where in ends:
        parts.append(f'<text class="{where}" x="{x(value):.1f}" y="{HEIGHT - 8}">step {value:g}</text>')
    return "".join(parts)


def choose_ticks(low: float, high: float) -> list[float]:
    """Returns three to six round values."""
    raw = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]
