# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Real batches for a benchmark: rows of any source through our pipeline, and even samples of an epoch's steps."""

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
    """Tokenized rows, their plan of batches, and the number of tokens that their texts use."""

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


def read_material(stage: StageSettings[Any, Any]) -> Material:
    """Reads the training rows of a stage; trims the vocabulary to their tokens, as `encoder.trim_vocab` does."""
    weights = resolve_weights(stage, {}, None)
    weights = trimming.trim_weights(weights, inputs.iterate_examples(stage), log=print)
    data = inputs.read_training_data(stage, weights, resolve_teacher(stage), Log())
    return Material(data.task, data.features, data.plan, weights.architecture.vocab_size)


def sample_bucketed(material: Material, count: int) -> list[PlannedBatch]:
    """Samples `count` full steps of an epoch, with each bucket in its share."""
    steps = [material.plan.at(step) for step in range(material.plan.steps_per_epoch)]
    return sample_evenly(
        [step for step in steps if (step.index >= 0).all()], count, lambda step: step.shape.lengths[0][1]
    )


def sample_shuffled(material: Material, count: int, pad_to: int = 0) -> list[PlannedBatch]:
    """Samples `count` shuffled batches, padded to one length, or each to its longest row if `pad_to` is 0."""
    rows, size = material.plan.rows, material.plan.batch
    order = np.random.default_rng(0).permutation(rows)[: rows // size * size].reshape(-1, size)
    view = material.plan.view

    def plan_batch(index: np.ndarray) -> PlannedBatch:
        return PlannedBatch(index, Shape(size, ((view, pad_to or int(material.lengths[index].max())),)))

    return sample_evenly([plan_batch(index) for index in order], count, lambda step: step.shape.lengths[0][1])


def sample_evenly(steps: Sequence[PlannedBatch], count: int, by: Any) -> list[PlannedBatch]:
    """Takes every n-th step in the order of their cost, and shuffles them."""
    ordered = sorted(steps, key=by)
    places = (np.arange(count) + 0.5) * len(ordered) / count
    chosen = [ordered[int(place)] for place in places]
    return [chosen[i] for i in np.random.default_rng(1).permutation(count)]


def measure_padding(steps: Sequence[PlannedBatch], material: Material) -> str:
    """Returns the share of padding in these batches, as a text for the title of a table."""
    real = sum(int(material.lengths[step.index].sum()) for step in steps)
    return f"{1 - real / sum(step.shape.rows * step.shape.lengths[0][1] for step in steps):.0%}"
