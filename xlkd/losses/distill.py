# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a teacher's logits ask of a student: KL over span positions, its mAP@k coefficient, and the loss of classes."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from xlkd.losses.span import Span, log_probabilities
from xlkd.losses.terms import NEVER, groups, real

Direction = Literal["forward", "reverse", "symmetric"]
Reading = Literal["authors", "textbook"]
Form = Literal["ce", "kl", "mse"]


def span_kl(
    teacher: Span,
    student: Span,
    mask: jax.Array,
    *,
    temperature: float = 1.0,
    direction: Direction = "forward",
    t_squared: bool = True,
) -> jax.Array:
    """The mean of the KL of starts and of ends, by row [rows]; no gradient to the teacher."""
    sides = [
        kl(t, s, mask, temperature=temperature, direction=direction) for t, s in zip(teacher, student, strict=True)
    ]
    return 0.5 * (sides[0] + sides[1]) * (temperature**2 if t_squared else 1.0)


def kl(
    teacher: jax.Array,
    student: jax.Array,
    mask: jax.Array,
    *,
    temperature: float = 1.0,
    direction: Direction = "forward",
) -> jax.Array:
    """KL(teacher ‖ student) over the last axis, exchanged (reverse) or the sum of both (symmetric); no T² yet."""
    log_p = log_probabilities(jax.lax.stop_gradient(teacher), mask, temperature)
    log_q = log_probabilities(student, mask, temperature)
    forward = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    reverse = jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)
    return {"forward": forward, "reverse": reverse, "symmetric": forward + reverse}[direction]


def coefficient(
    teacher: Span,
    gold: Span,
    mask: jax.Array,
    rows: jax.Array,
    *,
    reading: Reading = "authors",
    k: int = 10,
    window: tuple[int, int] = (5, 4),
    per: Literal["batch", "example"] = "batch",
    group: int = 6,
) -> jax.Array:
    """How well the teacher knows the gold answer, in [0, 1], as a factor of each row's KL [rows].

    `per="batch"` gives each row the mean of its group of consecutive real rows (0: of all rows).
    """
    sides = [
        average_precision(t, y, mask, reading=reading, k=k, window=window) for t, y in zip(teacher, gold, strict=True)
    ]
    own = jax.lax.stop_gradient(0.5 * (sides[0] + sides[1]))
    if per == "example":
        return own
    counted = rows.astype(own.dtype)
    of = groups(rows, group)
    sums = jax.ops.segment_sum(own * counted, of, num_segments=len(own))
    counts = jax.ops.segment_sum(counted, of, num_segments=len(own))
    return (sums / jnp.maximum(counts, 1))[of]


def average_precision(
    teacher: jax.Array, gold: jax.Array, mask: jax.Array, *, reading: Reading, k: int, window: tuple[int, int]
) -> jax.Array:
    """Of the teacher's k best positions against those near the gold one (window: to its left, to its right), by row.

    `authors` counts the first hit only: a reciprocal rank with tolerance. `textbook` is the average precision.
    """
    length = teacher.shape[-1]
    if length < k:
        raise ValueError(f"the {k} best of {length} positions")
    mask = mask.astype(bool)
    _, best = jax.lax.top_k(jnp.where(mask, real(teacher), NEVER), k)  # ties: the lower position first
    near = _near(jnp.arange(length)[None, :], gold, window) & mask
    hit = jnp.take_along_axis(near, best, axis=-1).astype(jnp.promote_types(teacher.dtype, jnp.float32))
    rank = jnp.arange(1, k + 1)
    if reading == "authors":
        return jnp.max(hit / rank, axis=-1)
    relevant = jnp.clip(jnp.sum(near, axis=-1), 1, k)
    return jnp.sum(hit * jnp.cumsum(hit, axis=-1) / rank, axis=-1) / relevant


def _near(at: jax.Array, gold: jax.Array, window: tuple[int, int]) -> jax.Array:
    left, right = window
    return (at >= gold[:, None] - left) & (at <= gold[:, None] + right)


def entropy(logits: jax.Array, mask: jax.Array, temperature: float = 1.0) -> jax.Array:
    """Of softmax(logits / T), in nats, by row."""
    log_p = log_probabilities(logits, mask, temperature)
    return -jnp.sum(jnp.exp(log_p) * jnp.where(mask.astype(bool), log_p, 0), axis=-1)


def agreement(teacher: jax.Array, student: jax.Array, mask: jax.Array) -> jax.Array:
    """1 where both have the same best position, else 0, by row; ties: the lower position."""
    best = [jnp.argmax(jnp.where(mask.astype(bool), real(x), NEVER), axis=-1) for x in (teacher, student)]
    return (best[0] == best[1]).astype(jnp.float32)


def class_loss(
    teacher: jax.Array, student: jax.Array, *, form: Form = "ce", temperature: float = 1.0, t_squared: bool = False
) -> jax.Array:
    """Distillation of class logits [rows, classes], by row; no gradient to the teacher."""
    if form != "mse":
        log_q = jax.nn.log_softmax(real(student) / temperature, axis=-1)
        return class_loss_of_log(teacher, log_q, form=form, temperature=temperature, t_squared=t_squared)
    difference = (real(student) - real(jax.lax.stop_gradient(teacher))) / temperature
    return jnp.mean(difference**2, axis=-1) * (temperature**2 if t_squared else 1.0)


def class_loss_of_log(
    teacher: jax.Array,
    log_q: jax.Array,
    *,
    form: Literal["ce", "kl"] = "ce",
    temperature: float = 1.0,
    t_squared: bool = False,
) -> jax.Array:
    """The same against the student's log-probabilities at T, where it has no logits: a mixture of probabilities."""
    if form not in ("ce", "kl"):
        raise ValueError(f"{form} compares logits, and a mixture of probabilities has none")
    log_p = jax.nn.log_softmax(real(jax.lax.stop_gradient(teacher)) / temperature, axis=-1)
    against = log_q if form == "ce" else log_q - log_p
    return -jnp.sum(jnp.exp(log_p) * against, axis=-1) * (temperature**2 if t_squared else 1.0)


def label_loss(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """−log softmax(logits)[label] by row, and which rows have a label: those with 0 or more."""
    log_q = jax.nn.log_softmax(real(logits), axis=-1)
    at = jnp.clip(labels, 0, logits.shape[-1] - 1)[..., None]
    return -jnp.take_along_axis(log_q, at, axis=-1)[..., 0], labels >= 0
