# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws forest plots: differences as sentences, each beside its interval, on one axis."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

from xlkd.reports import draws, plots, tables, words
from xlkd.reports.files import Record

LONGEST_UNIT = 8  # characters of a metric's label that is written after a number
MOST_ROWS = 24


@dataclasses.dataclass(frozen=True)
class Difference:
    """Holds a difference between two systems in a mean; `mean` names it where the plot has several.

    `primary` says whether the config names it so. `spread` is the t-interval of seeds on the same questions.
    """

    systems: str
    unit: str
    number: Record
    mean: str = ""
    primary: bool = False
    spread: tuple[float, float] | None = None

    def write_subject(self) -> str:
        """Writes what is compared, for example `skd − ce, zero-shot mean`."""
        return f"{self.systems}, {self.mean}" if self.mean else self.systems

    def write_value(self) -> str:
        """Writes the difference with its interval, for example `+0.6 F1 (−0.5 to 1.8)`."""
        value, _, interval = words.format_difference(self.number).partition(" ")
        return f"{value} {self.unit} {interval}".rstrip()

    def write_verdict(self) -> str:
        """Writes the verdict, for example `no significant difference (p 0.17)`, with the adjusted p."""
        adjusted = self.number["adjusted"]
        p = f" (p {words.format_p(adjusted)})" if self.primary and adjusted is not None else ""
        return words.VERDICTS[self.number["verdict"]] + p

    def list_ends(self) -> list[float]:
        """Returns all values that the plot must have room for."""
        ends = (self.number["low"], self.number["high"])
        seeds = (*self.number.get("by_seed", ()), *(self.spread or ()))
        return [self.number["value"], *seeds, *(end for end in ends if end is not None)]


def list_differences(data: Record, names: Callable[[Record], Sequence[str]]) -> list[Difference]:
    """Returns the differences in the main metric, of the means that `names` returns for each comparison."""
    metric = data["main"]
    label = data["labels"][metric]
    unit = label if len(label) <= LONGEST_UNIT else "points"
    chosen = [
        (pair, compared, name, entry)
        for pair, compared in data["comparisons"].items()
        for name in names(compared)
        if metric in (entry := compared["averages"].get(name, {}))
    ]
    several = len({name for _, _, name, _ in chosen}) > 1
    return [
        Difference(
            f"{compared['a']} − {compared['b']}",
            unit,
            entry[metric],
            words.shorten_average(name, entry) if several else "",
            primary=pair in data["primary"] and name in compared["primary"],
            spread=None if "draws" in data else _compute_spread(entry[metric]),
        )
        for pair, compared, name, entry in chosen
    ]


def _compute_spread(number: Record) -> tuple[float, float] | None:
    """Returns the t-interval over the seeds of a difference."""
    _, low, high, _ = draws.compute_t_interval(number.get("by_seed", ()))
    return None if low is None or high is None else (low, high)


def draw_forest(differences: Sequence[Difference]) -> str:
    """Draws a list item for each difference: its sentence, and its interval, with a dot for each seed below it.

    Where only some are primary, these have a heading, and the others too.
    """
    shown = differences[:MOST_ROWS]
    family = sum(each.primary for each in shown)
    ends = [end for each in shown for end in each.list_ends()]
    low, high = plots.widen_range(min(0.0, *ends), max(0.0, *ends))
    ticks = plots.choose_ticks(low, high)

    def place(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.2f}%"

    labels = "".join(f'<text x="{place(tick)}" y="12">{words.format_tick(tick)}</text>' for tick in ticks)
    axis = f'<li class="axis" aria-hidden="true"><span></span><svg>{labels}</svg></li>'
    items = [_draw_item(each, place, ticks) for each in shown]
    if 0 < family < len(shown):
        items.insert(family, '<li class="group">others</li>')
        items.insert(0, '<li class="group">primary</li>')
    more = len(differences) - MOST_ROWS
    note = f"<p>{more} more differences are in the tables.</p>" if more > 0 else ""
    return f'<ul class="forest">{"".join(items)}{axis}</ul>{note}'


def count_verdicts(differences: Sequence[Difference]) -> str:
    """Writes in how many differences each verdict was reached, of the primary ones where there are such."""
    counted = [each for each in differences if each.primary] or differences
    counts = Counter(each.number["verdict"] for each in counted)
    parts = [f"{text} in {counts[verdict]}" for verdict, text in words.VERDICTS.items() if counts[verdict]]
    return f"{', '.join(parts)} of {len(counted)}"


def _draw_item(difference: Difference, place: Callable[[float], str], ticks: Sequence[float]) -> str:
    number = difference.number
    lines = [
        f'<line class="{"tick" if tick else "zero"}" x1="{place(tick)}" x2="{place(tick)}" y1="0" y2="100%"/>'
        for tick in ticks
    ]
    if number["low"] is not None:
        ends = f'x1="{place(number["low"])}" x2="{place(number["high"])}"'
        lines.append(f'<line class="interval" {ends} y1="50%" y2="50%"/>')
    if difference.spread:
        low, high = map(place, difference.spread)
        lines.append(f'<line class="spread" x1="{low}" x2="{high}" y1="78%" y2="78%"/>')
    lines += [f'<circle class="seed" cx="{place(seed)}" cy="78%" r="2"/>' for seed in number.get("by_seed", ())]
    lines.append(f'<circle class="point" cx="{place(number["value"])}" cy="50%" r="4.5"/>')
    significance = number["verdict"] if number["verdict"] in tables.MARKS else "unsure"
    return (
        f'<li class="{significance}"><span>{escape(difference.write_subject())}: '
        f"<b>{escape(difference.write_value())}</b>, <em>{escape(difference.write_verdict())}</em></span>"
        f'<svg aria-hidden="true">{"".join(lines)}</svg></li>'
    )
