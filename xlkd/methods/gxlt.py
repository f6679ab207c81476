# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation for questions and contexts in different languages: a model taught by what it was a while ago."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from xlkd.losses import distill, span
from xlkd.losses.terms import make_term
from xlkd.methods import Batch, Loss, Method, Teacher, Tree, finetune
from xlkd.models.encoder import Encoder
from xlkd.models.outputs import span_logits
from xlkd.spec.gxlt import Method as Settings
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import QuestionAnswering


def build(spec: StageSpec[Settings, QuestionAnswering], encoder: Encoder) -> Method:
    """Builds `L = α_CE · CE + α_KL · factor · KL(teacher ‖ student)`; with α_KL = 0 there is no teacher."""
    m, logits = spec.method, span_logits(encoder)
    base = finetune.spans(spec.task, encoder)

    def mask_of(batch) -> jax.Array:
        return span.select_positions(m.mask_positions, batch["text"]["mask"], batch["context_mask"])

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
        kl = make_term(values * targets["factor"], batch["mask"], m.alpha_kl)
        entropy = sum(distill.entropy(t, mask, m.temperature) for t in taught) / 2
        agreement = sum(distill.agreement(t, s, mask) for t, s in zip(taught, student, strict=True)) / 2
        logged = {"coefficient": targets["factor"], "teacher_entropy": entropy, "agreement": agreement}
        metrics |= {name: make_term(value, batch["mask"], 0.0) for name, value in logged.items()}
        return Loss({"ce": ce, "kl": kl}, metrics)

    def prepare(batch, targets):
        return targets | {"factor": _factor(m, batch, targets, mask_of(batch))}

    if not m.alpha_kl:
        return dataclasses.replace(base, loss=loss)

    def forward(params, batch):
        return span.Span(*logits(params, batch))._asdict()

    teacher = _evolving_teacher(m, spec.horizon, base, forward)
    period = m.generation_epochs * spec.horizon.steps_per_epoch if m.generations == "born_again" else 0
    return dataclasses.replace(base, loss=loss, prepare=prepare, teacher=teacher, period=period)


def _factor(m: Settings, batch, targets, mask: jax.Array) -> jax.Array:
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
        window=m.window,
        per=m.per,
        group=m.coefficient_group,
    )


def _evolving_teacher(m: Settings, horizon: Horizon, base: Method, forward: Callable[[Tree, Batch], Tree]) -> Teacher:
    """Returns the teacher: the student of a generation's start, one that stays as it began, or a moving average."""

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
        return (bisect.bisect_right(horizon.epoch_starts, step) - 1) // m.generation_epochs

    kinds = {
        "fixed": {"uses": horizon.steps / max(horizon.steps_per_epoch, 1)},
        "epoch_snapshot": {"evolves": True, "generation": by_epoch, "advance": snapshot},
        "born_again": {"evolves": True, "generation": by_epoch, "advance": born_again},
        "ema": {"evolves": True, "generation": lambda step: step, "advance": average},
    }
    common = {"ragged": ("start", "end"), "flops": base.flops, "origin": f"the student itself: `{m.generations}`"}
    return Teacher(variables, forward, **common, **kinds[m.generations])


def _copy(tree):
    """Buffers of their own: the student's are given to the next step."""
    return jax.tree.map(jnp.copy, tree)


def _gold(batch) -> span.Span:
    return span.Span(batch["start"], batch["end"])
