# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses between a teacher's logits and a student's: KL over span positions, its mAP@k coefficient, and classes."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

from xlkd.losses.span import SpanLogits, SpanPositions, log_probabilities
from xlkd.losses.terms import MASKED_SCORE, at_least_float32, number_groups

Direction = Literal["forward", "reverse", "symmetric"]
Reading = Literal["authors", "textbook"]
Form = Literal["ce", "kl", "mse"]


def span_kl(
    teacher: SpanLogits,
    student: SpanLogits,
    mask: Shaped[Array, "rows length"],
    *,
    temperature: float = 1.0,
    direction: Direction = "forward",
    t_squared: bool = True,
) -> Float[Array, " rows"]:
    """Returns the mean of the KL of starts and of ends for each row, times T² with `t_squared`.

    The teacher gets no gradient.
    """
    sides = [
        kl(t, s, mask, temperature=temperature, direction=direction) for t, s in zip(teacher, student, strict=True)
    ]
    return 0.5 * (sides[0] + sides[1]) * (temperature**2 if t_squared else 1.0)


def kl(
    teacher: Float[Array, "rows length"],
    student: Float[Array, "rows length"],
    mask: Shaped[Array, "rows length"],
    *,
    temperature: float = 1.0,
    direction: Direction = "forward",
) -> Float[Array, " rows"]:
    """Returns KL(teacher ‖ student) for each row, exchanged (reverse) or the sum of both (symmetric), without T²."""
    log_p = log_probabilities(jax.lax.stop_gradient(teacher), mask, temperature)
    log_q = log_probabilities(student, mask, temperature)
    forward = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    reverse = jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)
    return {"forward": forward, "reverse": reverse, "symmetric": forward + reverse}[direction]


def coefficient(
    teacher: SpanLogits,
    gold: SpanPositions,
    mask: Shaped[Array, "rows length"],
    rows: Shaped[Array, " rows"],
    *,
    reading: Reading = "authors",
    k: int = 10,
    window: tuple[int, int] = (5, 4),
    per: Literal["batch", "example"] = "batch",
    group: int = 6,
) -> Float[Array, " rows"]:
    """Measures how well the teacher knows the gold answer, in [0, 1], as a factor of each row's KL.

    `per="batch"` gives each row the mean of its group of consecutive real rows (0: of all rows).
    """
    sides = [
        average_precision(t, y, mask, reading=reading, k=k, window=window) for t, y in zip(teacher, gold, strict=True)
    ]
    own = jax.lax.stop_gradient(0.5 * (sides[0] + sides[1]))
    if per == "example":
        return own
    counted = rows.astype(own.dtype)
    numbers = number_groups(rows, group)
    sums = jax.ops.segment_sum(own * counted, numbers, num_segments=len(own))
    counts = jax.ops.segment_sum(counted, numbers, num_segments=len(own))
    return (sums / jnp.maximum(counts, 1))[numbers]


def average_precision(
    teacher: Float[Array, "rows length"],
    gold: Integer[Array, " rows"],
    mask: Shaped[Array, "rows length"],
    *,
    reading: Reading,
    k: int,
    window: tuple[int, int],
) -> Float[Array, " rows"]:
    """Scores the teacher's k best positions: one counts as a hit near the gold position, `window` to left and right.

    `authors` counts the first hit only: a reciprocal rank with tolerance. `textbook` is the average precision. A window
    without the answer, as all windows of an unanswerable question, has the gold position 0: hits are 0 to `right`.
    """
    length = teacher.shape[-1]
    if length < k:
        raise ValueError(f"the {k} best of {length} positions")
    mask = mask.astype(bool)
    # Among equal scores top_k takes the lower position first
    _, best = jax.lax.top_k(jnp.where(mask, at_least_float32(teacher), MASKED_SCORE), k)
    near = _is_near(jnp.arange(length)[None, :], gold, window) & mask
    hit = jnp.take_along_axis(near, best, axis=-1).astype(jnp.promote_types(teacher.dtype, jnp.float32))
    rank = jnp.arange(1, k + 1)
    if reading == "authors":
        return jnp.max(hit / rank, axis=-1)
    relevant = jnp.clip(jnp.sum(near, axis=-1), 1, k)
    return jnp.sum(hit * jnp.cumsum(hit, axis=-1) / rank, axis=-1) / relevant


def _is_near(
    position: Integer[Array, "1 length"], gold: Integer[Array, " rows"], window: tuple[int, int]
) -> Bool[Array, "rows length"]:
    left, right = window
    return (position >= gold[:, None] - left) & (position <= gold[:, None] + right)


def entropy(
    logits: Float[Array, "rows length"], mask: Shaped[Array, "rows length"], temperature: float = 1.0
) -> Float[Array, " rows"]:
    """Returns the entropy of softmax(logits / T) for each row, in nats."""
    log_p = log_probabilities(logits, mask, temperature)
    return -jnp.sum(jnp.exp(log_p) * jnp.where(mask.astype(bool), log_p, 0), axis=-1)


def agreement(
    teacher: Float[Array, "rows length"], student: Float[Array, "rows length"], mask: Shaped[Array, "rows length"]
) -> Float[Array, " rows"]:
    """Returns 1 for each row in which teacher and student have the same best position, else 0.

    Among equal logits the lower position is the best.
    """
    best = [
        jnp.argmax(jnp.where(mask.astype(bool), at_least_float32(x), MASKED_SCORE), axis=-1) for x in (teacher, student)
    ]
    return (best[0] == best[1]).astype(jnp.float32)


def class_loss(
    teacher: Float[Array, "rows classes"],
    student: Float[Array, "rows classes"],
    *,
    form: Form = "ce",
    temperature: float = 1.0,
    t_squared: bool = False,
) -> Float[Array, " rows"]:
    """Returns the distillation loss of class logits for each row; no gradient to the teacher."""
    if form != "mse":
        log_q = jax.nn.log_softmax(at_least_float32(student) / temperature, axis=-1)
        return class_loss_from_log(teacher, log_q, form=form, temperature=temperature, t_squared=t_squared)
    difference = (at_least_float32(student) - at_least_float32(jax.lax.stop_gradient(teacher))) / temperature
    return jnp.mean(difference**2, axis=-1) * (temperature**2 if t_squared else 1.0)


def class_loss_from_log(
    teacher: Float[Array, "rows classes"],
    log_q: Float[Array, "rows classes"],
    *,
    form: Form = "ce",
    temperature: float = 1.0,
    t_squared: bool = False,
) -> Float[Array, " rows"]:
    """Returns `class_loss` for a student given by log-probabilities at T, such as a mixture, which has no logits."""
    if form not in ("ce", "kl"):
        raise ValueError(f"{form} compares logits, and a mixture of probabilities has none")
    log_p = jax.nn.log_softmax(at_least_float32(jax.lax.stop_gradient(teacher)) / temperature, axis=-1)
    against = log_q if form == "ce" else log_q - log_p
    return -jnp.sum(jnp.exp(log_p) * against, axis=-1) * (temperature**2 if t_squared else 1.0)


def label_loss(
    logits: Float[Array, "rows classes"], labels: Integer[Array, " rows"]
) -> tuple[Float[Array, " rows"], Bool[Array, " rows"]]:
    """Returns −log softmax(logits)[label] for each row, and which rows have a label: those with 0 or more."""
    log_q = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    position = jnp.clip(labels, 0, logits.shape[-1] - 1)[..., None]
    return -jnp.take_along_axis(log_q, position, axis=-1)[..., 0], labels >= 0
