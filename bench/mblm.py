# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A student with branches, its teachers' answers kept and rows in buckets, against teachers in the step and one length.

    python bench/mblm.py [--data=SOURCE] [--tokenizer=DIR] [--steps=16]

Student and teachers are 12×384, three branches of four layers; each row is asked of a teacher of its own language.
There all rows are padded to 128 and one pass over the whole batch stands for the teachers, which flatters that side:
three of them would each read a third. Both sides are ours, so that only the arrangement differs. `--data` is any source
of labelled rows, such as xnli:DIR?split=train&languages=en,de,zh; without it the atlas.
Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.flags comes before jax
    from xlkd.spec.stage import StageSettings

LENGTH = 128


def main(arguments: list[str]) -> None:
    flags = side_by_side.flags(arguments, ("data", "tokenizer", "steps"))
    count = 2 if flags.quick else cli.parse_count(flags.rest, "steps", 16)
    cases = [
        Case(
            "kept answers and buckets, against both in the step", lambda: epoch(flags, count, buckets=True), 1.5, True
        ),
        Case("kept answers alone, at one length", lambda: epoch(flags, count, buckets=False), 0.0, True),
    ]
    side_by_side.judge("MBLM, 3 branches of 4 layers", cases, flags)


def epoch(flags: side_by_side.Flags, count: int, buckets: bool) -> Sides:
    """So many steps of an epoch: answers that are there, and answers that are asked for."""
    import jax
    import models
    import numpy as np
    import real_batches

    from xlkd.methods import mblm
    from xlkd.models.encoder import Encoder
    from xlkd.models.outputs import last_hidden

    stage = _stage(flags)
    read = real_batches.read(stage)
    labels = tuple(read.features["labels"].tolist())
    stage = models.resolve(stage, labels=labels)
    of = models.architecture("tiny" if flags.quick else "12x384", 0.1, read.vocabulary)
    trainer = models.Trainer(mblm.build(stage, Encoder(of)), models.start(of, labels=labels), stage)
    teacher = models.start(of, 1).encoder
    head = np.random.default_rng(0).normal(0, 0.02, (of.hidden_size, len(labels))).astype(np.float32)
    forward = jax.jit(lambda params, batch: last_hidden(Encoder(of), {"encoder": params}, batch)[:, 0] @ head)
    rows = np.ones(stage.data.batch, np.float32)

    def targets(logits):
        return {"teacher": logits, "taught": rows}

    padded = real_batches.shuffled(read, count, LENGTH)
    steps = real_batches.bucketed(read, count) if buckets else padded
    batches, theirs_batches = (models.place([read.batch(step) for step in of]) for of in (steps, padded))
    known = [targets(jax.device_get(forward(teacher, batch))) for batch in batches]

    def ours() -> None:
        trainer.over(batches, [models.place(answers) for answers in known])

    def theirs() -> None:
        for batch in theirs_batches:
            trainer(batch, targets(forward(teacher, batch)))
        jax.block_until_ready(trainer.state.variables.params)

    return ours, theirs


def _stage(flags: side_by_side.Flags) -> StageSettings:
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
    return models.stage("mblm.py", "mblm", **changes)


if __name__ == "__main__":
    sys.exit(cli.run(main))
