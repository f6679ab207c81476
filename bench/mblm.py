# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A student with branches, with cached targets and buckets, compared with teachers in the step and one length.

    python bench/mblm.py [--data=SOURCE] [--tokenizer=DIR] [--steps=16]

Student and teachers are 12×384, with three branches of four layers; each example has the teacher of its language. The
other side pads all rows to 128 and replaces the three teachers by one pass over the batch, which is in its favour: each
teacher would read a third. Both sides are our code, so that only the method differs. `--data` is any source of labelled
examples, such as xnli:DIR?split=train&languages=en,de,zh; without it the atlas.
Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.parse_flags comes before jax
    from xlkd.spec.stage import StageSettings

LENGTH = 128


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, ("data", "tokenizer", "steps"))
    count = 2 if flags.quick else cli.parse_count(flags.rest, "steps", 16, 10_000)
    cases = [
        Case(
            "cached targets and buckets, against teachers in the step",
            lambda: make_sides(flags, count, buckets=True),
            1.5,
            True,
        ),
        Case("cached targets only, at one length", lambda: make_sides(flags, count, buckets=False), 0.0, True),
    ]
    side_by_side.judge("MBLM, 3 branches of 4 layers", cases, flags)


def make_sides(flags: side_by_side.Flags, count: int, buckets: bool) -> Sides:
    """Builds `count` steps of an epoch: with cached targets, and with targets computed in each step."""
    import jax
    import models
    import numpy as np
    import real_batches

    from xlkd.methods import mblm
    from xlkd.models.encoder import Encoder
    from xlkd.models.outputs import last_hidden

    stage = _read_stage(flags)
    material = real_batches.read_material(stage)
    labels = tuple(material.features["labels"].tolist())
    stage = models.resolve_stage(stage, labels=labels)
    architecture = models.make_architecture("tiny" if flags.quick else "12x384", 0.1, material.vocabulary)
    trainer = models.Trainer(
        mblm.build(stage, Encoder(architecture)), models.make_start(architecture, labels=labels), stage
    )
    teacher = models.make_start(architecture, 1).encoder
    head = np.random.default_rng(0).normal(0, 0.02, (architecture.hidden_size, len(labels))).astype(np.float32)
    forward = jax.jit(lambda params, batch: last_hidden(Encoder(architecture), {"encoder": params}, batch)[:, 0] @ head)
    rows = np.ones(stage.data.batch, np.float32)

    def make_targets(logits):
        return {"teacher": logits, "taught": rows}

    padded = real_batches.sample_shuffled(material, count, LENGTH)
    steps = real_batches.sample_bucketed(material, count) if buckets else padded
    batches, theirs_batches = (
        models.put_on_device([material.batch(step) for step in plan]) for plan in (steps, padded)
    )
    cached_targets = [make_targets(jax.device_get(forward(teacher, batch))) for batch in batches]

    def ours() -> None:
        trainer.run_steps(batches, [models.put_on_device(answers) for answers in cached_targets])

    def theirs() -> None:
        for batch in theirs_batches:
            trainer(batch, make_targets(forward(teacher, batch)))
        jax.block_until_ready(trainer.state.variables.params)

    return ours, theirs


def _read_stage(flags: side_by_side.Flags) -> StageSettings:
    import models

    changes = {"data__batch": 16, "data__buckets": 4, "data__eval": "", "method__branch_layers": 4}
    changes |= {"encoder__dropout": 0.1, "task__max_length": LENGTH}
    if "data" in flags.rest:
        changes["data__train"] = flags.rest["data"]
        changes["task__languages"] = flags.rest["data"].partition("languages=")[2].partition("&")[0]
    if "tokenizer" in flags.rest:
        changes["encoder__path"] = flags.rest["tokenizer"]
    if flags.quick:
        changes |= {"data__batch": 6, "data__buckets": 2, "method__branch_layers": 1}
        changes |= {"data__train": "atlas?split=train&size=12&languages=en,de,ru"}
    return models.read_stage("mblm.py", "mblm", **changes)


if __name__ == "__main__":
    sys.exit(cli.run(main))
