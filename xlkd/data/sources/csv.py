# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`csv:FILE?languages=de`: a table with commas, in CSV quoting; `_generic` says how it is read."""

from __future__ import annotations

from xlkd.data.sources import Bad, Spec, _generic, _table
from xlkd.rows import Labelled, Pair

TASKS = _generic.TASKS


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Labelled, ...] | tuple[Pair, ...]:
    """The rows of the file in its order."""
    return _generic.rows(spec, task, bad, _table.CSV)
