# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`jsonl:FILE?languages=de`: one JSON object per line, read as `_generic` describes."""

from __future__ import annotations

from xlkd.data.sources import BadRows, Source, _generic, _table
from xlkd.rows import Labelled, Pair

TASKS = _generic.TASKS
OPTIONS = _generic.OPTIONS


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Labelled, ...] | tuple[Pair, ...]:
    """Returns the rows of the file in its order."""
    return _generic.rows(source, task, bad_rows, _table.JSONL)
