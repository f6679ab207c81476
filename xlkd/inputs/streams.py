# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parallel text as a run reads it: composed of corpora, and block by block where it does not fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data import composition, sources
from xlkd.data.blocks import Blocks
from xlkd.data.permutation import Permutation
from xlkd.models.encoder import Architecture
from xlkd.spec.stage import StageSettings
from xlkd.tasks import Features, Task

SAMPLE = 2048  # rows from which lengths are judged


def composed(settings: StageSettings[Any, Any], rows: sources.Rows) -> sources.Rows:
    """Rows by pair of languages, capped, and English with itself: what `config.data` asks of parallel text."""
    data = settings.data
    if not data.cap and not data.identities:
        return rows
    rule = {"cap": data.cap, "take": data.take, "identities": data.identities}
    joined = composition.compose(rows.parts, seed=settings.seed, **rule)
    return sources.Rows((joined,), rows.dropped)


def wanted(settings: StageSettings[Any, Any], rows: Sequence[Any]) -> bool:
    return 0 < settings.data.block < len(rows)


def sample(settings: StageSettings[Any, Any], rows: sources.Rows) -> sources.Rows:
    """Some rows from everywhere."""
    joined = composition.JoinedRows(rows.parts)
    places = Permutation(len(joined), seed=settings.seed, purpose="sample").at(np.arange(min(SAMPLE, len(joined))))
    return sources.Rows((tuple(joined.read_many(places)),), rows.dropped)


def blocks(
    settings: StageSettings[Any, Any],
    task: Task,
    rows: sources.Rows,
    looked_at: Features,
    edges: Sequence[int],
    architecture: Architecture,
) -> Blocks:
    """Buckets as the sample has them; the last one holds whatever comes."""
    longest = min(settings.task.max_length, architecture.max_length)
    limits = dict.fromkeys(task.lengths(looked_at), longest)
    if "word" in limits:  # it is never cut
        limits["word"] = architecture.max_length
    return Blocks(
        composition.JoinedRows(rows.parts),
        task.features,
        task.lengths,
        batch=settings.data.batch,
        block=settings.data.block,
        edges=(*(int(edge) for edge in edges[:-1] if edge < longest), max(longest, int(edges[-1]))),
        limits=limits,
        seed=settings.seed,
    )
