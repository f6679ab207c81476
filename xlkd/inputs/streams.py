# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Composes parallel text of corpora, and streams it in blocks where it does not fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data import composition, sources
from xlkd.data.blocks import Blocks
from xlkd.data.permutation import Permutation
from xlkd.models.family import Architecture
from xlkd.runtime import distributed
from xlkd.spec.stage import AnySettings
from xlkd.tasks import Features, Task

SAMPLE = 2048  # examples by whose lengths the buckets of a streamed corpus are chosen


def compose_corpora(settings: AnySettings, rows: sources.Rows) -> sources.Rows:
    """Caps each pair of languages and adds English paired with itself, where `config.data` asks for it."""
    data = settings.data
    if not data.cap and not data.identities:
        return rows
    joined = composition.compose(
        rows.parts, seed=settings.seed, cap=data.cap, take=data.take, identities=data.identities
    )
    return sources.Rows((joined,), rows.dropped, rows.notes)


def reads_in_blocks(settings: AnySettings, rows: Sequence[Any]) -> bool:
    """Returns whether the examples are more than a block, so that they are tokenized block by block."""
    return 0 < settings.data.block < len(rows)


def sample_examples(settings: AnySettings, rows: sources.Rows) -> sources.Rows:
    """Draws `SAMPLE` examples from the whole corpus."""
    joined = composition.JoinedRows(rows.parts)
    places = Permutation(len(joined), seed=settings.seed, purpose="sample").at(np.arange(min(SAMPLE, len(joined))))
    return sources.Rows((tuple(joined.read_many(places)),), rows.dropped, rows.notes)


def plan_blocks(
    settings: AnySettings,
    task: Task,
    rows: sources.Rows,
    sampled: Features,
    edges: np.ndarray,
    architecture: Architecture,
) -> Blocks:
    """Plans a streamed corpus in the buckets of its sample; the last bucket takes the longest possible example."""
    longest = min(settings.task.max_length, architecture.max_length)
    limits = dict.fromkeys(task.lengths(sampled), longest) | dict.fromkeys(task.uncut_views, architecture.max_length)
    return Blocks(
        composition.JoinedRows(rows.parts),
        lambda rows, share: task.features(rows, share=share),
        task.lengths,
        batch=settings.data.batch,
        block=settings.data.block,
        edges=(*(int(edge) for edge in edges[:-1] if edge < longest), max(longest, int(edges[-1]))),
        limits=limits,
        seed=settings.seed,
        share=distributed.open_share("blocks"),
    )
