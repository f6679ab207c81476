# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the outputs of a model for all examples of a set: each once, sorted by length, on any number of devices."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from xlkd.data import batches
from xlkd.data.buckets import BASE_WIDTH, choose_edges, find_tile, make_encoder_cost
from xlkd.errors import UserError
from xlkd.methods import Tree
from xlkd.models.outputs import OutputFn
from xlkd.runtime import mesh as meshes
from xlkd.tasks import Batch, Draw, Features, Outputs, Task

_SMALL = 1024  # a larger batch is not padded beyond the number of examples
_USEFUL = 8  # rows of an accelerator in a batch: the rows of a TPU's tile
_CACHED = 2048  # tokens of a CPU's batch: the hidden states of more leave its caches between two operations
EVALUATION = Draw(seed=0, step=0, purpose="evaluation")


class Evaluator:
    """A compiled forward pass for each shape, which later evaluations use again.

    `buckets` is the number of padded lengths to choose for each set, or the padded lengths themselves.
    """

    def __init__(self, outputs: OutputFn, mesh: Mesh, *, batch: int, buckets: int | tuple[int, ...]) -> None:
        self._forward = jax.jit(meshes.trace_with_mesh(mesh, outputs), out_shardings=meshes.replicated_sharding(mesh))
        self._mesh, self._buckets = mesh, buckets
        self._batch, self._shards = batch, meshes.count_row_shards(mesh)
        platform = mesh.devices.flat[0].platform
        self._is_cpu, self._cost = platform == "cpu", make_encoder_cost(BASE_WIDTH, find_tile(platform))
        self._least = 1 if self._is_cpu else _USEFUL

    def describe_batch(self, examples: int) -> str:
        """Says in one line how many rows a batch has if they are more than asked for, else nothing."""
        rows = choose_batch(self._batch, examples, self._shards, self._least)
        if rows == choose_batch(self._batch, examples, self._shards, 1):
            return ""
        return f"evaluation batches of {rows} rows instead of {self._batch}: {rows // self._shards} on each device"

    def compute_outputs(
        self, variables: Tree, task: Task, features: Features, stop: Callable[[], None] = lambda: None
    ) -> Outputs:
        """Returns the outputs, {name: [feature rows, …]}, in the order of the features.

        `stop` is called before each batch; it ends the evaluation by raising an exception.
        """
        lengths = task.lengths(features)
        view = next(iter(lengths))
        asked, edges = self._batch, self._buckets
        if self._is_cpu:  # padded lengths that are set fit any set: its own lengths must not change the shapes
            usual = np.array(edges) if isinstance(edges, tuple) else lengths[view]
            asked = min(asked, count_cached_rows(usual) * self._shards)
        if isinstance(edges, int):
            edges = choose_edges(lengths[view], edges, cost=self._cost)
        rows = choose_batch(asked, len(lengths[view]), self._shards, self._least)
        plan = batches.plan_by_length(lengths, batch=rows, edges=edges)
        parts: list[tuple[np.ndarray, Tree]] = []
        for planned in plan:
            stop()
            parts.append((planned.index, self._forward(variables, self._place_batch(task, features, planned))))
            if len(parts) > 1:  # the device computes one batch while the outputs of the previous one are copied
                parts[-2] = parts[-2][0], jax.device_get(parts[-2][1])
        joined = join_outputs([(index, jax.device_get(outputs)) for index, outputs in parts], len(lengths[view]))
        check_finite(joined)
        return joined

    def _place_batch(self, task: Task, features: Features, planned: batches.PlannedBatch) -> Batch:
        """Puts a batch on the devices; a process reads only the rows of its own devices."""
        index = meshes.select_local_rows(self._mesh, planned.index)
        batch = task.arrays(features, index, dict(planned.shape.lengths), EVALUATION)
        return meshes.place_batch(self._mesh, batch, len(planned.index))


def choose_batch(asked: int, examples: int, shards: int, least: int) -> int:
    """Returns the rows of a batch: as many in each shard, and `least` if as many are asked for and there are enough."""
    rows = -(-min(asked, max(examples, _SMALL)) // shards)
    return max(rows, min(least, asked, -(-examples // shards))) * shards


def count_cached_rows(lengths: np.ndarray) -> int:
    """Returns the number of rows of mean length whose hidden states stay in the caches of a CPU, at least one."""
    return max(1, round(_CACHED / max(float(np.mean(lengths)), 1.0))) if len(lengths) else 1


def check_finite(outputs: Outputs) -> None:
    """Refuses outputs that overflowed: NaN, or infinite where it does not mark a position as excluded."""
    for name, value in outputs.items():
        if not np.issubdtype(value.dtype, np.inexact):
            continue
        wrong = ~np.isfinite(value) if name.startswith("logits") else np.isnan(value) | (value == np.inf)
        if wrong.any():
            count = int(wrong.reshape(len(wrong), -1).any(1).sum())
            what = f"the model's {name} are NaN or infinite for {count} of {len(wrong)} inputs"
            raise UserError(what, "", "its weights are too large to compute with: use an earlier checkpoint")


def join_outputs(parts: list[tuple[np.ndarray, Outputs]], rows: int) -> Outputs:
    """Joins the outputs of batches, each given with the feature rows that it contains, in the order of the rows.

    A row of -1 is padding and is left out. Outputs of tokens are as wide as in the longest bucket, filled with 0.
    """
    joined: Outputs = {}
    for name, example in parts[0][1].items() if parts else ():
        widest = np.max([outputs[name].shape[1:] for _, outputs in parts], axis=0).astype(int)
        joined[name] = np.zeros((rows, *widest), example.dtype)
        for index, outputs in parts:
            value, present = outputs[name], index >= 0
            joined[name][(index[present], *map(slice, value.shape[1:]))] = value[present]
    return joined
