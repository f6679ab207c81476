# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws small heat maps of the main metric: all systems on one colour scale, and their differences on another.

The cells of a grid of questions and contexts are a square for each system. Other cells are a row for each system.
A cell has its details as its label; the script of the page shows them when it is hovered or focused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from xlkd.reports import grid, scales, tables, words
from xlkd.reports.files import Record
from xlkd.rows import Cell

ROOM = 1216  # pixels for all maps of a row, on a window of 1280
GAP = 12
LEAST_WIDTH = 150  # of a map
MOST_CELLS = 6_000  # of all maps of a data set
MARGINS = 1.9  # columns that the names and the means of a map take
MEAN = "mean"
OUTLINED = '<span><span class="sure">outlined</span> significant</span>'
WITH_DIAGONAL = "<span>mean: with the diagonal</span>"
NOT_TESTED = '<span><span class="away">dashed</span> interval without 0, not tested</span>'

Row = tuple[str, Sequence[str]]  # the name of a row, its cells as markup


class Column(NamedTuple):
    """A column: its head, the block of a system's numbers and the name in it that a cell shows, and that in words."""

    head: str
    block: str
    name: str
    words: str


@dataclasses.dataclass(frozen=True)
class Map:
    """The numbers of a system or of a difference, with the colours and the text of its cells."""

    title: str
    numbers: Record
    metric: str
    label: str  # of the metric
    scale: scales.Scale
    difference: bool
    digits: int | None  # of the text of a cell; None for cells without text

    def draw_cell(self, cell: Record | None, name: str, css_class: str = "") -> str:
        """Returns a cell of the table; `name` says in words which cell it is."""
        if cell is None or self.metric not in cell:
            return '<td class="none">–</td>'
        number = cell[self.metric]
        classes = [css_class] if css_class else []
        if not self.difference or number["value"]:
            classes.append(self.scale.choose_class(number["value"]))
        if self.difference and number["verdict"] in tables.MARKS:
            classes.append("sure")
        if self.difference and number["verdict"] == grid.NOT_TESTED and _excludes_zero(number):
            classes.append("away")
        text = "" if self.digits is None else format_short(number["value"], self.digits)
        label = escape(f"{self.title}, {name}: {describe_number(cell, number, self.label)}")
        return f'<td class="{" ".join(classes)}" tabindex="-1" aria-label="{label}">{text}</td>'


def draw_heatmaps(data: Record) -> str:
    """Draws the maps of a data set, with the legends of both scales."""
    metric, label = data["main"], data["labels"][data["main"]]
    scores, differences = _make_scales(data)
    systems = [(name, system) for name, system in data["systems"].items()]
    pairs = [(f"{pair['a']} − {pair['b']}", pair) for pair in data["comparisons"].values()]
    shown, left_out = _limit_maps(systems, pairs)
    languages = sorted({tag for pair in _list_languages(data) for tag in pair})
    is_grid = data["task"] == "qa" and any(len(set(pair)) > 1 for pair in _list_languages(data))
    columns = _count_columns(len(shown[0]), len(shown[1]))
    digits = _choose_digits(columns, len(languages)) if is_grid else 1
    maps = [
        Map(title, numbers, metric, label, scale, difference, digits)
        for entries, scale, difference in zip(shown, (scores, differences), (False, True), strict=True)
        for title, numbers in entries
    ]
    if is_grid:
        drawn = _draw_squares(maps, columns, languages) + _draw_margins(maps, languages)
    else:
        drawn = _draw_rows(maps, "scores", [Column(cell, "cells", cell, cell) for cell in tables.list_cells(data)])
    legends = _draw_legend(words.label_in_set(data, metric), scores, "{:g}".format)
    if pairs:
        legends += _draw_legend("difference", differences, words.format_tick) + (
            NOT_TESTED if "draws" in data else OUTLINED
        )
    what = "by question (rows) and context (columns)" if is_grid else "by language"
    legends += WITH_DIAGONAL if is_grid else ""
    note = f"<p>{left_out} more maps are left out; all numbers are in the tables.</p>" if left_out else ""
    return f'<div class="legends"><h3>{escape(label)} {what}</h3>{legends}</div>{drawn}{note}'


def describe_number(entry: Record, number: Record, label: str) -> str:
    """Writes a number with its interval, its verdict if it has one, the number of examples, and its badges."""
    if "verdict" in number:
        parts = [words.format_difference(number) + f" {label}", words.VERDICTS[number["verdict"]]]
        parts += [f"adjusted p {words.format_p(number['adjusted'])}"] if number["adjusted"] is not None else []
    else:
        parts = [f"{words.format_score(number)} {label}"]
    if "by_seed" in number:
        write = words.format_signed if "verdict" in number else words.format_number
        parts.append(f"by seed {' '.join(map(write, number['by_seed']))}")
    parts.append(f"n = {number['questions']:,}")
    parts.append(f"badges {' '.join(entry['badges']) or 'none'}")
    return "; ".join([*parts, entry["word"]] if entry["word"] else parts)


def format_short(value: float, digits: int) -> str:
    """Writes a value for a small cell: without a plus sign, and without decimals where it would not fit."""
    text = f"{value:.{digits if abs(value) < 99.95 and value > -9.95 else 0}f}"
    return (text if float(text) else text.lstrip("-")).replace("-", "−")


def _excludes_zero(number: Record) -> bool:
    """Returns whether a difference has an interval that does not contain 0."""
    return number["low"] is not None and (number["low"] > 0 or number["high"] < 0)


