# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`csv:FILE?languages=de`: a table with commas in CSV quoting unless `quoting=none`, read as `_generic` describes."""

from __future__ import annotations

from xlkd.data.sources import BadRows, Source, _generic, _table
from xlkd.rows import Labelled, Pair

TASKS = _generic.TASKS
OPTIONS = _generic.QUOTED_OPTIONS


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Labelled, ...] | tuple[Pair, ...]:
    """Returns the rows of the file in its order."""
    form = {"csv": _table.CSV, "none": _table.PLAIN_CSV}[source.choice("quoting", ("csv", "none"))]
    return _generic.rows(source, task, bad_rows, form)
