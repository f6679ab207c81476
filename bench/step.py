# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A training step and a forward pass at fixed shapes, ours and PyTorch's, same weights: `python bench/step.py`.

Dense AdamW, clipping and cross-entropy of spans on both sides, float32, two threads each; PyTorch runs transformers'
BERT with SDPA and fused AdamW. `--compiled` puts torch.compile on that side. Common flags: bench/side_by_side.py.
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
CALLS = 2  # of the work a round
CLOSE = 2e-4  # between the losses of the two sides, before anything is timed


def main(arguments: list[str]) -> None:
    flags = side_by_side.flags(arguments, switches=("compiled",))
    compiled = "compiled" in flags.rest
    training = [Case(name, lambda of=of: train(_cut(of, flags), compiled), of[-1]) for name, of in STEPS.items()]
    forward = [Case(name, lambda of=of: infer(_cut(of, flags), compiled), of[-1]) for name, of in FORWARD.items()]
    side_by_side.judge("ours / PyTorch" + (", compiled" if compiled else ""), training + forward, flags)


def train(of: tuple, compiled: bool) -> Sides:
    """Both sides of a training step; they agree on the loss before it is measured."""
    import models
    import peer

    from xlkd.methods import finetune
    from xlkd.models.encoder import Encoder

    shape, rows, length, dropout, _ = of
    architecture = models.architecture(shape, dropout)
    stage = models.resolve(models.stage("finetune.py", "finetune", optim__schedule="constant", optim__warmup=0))
    trainer = models.Trainer(finetune.build(stage, Encoder(architecture)), models.start(architecture), stage)
    model = peer.span_model(architecture, trainer.state.variables.params)
    theirs = peer.Trainer(model, peer.cross_entropy, stage.optim.lr, compiled)
    batch = models.questions(rows, length, architecture.vocab_size)
    placed, tensors = models.place(batch), peer.tensors(batch)
    if not dropout:
        _agree(float(trainer(placed)["loss"]), float(theirs(tensors)))
    return lambda: trainer.over([placed] * CALLS), lambda: theirs.over([tensors] * CALLS)


def infer(of: tuple, compiled: bool) -> Sides:
    """Both sides of a forward pass to the logits of spans."""
    import jax
    import models
    import numpy as np
    import peer
    import torch

    from xlkd.models.heads import SpanHead, init_head

    shape, rows, length, _ = of
    architecture = models.architecture(shape)
    head = init_head(SpanHead(architecture), jax.random.key(1))
    params = {"encoder": models.start(architecture).encoder, "span": head}
    model = peer.span_model(architecture, params).eval()
    batch = models.questions(rows, length, architecture.vocab_size)
    forward, placed = models.forward(architecture, params), models.place(batch)
    tensors = {name: x for name, x in peer.tensors(batch).items() if not name.endswith("positions")}
    call = torch.compile(model) if compiled else model
    torch.set_num_threads(2)

    def ours() -> None:
        for _ in range(4 * CALLS):
            found = forward(placed)
        jax.block_until_ready(found)

    def theirs() -> None:
        with torch.inference_mode():
            for _ in range(4 * CALLS):
                call(**tensors)

    with torch.inference_mode():
        off = np.abs(np.asarray(forward(placed)[0]) - call(**tensors).start_logits.numpy()).max()
    _agree(float(off), 0.0)
    return ours, theirs


def _agree(ours: float, theirs: float) -> None:
    if abs(ours - theirs) > CLOSE:
        raise AssertionError(f"the two sides do not compute the same: {ours} and {theirs}")


def _cut(of: tuple, flags: side_by_side.Flags) -> tuple:
    return (*QUICK, *of[3:]) if flags.quick else of


if __name__ == "__main__":
    sys.exit(cli.run(main))
