# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a set of labelled rows holds, before any tokenizer: labels, groups, and what a careful reader asks of it."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from xlkd.data import labels
from xlkd.rows import Cell, Labelled


def contents(rows: Sequence[Labelled]) -> dict[str, Any]:
    """By cell: rows, groups and the largest, rows without a label, with two equal sides, with texts that stand more
    than once in their split or also in another one, rows of each label; and what concerns several cells.

    Each source of a source string counts as a split: of several the cells are numbered.
    """
    splits = [list(part) for part in getattr(rows, "parts", (rows,))]
    order = labels.order_labels(row.label for split in splits for row in split if row.label is not None)
    elsewhere = _more_than_once(texts for split in splits for texts in set(map(_texts, split)))
    cells = {}
    for number, split in enumerate(splits, 1):
        repeated = _more_than_once(map(_texts, split))
        for name, those in by_cell(split).items():
            cell = name if len(splits) == 1 else f"{name} ({number})"
            cells[cell] = _counts(those, repeated, elsewhere, order)
    differing = [id for split in splits for id in _differing(split)]
    left_out = collections.Counter(reason for _, reason in getattr(rows, "dropped", ()))
    without = sum(cell["no_label"] for cell in cells.values())
    return {
        "shown": _shown(order, without, len(differing), left_out),
        "cells": cells,
        "labels_differ": differing,
        "left_out": sorted(left_out.items()),
    }


def by_cell(rows: Iterable[Labelled]) -> dict[str, list[Labelled]]:
    found: dict[str, list[Labelled]] = {}
    for row in rows:
        found.setdefault(str(Cell.from_example(row)), []).append(row)
    return found


def _counts(rows: Sequence[Labelled], repeated: set, elsewhere: set, order: Sequence[str]) -> dict[str, int]:
    groups = collections.Counter(row.group for row in rows)
    named = collections.Counter(labels.normalise_label(row.label) for row in rows if row.label is not None)
    return {
        "rows": len(rows),
        "groups": len(groups),
        "largest": max(groups.values()),
        "no_label": sum(row.label is None for row in rows),
        "equal_sides": sum(row.text == row.second for row in rows),
        "repeated": sum(_texts(row) in repeated for row in rows),
        "elsewhere": sum(_texts(row) in elsewhere for row in rows),
        **{label: named[label] for label in order},
    }


def _texts(row: Labelled) -> tuple[str, str, str | None]:
    return row.language, row.text, row.second


def _more_than_once(found: Iterable[Hashable]) -> set[Hashable]:
    return {one for one, count in collections.Counter(found).items() if count > 1}


def _differing(rows: Iterable[Labelled]) -> list[str]:
    """The ids that have one label in one language and another in another."""
    named: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for row in rows:
        if row.label is not None:
            named[row.set, labels.alignment_id(row)].add(labels.normalise_label(row.label))
    return [id for (_, id), found in named.items() if len(found) > 1]


def _shown(order: Sequence[str], without: int, differing: int, left_out: collections.Counter[str]) -> str:
    parts = [f"labels {', '.join(order)}" if order else "no labels"]
    if without:
        parts.append(f"{without} rows without a label: they can be predicted, not scored")
    if differing:
        parts.append(f"{differing} ids whose label differs between languages")
    parts += [f"{count} rows left out: {reason}" for reason, count in left_out.most_common(3)]
    return "; ".join(parts)
