# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the targets of a fixed teacher once per feature row, before the first step, and caches them on disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from xlkd.data import cache
from xlkd.data.batches import PAD, Plan, PlannedBatch, Shape
from xlkd.data.share import Share
from xlkd.data.targets import TargetStore, Values
from xlkd.errors import UserError
from xlkd.methods import Batch, State, Teacher, Tree
from xlkd.runtime import distributed, shared_cache
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import format_duration
from xlkd.tasks import Draw, Features
from xlkd.train.targets.audit import SAMPLE, check_targets
from xlkd.train.targets.live import TeacherForward

if TYPE_CHECKING:
    from xlkd.train.loop import Job

TEACHER_DRAW = Draw(0, 0)  # the random draws in the teacher's inputs: the same at every step
SHARD = 4096  # rows
Sample = tuple[np.ndarray, Values, Values, Sequence[str], np.ndarray]  # the arguments of `check_targets`
FILL_ROWS = 32  # of each accelerator in a batch that fills the cache, where a step has fewer


@dataclasses.dataclass(frozen=True)
class Bucket:
    """The cached targets of the rows in one shape."""

    shape: Shape
    filled_as: Shape  # the shape of the batches that the targets are computed in
    rows: np.ndarray  # whose targets this process reads
    store: TargetStore


