# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentence retrieval: accuracy in both directions by pair of languages."""

from __future__ import annotations

from collections.abc import Sequence

from xlkd.reports import grid
from xlkd.reports.files import Record

METRICS = ("retrieval", "to_source", "to_target")  # the first is the mean of the two directions
PRIMARY = ("macro_mean",)


def table(rows: Sequence[Record]) -> grid.Table:
    both = [row | {"retrieval": (row["to_source"] + row["to_target"]) / 2} for row in rows]
    return grid.table(METRICS, both, lambda row: (row["source_language"], row["target_language"]), learned=False)


def means(held: grid.Table) -> dict[str, grid.Mean]:
    return {"macro_mean": grid.Mean(tuple(held.rows))}
