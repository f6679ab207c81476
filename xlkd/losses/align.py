# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses of the word, sentence and structure levels, which align a student with an English teacher."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

from xlkd.losses.terms import MASKED_SCORE, Term, at_least_float32, make_term, number_groups


def gather_words(
    states: Float[Array, "rows length hidden"], first: Integer[Array, "rows words"]
) -> Float[Array, "rows words hidden"]:
    """Returns word vectors: the hidden states at each word's first token."""
    return jnp.take_along_axis(states, first[..., None], axis=1)


def select_scored_words(
    masked: Shaped[Array, "rows length"],
    first: Integer[Array, "rows words"],
    exists: Shaped[Array, "rows words"],
    index: Literal["token", "word"],
) -> Bool[Array, "rows words"]:
    """Returns which words are scored, from the mask of tokens.

    `word` is the slip of the published code: the flag of word n is read at token n.
    """
    position = first if index == "token" else jnp.broadcast_to(jnp.arange(first.shape[1]), first.shape)
    is_masked = jnp.take_along_axis(masked.astype(bool), jnp.minimum(position, masked.shape[1] - 1), axis=1)
    return is_masked & exists.astype(bool)


def word_losses(
    teacher: Float[Array, "rows words hidden"],
    student: Float[Array, "rows words hidden"],
    exists: Shaped[Array, "rows words"],
    scored: Shaped[Array, "rows words"],
    *,
    anchor: Literal["teacher", "student"] = "teacher",
    temperature: float = 1.0,
    similarity: Literal["dot", "cosine"] = "dot",
) -> tuple[Float[Array, " rows"], Bool[Array, " rows"]]:
    """Returns each sentence's mean over its scored words of −log softmax over all its words, and whether it has any."""
    teacher, student = at_least_float32(jax.lax.stop_gradient(teacher)), at_least_float32(student)
    if similarity == "cosine":
        teacher, student = _normalise_vectors(teacher), _normalise_vectors(student)
    anchors, candidates = (teacher, student) if anchor == "teacher" else (student, teacher)
    scores = jnp.einsum("bid,bjd->bij", anchors, candidates) / temperature
    log_q = jax.nn.log_softmax(jnp.where(exists.astype(bool)[:, None, :], scores, MASKED_SCORE), axis=-1)
    own = -jnp.diagonal(log_q, axis1=1, axis2=2)
    scored = scored.astype(bool) & exists.astype(bool)
    count = jnp.sum(scored, axis=-1)
    return jnp.sum(jnp.where(scored, own, 0), axis=-1) / jnp.maximum(count, 1), count > 0


def word_term(
    values: Float[Array, " rows"],
    counted: Bool[Array, " rows"],
    *,
    sum: Literal["fixed", "published"] = "fixed",
    weight: float = 1.0,
) -> Term:
    """Returns the mean over the sentences that have a scored word.

    `published` is the slip of the published code: where the first sentence of the batch has none, each later one
    overwrites the sum, and only the last survives, divided by the count of all.
    """
    term = make_term(values, counted, weight)
    if sum == "fixed":
        return term
    last = len(values) - 1 - jnp.argmax(counted[::-1])
    return term._replace(sum=jnp.where(counted[0], term.sum, jnp.where(counted.any(), values[last], 0)))


def sentence_term(
    student: Float[Array, "rows hidden"],
    teacher: Float[Array, "rows hidden"],
    rows: Shaped[Array, " rows"],
    *,
    trained: bool = False,
    weight: float = 1.0,
) -> Term:
    """Returns 2 − 2·cos of the vectors; no gradient to the teacher's side, unless that is `trained` too."""
    teacher = teacher if trained else jax.lax.stop_gradient(teacher)
    student, teacher = _normalise_vectors(at_least_float32(student)), _normalise_vectors(at_least_float32(teacher))
    return make_term(2 - 2 * jnp.sum(student * teacher, axis=-1), rows, weight)


def structure_term(
    student: Float[Array, "rows hidden"],
    teacher: Float[Array, "rows teacher_hidden"],
    rows: Shaped[Array, " rows"],
    *,
    group: int = 0,
    temperature: float = 1.0,
    diagonal: bool = True,
    direction: Literal["forward", "reverse"] = "forward",
    trained: bool = False,
    weight: float = 1.0,
) -> Term:
    """Returns the row-wise KL(teacher ‖ student) of the cosine matrices of each group of consecutive real rows.

    `group=0` makes one group of all rows. Below temperature 1 leave the diagonal out: the self-similarity swallows the
    row, and the loss vanishes.
    """
    rows = rows.astype(bool)
    numbers = number_groups(rows, group)
    columns = (numbers[:, None] == numbers[None, :]) & rows[None, :]
    if not diagonal:
        columns &= ~jnp.eye(len(rows), dtype=bool)
    log_p = _compute_log_similarity(teacher if trained else jax.lax.stop_gradient(teacher), columns, temperature)
    log_q = _compute_log_similarity(student, columns, temperature)
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    return make_term(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1), rows & columns.any(axis=-1), weight)


def _compute_log_similarity(
    x: Float[Array, "rows hidden"], columns: Bool[Array, "rows rows"], temperature: float
) -> Float[Array, "rows rows"]:
    unit = _normalise_vectors(at_least_float32(x))
    return jax.nn.log_softmax(jnp.where(columns, unit @ unit.T / temperature, MASKED_SCORE), axis=-1)


def _normalise_vectors(x: Float[Array, "*axes hidden"]) -> Float[Array, "*axes hidden"]:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


class Statistics(NamedTuple):
    """Running mean and variance of a BatchNorm; they start at 0 and 1."""

    mean: Float[Array, " hidden"]
    variance: Float[Array, " hidden"]


def batch_norm(
    x: Float[Array, "rows hidden"],
    rows: Shaped[Array, " rows"],
    running: Statistics,
    *,
    scale: Float[Array, " hidden"] | float = 1.0,
    bias: Float[Array, " hidden"] | float = 0.0,
    group: int = 0,
) -> tuple[Float[Array, "rows hidden"], Statistics]:
    """Normalises as BatchNorm does in training, by the statistics of each group of consecutive real rows (0: of all).

    Padded rows count nowhere. The running values move by a tenth, the variance without bias, as in PyTorch; with
    several groups they take the mean of the groups' statistics.
    """
    row = rows.astype(bool)[:, None]
    x = jnp.where(row, at_least_float32(x), 0)
    numbers = number_groups(rows, group)

    def sum_groups(values: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
        return jax.ops.segment_sum(values, numbers, num_segments=len(x))

    n = sum_groups(row.astype(x.dtype))
    size = jnp.maximum(n, 1)
    mean = sum_groups(x) / size
    centred = jnp.where(row, x - mean[numbers], 0)
    variance = sum_groups(centred**2) / size
    y = centred * jax.lax.rsqrt(variance[numbers] + 1e-5) * scale + bias
    unbiased = variance * size / jnp.maximum(size - 1, 1)
    present = n > 0
    new = Statistics(*(jnp.sum(jnp.where(present, v, 0), 0) / jnp.maximum(present.sum(), 1) for v in (mean, unbiased)))
    moved = [0.9 * old + 0.1 * jax.lax.stop_gradient(now) for old, now in zip(running, new, strict=True)]
    return y, Statistics(*moved)
