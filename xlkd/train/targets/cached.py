# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the targets of a fixed teacher once per feature row, before the first step, and caches them on disk."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

import jax
import numpy as np

from xlkd.data import cache
from xlkd.data.batches import PAD, Plan, PlannedBatch, Shape
from xlkd.data.targets import TargetStore, Values
from xlkd.methods import Batch, State, Teacher, Tree
from xlkd.runtime import distributed
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import format_duration
from xlkd.tasks import Draw
from xlkd.train.targets.audit import SAMPLE, check_targets
from xlkd.train.targets.live import TeacherForward

if TYPE_CHECKING:
    from xlkd.train.loop import Job

TEACHER_DRAW = Draw(0, 0)  # the random draws in the teacher's inputs: the same at every step
SHARD = 4096  # rows
Missing = list[tuple[Shape, TargetStore, np.ndarray]]  # of each shape the rows that have no target yet


class CachedTargets:
    """Targets from the cache, which `fill_cache` fills; a row has a target in the shape of its own bucket only.

    For a batch in a larger shape the teacher is asked.
    """

    def __init__(self, job: Job, plan: Plan, teacher: Teacher, fixed: Tree) -> None:
        self._job, self._plan, self._teacher, self._fixed = job, plan, teacher, fixed
        self._forward = TeacherForward(teacher, fixed, job.mesh)
        self._stores: dict[Shape, TargetStore] = {}
        self._rows: dict[Shape, np.ndarray] = {}  # the rows whose target in this shape is cached

    def compile(self, shape: Shape, batch: Batch, state: State) -> Tree:
        return self._forward.compile(shape, batch, state)

    def ask_teacher(self, shape: Shape, batch: Batch, state: State | None) -> Tree:
        return self._forward(shape, batch, state)

    def for_batch(self, planned: PlannedBatch) -> Values | None:
        store = self._stores.get(planned.shape)
        if store is None or not self._is_cached_everywhere(planned):
            return None
        index = meshes.select_local_rows(self._job.mesh, planned.index)
        values = store.take(self._get_keys(index[index >= 0]), _get_length(planned.shape))
        padding = len(index) - int((index >= 0).sum())
        return values and {n: np.pad(v, [(0, padding)] + [(0, 0)] * (v.ndim - 1)) for n, v in values.items()}

    def _is_cached_everywhere(self, planned: PlannedBatch) -> bool:
        """Returns whether every process has its rows in the cache: either all of them ask the teacher, or none."""
        index = planned.index[planned.index >= 0]
        return not distributed.has_several_processes() or bool(np.isin(index, self._rows[planned.shape]).all())

    def fill_cache(self) -> None:
        """Checks a sample of the targets that are in the cache, and computes those that are missing."""
        identity = self._list_dependencies()
        missing: Missing = []
        for number, shape in enumerate(self._job.shapes):
            store = TargetStore(cache.make_name("targets", [*identity, str(shape)]), self._teacher.ragged)
            rows = np.flatnonzero(self._plan.bucket == number)
            self._stores[shape], self._rows[shape] = store, rows
            missing.append((shape, store, rows[distributed.any_process(store.find_missing(self._get_keys(rows)))]))
        self._log_estimate(missing)
        for shape, store, _ in missing:
            self._audit(shape, store)
        for shape, store, rows in missing:
            self._fill(shape, store, rows)

    def _log_estimate(self, missing: Missing) -> None:
        """Logs the size of the cache and the time that it takes and saves, from one timed batch of each shape."""
        size = seconds = 0.0
        for shape, _, rows in missing:
            if len(rows):
                batch_seconds, row_bytes = self._time_teacher(shape, rows[:1])
                seconds += -(-len(rows) // shape.rows) * batch_seconds
                size += row_bytes * len(rows)
        cached = sum(len(store) for _, store, _ in missing)
        new = sum(len(rows) for _, _, rows in missing)
        saved = (self._teacher.uses * (new + cached) / max(new, 1) - 1) * seconds if new else 0.0
        self._job.log(
            f"teacher cache: {cached} targets cached, {new} to compute, {size / 2**20:.1f} MiB, "
            f"about {format_duration(seconds)} to compute and {format_duration(saved)} saved: "
            f"each is used {self._teacher.uses:g} times"
        )

    def _time_teacher(self, shape: Shape, row: np.ndarray) -> tuple[float, float]:
        """Returns the seconds of a batch, and the bytes of the targets of a row."""
        batch = self._build_batch(shape, row)
        jax.block_until_ready(self.ask_teacher(shape, batch, None))
        start = time.perf_counter()
        targets = jax.block_until_ready(self.ask_teacher(shape, batch, None))
        return time.perf_counter() - start, sum(x.nbytes for x in jax.tree.leaves(targets)) / shape.rows

    def _fill(self, shape: Shape, store: TargetStore, rows: np.ndarray) -> None:
        """Computes the targets of these rows, and stores them shard by shard."""
        for start in range(0, len(rows), SHARD):
            shard, batches = rows[start : start + SHARD], []
            for at in range(0, len(shard), shape.rows):
                batch_rows = shard[at : at + shape.rows]
                batches.append(self._compute(shape, batch_rows))
                self._job.log.live(f"teacher: {start + at + len(batch_rows)} of {len(rows)} targets of {shape}")
            values = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
            store.add(self._get_keys(shard), values, self._get_lengths(shard))

    def _audit(self, shape: Shape, store: TargetStore) -> None:
        """Computes a sample of the cached targets again; refuses the cache if one differs by more than rounding."""
        sample = set(store.sample(np.random.default_rng(self._job.seed), per_shard=SAMPLE))
        keys = self._get_keys(np.arange(self._plan.rows)).tolist()
        rows = np.flatnonzero(distributed.any_process(np.array([key in sample for key in keys], bool)))
        for at in range(0, len(rows), shape.rows):
            batch_rows = rows[at : at + shape.rows]
            cached = store.take(self._get_keys(batch_rows), _get_length(shape))
            fresh = self._compute(shape, batch_rows)
            if cached:  # with several processes, one of them may not have all rows in its cache
                keys_of_batch, lengths = self._get_keys(batch_rows), self._get_lengths(batch_rows)
                check_targets(keys_of_batch, cached, fresh, self._teacher.ragged, lengths)

    def _compute(self, shape: Shape, rows: np.ndarray) -> Values:
        """Computes the targets of at most a batch of rows."""
        targets = distributed.gather_to_host(self.ask_teacher(shape, self._build_batch(shape, rows), None))
        return {name: np.asarray(value)[: len(rows)] for name, value in targets.items()}

    def _build_batch(self, shape: Shape, rows: np.ndarray) -> Batch:
        """Builds a batch of these rows and padding, and places it on the devices."""
        index = np.concatenate([rows, np.full(shape.rows - len(rows), PAD)])
        local_rows = meshes.select_local_rows(self._job.mesh, index)
        arrays = self._job.task.arrays(self._job.features, local_rows, dict(shape.lengths), TEACHER_DRAW)
        return meshes.place_batch(self._job.mesh, arrays, shape.rows)

    def _get_keys(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._job.features["keys"])[rows]

    def _get_lengths(self, rows: np.ndarray) -> np.ndarray:
        return self._plan.lengths[self._plan.view][rows]

    def _list_dependencies(self) -> list[str]:
        """Lists everything that a target depends on except its example and its shape."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._fixed):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(distributed.gather_to_host(leaf)).tobytes())
        mesh = self._job.mesh
        return [digest.hexdigest(), self._job.task.identity(), self._job.teacher_dtype, jax.__version__, str(mesh)]


def _get_length(shape: Shape) -> int:
    """Returns the length of the first view, which is the most expensive one."""
    return shape.lengths[0][1]
