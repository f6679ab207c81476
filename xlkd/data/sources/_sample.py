# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses whole groups at random: the options `draw` and `after` of every source whose rows are in memory.

`limit=N` alone takes the first N rows of each language, or of each pair of languages. With `draw=SEED` it takes whole
groups, such as all questions about a paragraph, in an order drawn from the seed: each group that there is still room
for. The order is the same in all languages. `after=N` leaves out every group with a row among the first N of any
language, for a sample that what was measured on those rows has not seen.
"""

from __future__ import annotations

import collections
from collections.abc import Collection, Sequence
from typing import Any

from xlkd.rows import Cell, make_key
from xlkd.spec.source import Source

OPTIONS = ("draw", "after")


def is_asked(source: Source) -> bool:
    """Says whether a source has an option that chooses groups."""
    return any(source.option(name) for name in OPTIONS)


def can_choose(options: Collection[str]) -> bool:
    """Says whether a source with these options has its rows in memory: others choose with `take` or `size`."""
    return "limit" in options and {"take", "size"}.isdisjoint(options)


def remove_options(source: Source) -> Source:
    """Returns the source with all of its rows."""
    return source.remove_options(("limit", *OPTIONS))


def choose(source: Source, rows: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the rows that the options `after`, `draw` and `limit` choose, in their order."""
    after, limit = source.number("after"), source.number("limit")
    seed = source.number("draw") if source.option("draw") else None
    cells: dict[Cell, list[Any]] = collections.defaultdict(list)
    for row in rows:
        cells[Cell.from_example(row)].append(row)
    seen = {row.group for own in cells.values() for row in own[:after]}
    chosen: list[Any] = []
    for own in cells.values():
        unseen = [row for row in own if row.group not in seen]
        chosen += unseen[: limit or None] if seed is None else _draw_groups(unseen, seed, limit)
    return tuple(chosen)


def _draw_groups(rows: Sequence[Any], seed: int, limit: int) -> list[Any]:
    """Returns the rows of the drawn groups, of at most `limit` rows in all; 0 is no limit."""
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    chosen: list[Any] = []
    for group in sorted(groups, key=lambda group: make_key("draw", seed, group)):
        if not limit or len(chosen) + len(groups[group]) <= limit:
            chosen += groups[group]
    return chosen
