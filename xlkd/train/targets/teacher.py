# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The teacher of a stage: asked within each step, or once an example where its answers can be kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from xlkd.data import cache
from xlkd.data.batches import PAD, Planned, Shape
from xlkd.data.draw import names
from xlkd.data.targets import Targets
from xlkd.errors import UserError
from xlkd.runtime import distributed
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import duration
from xlkd.tasks import Draw

AUDIT = Draw(0, 0)
CLOSE = 1e-5  # between a kept target and the same computed now
SHARD = 4096  # rows


class Teaching:
    """Targets for each batch. `kept` is None where the teacher is asked at every step."""

    def __init__(self, job: Any, fixed: Any) -> None:
        self._job, self._teacher, self._fixed = job, job.method.teacher, fixed
        self._forward = jax.jit(
            meshes.traced(job.mesh, self._teacher.forward), out_shardings=meshes.over_rows(job.mesh)
        )
        self._compiled: dict[Shape, Callable] = {}
        self._kept: dict[Shape, Targets] = {}
        self._members: dict[Shape, np.ndarray] = {}  # rows that every process has

    def compile(self, shape: Shape, batch: Any, state: Any) -> Any:
        """The forward pass for a shape; the shapes of what it gives."""
        self._compiled[shape] = self._forward.lower(self._variables(state), batch).compile()
        rows = meshes.over_rows(self._job.mesh)
        found = jax.eval_shape(self._forward, self._variables(state), batch)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), found)

    def ask(self, shape: Shape, batch: Any, state: Any) -> Any:
        return self._compiled[shape](self._variables(state), batch)

    def kept(self, planned: Planned) -> Any:
        """The rows of a batch from the cache; None where one is not there in this shape."""
        store = self._kept.get(planned.shape)
        if store is None or not self._at_all(planned):
            return None
        index = meshes.own_rows(self._job.mesh, planned.index)
        found = store.take(self._keys(index[index >= 0]), self._length(planned.shape))
        short = len(index) - int((index >= 0).sum())
        return found and {n: np.pad(v, [(0, short)] + [(0, 0)] * (v.ndim - 1)) for n, v in found.items()}

    def _at_all(self, planned: Planned) -> bool:
        """Whether every process finds its part: they ask the teacher together, or none of them does."""
        present = planned.index[planned.index >= 0]
        return not distributed.several() or bool(np.isin(present, self._members[planned.shape]).all())

    def keep(self) -> None:
        """Fill the cache before the first step, and check a sample of what was there before."""
        teacher, plan = self._teacher, self._job.plan
        if teacher.evolves or teacher.uses <= 1 or self._job.teacher_cache == "off":
            self._job.log(f"teacher cache: not used; {self._why()}")
            return
        identity = self._identity()
        todo = []
        for number, shape in enumerate(self._job.shapes):
            store = Targets(cache.name_of("targets", [*identity, str(shape)]), teacher.ragged)
            self._kept[shape] = store
            rows = np.flatnonzero(plan.bucket == number)
            self._members[shape] = rows
            todo.append((shape, store, rows[distributed.anywhere(store.missing(self._keys(rows)))]))
        self._announce(todo)
        for shape, store, _ in todo:
            self._audit(shape, store)
        for shape, store, rows in todo:
            self._fill(shape, store, rows)

    def _why(self) -> str:
        if self._teacher.evolves:
            return "the teacher changes, so that each of its targets is used once"
        if self._job.teacher_cache == "off":
            return "config.teacher.cache is off"
        return "each target is used once"

    def _announce(self, todo: list) -> None:
        """Size, and time to fill and to save, from a timed batch of each shape."""
        batches = bytes_ = 0
        seconds = 0.0
        for shape, _, rows in todo:
            if len(rows):
                one, size = self._timed(shape, rows[:1])
                count = -(-len(rows) // shape.rows)
                batches, seconds, bytes_ = batches + count, seconds + count * one, bytes_ + size * len(rows)
        there = sum(len(store) for _, store, _ in todo)
        new = sum(len(rows) for _, _, rows in todo)
        saved = (self._teacher.uses * (new + there) / max(new, 1) - 1) * seconds if new else 0.0
        self._job.log(
            f"teacher cache: {there} targets there, {new} to make, {bytes_ / 2**20:.1f} MiB, "
            f"about {duration(seconds)} to make and {duration(saved)} saved: each is used {self._teacher.uses:g} times"
        )

    def _timed(self, shape: Shape, row: np.ndarray) -> tuple[float, float]:
        batch = self._batch(shape, row)
        jax.block_until_ready(self.ask(shape, batch, None))
        start = time.perf_counter()
        found = jax.block_until_ready(self.ask(shape, batch, None))
        return time.perf_counter() - start, sum(x.nbytes for x in jax.tree.leaves(found)) / shape.rows

    def _fill(self, shape: Shape, store: Targets, rows: np.ndarray) -> None:
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

    def _audit(self, shape: Shape, store: Targets) -> None:
        """Some rows of every shard are computed again: a cache that lies would be worse than none."""
        wanted = set(store.sample(np.random.default_rng(self._job.seed), of_each=8))
        keys = self._keys(np.arange(self._job.plan.rows)).tolist()
        rows = np.flatnonzero(distributed.anywhere(np.array([key in wanted for key in keys], bool)))
        for at in range(0, len(rows), shape.rows):
            few = rows[at : at + shape.rows]
            kept = store.take(self._keys(few), self._length(shape))
            fresh = self._answers(shape, few)
            for name, value in (kept or {}).items():  # of several processes not each has them all
                inside = self._inside(name, value, few)
                off = np.abs(np.where(inside, value - np.asarray(fresh[name])[: len(few)], 0)).reshape(len(few), -1)
                if (off.max(1) > CLOSE * max(1.0, np.abs(value).max())).any():
                    what = f"the kept target of example {names(self._keys(few))[int(off.max(1).argmax())]} is not the"
                    where, remedy = str(cache.folder()), "empty the cache: python -m xlkd.caches --delete_all"
                    raise UserError(f"{what} teacher's (off by {off.max():.2g})", where, remedy)

    def _inside(self, name: str, value: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if name not in self._teacher.ragged:
            return np.ones(value.shape, bool)
        inside = np.arange(value.shape[1]) < self._lengths()[rows][:, None]
        return inside.reshape(*inside.shape, *[1] * (value.ndim - 2))

    def _answers(self, shape: Shape, rows: np.ndarray) -> Any:
        return distributed.on_host(self.ask(shape, self._batch(shape, rows), None))

    def _batch(self, shape: Shape, rows: np.ndarray) -> Any:
        index = np.concatenate([rows, np.full(shape.rows - len(rows), PAD)])
        mine = meshes.own_rows(self._job.mesh, index)
        arrays = self._job.task.arrays(self._job.features, mine, dict(shape.lengths), AUDIT)
        return meshes.place_batch(self._job.mesh, arrays, shape.rows)

    def _variables(self, state: Any) -> Any:
        return state.teacher if self._teacher.evolves else self._fixed

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
            digest.update(np.ascontiguousarray(distributed.on_host(leaf)).tobytes())
        mesh = self._job.mesh
        return [digest.hexdigest(), self._job.task.identity(), self._job.teacher_dtype, jax.__version__, str(mesh)]
