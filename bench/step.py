# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A training step and a forward pass at fixed shapes, ours and PyTorch's, same weights: `python bench/step.py`.

Dense AdamW, clipping and cross-entropy of spans on all sides, two threads each, float32 unless the name says bfloat16
(autocast in PyTorch); PyTorch runs transformers' model with SDPA and fused AdamW, eager and by torch.compile.
`--family=modernbert` or `deberta-v2` takes an encoder of that family in place of BERT. Common flags:
bench/side_by_side.py.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.parse_flags comes before jax
    import models
    import peer

    from xlkd.models.family import Architecture
    from xlkd.spec.stage import StageSpec


class Work(NamedTuple):
    """The shape of a step or a forward pass, and its bar; 0 = none."""

    shape: str
    rows: int
    length: int
    bar: float
    dropout: float = 0.0
    dtype: str = "float32"


STEPS = {
    "train, 6×384, 4×384, dropout": Work("6x384", 4, 384, 0.65, 0.1),
    "train, 6×384, 8×128, dropout": Work("6x384", 8, 128, 0.90, 0.1),
    "train, mBERT's shape, 4×128, dropout": Work("base", 4, 128, 1.0, 0.1),
    "train, 6×384, 8×128, no dropout": Work("6x384", 8, 128, 1.0),
    "train, 6×384, 4×384, no dropout": Work("6x384", 4, 384, 0.0),
    "train, 6×384, 4×384, dropout, bfloat16": Work("6x384", 4, 384, 0.0, 0.1, "bfloat16"),
    "train, 6×384, 8×128, dropout, bfloat16": Work("6x384", 8, 128, 0.0, 0.1, "bfloat16"),
}
FORWARD = {
    "forward, 6×384, 8×128": Work("6x384", 8, 128, 1.0),
    "forward, 6×384, 4×384": Work("6x384", 4, 384, 1.0),
    "forward, 6×384, 4×384, bfloat16": Work("6x384", 4, 384, 0.0, dtype="bfloat16"),
}
PEERS = ("eager", "compiled")
QUICK = {"shape": "tiny", "rows": 2, "length": 16}
CALLS = 2  # of the work per round
CLOSE = {"float32": 2e-4, "bfloat16": 5e-2}  # allowed difference of the losses of two sides, checked before timing


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, names=("family",))
    model_type = flags.rest.get("family", "bert")
    training = [
        Case(name, lambda work=work: make_training(_shorten(work, flags), model_type), work.bar, peers=PEERS)
        for name, work in STEPS.items()
    ]
    forward = [
        Case(name, lambda work=work: make_inference(_shorten(work, flags), model_type), work.bar, peers=PEERS)
        for name, work in FORWARD.items()
    ]
    side_by_side.judge("ours / PyTorch, the faster of eager and compiled", training + forward, flags)


def make_training(work: Work, model_type: str) -> Sides:
    """Builds all sides of a training step, and checks that their losses agree."""
    import models
    import peer

    architecture = models.make_architecture(work.shape, work.dropout, model_type=model_type)
    trainer = make_trainer(architecture, work.dtype)
    start = trainer.state.variables.params
    peers = [make_peer(architecture, start, name == "compiled", work.dtype) for name in PEERS]
    batch = models.make_questions(work.rows, work.length, architecture.vocab_size)
    placed, tensors = models.put_on_device(batch), peer.make_tensors(batch, architecture.types > 1)
    if not work.dropout:
        loss = float(trainer(placed)["loss"])
        for theirs in peers:
            _check_agreement(loss, float(theirs(tensors)), work.dtype)
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


def make_inference(work: Work, model_type: str) -> Sides:
    """Builds all sides of a forward pass to span logits, and checks that these agree."""
    import jax
    import models
    import numpy as np
    import peer

    architecture = models.make_architecture(work.shape, model_type=model_type)
    params = models.init_span_params(architecture)
    batch = models.make_questions(work.rows, work.length, architecture.vocab_size)
    forward, placed = models.compile_forward(architecture, params, work.dtype), models.put_on_device(batch)
    calls = [
        peer.compile_forward(peer.load_span_model(architecture, params), name == "compiled", work.dtype)
        for name in PEERS
    ]
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
        difference = np.abs(np.asarray(forward(placed)[0]) - call(tensors).start_logits.float().cpu().numpy()).max()
        _check_agreement(float(difference), 0.0, work.dtype)
    return run_ours, *(lambda call=call: run_peer(call) for call in calls)


def _check_agreement(ours: float, theirs: float, dtype: str) -> None:
    if abs(ours - theirs) > CLOSE[dtype]:
        raise AssertionError(f"the sides do not compute the same: {ours} and {theirs}")


def _shorten(work: Work, flags: side_by_side.Flags) -> Work:
    return work._replace(**QUICK) if flags.quick else work


if __name__ == "__main__":
    sys.exit(cli.run(main))
