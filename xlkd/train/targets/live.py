# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A teacher that is asked in every step: its forward pass in a jitted function of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from xlkd.data.batches import PlannedBatch, Shape
from xlkd.runtime import mesh as meshes

if TYPE_CHECKING:
    from xlkd.train.loop import Job


class TeacherForward:
    """The teacher's forward pass, compiled once a shape; `fixed` are its variables unless the state holds them."""

    def __init__(self, job: Job, fixed: Any) -> None:
        self._teacher, self._fixed, self._mesh = job.method.teacher, fixed, job.mesh
        rows = meshes.row_sharding(job.mesh)
        self._forward = jax.jit(meshes.trace_with_mesh(job.mesh, self._teacher.forward), out_shardings=rows)
        self._compiled: dict[Shape, Callable] = {}

    def compile(self, shape: Shape, batch: Any, state: Any) -> Any:
        """Compiles the pass for a shape; returns the shapes of what it gives."""
        self._compiled[shape] = self._forward.lower(self._variables(state), batch).compile()
        rows = meshes.row_sharding(self._mesh)
        targets = jax.eval_shape(self._forward, self._variables(state), batch)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), targets)

    def __call__(self, shape: Shape, batch: Any, state: Any) -> Any:
        return self._compiled[shape](self._variables(state), batch)

    def _variables(self, state: Any) -> Any:
        return state.teacher if self._teacher.evolves else self._fixed


class LiveTargets:
    """Targets that are asked for at every step; the log says why they are not cached."""

    def __init__(self, job: Job, fixed: Any, reason: str) -> None:
        self._forward, self._log, self._reason = TeacherForward(job, fixed), job.log, reason

    def example(self, shape: Shape, batch: Any, state: Any) -> Any:
        return self._forward.compile(shape, batch, state)

    def prepare(self) -> None:
        self._log(f"teacher cache: not used; {self._reason}")

    def for_batch(self, planned: PlannedBatch) -> None:
        return None

    def ask(self, shape: Shape, batch: Any, state: Any) -> Any:
        return self._forward(shape, batch, state)
