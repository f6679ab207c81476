# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of G-XLT's self-distillation."""

from __future__ import annotations

import dataclasses
from typing import Literal

from xlkd.errors import UserError
from xlkd.spec import setting, stage
from xlkd.spec.tasks import QuestionAnswering

TASKS = ("qa",)
READS = ("data.ntl", "data.pivot", "data.redraw", "data.draw_seed", "teacher.cache")


@dataclasses.dataclass(frozen=True)
class Method(stage.Method):
    """Weights of the losses, the teacher's generations, and the coefficient of the KL."""

    name: str = setting("gxlt", "The method: a module of xlkd/methods.")
    alpha_ce: float = setting(1.0, "Weight of cross-entropy.", at_least=0, at_most=1e6)
    alpha_kl: float = setting(1.0, "Weight of distillation; 0 has no teacher.", at_least=0, at_most=1e6)
    temperature: float = setting(
        2.0, "Temperature of the KL: divides the logits of teacher and student.", at_least=0.001, at_most=1000
    )
    t_squared: bool = setting(True, "Multiply distillation by temperature squared.")
    kl: Literal["forward", "reverse", "symmetric"] = setting("forward", "Direction of the KL.")
    coefficient: Literal["none", "authors", "textbook"] = setting(
        "none", "Coefficient of the KL: 1, or mAP@k of the teacher as in the authors' code, or by the textbook."
    )
    per: Literal["batch", "example"] = setting("batch", "Examples that share a coefficient.")
    coefficient_group: int = setting(
        6, "Examples of a group that shares a coefficient; 0 takes all.", at_least=0, at_most=1_000_000
    )
    k: int = setting(10, "Ranks that mAP@k counts.", at_least=1, at_most=1000)
    window: tuple[int, int] = setting(
        (5, 4), "Positions before and after the gold one that count as relevant.", at_least=0, at_most=1000
    )
    mask_positions: Literal["padding", "context", "none"] = setting("padding", "Positions that the softmax leaves out.")
    generations: Literal["epoch_snapshot", "born_again", "fixed", "ema"] = setting(
        "epoch_snapshot", "When the teacher becomes a copy of the student."
    )
    generation_epochs: int = setting(1, "Epochs of a generation.", at_least=1, at_most=100_000)
    ema_decay: float = setting(0.99, "Decay of the moving average, for generations=ema.", at_least=0, at_most=1)


def check(spec: stage.StageSettings[Method, QuestionAnswering]) -> None:
    """Refuses settings that are impossible together."""
    if spec.method.mask_positions == "none" and not spec.data.pad_to:
        what = "padding in the softmax makes the loss depend on how far a batch is padded"
        raise UserError(what, "config.method.mask_positions=none", "set config.data.pad_to=384, as published")
    if spec.method.generations == "born_again" and spec.data.redraw == "epoch":
        what = "the learning rate schedule restarts with each generation, and redrawn epochs differ in length"
        raise UserError(what, "config.data.redraw", "set redraw=never")
