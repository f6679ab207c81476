# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes teacher targets in every step, with the teacher's forward pass in a jitted function of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
from jax.sharding import Mesh

from xlkd.data.batches import PlannedBatch, Shape
from xlkd.methods import Batch, State, Teacher, Tree
from xlkd.runtime import mesh as meshes
from xlkd.tasks import Features

if TYPE_CHECKING:
    from xlkd.train.loop import Job


class TeacherForward:
    """The teacher's forward pass, compiled for each shape; `fixed` are its variables unless it evolves."""

    def __init__(self, teacher: Teacher, fixed: Tree, mesh: Mesh) -> None:
        self._teacher, self._fixed = teacher, fixed
        self._rows = meshes.row_sharding(mesh)
        self._forward = jax.jit(meshes.trace_with_mesh(mesh, teacher.forward), out_shardings=self._rows)
        self._compiled: dict[Shape, jax.stages.Compiled] = {}

    def compile(self, shape: Shape, batch: Batch, state: State) -> Tree:
        """Compiles the forward pass for a shape; returns the abstract shapes of its outputs."""
        variables = self._get_variables(state)
        self._compiled[shape] = self._forward.lower(variables, batch).compile()
        targets = jax.eval_shape(self._forward, variables, batch)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._rows), targets)

    def measure_memory(self, shape: Shape, batch: Batch) -> int:
        """Compiles the forward pass of a fixed teacher for a shape; returns the bytes that it needs for its work."""
        self._compiled[shape] = self._forward.lower(self._fixed, batch).compile()
        parts = self._compiled[shape].memory_analysis()
        return parts.temp_size_in_bytes + parts.output_size_in_bytes if parts else 0

    def __call__(self, shape: Shape, batch: Batch, state: State | None) -> Tree:
        return self._compiled[shape](self._get_variables(state), batch)

    def _get_variables(self, state: State | None) -> Tree:
        if not self._teacher.evolves:
            return self._fixed
        assert state is not None, "a teacher that evolves is part of the state"
        return state.teacher


class LiveTargets:
    """Targets that the teacher computes at every step; `reason` says in the log why they are not cached."""

    def __init__(self, job: Job, teacher: Teacher, fixed: Tree, reason: str) -> None:
        self._forward, self._log, self._reason = TeacherForward(teacher, fixed, job.mesh), job.log, reason

    def compile(self, shape: Shape, batch: Batch, state: State) -> Tree:
        return self._forward.compile(shape, batch, state)

    def fill_cache(self, first: int) -> None:
        self._log(f"teacher cache: not used; {self._reason}")

    def for_batch(self, planned: PlannedBatch, features: Features) -> None:
        return None

    def ask_teacher(self, shape: Shape, batch: Batch, state: State | None) -> Tree:
        return self._forward(shape, batch, state)
