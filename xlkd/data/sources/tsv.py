# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tsv:FILE?languages=de`: a table with tabs, without quoting unless `quoting=csv`, read as `_generic` describes."""

from __future__ import annotations

from xlkd.data.sources import BadRows, Source, _generic, _labelled
from xlkd.rows import Labelled, Pair

TASKS = _generic.TASKS
OPTIONS = _generic.QUOTED_OPTIONS


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Labelled, ...] | tuple[Pair, ...]:
    """Returns the rows of the file in its order."""
    form = _labelled.QUOTING[source.choice("quoting", tuple(_labelled.QUOTING))]
    return _generic.rows(source, task, bad_rows, form)