class CachedTargets:
    """Targets from the cache, which `fill_cache` fills; a row has a target in the shape of its own bucket only.

    For a batch in a larger shape the teacher is asked. Of several processes each stores the targets of the rows that
    its devices get in this run.
    """

    def __init__(self, job: Job, plan: Plan, teacher: Teacher, fixed: Tree) -> None:
        self._job, self._plan, self._teacher, self._fixed = job, plan, teacher, fixed
        self._forward = TeacherForward(teacher, fixed, job.mesh)
        self._buckets: dict[Shape, Bucket] = {}
        self._share: Share | None = None
        self._targets: dict[Shape, Tree] = {}  # the abstract shapes of the targets of a batch

    def compile(self, shape: Shape, batch: Batch, state: State) -> Tree:
        self._targets[shape] = self._forward.compile(shape, batch, state)
        return self._targets[shape]

    def ask_teacher(self, shape: Shape, batch: Batch, state: State | None) -> Tree:
        return self._forward(shape, batch, state)

    def for_batch(self, planned: PlannedBatch, features: Features) -> Values | None:
        if planned.shape not in self._buckets or not self._is_cached_everywhere(planned):
            return None
        index = meshes.select_local_rows(self._job.mesh, planned.index)
        if (index < 0).all():  # a process may have nothing but padding, and no target in this shape
            targets = self._targets[planned.shape]
            return {name: np.zeros((len(index), *x.shape[1:]), x.dtype) for name, x in targets.items()}
        store = self._buckets[planned.shape].store
        values = store.take(self._get_keys(index[index >= 0]), _get_length(planned.shape))
        padding = len(index) - int((index >= 0).sum())
        return values and {n: np.pad(v, [(0, padding)] + [(0, 0)] * (v.ndim - 1)) for n, v in values.items()}

    def _is_cached_everywhere(self, planned: PlannedBatch) -> bool:
        """Returns whether every process has its rows in the cache: either all of them ask the teacher, or none."""
        return not distributed.has_several_processes() or self._is_of_one_bucket(planned)

    def _is_of_one_bucket(self, planned: PlannedBatch) -> bool:
        """Returns whether all rows of a batch have targets in its shape."""
        buckets = self._plan.bucket[planned.index[planned.index >= 0]]
        return bool((buckets == self._job.shapes.index(planned.shape)).all())

    def fill_cache(self, first: int) -> None:
        """Checks a sample of the targets that are in the cache, and computes those that are missing from a step on."""
        self._share = distributed.open_share("teacher cache")
        dependencies, local = self._list_dependencies(), self._find_local_rows(first)
        for number, shape in enumerate(self._job.shapes):
            filled_as = self._choose_fill_shape(shape)
            name = cache.make_name("targets", [*dependencies, str(self._job.mesh), str(filled_as)])
            rows = np.flatnonzero((self._plan.bucket == number) & local)
            bucket = Bucket(shape, filled_as, rows, TargetStore(name, self._teacher.ragged))
            self._audit(bucket)
            self._adopt_other_layouts(bucket, name, dependencies)
            self._buckets[shape] = bucket
        missing = [(bucket, self._find_missing(bucket)) for bucket in self._buckets.values()]
        self._log_estimate(missing)
        for bucket, rows in missing:
            self._fill(bucket, rows)
        if any(len(self._find_missing(bucket)) for bucket in self._buckets.values()):
            self._job.log(
                "teacher cache: not used; some targets were lost: raise XLKD_CACHE_GIB if the log has no other reason"
            )
            self._buckets.clear()

    def _find_local_rows(self, first: int) -> np.ndarray:
        """Returns which rows this process reads the targets of [rows]: all, or those that its devices get."""
        if not distributed.has_several_processes():
            return np.ones(self._plan.rows, bool)
        local = np.zeros(self._plan.rows, bool)
        places = meshes.select_local_rows(self._job.mesh, np.arange(self._job.layout.rows))
        for step in range(first, self._job.steps):
            planned = self._job.batch_at(step)
            if self._is_of_one_bucket(planned):
                index = planned.index[places]
                local[index[index >= 0]] = True
        return local

    def _find_missing(self, bucket: Bucket) -> np.ndarray:
        """Returns the rows that some process needs and does not have."""
        missing = np.zeros(self._plan.rows, bool)
        missing[bucket.rows] = bucket.store.find_missing(self._get_keys(bucket.rows))
        return np.flatnonzero(distributed.any_process(missing))

    def _choose_fill_shape(self, shape: Shape) -> Shape:
        """Chooses the shape of the batches that fill the cache, for which the teacher is compiled.

        The shape is part of the cache's name, because the last bits of a target may depend on it.
        """
        platform = self._job.mesh.devices.flat[0].platform
        times = choose_times(platform, shape.rows // meshes.count_row_shards(self._job.mesh))
        while times > 1 and not self._has_room(shape.with_rows(times * shape.rows)):
            times //= 2
        return shape.with_rows(times * shape.rows)

    def _has_room(self, shape: Shape) -> bool:
        """Compiles the teacher for a shape; returns whether it needs less than half of the free memory everywhere."""
        needed = self._forward.measure_memory(shape, self._build_batch(shape, np.zeros(0, np.int64)))
        memory = jax.local_devices()[0].memory_stats() or {"bytes_limit": math.inf}
        room = needed < (memory["bytes_limit"] - memory.get("bytes_in_use", 0)) / 2
        return not distributed.any_process(np.array([not room])).any()

    def _adopt_other_layouts(self, bucket: Bucket, name: str, dependencies: Sequence[str]) -> None:
        """Takes targets of other layouts whose sample differs by rounding alone, with `teacher.cache=tolerant`.

        A layout is the mesh, and the number of rows that the teacher reads at a time. That of this run is recorded.
        """
        index = cache.make_name("layouts", [*dependencies, str(bucket.shape.lengths)])
        if self._job.teacher_cache == "tolerant":
            for other_name in self._list_layouts(index):
                if other_name == name:
                    continue
                other = TargetStore(other_name, self._teacher.ragged)
                useful = int((other.contains(keys := self._get_keys(bucket.rows)) & ~bucket.store.contains(keys)).sum())
                try:
                    for sample in self._compute_sample(bucket, other):
                        check_targets(*sample)
                except UserError:
                    self._job.log(f"teacher cache: targets of {bucket.shape} of another layout differ; not taken")
                    continue
                if useful:
                    bucket.store.adopt(other)
                    self._job.log(f"teacher cache: {useful} targets of {bucket.shape} taken from another layout")
        if shared_cache.writes():
            cache.load_or_build(cache.make_name(index, [name]), lambda: {"name": np.array([name])})

    def _list_layouts(self, index: str) -> list[str]:
        """Returns the names of targets of all layouts that the cache of any process has, in one order on all."""

        def list_own() -> bytes:
            records = [cache.load(entry) for entry in cache.list_entries(index)]
            return json.dumps([str(record["name"][0]) for record in records if record]).encode()

        parts = self._share.gather(list_own) if self._share else [list_own()]
        return sorted({name for part in parts for name in json.loads(part)})

    def _log_estimate(self, missing: list[tuple[Bucket, np.ndarray]]) -> None:
        """Logs the size of the cache and the time that it takes and saves, from one timed batch of each shape."""
        size = seconds = 0.0
        for bucket, rows in missing:
            if len(rows):
                batch_seconds, row_bytes = self._time_teacher(bucket.filled_as, rows[:1])
                seconds += -(-len(rows) // bucket.filled_as.rows) * batch_seconds
                size += row_bytes * len(rows)
        cached = sum(len(bucket.store) for bucket, _ in missing)
        new = sum(len(rows) for _, rows in missing)
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

    def _fill(self, bucket: Bucket, rows: np.ndarray) -> None:
        """Computes the targets of these rows on all processes, and stores them shard by shard.

        In a cache of its own a process stores those that it reads; in a shared one the processes take turns.
        """
        shared = shared_cache.is_shared()
        for number, start in enumerate(range(0, len(rows), SHARD)):
            shard = rows[start : start + SHARD]
            own = np.isin(shard, bucket.rows)
            if self._share and shared:
                own[:] = number % self._share.processes == self._share.process
            values = self._compute_shard(bucket, shard, own, f"of {len(rows)} targets of {bucket.shape}", start)
            keys, lengths = self._get_keys(shard[own]), self._get_lengths(shard[own])
            add = functools.partial(bucket.store.add, keys, values, lengths)
            shared_cache.call_on_all(self._share, add if len(keys) else lambda: None)
        if shared:
            bucket.store.refresh()

    def _compute_shard(self, bucket: Bucket, shard: np.ndarray, own: np.ndarray, of_all: str, done: int) -> Values:
        """Computes the targets of a shard on all processes; returns those of the rows that are marked as own."""
        batches, size = [], bucket.filled_as.rows
        for at in range(0, len(shard), size):
            values = self._compute(bucket.filled_as, shard[at : at + size])
            batches.append({name: value[own[at : at + size]] for name, value in values.items()})
            self._job.log.live(f"teacher: {done + min(at + size, len(shard))} {of_all}")
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _audit(self, bucket: Bucket) -> None:
        """Computes a sample of the cached targets again; refuses the cache if one differs by more than rounding."""
        samples = self._compute_sample(bucket, bucket.store)
        shared_cache.call_on_all(self._share, lambda: [check_targets(*sample) for sample in samples])

    def _compute_sample(self, bucket: Bucket, store: TargetStore) -> list[Sample]:
        """Computes a sample of the stored targets again, on all processes, each of which may have others."""
        shape = bucket.filled_as
        sample = set(store.sample(np.random.default_rng(self._job.seed), per_shard=SAMPLE))
        keys = self._get_keys(np.arange(self._plan.rows)).tolist()
        rows = np.flatnonzero(distributed.any_process(np.array([key in sample for key in keys], bool)))
        samples: list[Sample] = []
        for at in range(0, len(rows), shape.rows):
            batch_rows = rows[at : at + shape.rows]
            stored = store.contains(self._get_keys(batch_rows))
            fresh = {name: value[stored] for name, value in self._compute(shape, batch_rows).items()}
            keys_of_batch, lengths = self._get_keys(batch_rows)[stored], self._get_lengths(batch_rows)[stored]
            cached = store.take(keys_of_batch, _get_length(shape)) if stored.any() else None
            if cached is not None:
                samples.append((keys_of_batch, cached, fresh, self._teacher.ragged, lengths))
        return samples

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
        """Lists everything that a target depends on except its example and the layout that it is computed on."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._fixed):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(distributed.gather_to_host(leaf)).tobytes())
        device = self._job.mesh.devices.flat[0]
        kind = [] if device.platform == "cpu" else [device.device_kind]
        return [digest.hexdigest(), self._job.task.identity(), self._job.teacher_dtype, jax.__version__, *kind]


def choose_times(platform: str, rows: int) -> int:
    """Returns how many times the rows of a step, `rows` on each device, fill the cache at a time.

    On many accelerators a step has few rows on each, and a forward pass alone has room for more. On processors, and
    where a step has rows enough, targets are computed in the shape of a step: they are bit-identical to the teacher's.
    """
    return 1 if platform == "cpu" else max(1, FILL_ROWS // rows)


def _get_length(shape: Shape) -> int:
    """Returns the length of the first view, which is the most expensive one."""
    return shape.lengths[0][1]
