# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Outputs of a model over all rows of a set: each row once, sorted by length, on any number of devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from xlkd.data import batches
from xlkd.data.buckets import edges
from xlkd.methods import Method, Variables
from xlkd.tasks import Draw, Features, Task
from xlkd.train import mesh as meshes

EVALUATION = Draw(seed=0, step=0, purpose="evaluation")


class Evaluator:
    """Holds the compiled forward passes, one for each shape, so that each evaluation after the first only runs.

    `buckets` says how many padded lengths are chosen for each set, or which there are for all sets.
    """

    def __init__(self, method: Method, mesh, *, batch: int, buckets: int | tuple[int, ...]) -> None:
        self._forward = jax.jit(meshes.traced(mesh, method.outputs), out_shardings=meshes.replicated(mesh))
        self._mesh, self._buckets = mesh, buckets
        shards = meshes.row_shards(mesh)
        self._batch = -(-batch // shards) * shards

    def outputs(
        self, variables: Variables, task: Task, features: Features, stop: Callable[[], None] = lambda: None
    ) -> dict[str, np.ndarray]:
        """{name: [rows of the features, …]} in the order of the features."""
        lengths = task.lengths(features)
        view = next(iter(lengths))
        chosen = self._buckets if isinstance(self._buckets, tuple) else edges(lengths[view], self._buckets)
        plan = batches.in_order_of_length(lengths, batch=self._batch, edges=chosen)
        pending, found = [], {}
        for planned in plan:
            stop()
            pending.append((planned.index, self._forward(variables, self._place(task, features, planned))))
            if len(pending) > 1:  # one batch computes while the one before it is read
                _collect(found, *pending.pop(0), rows=len(lengths[view]))
        for index, outputs in pending:
            _collect(found, index, outputs, rows=len(lengths[view]))
        return found

    def _place(self, task: Task, features: Features, planned: batches.Planned) -> Any:
        index = meshes.own_rows(self._mesh, planned.index)
        batch = task.arrays(features, index, dict(planned.shape.lengths), EVALUATION)
        return meshes.place_batch(self._mesh, batch, len(planned.index))


def _collect(found: dict, index: np.ndarray, outputs: dict, *, rows: int) -> None:
    """What is of a token each is as wide as its bucket: 0 beyond it."""
    present = index >= 0
    for name, value in jax.device_get(outputs).items():
        before = found.get(name, np.zeros((rows, *value.shape[1:]), value.dtype))
        widest = np.maximum(before.shape[1:], value.shape[1:]).astype(int)
        found[name], new = (
            np.pad(x, [(0, 0), *((0, to - had) for to, had in zip(widest, x.shape[1:], strict=True))])
            if (x.shape[1:] != tuple(widest))
            else x
            for x in (before, value)
        )
        found[name][index[present]] = new[present]
