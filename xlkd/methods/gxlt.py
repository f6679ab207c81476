# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation for questions and contexts in different languages: a model taught by what it was a while ago."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from xlkd.errors import UserError
from xlkd.losses import distill, span
from xlkd.losses.terms import over
from xlkd.methods import Batch, Loss, Method, Teacher, Tree, finetune
from xlkd.models.encoder import Encoder
from xlkd.models.outputs import span_logits

CHOICES = {
    "kl": ("forward", "reverse", "symmetric"),
    "coefficient": ("none", "authors", "textbook"),
    "per": ("batch", "example"),
    "mask_positions": ("padding", "context", "none"),
    "generations": ("epoch_snapshot", "born_again", "fixed", "ema"),
}


def build(stage, encoder: Encoder) -> Method:
    """`L = α_CE · CE + α_KL · factor · KL(teacher ‖ student)`; with α_KL = 0 there is no teacher."""
    check(stage)
    m, logits = stage.method, span_logits(encoder)
    base = finetune.spans(stage, encoder)

    def mask_of(batch) -> jax.Array:
        return span.positions(m.mask_positions, batch["text"]["mask"], batch["context_mask"])

    def loss(variables, batch, targets, key, step) -> Loss:
        student, gold, mask = span.Span(*logits(variables.params, batch, True, key)), _gold(batch), mask_of(batch)
        ce = span.cross_entropy(student, gold, mask, batch["mask"], weight=m.alpha_ce)
        metrics = {"exact": finetune.hits(student, gold, batch)}
        if not m.alpha_kl:
            return Loss({"ce": ce}, metrics)
        taught = span.Span(targets["start"], targets["end"])
        values = distill.span_kl(
            taught, student, mask, temperature=m.temperature, direction=m.kl, t_squared=m.t_squared
        )
        kl = over(values * targets["factor"], batch["mask"], m.alpha_kl)
        entropy = sum(distill.entropy(t, mask, m.temperature) for t in taught) / 2
        agreement = sum(distill.agreement(t, s, mask) for t, s in zip(taught, student, strict=True)) / 2
        logged = {"coefficient": targets["factor"], "teacher_entropy": entropy, "agreement": agreement}
        metrics |= {name: over(value, batch["mask"], 0.0) for name, value in logged.items()}
        return Loss({"ce": ce, "kl": kl}, metrics)

    def prepare(batch, targets):
        return targets | {"factor": _factor(m, batch, targets, mask_of(batch))}

    if not m.alpha_kl:
        return dataclasses.replace(base, loss=loss)

    def forward(params, batch):
        return span.Span(*logits(params, batch))._asdict()

    teacher = _evolving_teacher(stage, base, forward)
    period = m.generation_epochs * stage.budget.epoch_steps if m.generations == "born_again" else 0
    return dataclasses.replace(base, loss=loss, prepare=prepare, teacher=teacher, period=period)


def check(stage) -> None:
    m = stage.method
    for name, known in CHOICES.items():
        if m[name] not in known:
            raise UserError(f"{name}={m[name]} is not possible", "config.method", f"choose one of {', '.join(known)}")
    if m.mask_positions == "none" and not stage.data.pad_to:
        what = "padding in the softmax makes the loss depend on how far a batch is padded"
        raise UserError(what, "config.method.mask_positions=none", "set config.data.pad_to=384, as published")
    if m.generations == "born_again" and stage.data.redraw == "epoch":
        what = "the schedule begins again with each generation, and epochs that are drawn anew differ in length"
        raise UserError(what, "config.data.redraw", "set redraw=never")
    if m.temperature <= 0:
        raise UserError(f"temperature={m.temperature} is not possible", "config.method", "give a number above 0")
    for name in ("generation_epochs", "k"):
        if m[name] < 1:
            raise UserError(f"{name}={m[name]} is not possible", "config.method", "give 1 or more")
    if len(m.window) != 2:
        raise UserError(f"window={tuple(m.window)} is not possible", "config.method", "give two, as (-5,5)")


def _factor(m, batch, targets, mask: jax.Array) -> jax.Array:
    """Of each row's KL: what of it a group of rows decides together."""
    if m.coefficient == "none":
        return jnp.ones_like(batch["mask"])
    return distill.coefficient(
        span.Span(targets["start"], targets["end"]),
        _gold(batch),
        mask,
        batch["mask"],
        reading=m.coefficient,
        k=m.k,
        window=tuple(m.window),
        per=m.per,
        group=m.coefficient_group,
    )


def _evolving_teacher(stage, base: Method, forward: Callable[[Tree, Batch], Tree]) -> Teacher:
    """Returns the teacher: the student of a generation's start, one that stays as it began, or a moving average."""
    m = stage.method

    def variables(variables, start):
        return _copy(variables.params)

    def snapshot(state, start, key):
        return state._replace(teacher=_copy(state.variables.params))

    def born_again(state, start, key):
        fresh = base.init(key, start)
        moments = jax.tree.map(jnp.zeros_like, state.optimizer)  # Adam begins with zeros
        return state._replace(teacher=_copy(state.variables.params), variables=fresh, optimizer=moments)

    def average(state, start, key):
        keep = m.ema_decay
        moved = jax.tree.map(lambda t, s: keep * t + (1 - keep) * s, state.teacher, state.variables.params)
        return state._replace(teacher=moved)

    def by_epoch(step: int) -> int:
        return (bisect.bisect_right(stage.budget.epoch_starts, step) - 1) // m.generation_epochs

    kinds = {
        "fixed": {"uses": stage.budget.steps / max(stage.budget.epoch_steps, 1)},
        "epoch_snapshot": {"evolves": True, "generation": by_epoch, "advance": snapshot},
        "born_again": {"evolves": True, "generation": by_epoch, "advance": born_again},
        "ema": {"evolves": True, "generation": lambda step: step, "advance": average},
    }
    common = {"ragged": ("start", "end"), "flops": base.flops}
    return Teacher(variables, forward, **common, **kinds[m.generations])


def _copy(tree):
    """Buffers of their own: the student's are given to the next step."""
    return jax.tree.map(jnp.copy, tree)


def _gold(batch) -> span.Span:
    return span.Span(batch["start"], batch["end"])
