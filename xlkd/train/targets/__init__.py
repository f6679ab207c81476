# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Teacher targets: one protocol for every source of them; the loop does not know which one it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from xlkd.data.batches import PlannedBatch, Shape

if TYPE_CHECKING:
    from xlkd.train.loop import Job


class Targets(Protocol):
    """A source of targets. Of each batch they are known ahead (`for_batch`), or the teacher is asked in the step."""

    def example(self, shape: Shape, batch: Any, state: Any) -> Any:
        """Compiles what a shape needs; returns targets, or their shapes, for which the step is compiled."""

    def prepare(self) -> None:
        """Does what has to be done once, before the first step."""

    def for_batch(self, planned: PlannedBatch) -> Any | None:
        """Returns this process's rows of a batch's targets as numpy arrays; None where the teacher has to be asked."""

    def ask(self, shape: Shape, batch: Any, state: Any) -> Any:
        """Returns the targets of a batch on the devices, by a forward pass of the teacher."""


class NoTargets:
    """No teacher."""

    def example(self, shape: Shape, batch: Any, state: Any) -> Any:
        return ()

    def prepare(self) -> None:
        pass

    def for_batch(self, planned: PlannedBatch) -> Any:
        return ()

    def ask(self, shape: Shape, batch: Any, state: Any) -> Any:
        raise AssertionError("there is no teacher to ask")


def choose_targets(job: Job, fixed: Any) -> Targets:
    """Returns the source that a stage's method and settings ask for; `fixed` are a teacher's variables, where fixed."""
    from xlkd.train.targets.cached import CachedTargets
    from xlkd.train.targets.live import LiveTargets

    teacher = job.method.teacher
    if job.computed is not None:
        return job.computed
    if teacher is None:
        return NoTargets()
    if teacher.evolves:
        return LiveTargets(job, fixed, "the teacher changes, so that each of its targets is used once")
    if job.teacher_cache == "off":
        return LiveTargets(job, fixed, "config.teacher.cache is off")
    if teacher.uses <= 1:
        return LiveTargets(job, fixed, "each target is used once")
    return CachedTargets(job, fixed)
