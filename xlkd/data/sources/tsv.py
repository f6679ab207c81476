# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tsv:FILE?languages=de`: a table with tabs, without quoting unless `quoting=csv`; `_generic` says how it is read."""

from __future__ import annotations

from xlkd.data.sources import Bad, Spec, _generic, _labelled
from xlkd.rows import Labelled, Pair

TASKS = _generic.TASKS


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Labelled, ...] | tuple[Pair, ...]:
    """The rows of the file in its order."""
    form = _labelled.QUOTING[spec.choice("quoting", tuple(_labelled.QUOTING))]
    return _generic.rows(spec, task, bad, form, "quoting")
