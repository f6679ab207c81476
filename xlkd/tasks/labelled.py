# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes labelled examples before any tokenizer reads them: labels, groups, repeated texts."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Iterable, Sequence

from xlkd.data import labels
from xlkd.data.sources import Rows
from xlkd.files import Json
from xlkd.rows import Cell, Labelled


def describe_labelled(rows: Sequence[Labelled]) -> dict[str, Json]:
    """Counts labels, groups and repeated texts by cell, and lists ids whose labels differ between cells.

    `cells` has by cell the number of examples (`rows`), of `groups`, of examples in the `largest` group, without a
    label (`no_label`), with two `equal_sides`, with texts that occur again in the same split (`repeated`) or in another
    one (`elsewhere`), and with each label. Each source of a source string is a split; if there are several, the cells
    are numbered. `similar_labels` has groups of labels that may be meant as one. `shown` is the line for the console.
    """
    splits = [list(part) for part in (rows.parts if isinstance(rows, Rows) else (rows,))]
    order = labels.order_labels(row.label for split in splits for row in split if row.label is not None)
    elsewhere = _find_repeated_texts(texts for split in splits for texts in set(map(_list_texts, split)))
    cells = {}
    for number, split in enumerate(splits, 1):
        repeated = _find_repeated_texts(map(_list_texts, split))
        for name, examples in _group_by_cell(split).items():
            cell = name if len(splits) == 1 else f"{name} ({number})"
            cells[cell] = _count_cell(examples, repeated, elsewhere, order)
    similar = labels.find_similar_labels(order)
    differing = [id for split in splits for id in _find_ids_with_several_labels(split)]
    left_out = collections.Counter(reason for _, reason in (rows.dropped if isinstance(rows, Rows) else ()))
    without = sum(cell["no_label"] for cell in cells.values())
    return {
        "shown": _summarize(order, similar, without, len(differing), left_out),
        "cells": cells,
        "similar_labels": similar,
        "labels_differ": differing,
        "left_out": sorted(left_out.items()),
    }


def _group_by_cell(rows: Iterable[Labelled]) -> dict[str, list[Labelled]]:
    cells: dict[str, list[Labelled]] = {}
    for row in rows:
        cells.setdefault(str(Cell.from_example(row)), []).append(row)
    return cells


def _count_cell(
    rows: Sequence[Labelled], repeated: set[Hashable], elsewhere: set[Hashable], order: Sequence[str]
) -> dict[str, int]:
    groups = collections.Counter(row.group for row in rows)
    by_label = collections.Counter(row.label for row in rows if row.label is not None)
    counts = {
        "rows": len(rows),
        "groups": len(groups),
        "largest": max(groups.values()),
        "no_label": sum(row.label is None for row in rows),
        "equal_sides": sum(row.text == row.second for row in rows),
        "repeated": sum(_list_texts(row) in repeated for row in rows),
        "elsewhere": sum(_list_texts(row) in elsewhere for row in rows),
    }
    # A label can have the name of a count
    return counts | {f"label {label}" if label in counts else label: by_label[label] for label in order}


def _list_texts(row: Labelled) -> tuple[str, str, str | None]:
    return row.language, row.text, row.second


def _find_repeated_texts(values: Iterable[Hashable]) -> set[Hashable]:
    return {value for value, count in collections.Counter(values).items() if count > 1}


def _find_ids_with_several_labels(rows: Iterable[Labelled]) -> list[str]:
    """Returns the ids whose label in one language differs from that in another."""
    by_id: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for row in rows:
        if row.label is not None:
            by_id[row.set, labels.alignment_id(row)].add(row.label)
    return [id for (_, id), names in by_id.items() if len(names) > 1]


def _summarize(
    order: Sequence[str],
    similar: Sequence[tuple[str, ...]],
    without: int,
    differing: int,
    left_out: collections.Counter[str],
) -> str:
    parts = [f"labels {', '.join(order)}" if order else "no labels"]
    parts += [
        f"warning: labels that differ only in spelling are different labels: {', '.join(map(repr, group))}"
        for group in similar[:3]
    ]
    if without:
        parts.append(f"{without} rows without a label: they can be predicted, not scored")
    if differing:
        parts.append(f"{differing} ids whose label differs between languages")
    parts += [f"{count} rows left out: {reason}" for reason, count in left_out.most_common(3)]
    return "; ".join(parts)
