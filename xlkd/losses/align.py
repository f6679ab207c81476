# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The four levels that tie a student to an English teacher: tokens, words, sentences and the structure of a group."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from xlkd.losses.terms import NEVER, Term, groups, over, real


def token_term(logits: jax.Array, ids: jax.Array, counted: jax.Array, weight: float = 1.0) -> Term:
    """Masked-LM cross-entropy [..., vocabulary] against the original ids, at the positions that count."""
    log_q = jax.nn.log_softmax(real(logits), axis=-1)
    return over(-jnp.take_along_axis(log_q, ids[..., None], axis=-1)[..., 0], counted, weight)


def words(hidden: jax.Array, first: jax.Array) -> jax.Array:
    """Word vectors [rows, words, D]: the hidden states [rows, length, D] at each word's first piece [rows, words]."""
    return jnp.take_along_axis(hidden, first[..., None], axis=1)


def scored_words(masked: jax.Array, first: jax.Array, exists: jax.Array, index: Literal["token", "word"]) -> jax.Array:
    """Which words are scored [rows, words], from the mask of tokens [rows, length].

    `word` is the published slip: the flag of word n is read at token n.
    """
    at = first if index == "token" else jnp.broadcast_to(jnp.arange(first.shape[1]), first.shape)
    return jnp.take_along_axis(masked.astype(bool), jnp.minimum(at, masked.shape[1] - 1), axis=1) & exists.astype(bool)


def word_rows(
    teacher: jax.Array,
    student: jax.Array,
    exists: jax.Array,
    scored: jax.Array,
    *,
    anchor: Literal["teacher", "student"] = "teacher",
    temperature: float = 1.0,
    similarity: Literal["dot", "cosine"] = "dot",
) -> tuple[jax.Array, jax.Array]:
    """By sentence: the mean over its scored words of −log softmax over all its words, and whether any was scored."""
    teacher, student = real(jax.lax.stop_gradient(teacher)), real(student)
    if similarity == "cosine":
        teacher, student = _unit(teacher), _unit(student)
    anchors, candidates = (teacher, student) if anchor == "teacher" else (student, teacher)
    scores = jnp.einsum("bid,bjd->bij", anchors, candidates) / temperature
    log_q = jax.nn.log_softmax(jnp.where(exists.astype(bool)[:, None, :], scores, NEVER), axis=-1)
    own = -jnp.diagonal(log_q, axis1=1, axis2=2)
    scored = scored.astype(bool) & exists.astype(bool)
    count = jnp.sum(scored, axis=-1)
    return jnp.sum(jnp.where(scored, own, 0), axis=-1) / jnp.maximum(count, 1), count > 0


def word_term(
    values: jax.Array, counted: jax.Array, *, sum: Literal["fixed", "published"] = "fixed", weight: float = 1.0
) -> Term:
    """Over the sentences that have a scored word.

    `published` is the published slip: where the first sentence of the batch has none, each later one overwrites the
    sum, and only the last survives, divided by the count of all.
    """
    term = over(values, counted, weight)
    if sum == "fixed":
        return term
    last = len(values) - 1 - jnp.argmax(counted[::-1])
    return term._replace(sum=jnp.where(counted[0], term.sum, jnp.where(counted.any(), values[last], 0)))


def sentence_term(
    student: jax.Array, teacher: jax.Array, rows: jax.Array, *, trained: bool = False, weight: float = 1.0
) -> Term:
    """2 − 2·cos of the vectors [rows, D]; no gradient to the teacher's side, unless that is `trained` too."""
    teacher = teacher if trained else jax.lax.stop_gradient(teacher)
    student, teacher = _unit(real(student)), _unit(real(teacher))
    return over(2 - 2 * jnp.sum(student * teacher, axis=-1), rows, weight)


def structure_term(
    student: jax.Array,
    teacher: jax.Array,
    rows: jax.Array,
    *,
    group: int = 0,
    temperature: float = 1.0,
    diagonal: bool = True,
    direction: Literal["forward", "reverse"] = "forward",
    trained: bool = False,
    weight: float = 1.0,
) -> Term:
    """Row-wise KL(teacher ‖ student) of the cosine matrices of each group of consecutive real rows (0: of all rows).

    Below temperature 1 leave the diagonal out: the self-similarity swallows the row, and the loss vanishes.
    """
    rows = rows.astype(bool)
    of = groups(rows, group)
    columns = (of[:, None] == of[None, :]) & rows[None, :]
    if not diagonal:
        columns &= ~jnp.eye(len(rows), dtype=bool)
    log_p = _log_similarity(teacher if trained else jax.lax.stop_gradient(teacher), columns, temperature)
    log_q = _log_similarity(student, columns, temperature)
    if direction == "reverse":
        log_p, log_q = log_q, log_p
    return over(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1), rows & columns.any(axis=-1), weight)


def _log_similarity(x: jax.Array, columns: jax.Array, temperature: float) -> jax.Array:
    unit = _unit(real(x))
    return jax.nn.log_softmax(jnp.where(columns, unit @ unit.T / temperature, NEVER), axis=-1)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


class Statistics(NamedTuple):
    """Running mean and variance of a BatchNorm; they start at 0 and 1."""

    mean: jax.Array
    variance: jax.Array


def batch_norm(
    x: jax.Array,
    rows: jax.Array,
    running: Statistics,
    *,
    scale: jax.Array | float = 1.0,
    bias: jax.Array | float = 0.0,
    group: int = 0,
) -> tuple[jax.Array, Statistics]:
    """Training-mode BatchNorm of [rows, D] by the statistics of each group of consecutive real rows (0: of all).

    Padded rows count nowhere. The running values move by a tenth, the variance without bias, as in PyTorch; with
    several groups they take the mean of the groups' statistics.
    """
    row = rows.astype(bool)[:, None]
    x = jnp.where(row, real(x), 0)
    of = groups(rows, group)

    def by_group(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, of, num_segments=len(x))

    n = by_group(row.astype(x.dtype))
    size = jnp.maximum(n, 1)
    mean = by_group(x) / size
    centred = jnp.where(row, x - mean[of], 0)
    variance = by_group(centred**2) / size
    y = centred * jax.lax.rsqrt(variance[of] + 1e-5) * scale + bias
    kept = variance * size / jnp.maximum(size - 1, 1)
    present = n > 0
    new = Statistics(*(jnp.sum(jnp.where(present, v, 0), 0) / jnp.maximum(present.sum(), 1) for v in (mean, kept)))
    moved = [0.9 * old + 0.1 * jax.lax.stop_gradient(now) for old, now in zip(running, new, strict=True)]
    return y, Statistics(*moved)
