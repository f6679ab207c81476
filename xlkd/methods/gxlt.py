# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Self-distillation for questions and contexts in different languages: the teacher is an earlier copy of the model."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from xlkd.losses import distill, span
from xlkd.losses.terms import make_term
from xlkd.methods import Batch, Loss, Method, Start, State, Step, Teacher, Tree, Variables, finetune
from xlkd.models.encoder import Encoder
from xlkd.models.outputs import span_logits
from xlkd.spec.gxlt import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import QuestionAnswering


def build(spec: StageSpec[Settings, QuestionAnswering], encoder: Encoder) -> Method:
    """Builds `L = α_CE · CE + α_KL · coefficient · KL(teacher ‖ student)`; with α_KL = 0 there is no teacher."""
    m, logits = spec.method, span_logits(encoder)
    base = finetune.build_spans(spec.task, encoder)

    def select_positions(batch: Batch) -> Bool[Array, "rows length"]:
        return span.select_positions(m.mask_positions, batch["text"]["mask"], batch["context_mask"])

    def loss(variables: Variables, batch: Batch, targets: Tree, key: Key[Array, ""], step: Step) -> Loss:
        student, gold = span.Span(*logits(variables.params, batch, True, key)), _make_gold_span(batch)
        mask = select_positions(batch)
        ce = span.cross_entropy(student, gold, mask, batch["mask"], weight=m.alpha_ce)
        metrics = {"exact": finetune.count_exact(student, gold, batch)}
        if not m.alpha_kl:
            return Loss({"ce": ce}, metrics)
        teacher = span.Span(targets["start"], targets["end"])
        values = distill.span_kl(
            teacher, student, mask, temperature=m.temperature, direction=m.kl, t_squared=m.t_squared
        )
        kl = make_term(values * targets["coefficient"], batch["mask"], m.alpha_kl)
        start, end = (distill.entropy(side, mask, m.temperature) for side in teacher)
        same_start, same_end = (distill.agreement(t, s, mask) for t, s in zip(teacher, student, strict=True))
        logged = {
            "coefficient": targets["coefficient"],
            "teacher_entropy": (start + end) / 2,
            "agreement": (same_start + same_end) / 2,
        }
        metrics |= {name: make_term(value, batch["mask"], 0.0) for name, value in logged.items()}
        return Loss({"ce": ce, "kl": kl}, metrics)

    def prepare(batch: Batch, targets: Tree) -> Tree:
        return targets | {"coefficient": _compute_coefficient(m, batch, targets, select_positions(batch))}

    if not m.alpha_kl:
        return dataclasses.replace(base, loss=loss)

    def forward(params: Tree, batch: Batch) -> Tree:
        return span.Span(*logits(params, batch))._asdict()

    teacher = _build_teacher(spec, base, forward)
    period = m.generation_epochs * spec.horizon.steps_per_epoch if m.generations == "born_again" else 0
    return dataclasses.replace(base, loss=loss, prepare=prepare, teacher=teacher, period=period)


def _compute_coefficient(
    m: Settings, batch: Batch, targets: Tree, mask: Bool[Array, "rows length"]
) -> Float[Array, " rows"]:
    """Returns the coefficient of each row's KL, which the rows of a group share."""
    if m.coefficient == "none":
        return jnp.ones_like(batch["mask"])
    return distill.coefficient(
        span.Span(targets["start"], targets["end"]),
        _make_gold_span(batch),
        mask,
        batch["mask"],
        reading=m.coefficient,
        k=m.k,
        window=m.window,
        per=m.per,
        group=m.coefficient_group,
    )


def _build_teacher(
    spec: StageSpec[Settings, QuestionAnswering], base: Method, forward: Callable[[Tree, Batch], Tree]
) -> Teacher:
    """Returns the teacher: the student at the start of a generation, the first student, or a moving average."""
    m, horizon = spec.method, spec.horizon

    def copy_student(variables: Variables, start: Start) -> Tree:
        return _copy_buffers(variables.params)

    def take_snapshot(state: State, start: Start, key: Key[Array, ""]) -> State:
        return state._replace(teacher=_copy_buffers(state.variables.params))

    def restart_student(state: State, start: Start, key: Key[Array, ""]) -> State:
        fresh = base.init(key, start)
        moments = jax.tree.map(jnp.zeros_like, state.optimizer)  # Adam begins with zeros
        return state._replace(teacher=_copy_buffers(state.variables.params), variables=fresh, optimizer=moments)

    def average_weights(state: State, start: Start, key: Key[Array, ""]) -> State:
        keep = m.ema_decay
        moved = jax.tree.map(lambda t, s: keep * t + (1 - keep) * s, state.teacher, state.variables.params)
        return state._replace(teacher=moved)

    def count_generations(step: int) -> int:
        return (bisect.bisect_right(horizon.epoch_starts, step) - 1) // m.generation_epochs

    make_teacher = functools.partial(
        Teacher,
        copy_student,
        forward,
        ragged=("start", "end"),
        flops=base.flops,
        origin=f"the student itself: `{m.generations}`",
    )
    if m.generations == "fixed":
        epochs = horizon.steps / max(horizon.steps_per_epoch, 1)
        return make_teacher(uses=epochs if spec.data.redraw == "never" else 1.0)  # else epochs have other pairs
    if m.generations == "ema":
        return make_teacher(evolves=True, generation=lambda step: step, advance=average_weights)
    advance = restart_student if m.generations == "born_again" else take_snapshot
    return make_teacher(evolves=True, generation=count_generations, advance=advance)


def _copy_buffers(tree: Tree) -> Tree:
    """Copies the arrays, because the student's own are donated to the next step."""
    return jax.tree.map(jnp.copy, tree)


def _make_gold_span(batch: Batch) -> span.Span:
    return span.Span(batch["start"], batch["end"])