def _make_scales(data: Record) -> tuple[scales.Scale, scales.Scale]:
    """Returns the scales of all scores and of all differences, whose steps are at most ten times as fine."""
    metric = data["main"]
    scores, differences = (
        [
            cell[metric]["value"]
            for numbers in data[side].values()
            for cell in numbers["cells"].values()
            if metric in cell
        ]
        for side in ("systems", "comparisons")
    )
    score_scale = scales.make_score_scale(scores)
    finest = (score_scale.edges[1] - score_scale.edges[0]) / 10
    lower = metric in data["lower_is_better"]
    return score_scale, scales.make_difference_scale(differences or [0.0], finest=finest, lower_is_better=lower)


def _draw_squares(maps: Sequence[Map], columns: int, languages: Sequence[str]) -> str:
    """Draws a square for each map; differences begin a row where not all squares fit into one."""
    first = next((each for each in maps if each.difference), None) if len(maps) > columns else None
    squares = (f"<div{' class=start' if each is first else ''}>{_draw_square(each, languages)}</div>" for each in maps)
    return f'<div class="squares c{columns}">{"".join(squares)}</div>'


def _draw_square(each: Map, languages: Sequence[str]) -> str:
    means = each.numbers["averages"]
    rows = []
    for question in languages:
        cells = [
            each.draw_cell(
                each.numbers["cells"].get(str(Cell("", (question, context)))), f"question {question}, context {context}"
            )
            for context in languages
        ]
        mean = each.draw_cell(means.get(f"by_question[{question}]"), f"question {question}, mean over contexts", "m")
        rows.append((question, [*cells, mean]))
    by_context = [
        each.draw_cell(means.get(f"by_context[{context}]"), f"context {context}, mean over questions", "m")
        for context in languages
    ]
    rows.append((MEAN, [*by_context, each.draw_cell(means.get("gxlt"), words.describe_average("gxlt"), "m")]))
    return _draw_table(each.title, "Q \\ C", [*languages, MEAN], rows)


def _draw_margins(maps: Sequence[Map], languages: Sequence[str]) -> str:
    """Draws the means by context and by question language of all squares as two tables, folded."""
    legible = [dataclasses.replace(each, digits=1) for each in maps]
    drawn = ""
    for side, other in (("context", "questions"), ("question", "contexts")):
        columns = [
            Column(tag, "averages", f"by_{side}[{tag}]", f"{side} {tag}, mean over {other}") for tag in languages
        ]
        drawn += _draw_rows(legible, f"{side} language", columns)
    return f"<details><summary>Means by context language and by question language</summary>{drawn}</details>"


def _draw_rows(maps: Sequence[Map], corner: str, columns: Sequence[Column]) -> str:
    """Draws a table with a row for each system and then one for each difference."""
    scores, differences = (
        [
            (
                each.title,
                [each.draw_cell(each.numbers[column.block].get(column.name), column.words) for column in columns],
            )
            for each in maps
            if each.difference == difference
        ]
        for difference in (False, True)
    )
    table = _draw_table("", corner, [column.head for column in columns], scores, differences)
    return f'<div class="strips"><div class="scroll">{table}</div></div>'


def _draw_table(
    title: str, corner: str, head: Sequence[str], rows: Sequence[Row], differences: Sequence[Row] = ()
) -> str:
    """Returns a table in which arrow keys move between cells; its first cell can be reached by the tab key."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = _join_rows(rows)
    if differences:
        span = f'<th scope="rowgroup" class="group" colspan="{len(head) + 1}">differences</th>'
        body += f"<tr>{span}</tr>{_join_rows(differences)}"
    body = body.replace('tabindex="-1"', 'tabindex="0"', 1)
    caption, label = (f"<caption>{escape(title)}</caption>", "") if title else ("", f' aria-label="{escape(corner)}"')
    first = f'<tr><th scope="col">{escape(corner)}</th>{names}</tr>'
    return f'<table class="heat" role="grid"{label}>{caption}{first}{body}</table>'


def _join_rows(rows: Sequence[Row]) -> str:
    return "".join(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>' for name, cells in rows)


def _draw_legend(title: str, scale: scales.Scale, write: Callable[[float], str]) -> str:
    """Draws the steps of a scale with the numbers between them."""
    steps = [f'<i class="{css_class}"></i>' for css_class in scale.classes]
    edges = [f"<span>{write(edge)}</span>" for edge in scale.edges]
    shown = "".join(edge + step for edge, step in zip(edges, [*steps, ""], strict=True))
    return f'<span class="scale"><span>{escape(title)}</span>{shown}</span>'


def _limit_maps(*groups: Sequence[tuple[str, Record]]) -> tuple[list[list[tuple[str, Record]]], int]:
    """Returns the maps that fit on a page, systems before differences, and how many do not."""
    room, left_out = MOST_CELLS, 0
    shown: list[list[tuple[str, Record]]] = []
    for group in groups:
        fitting = []
        for title, numbers in group:
            room -= len(numbers["cells"])
            if room >= 0:
                fitting.append((title, numbers))
        left_out += len(group) - len(fitting)
        shown.append(fitting)
    return shown, left_out


def _count_columns(systems: int, pairs: int) -> int:
    """Returns how many squares stand side by side: all, or else systems above their differences."""
    most = (ROOM + GAP) // (LEAST_WIDTH + GAP)
    return systems + pairs if systems + pairs <= 6 else max(1, min(most, max(systems, pairs)))


def _choose_digits(columns: int, languages: int) -> int | None:
    """Returns the decimals that fit into the cells of a square."""
    width = min((ROOM - GAP * (columns - 1)) / columns, 320) / (languages + MARGINS)
    return 1 if width >= 20 else 0 if width >= 13 else None


def _list_languages(data: Record) -> list[list[str]]:
    return [cell["languages"] for system in data["systems"].values() for cell in system["cells"].values()]
