# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation over real pairs of languages against the published way: `python bench/distill.py --xquad=DIR`.

  --xquad=DIR      the folder of xquad.*.json; without it the atlas (synthetic data), with shorter texts
  --tokenizer=DIR  that cuts the texts (default: the package's); the encoder is 6×384 with the pieces that occur
  --steps=24       batches of 8 a round: every n-th of an epoch by length, so that each bucket has its share

The published way is PyTorch: all rows padded to one length, the teacher asked within each step. A stronger peer pads to
the longest row of each batch. The last two lines compare ours with ours: three epochs of a teacher that stays, its
answers kept (made, written, read) or asked for each time. Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from typing import TYPE_CHECKING

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.flags comes before jax
    from models import Trainer
    from real_batches import Material

    from xlkd.models.encoder import Architecture
    from xlkd.spec.stage import StageSpec

LANGUAGES = "en,es,de,ar,hi,vi,zh"  # the seven of the paper
EPOCHS = 3


def main(arguments: list[str]) -> None:
    flags = side_by_side.flags(arguments, ("xquad", "tokenizer", "steps"))
    count = 2 if flags.quick else cli.parse_count(flags.rest, "steps", 24)
    stage, material = _material(flags)
    longest = stage.task.max_length
    cases = [
        Case(f"epoch, against padding to {longest}", lambda: peers(flags, stage, material, count, longest), 2.2, True),
        Case("epoch, against the longest of a batch", lambda: peers(flags, stage, material, count, 0), 1.5, True),
        Case("kept teacher, 3 epochs, same size", lambda: kept(flags, stage, material, count // 2), 1.15, True),
        Case("kept teacher, 3 epochs, base size", lambda: kept(flags, stage, material, count // 2, "base"), 1.8, True),
    ]
    data = "XQuAD" if "xquad" in flags.rest else "the atlas (synthetic data)"
    side_by_side.judge(f"self-distillation, {data}, {material.plan.rows} windows", cases, flags)


def _material(flags: side_by_side.Flags) -> tuple[StageSpec, Material]:
    import models
    import real_batches

    changes = {"data__batch": 8, "data__buckets": 8, "method__coefficient_group": 0}
    if "xquad" in flags.rest:
        data = f"xquad:{flags.rest['xquad']}?languages={LANGUAGES}"
        changes |= {"data__train": data, "data__eval": "", "task__max_length": 384}
    if flags.quick:
        changes |= {"data__train": "atlas?split=train&size=8&languages=en,de&facts=2", "data__eval": ""}
        changes |= {"task__max_length": 96, "data__batch": 2, "data__buckets": 2}
    if "tokenizer" in flags.rest:
        changes["encoder__path"] = flags.rest["tokenizer"]
    stage = models.stage("gxlt.py", "skd", start="encoder", **changes)
    read = real_batches.read(stage)
    return models.resolve(stage, EPOCHS * read.plan.steps_per_epoch, read.plan.steps_per_epoch), read


def _trainer(
    flags: side_by_side.Flags, stage: StageSpec, vocabulary: int, teacher: str = ""
) -> tuple[Trainer, Architecture]:
    """Our trainer; `teacher` names the shape of one that stays, "" is the snapshot of the student."""
    import jax
    import models

    from xlkd.methods import gxlt
    from xlkd.models.encoder import Encoder
    from xlkd.models.heads import SpanHead, init_head
    from xlkd.models.outputs import span_logits

    of = models.architecture("tiny" if flags.quick else "6x384", 0.1, vocabulary)
    method = gxlt.build(stage, Encoder(of))
    if teacher:
        big = models.architecture("tiny" if flags.quick else teacher, 0.0, vocabulary)
        params = {"encoder": models.start(big, 1).encoder, "span": init_head(SpanHead(big), jax.random.key(2))}
        logits = span_logits(Encoder(big))
        asked = {
            "variables": lambda variables, start: params,
            "forward": lambda p, b: dict(zip(("start", "end"), logits(p, b), strict=True)),
        }
        method = dataclasses.replace(method, teacher=dataclasses.replace(method.teacher, evolves=False, **asked))
    return models.Trainer(method, models.start(of), stage), of


def peers(flags: side_by_side.Flags, stage: StageSpec, read: Material, count: int, pad_to: int) -> Sides:
    """Ours in buckets, and PyTorch with batches of as many rows."""
    import models
    import peer
    import real_batches

    trainer, of = _trainer(flags, stage, read.vocabulary)
    steps, theirs = real_batches.bucketed(read, count), real_batches.shuffled(read, count, pad_to)
    batches = models.place([read.batch(step) for step in steps])
    tensors = [peer.tensors(read.batch(step)) for step in theirs]
    student, teacher = (peer.span_model(of, trainer.state.variables.params) for _ in range(2))
    torch = peer.Trainer(student, peer.self_distillation(teacher, stage.method.temperature), stage.optim.lr)
    print(
        f"padding: {real_batches.padding(steps, read)} in buckets, {real_batches.padding(theirs, read)} there",
        flush=True,
    )
    return lambda: trainer.over(batches), lambda: torch.over(tensors)


def kept(flags: side_by_side.Flags, stage: StageSpec, read: Material, count: int, teacher: str = "6x384") -> Sides:
    """Three epochs over the same batches: the answers made, written and read, or asked for within each step."""
    import jax
    import models
    import numpy as np
    import real_batches

    from xlkd.data.targets import TargetStore

    stage = dataclasses.replace(stage, method=dataclasses.replace(stage.method, generations="fixed"))
    trainer, _ = _trainer(flags, stage, read.vocabulary, teacher)
    steps = real_batches.bucketed(read, max(count, 1))
    batches = models.place([read.batch(step) for step in steps])
    folder = tempfile.TemporaryDirectory(prefix="xlkd-bench-")

    def answers(store: TargetStore, step):
        return models.place(store.take(read.keys(step), step.shape.lengths[0][1]))

    def ours() -> None:
        os.environ["XLKD_CACHE"] = tempfile.mkdtemp(dir=folder.name)  # empty each time
        store = TargetStore("targets-bench", ("start", "end"))
        found = [jax.device_get(trainer.ask(batch)) for batch in batches]
        for step, values in zip(steps, found, strict=True):
            store.add(read.keys(step), {n: np.asarray(v) for n, v in values.items()}, read.lengths[step.index])
        for _ in range(EPOCHS):
            trainer.over(batches, [answers(store, step) for step in steps])

    def theirs() -> None:
        for _ in range(EPOCHS):
            trainer.over(batches)

    return ours, theirs


if __name__ == "__main__":
    sys.exit(cli.run(main))
