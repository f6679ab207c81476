# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Real batches for a bench: rows of any source through our own pipeline, and fair samples of an epoch's steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data.batches import PlannedBatch, Shape
from xlkd.inputs import data as inputs
from xlkd.inputs import trimming
from xlkd.inputs.weights import resolve_teacher, resolve_weights
from xlkd.runtime.log import Log
from xlkd.spec.stage import StageSettings
from xlkd.tasks import Draw


@dataclasses.dataclass(frozen=True)
class Material:
    """Tokenized rows, their plan of batches, and how many pieces their texts use."""

    task: Any
    features: Any
    plan: Any
    vocabulary: int

    def batch(self, planned: PlannedBatch) -> Any:
        return self.task.arrays(self.features, planned.index, dict(planned.shape.lengths), Draw(0, 0))

    def keys(self, planned: PlannedBatch) -> np.ndarray:
        return np.asarray(self.features["keys"])[planned.index]

    @property
    def lengths(self) -> np.ndarray:
        return self.plan.lengths[self.plan.view]


def read(stage: StageSettings[Any, Any]) -> Material:
    """The training rows of a stage; the vocabulary is cut to what they use, as `encoder.trim_vocab` does."""
    weights = resolve_weights(stage, {}, None)
    weights = trimming.trim_weights(weights, inputs.iterate_examples(stage), log=print)
    found = inputs.read_training_data(stage, weights, resolve_teacher(stage), Log())
    return Material(found.task, found.features, found.plan, weights.architecture.vocab_size)


def bucketed(found: Material, count: int) -> list[PlannedBatch]:
    """So many full steps of an epoch, each bucket in its share."""
    steps = [found.plan.at(step) for step in range(found.plan.steps_per_epoch)]
    return evenly([step for step in steps if (step.index >= 0).all()], count, lambda step: step.shape.lengths[0][1])


def shuffled(found: Material, count: int, pad_to: int = 0) -> list[PlannedBatch]:
    """So many batches of rows in any order, padded to one length, or each to its longest row (0)."""
    rows, size = found.plan.rows, found.plan.batch
    order = np.random.default_rng(0).permutation(rows)[: rows // size * size].reshape(-1, size)
    view = found.plan.view

    def planned(index: np.ndarray) -> PlannedBatch:
        return PlannedBatch(index, Shape(size, ((view, pad_to or int(found.lengths[index].max())),)))

    return evenly([planned(index) for index in order], count, lambda step: step.shape.lengths[0][1])


def evenly(steps: Sequence[PlannedBatch], count: int, by: Any) -> list[PlannedBatch]:
    """Every n-th in the order of their cost, in no order of it."""
    ordered = sorted(steps, key=by)
    places = (np.arange(count) + 0.5) * len(ordered) / count
    chosen = [ordered[int(place)] for place in places]
    return [chosen[i] for i in np.random.default_rng(1).permutation(count)]


def padding(steps: Sequence[PlannedBatch], found: Material) -> str:
    """For the title of a table: how much of these batches is padding."""
    real = sum(int(found.lengths[step.index].sum()) for step in steps)
    return f"{1 - real / sum(step.shape.rows * step.shape.lengths[0][1] for step in steps):.0%}"
