# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of the start and the end of an answer over the positions of a window."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from xlkd.losses.terms import NEVER, Term, over, real

Positions = Literal["padding", "context", "none"]


class Span(NamedTuple):
    """The two sides: logits [rows, length] or gold positions [rows]; a plain pair will do."""

    start: jax.Array
    end: jax.Array


def positions(kind: Positions, attended: jax.Array, context: jax.Array) -> jax.Array:
    """Which positions stand in the softmaxes [rows, length]: all but padding, the context and position 0, or all."""
    if kind == "none":
        return jnp.ones_like(attended, bool)
    if kind == "padding":
        return attended.astype(bool)
    first = jnp.arange(attended.shape[-1]) == 0
    return (context.astype(bool) | first) & attended.astype(bool)


def log_probabilities(logits: jax.Array, mask: jax.Array, temperature: float = 1.0) -> jax.Array:
    """log softmax(logits / T) over the masked positions, about -1e30 elsewhere; uniform where no position is left."""
    return jax.nn.log_softmax(jnp.where(mask.astype(bool), real(logits) / temperature, NEVER), axis=-1)


def cross_entropy(student: Span, gold: Span, mask: jax.Array, rows: jax.Array, weight: float = 1.0) -> Term:
    """½ (−log p(start) − log p(end)), a sum over rows.

    A negative gold position is taken for 0. A row of which a gold position lies past the end or outside the mask has
    no label and is not counted.
    """
    sides = [_side(logits, at, mask) for logits, at in zip(student, gold, strict=True)]
    (start, start_known), (end, end_known) = sides
    return over(0.5 * (start + end), rows.astype(bool) & start_known & end_known, weight)


def _side(logits: jax.Array, gold: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    length = logits.shape[-1]
    at = jnp.clip(gold, 0, length - 1)[:, None]
    known = (gold < length) & jnp.take_along_axis(mask.astype(bool), at, axis=-1)[:, 0]
    return -jnp.take_along_axis(log_probabilities(logits, mask), at, axis=-1)[:, 0], known
