# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sources of teacher targets, which the loop uses by one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from xlkd.data.batches import Plan, PlannedBatch, Shape
from xlkd.methods import Batch, State, Tree
from xlkd.tasks import Features

if TYPE_CHECKING:
    from xlkd.train.loop import Job


class Targets(Protocol):
    """A source of targets, which are known in advance (`for_batch`) or computed before the step (`ask_teacher`)."""

    def compile(self, shape: Shape, batch: Batch, state: State) -> Tree:
        """Compiles the teacher for a shape; returns targets or their shapes, to compile the step with."""

    def fill_cache(self, first: int) -> None:
        """Computes what is needed before step `first`, the first one of this process."""

    def for_batch(self, planned: PlannedBatch, features: Features) -> Tree | None:
        """Returns the targets of this process's rows as NumPy arrays; None if the teacher has to be asked.

        The indices of the batch refer to `features`.
        """

    def ask_teacher(self, shape: Shape, batch: Batch, state: State | None) -> Tree:
        """Computes the targets of a batch on the devices, by a forward pass of the teacher.

        Only a teacher that evolves needs the state, which holds its variables.
        """


class NoTargets:
    """The source of a method without a teacher."""

    def compile(self, shape: Shape, batch: Batch, state: State) -> Tree:
        return ()

    def fill_cache(self, first: int) -> None:
        pass

    def for_batch(self, planned: PlannedBatch, features: Features) -> Tree:
        return ()

    def ask_teacher(self, shape: Shape, batch: Batch, state: State | None) -> Tree:
        raise AssertionError("there is no teacher to ask")


def choose_targets(job: Job, fixed: Tree) -> Targets:
    """Chooses the source of a stage's targets; `fixed` are the variables of a teacher that does not evolve."""
    from xlkd.train.targets.cached import CachedTargets
    from xlkd.train.targets.live import LiveTargets

    teacher = job.method.teacher
    if job.known_targets is not None:
        return job.known_targets
    if teacher is None:
        return NoTargets()
    if teacher.evolves:
        return LiveTargets(job, teacher, fixed, "the teacher changes, so that each of its targets is used once")
    if job.teacher_cache == "off":
        return LiveTargets(job, teacher, fixed, "config.teacher.cache is off")
    if teacher.uses <= 1 or not isinstance(job.plan, Plan):
        reason = "each target is used once" if isinstance(job.plan, Plan) else "a streamed corpus has too many examples"
        return LiveTargets(job, teacher, fixed, reason)
    return CachedTargets(job, job.plan, teacher, fixed)
