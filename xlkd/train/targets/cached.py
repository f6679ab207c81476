# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A fixed teacher that is asked once an example, before the first step; its answers are kept on disk."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from xlkd.data import cache
from xlkd.data.batches import PAD, PlannedBatch, Shape
from xlkd.data.targets import TargetStore
from xlkd.runtime import distributed
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import format_duration
from xlkd.tasks import Draw
from xlkd.train.targets.audit import SAMPLE, check_targets
from xlkd.train.targets.live import TeacherForward

if TYPE_CHECKING:
    from xlkd.train.loop import Job

FIXED = Draw(0, 0)  # of what a teacher reads: the same at every step
SHARD = 4096  # rows


class CachedTargets:
    """Targets from the cache, which is filled first; a row that has none in a batch's shape is asked for."""

    def __init__(self, job: Job, fixed: Any) -> None:
        self._job, self._teacher, self._fixed = job, job.method.teacher, fixed
        self._forward = TeacherForward(job, fixed)
        self._stores: dict[Shape, TargetStore] = {}
        self._members: dict[Shape, np.ndarray] = {}  # rows that every process has

    def example(self, shape: Shape, batch: Any, state: Any) -> Any:
        return self._forward.compile(shape, batch, state)

    def ask(self, shape: Shape, batch: Any, state: Any) -> Any:
        return self._forward(shape, batch, state)

    def for_batch(self, planned: PlannedBatch) -> Any | None:
        store = self._stores.get(planned.shape)
        if store is None or not self._every_process_has(planned):
            return None
        index = meshes.select_local_rows(self._job.mesh, planned.index)
        values = store.take(self._keys(index[index >= 0]), self._length(planned.shape))
        short = len(index) - int((index >= 0).sum())
        return values and {n: np.pad(v, [(0, short)] + [(0, 0)] * (v.ndim - 1)) for n, v in values.items()}

    def _every_process_has(self, planned: PlannedBatch) -> bool:
        """Returns whether every process finds its part: they ask the teacher together, or none of them does."""
        present = planned.index[planned.index >= 0]
        return not distributed.has_several_processes() or bool(np.isin(present, self._members[planned.shape]).all())

    def prepare(self) -> None:
        """Fills the cache, and checks a sample of what it held before."""
        identity = self._identity()
        todo = []
        for number, shape in enumerate(self._job.shapes):
            store = TargetStore(cache.make_name("targets", [*identity, str(shape)]), self._teacher.ragged)
            self._stores[shape] = store
            rows = np.flatnonzero(self._job.plan.bucket == number)
            self._members[shape] = rows
            todo.append((shape, store, rows[distributed.any_process(store.find_missing(self._keys(rows)))]))
        self._announce(todo)
        for shape, store, _ in todo:
            self._audit(shape, store)
        for shape, store, rows in todo:
            self._fill(shape, store, rows)

    def _announce(self, todo: list) -> None:
        """Size, and time to fill and to save, from a timed batch of each shape."""
        batches = bytes_ = 0
        seconds = 0.0
        for shape, _, rows in todo:
            if len(rows):
                one, size = self._timed(shape, rows[:1])
                count = -(-len(rows) // shape.rows)
                batches, seconds, bytes_ = batches + count, seconds + count * one, bytes_ + size * len(rows)
        cached = sum(len(store) for _, store, _ in todo)
        new = sum(len(rows) for _, _, rows in todo)
        saved = (self._teacher.uses * (new + cached) / max(new, 1) - 1) * seconds if new else 0.0
        self._job.log(
            f"teacher cache: {cached} targets there, {new} to make, {bytes_ / 2**20:.1f} MiB, "
            f"about {format_duration(seconds)} to make and {format_duration(saved)} saved: "
            f"each is used {self._teacher.uses:g} times"
        )

    def _timed(self, shape: Shape, row: np.ndarray) -> tuple[float, float]:
        batch = self._batch(shape, row)
        jax.block_until_ready(self.ask(shape, batch, None))
        start = time.perf_counter()
        found = jax.block_until_ready(self.ask(shape, batch, None))
        return time.perf_counter() - start, sum(x.nbytes for x in jax.tree.leaves(found)) / shape.rows

    def _fill(self, shape: Shape, store: TargetStore, rows: np.ndarray) -> None:
        lengths = self._lengths()
        for start in range(0, len(rows), SHARD):
            part, found = rows[start : start + SHARD], []
            for at in range(0, len(part), shape.rows):
                few = part[at : at + shape.rows]
                answers = self._answers(shape, few)
                found.append({name: np.asarray(value)[: len(few)] for name, value in answers.items()})
                self._job.log.live(f"teacher: {start + at + len(few)} of {len(rows)} targets of {shape}")
            values = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
            store.add(self._keys(part), values, lengths[part])

    def _audit(self, shape: Shape, store: TargetStore) -> None:
        sample = set(store.sample(np.random.default_rng(self._job.seed), per_shard=SAMPLE))
        keys = self._keys(np.arange(self._job.plan.rows)).tolist()
        rows = np.flatnonzero(distributed.any_process(np.array([key in sample for key in keys], bool)))
        for at in range(0, len(rows), shape.rows):
            few = rows[at : at + shape.rows]
            values = store.take(self._keys(few), self._length(shape))
            fresh = {name: np.asarray(value)[: len(few)] for name, value in self._answers(shape, few).items()}
            if values:  # of several processes not each has them all
                check_targets(self._keys(few), values, fresh, self._teacher.ragged, self._lengths()[few])

    def _answers(self, shape: Shape, rows: np.ndarray) -> Any:
        return distributed.gather_to_host(self.ask(shape, self._batch(shape, rows), None))

    def _batch(self, shape: Shape, rows: np.ndarray) -> Any:
        index = np.concatenate([rows, np.full(shape.rows - len(rows), PAD)])
        mine = meshes.select_local_rows(self._job.mesh, index)
        arrays = self._job.task.arrays(self._job.features, mine, dict(shape.lengths), FIXED)
        return meshes.place_batch(self._job.mesh, arrays, shape.rows)

    def _keys(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self._job.features["keys"])[rows]

    def _lengths(self) -> np.ndarray:
        return next(iter(self._job.plan.lengths.values()))

    def _length(self, shape: Shape) -> int:
        return shape.lengths[0][1]

    def _identity(self) -> list[str]:
        """All that a target depends on but its example and its shape."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._fixed):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(distributed.gather_to_host(leaf)).tobytes())
        mesh = self._job.mesh
        return [digest.hexdigest(), self._job.task.identity(), self._job.teacher_dtype, jax.__version__, str(mesh)]
