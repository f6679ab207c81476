# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of the start and the end of an answer over the positions of a window."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

from xlkd.losses.terms import MASKED_SCORE, Term, at_least_float32, make_term

Positions = Literal["padding", "context", "none"]


class Span(NamedTuple):
    """The two sides of an answer: their logits or their gold positions. A plain pair works too."""

    start: Array
    end: Array


SpanLogits = tuple[Float[Array, "rows length"], Float[Array, "rows length"]]
SpanPositions = tuple[Integer[Array, " rows"], Integer[Array, " rows"]]


def select_positions(
    kind: Positions, attended: Shaped[Array, "rows length"], context: Shaped[Array, "rows length"]
) -> Bool[Array, "rows length"]:
    """Returns which positions enter the softmaxes: all but padding, the context and position 0, or all."""
    if kind == "none":
        return jnp.ones_like(attended, bool)
    if kind == "padding":
        return attended.astype(bool)
    first = jnp.arange(attended.shape[-1]) == 0
    return (context.astype(bool) | first) & attended.astype(bool)


def log_probabilities(
    logits: Float[Array, "rows length"], mask: Shaped[Array, "rows length"], temperature: float = 1.0
) -> Float[Array, "rows length"]:
    """Returns log softmax(logits / T) over the positions where the mask is set, about -1e30 elsewhere.

    It is uniform in a row without any such position.
    """
    scores = jnp.where(mask.astype(bool), at_least_float32(logits) / temperature, MASKED_SCORE)
    return jax.nn.log_softmax(scores, axis=-1)


def cross_entropy(
    student: SpanLogits,
    gold: SpanPositions,
    mask: Shaped[Array, "rows length"],
    rows: Shaped[Array, " rows"],
    weight: float = 1.0,
) -> Term:
    """Returns ½ (−log p(start) − log p(end)), summed over rows.

    A negative gold position is read as 0. A row whose gold position lies past the end or outside the mask has no label
    and is not counted.
    """
    sides = [_negative_log_likelihood(logits, position, mask) for logits, position in zip(student, gold, strict=True)]
    (start, start_known), (end, end_known) = sides
    return make_term(0.5 * (start + end), rows.astype(bool) & start_known & end_known, weight)


def _negative_log_likelihood(
    logits: Float[Array, "rows length"], gold: Integer[Array, " rows"], mask: Shaped[Array, "rows length"]
) -> tuple[Float[Array, " rows"], Bool[Array, " rows"]]:
    """Returns −log p of the gold position of one side, and which rows have one that can be predicted."""
    length = logits.shape[-1]
    position = jnp.clip(gold, 0, length - 1)[:, None]
    predictable = (gold < length) & jnp.take_along_axis(mask.astype(bool), position, axis=-1)[:, 0]
    return -jnp.take_along_axis(log_probabilities(logits, mask), position, axis=-1)[:, 0], predictable
