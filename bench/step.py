# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A training step and a forward pass at fixed shapes, ours and PyTorch's, same weights: `python bench/step.py`.

Dense AdamW, clipping and cross-entropy of spans on all sides, float32, two threads each; PyTorch runs transformers'
model with SDPA and fused AdamW, eager and by torch.compile. `--family=modernbert` or `deberta-v2` takes an encoder of
that family in place of BERT. Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.parse_flags comes before jax
    import models
    import peer

    from xlkd.models.family import Architecture
    from xlkd.spec.stage import StageSpec

STEPS = {  # name: shape, rows, length, dropout, bar
    "train, 6×384, 4×384, dropout": ("6x384", 4, 384, 0.1, 0.65),
    "train, 6×384, 8×128, dropout": ("6x384", 8, 128, 0.1, 0.90),
    "train, mBERT's shape, 4×128, dropout": ("base", 4, 128, 0.1, 1.0),
    "train, 6×384, 8×128, no dropout": ("6x384", 8, 128, 0.0, 1.0),
    "train, 6×384, 4×384, no dropout": ("6x384", 4, 384, 0.0, 0.0),
}
FORWARD = {"forward, 6×384, 8×128": ("6x384", 8, 128, 1.0), "forward, 6×384, 4×384": ("6x384", 4, 384, 1.0)}
PEERS = ("eager", "compiled")
QUICK = ("tiny", 2, 16)
CALLS = 2  # of the work per round
CLOSE = 2e-4  # allowed difference of the losses of two sides, checked before timing


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, names=("family",))
    model_type = flags.rest.get("family", "bert")
    training = [
        Case(name, lambda shape=shape: make_training(_shorten(shape, flags), model_type), shape[-1], peers=PEERS)
        for name, shape in STEPS.items()
    ]
    forward = [
        Case(name, lambda shape=shape: make_inference(_shorten(shape, flags), model_type), shape[-1], peers=PEERS)
        for name, shape in FORWARD.items()
    ]
    side_by_side.judge("ours / PyTorch, the faster of eager and compiled", training + forward, flags)


def make_training(case: tuple, model_type: str) -> Sides:
    """Builds all sides of a training step, and checks that their losses agree."""
    import models
    import peer

    shape, rows, length, dropout, _ = case
    architecture = models.make_architecture(shape, dropout, model_type=model_type)
    trainer = make_trainer(architecture)
    peers = [make_peer(architecture, trainer.state.variables.params, name == "compiled") for name in PEERS]
    batch = models.make_questions(rows, length, architecture.vocab_size)
    placed, tensors = models.put_on_device(batch), peer.make_tensors(batch, architecture.types > 1)
    if not dropout:
        loss = float(trainer(placed)["loss"])
        for theirs in peers:
            _check_agreement(loss, float(theirs(tensors)))
    run_peers = [lambda theirs=theirs: theirs.run_steps([tensors] * CALLS) for theirs in peers]
    return lambda: trainer.run_steps([placed] * CALLS), *run_peers


def make_trainer(architecture: Architecture, dtype: str = "float32") -> models.Trainer:
    """Builds our training step of question answering, from random weights."""
    import models

    from xlkd.methods import finetune

    stage = _read_stage()
    method = finetune.build(stage, models.make_encoder(architecture, dtype))
    return models.Trainer(method, models.make_start(architecture), stage)


def make_peer(architecture: Architecture, params: Any, compiled: bool, dtype: str = "float32") -> peer.Trainer:
    """Builds PyTorch's training step from our weights."""
    import peer

    model = peer.load_span_model(architecture, params)
    return peer.Trainer(model, peer.compute_cross_entropy, _read_stage().optim.lr, compiled, dtype)


def _read_stage() -> StageSpec[Any, Any]:
    import models

    settings = models.read_stage("finetune.py", "finetune", optim__schedule="constant", optim__warmup=0)
    return models.resolve_stage(settings)


def make_inference(case: tuple, model_type: str) -> Sides:
    """Builds all sides of a forward pass to span logits, and checks that these agree."""
    import jax
    import models
    import numpy as np
    import peer

    shape, rows, length, _ = case
    architecture = models.make_architecture(shape, model_type=model_type)
    params = models.init_span_params(architecture)
    batch = models.make_questions(rows, length, architecture.vocab_size)
    forward, placed = models.compile_forward(architecture, params), models.put_on_device(batch)
    calls = [peer.compile_forward(peer.load_span_model(architecture, params), name == "compiled") for name in PEERS]
    tensors = peer.make_inputs(batch, architecture.types > 1)

    def run_ours() -> None:
        for _ in range(4 * CALLS):
            outputs = forward(placed)
        jax.block_until_ready(outputs)

    def run_peer(call: Any) -> None:
        for _ in range(4 * CALLS):
            call(tensors)
        peer.wait()

    for call in calls:
        difference = np.abs(np.asarray(forward(placed)[0]) - call(tensors).start_logits.cpu().numpy()).max()
        _check_agreement(float(difference), 0.0)
    return run_ours, *(lambda call=call: run_peer(call) for call in calls)


def _check_agreement(ours: float, theirs: float) -> None:
    if abs(ours - theirs) > CLOSE:
        raise AssertionError(f"the sides do not compute the same: {ours} and {theirs}")


def _shorten(case: tuple, flags: side_by_side.Flags) -> tuple:
    return (*QUICK, *case[3:]) if flags.quick else case


if __name__ == "__main__":
    sys.exit(cli.run(main))
