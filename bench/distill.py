# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation on real language pairs, compared with the published way: `python bench/distill.py --xquad=DIR`.

  --xquad=DIR      the folder of xquad.*.json; without it the atlas (synthetic data), with shorter texts
  --tokenizer=DIR  tokenizer of the texts (default: the package's); the encoder is 6×384 with the tokens that occur
  --steps=24       batches of 8 per round: every n-th of an epoch by length, so that each bucket has its share

The published way is PyTorch with all rows padded to one length and a teacher forward pass in each step. A stronger peer
pads to the longest row of each batch. The last two lines compare two ways of ours, over three epochs with a fixed
teacher: cached targets (computed, written, read), and targets computed in each step.
Common flags: bench/side_by_side.py.
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

if TYPE_CHECKING:  # side_by_side.parse_flags comes before jax
    from models import Trainer
    from real_batches import Material

    from xlkd.models.family import Architecture
    from xlkd.spec.stage import StageSpec

LANGUAGES = "en,es,de,ar,hi,vi,zh"  # the seven of the paper
EPOCHS = 3


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, ("xquad", "tokenizer", "steps"))
    count = 2 if flags.quick else cli.parse_count(flags.rest, "steps", 24, 10_000)
    stage, material = _read_material(flags)
    longest = stage.task.max_length
    cases = [
        Case(
            f"epoch, against padding to {longest}",
            lambda: compare_with_peer(flags, stage, material, count, longest),
            2.2,
            True,
        ),
        Case(
            "epoch, against the longest of a batch",
            lambda: compare_with_peer(flags, stage, material, count, 0),
            1.5,
            True,
        ),
        Case(
            "cached targets, 3 epochs, same size",
            lambda: compare_with_cache(flags, stage, material, count // 2),
            1.15,
            True,
        ),
        Case(
            "cached targets, 3 epochs, base size",
            lambda: compare_with_cache(flags, stage, material, count // 2, "base"),
            1.8,
            True,
        ),
    ]
    data = "XQuAD" if "xquad" in flags.rest else "the atlas (synthetic data)"
    side_by_side.judge(f"self-distillation, {data}, {material.plan.rows} windows", cases, flags)


def _read_material(flags: side_by_side.Flags) -> tuple[StageSpec, Material]:
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
    stage = models.read_stage("gxlt.py", "skd", start="encoder", **changes)
    material = real_batches.read_material(stage)
    return models.resolve_stage(stage, EPOCHS * material.plan.steps_per_epoch, material.plan.steps_per_epoch), material


def _make_trainer(
    flags: side_by_side.Flags, stage: StageSpec, vocabulary: int, teacher: str = ""
) -> tuple[Trainer, Architecture]:
    """Returns our trainer; `teacher` names the shape of a fixed teacher, "" means a snapshot of the student."""
    import jax
    import models

    from xlkd.methods import gxlt
    from xlkd.models.encoder import Encoder
    from xlkd.models.heads import SpanHead, init_head
    from xlkd.models.outputs import span_logits

    architecture = models.make_architecture("tiny" if flags.quick else "6x384", 0.1, vocabulary)
    method = gxlt.build(stage, Encoder(architecture))
    if teacher:
        teacher_architecture = models.make_architecture("tiny" if flags.quick else teacher, 0.0, vocabulary)
        params = {
            "encoder": models.make_start(teacher_architecture, 1).encoder,
            "span": init_head(SpanHead(teacher_architecture), jax.random.key(2)),
        }
        logits = span_logits(Encoder(teacher_architecture))
        teacher_fields = {
            "variables": lambda variables, start: params,
            "forward": lambda p, b: dict(zip(("start", "end"), logits(p, b), strict=True)),
        }
        method = dataclasses.replace(
            method, teacher=dataclasses.replace(method.teacher, evolves=False, **teacher_fields)
        )
    return models.Trainer(method, models.make_start(architecture), stage), architecture


def compare_with_peer(
    flags: side_by_side.Flags, stage: StageSpec, material: Material, count: int, pad_to: int
) -> Sides:
    """Builds our steps in buckets, and PyTorch's steps with batches of as many rows."""
    import models
    import peer
    import real_batches

    trainer, architecture = _make_trainer(flags, stage, material.vocabulary)
    steps, theirs = real_batches.sample_bucketed(material, count), real_batches.sample_shuffled(material, count, pad_to)
    batches = models.put_on_device([material.batch(step) for step in steps])
    tensors = [peer.make_tensors(material.batch(step)) for step in theirs]
    student, teacher = (peer.load_span_model(architecture, trainer.state.variables.params) for _ in range(2))
    torch = peer.Trainer(student, peer.make_distillation_loss(teacher, stage.method.temperature), stage.optim.lr)
    shares = [real_batches.measure_padding(plan, material) for plan in (steps, theirs)]
    print(f"padding: {shares[0]} with buckets, {shares[1]} without", flush=True)
    return lambda: trainer.run_steps(batches), lambda: torch.run_steps(tensors)


def compare_with_cache(
    flags: side_by_side.Flags, stage: StageSpec, material: Material, count: int, teacher: str = "6x384"
) -> Sides:
    """Builds three epochs over the same batches: with cached targets, and with targets computed in each step."""
    import jax
    import models
    import numpy as np
    import real_batches

    from xlkd.data.targets import TargetStore

    stage = dataclasses.replace(stage, method=dataclasses.replace(stage.method, generations="fixed"))
    trainer, _ = _make_trainer(flags, stage, material.vocabulary, teacher)
    steps = real_batches.sample_bucketed(material, max(count, 1))
    batches = models.put_on_device([material.batch(step) for step in steps])
    folder = tempfile.TemporaryDirectory(prefix="xlkd-bench-")

    def read_targets(store: TargetStore, step):
        return models.put_on_device(store.take(material.keys(step), step.shape.lengths[0][1]))

    def ours() -> None:
        os.environ["XLKD_CACHE"] = tempfile.mkdtemp(dir=folder.name)  # empty each time
        store = TargetStore("targets-bench", ("start", "end"))
        outputs = [jax.device_get(trainer.compute_targets(batch)) for batch in batches]
        for step, values in zip(steps, outputs, strict=True):
            store.add(material.keys(step), {n: np.asarray(v) for n, v in values.items()}, material.lengths[step.index])
        for _ in range(EPOCHS):
            trainer.run_steps(batches, [read_targets(store, step) for step in steps])

    def theirs() -> None:
        for _ in range(EPOCHS):
            trainer.run_steps(batches)

    return ours, theirs


if __name__ == "__main__":
    sys.exit(cli.run(main))
