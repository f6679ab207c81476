# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentence retrieval: accuracy in both directions by pair of languages."""

from __future__ import annotations

from collections.abc import Sequence

from xlkd.reports import grid
from xlkd.reports.files import Record

PRIMARY = ("macro_mean",)


def make_table(rows: Sequence[Record], metrics: Sequence[str]) -> grid.Table:
    """Groups rows by pair of languages."""
    return grid.make_table(
        tuple(metrics), rows, lambda row: (row["source_language"], row["target_language"]), learned=False
    )


def add_mean(row: Record) -> Record:
    """Adds the mean of both directions, which rows of version 0.1 do not contain."""
    return {"retrieval": (row["to_source"] + row["to_target"]) / 2} | row


def define_means(table: grid.Table) -> dict[str, grid.Mean]:
    """Returns the mean over all pairs."""
    return {"macro_mean": grid.Mean(tuple(table.rows))}
