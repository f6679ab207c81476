# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes outputs over all examples of a set: each once, sorted by length, on any number of devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from xlkd.data import batches
from xlkd.data.buckets import choose_edges
from xlkd.models.outputs import OutputFn
from xlkd.runtime import mesh as meshes
from xlkd.tasks import Draw, Features, Task

EVALUATION = Draw(seed=0, step=0, purpose="evaluation")


class Evaluator:
    """Holds the compiled forward passes, one for each shape, so that each evaluation after the first only runs.

    `buckets` says how many padded lengths are chosen for each set, or which there are for all sets.
    """

    def __init__(self, outputs: OutputFn, mesh, *, batch: int, buckets: int | tuple[int, ...]) -> None:
        self._forward = jax.jit(meshes.trace_with_mesh(mesh, outputs), out_shardings=meshes.replicated_sharding(mesh))
        self._mesh, self._buckets = mesh, buckets
        shards = meshes.count_row_shards(mesh)
        self._batch = -(-batch // shards) * shards

    def outputs(
        self, variables: Any, task: Task, features: Features, stop: Callable[[], None] = lambda: None
    ) -> dict[str, np.ndarray]:
        """Returns {name: [rows of the features, …]} in the order of the features."""
        lengths = task.lengths(features)
        view = next(iter(lengths))
        chosen = self._buckets if isinstance(self._buckets, tuple) else choose_edges(lengths[view], self._buckets)
        plan = batches.plan_by_length(lengths, batch=self._batch, edges=chosen)
        parts: list[tuple[np.ndarray, Any]] = []
        for planned in plan:
            stop()
            parts.append((planned.index, self._forward(variables, self._place(task, features, planned))))
            if len(parts) > 1:  # one batch computes while the one before it is read
                parts[-2] = parts[-2][0], jax.device_get(parts[-2][1])
        return joined([(index, jax.device_get(outputs)) for index, outputs in parts], len(lengths[view]))

    def _place(self, task: Task, features: Features, planned: batches.PlannedBatch) -> Any:
        index = meshes.select_local_rows(self._mesh, planned.index)
        batch = task.arrays(features, index, dict(planned.shape.lengths), EVALUATION)
        return meshes.place_batch(self._mesh, batch, len(planned.index))


def joined(parts: list[tuple[np.ndarray, dict[str, np.ndarray]]], rows: int) -> dict[str, np.ndarray]:
    """Joins the outputs of batches in the order of rows, -1 being none; values of tokens are 0 beyond their bucket."""
    found: dict[str, np.ndarray] = {}
    for name, first in parts[0][1].items() if parts else ():
        widest = np.max([outputs[name].shape[1:] for _, outputs in parts], axis=0).astype(int)
        found[name] = np.zeros((rows, *widest), first.dtype)
        for index, outputs in parts:
            value, present = outputs[name], index >= 0
            found[name][(index[present], *map(slice, value.shape[1:]))] = value[present]
    return found
