# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A training step and a forward pass at fixed shapes, ours and PyTorch's, same weights: `python bench/step.py`.

Dense AdamW, clipping and cross-entropy of spans on both sides, float32, two threads each; PyTorch runs transformers'
model with SDPA and fused AdamW. `--compiled` puts torch.compile on that side; `--family=modernbert` or `deberta-v2`
takes an encoder of that family in place of BERT. Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import sys

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

STEPS = {  # name: shape, rows, length, dropout, bar
    "train, 6×384, 4×384, dropout": ("6x384", 4, 384, 0.1, 0.65),
    "train, 6×384, 8×128, dropout": ("6x384", 8, 128, 0.1, 0.90),
    "train, mBERT's shape, 4×128, dropout": ("base", 4, 128, 0.1, 1.0),
    "train, 6×384, 8×128, no dropout": ("6x384", 8, 128, 0.0, 1.0),
    "train, 6×384, 4×384, no dropout": ("6x384", 4, 384, 0.0, 0.0),
}
FORWARD = {"forward, 6×384, 8×128": ("6x384", 8, 128, 1.0), "forward, 6×384, 4×384": ("6x384", 4, 384, 1.0)}
QUICK = ("tiny", 2, 16)
CALLS = 2  # of the work per round
CLOSE = 2e-4  # allowed difference of the losses of both sides, checked before timing


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, names=("family",), switches=("compiled",))
    compiled, model_type = "compiled" in flags.rest, flags.rest.get("family", "bert")
    training = [
        Case(name, lambda shape=shape: make_training(_shorten(shape, flags), compiled, model_type), shape[-1])
        for name, shape in STEPS.items()
    ]
    forward = [
        Case(name, lambda shape=shape: make_inference(_shorten(shape, flags), compiled, model_type), shape[-1])
        for name, shape in FORWARD.items()
    ]
    side_by_side.judge("ours / PyTorch" + (", compiled" if compiled else ""), training + forward, flags)


def make_training(case: tuple, compiled: bool, model_type: str) -> Sides:
    """Builds both sides of a training step, and checks that their losses agree."""
    import models
    import peer

    from xlkd.methods import finetune
    from xlkd.models.encoder import Encoder

    shape, rows, length, dropout, _ = case
    architecture = models.make_architecture(shape, dropout, model_type=model_type)
    stage = models.resolve_stage(
        models.read_stage("finetune.py", "finetune", optim__schedule="constant", optim__warmup=0)
    )
    trainer = models.Trainer(finetune.build(stage, Encoder(architecture)), models.make_start(architecture), stage)
    model = peer.load_span_model(architecture, trainer.state.variables.params)
    theirs = peer.Trainer(model, peer.compute_cross_entropy, stage.optim.lr, compiled)
    batch = models.make_questions(rows, length, architecture.vocab_size)
    placed, tensors = models.put_on_device(batch), peer.make_tensors(batch, architecture.types > 1)
    if not dropout:
        _check_agreement(float(trainer(placed)["loss"]), float(theirs(tensors)))
    return lambda: trainer.run_steps([placed] * CALLS), lambda: theirs.run_steps([tensors] * CALLS)


def make_inference(case: tuple, compiled: bool, model_type: str) -> Sides:
    """Builds both sides of a forward pass to span logits, and checks that these agree."""
    import jax
    import models
    import numpy as np
    import peer
    import torch

    from xlkd.models.heads import SpanHead, init_head

    shape, rows, length, _ = case
    architecture = models.make_architecture(shape, model_type=model_type)
    head = init_head(SpanHead(architecture), jax.random.key(1))
    params = {"encoder": models.make_start(architecture).encoder, "span": head}
    model = peer.load_span_model(architecture, params).eval()
    batch = models.make_questions(rows, length, architecture.vocab_size)
    forward, placed = models.compile_forward(architecture, params), models.put_on_device(batch)
    tensors = {
        name: x
        for name, x in peer.make_tensors(batch, architecture.types > 1).items()
        if not name.endswith("positions")
    }
    call = torch.compile(model) if compiled else model
    torch.set_num_threads(2)

    def ours() -> None:
        for _ in range(4 * CALLS):
            outputs = forward(placed)
        jax.block_until_ready(outputs)

    def theirs() -> None:
        with torch.inference_mode():
            for _ in range(4 * CALLS):
                call(**tensors)

    with torch.inference_mode():
        difference = np.abs(np.asarray(forward(placed)[0]) - call(**tensors).start_logits.numpy()).max()
    _check_agreement(float(difference), 0.0)
    return ours, theirs


def _check_agreement(ours: float, theirs: float) -> None:
    if abs(ours - theirs) > CLOSE:
        raise AssertionError(f"the two sides do not compute the same: {ours} and {theirs}")


def _shorten(case: tuple, flags: side_by_side.Flags) -> tuple:
    return (*QUICK, *case[3:]) if flags.quick else case


if __name__ == "__main__":
    sys.exit(cli.run(main))
