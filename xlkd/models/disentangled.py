# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes disentangled attention (He et al., arXiv 2006.03654): content with content, and each with positions.

What a position adds to a score depends only on the difference of the positions of query and key. Each query, and each
key, is multiplied with one vector for each difference; a reshape then moves every row of the result to its place, where
a gather of [length, length] for each head would be slow. A block of rows needs only some of the differences. As in
`models/attention.py` the backward pass computes the weights again.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

from xlkd.models.dropout import dropout
from xlkd.models.matmul import multiply, transposed_matmul

BLOCK = 64  # rows that are multiplied with the same differences: faster on a CPU than 32, 128 or all

Head = Float[Array, "rows heads length head_size"]
Differences = Float[Array, "heads differences head_size"]  # from length - 1 down to -length
Bias = Float[Array, "rows 1 1 length"]
Norms = Float[Array, "rows heads length 1"]
Scores = Float[Array, "rows heads length length"]
Place = tuple[Integer[Array, ""] | int, ...]

Positions = Differences | None
Residuals = tuple[Head, Head, Head, Positions, Positions, Bias, PRNGKeyArray | None, Place, Head, Norms, Norms]

_sum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def attend(
    q: Float[Array, "rows length heads head_size"],
    k: Float[Array, "rows length heads head_size"],
    v: Float[Array, "rows length heads head_size"],
    position_keys: Float[Array, "buckets heads head_size"] | None,
    position_queries: Float[Array, "buckets heads head_size"] | None,
    index: Int[np.ndarray, " offsets"],
    bias: Bias,
    scale: float,
    rate: float = 0.0,
    key: PRNGKeyArray | None = None,
    *place: Integer[Array, ""] | int,
) -> Float[Array, "rows length heads head_size"]:
    """Computes softmax(scale · (q·k + q·position_key + k·position_query) + bias)·v with dropout on the weights.

    `index` has the bucket of each difference of the positions of query and key, from 1 - length to length - 1.
    """
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))

    def expand(
        positions: Float[Array, "buckets heads head_size"] | None, order: Int[np.ndarray, " offsets"]
    ) -> Positions:
        return None if positions is None else jnp.swapaxes(positions, 0, 1)[:, np.append(order, order[-1])]

    keys, queries = expand(position_keys, index[::-1]), expand(position_queries, index)
    rate = 0.0 if key is None else rate
    return jnp.swapaxes(_attend(rate, scale, q, k, v, keys, queries, bias, key, place), 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    rate: float,
    scale: float,
    q: Head,
    k: Head,
    v: Head,
    position_keys: Positions,
    position_queries: Positions,
    bias: Bias,
    key: PRNGKeyArray | None,
    place: Place,
) -> Head:
    return _forward(rate, scale, q, k, v, position_keys, position_queries, bias, key, place)[0]


def _forward(
    rate: float,
    scale: float,
    q: Head,
    k: Head,
    v: Head,
    position_keys: Positions,
    position_queries: Positions,
    bias: Bias,
    key: PRNGKeyArray | None,
    place: Place,
) -> tuple[Head, Residuals]:
    scores = _compute_scores(scale, q, k, position_keys, position_queries, bias)
    highest = scores.max(axis=-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(axis=-1, keepdims=True)
    weights = dropout(weights, rate, key, *place)
    output = (_sum("bhlm,bhmd->bhld", weights.astype(v.dtype), v) / total).astype(v.dtype)
    return output, (q, k, v, position_keys, position_queries, bias, key, place, output, highest, total)


def _backward(rate: float, scale: float, residuals: Residuals, gradient: Head) -> tuple[jax.Array | None, ...]:
    q, k, v, position_keys, position_queries, bias, key, place, output, highest, total = residuals
    mean = _sum("bhld,bhld->bhl", gradient, output)[..., None]  # of a query's changes under its weights
    weights = jnp.exp(_compute_scores(scale, q, k, position_keys, position_queries, bias) - highest) / total
    change = weights * (dropout(_sum("bhld,bhmd->bhlm", gradient, v), rate, key, *place) - mean) * scale
    change = change.astype(q.dtype)
    dropped = dropout(weights, rate, key, *place).astype(v.dtype)
    to_q, to_k, to_v = (
        multiply("bhlm,bhmd->bhld", change, k),
        transposed_matmul(change, q),
        transposed_matmul(dropped, gradient),
    )
    more_q, to_position_keys = _differentiate_positions(change, q, position_keys)
    more_k, to_position_queries = _differentiate_positions(change.mT, k, position_queries)
    return to_q + more_q, to_k + more_k, to_v, to_position_keys, to_position_queries, None, None, None


_attend.defvjp(_forward, _backward)


def _compute_scores(
    scale: float,
    q: Head,
    k: Head,
    position_keys: Positions,
    position_queries: Positions,
    bias: Bias,
) -> Scores:
    scores = _sum("bhld,bhmd->bhlm", q, k)
    if position_keys is not None:
        scores += _score_positions(q, position_keys)
    if position_queries is not None:
        scores += _score_positions(k, position_queries).mT
    return scores * scale + bias


def _list_blocks(length: int) -> list[tuple[slice, slice]]:
    """Returns the blocks of rows, and the differences that the rows of each need."""
    blocks = [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
    return [(slice(start, end), slice(length - end, 2 * length - start)) for start, end in blocks]


def _score_positions(x: Head, positions: Differences) -> Scores:
    """Returns the products of row i with the vector of each difference i - j."""
    length = x.shape[2]
    parts = [
        _align(_sum("bhld,hmd->bhlm", x[:, :, rows], positions[:, differences]), length)
        for rows, differences in _list_blocks(length)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=2)


def _differentiate_positions(change: Scores, x: Head, positions: Positions) -> tuple[Head | float, Positions]:
    """Returns the gradients of the two arguments of `_score_positions`."""
    if positions is None:
        return 0.0, None
    length = x.shape[2]
    to_x, to_positions = [], jnp.zeros(positions.shape, jnp.float32)
    for rows, differences in _list_blocks(length):
        by_difference = _undo_align(change[:, :, rows], length)
        to_x.append(_sum("bhlm,hmd->bhld", by_difference, positions[:, differences]).astype(x.dtype))
        block = transposed_matmul(by_difference, x[:, :, rows]).sum(axis=0, dtype=jnp.float32)
        to_positions = to_positions.at[:, differences].add(block)
    return jnp.concatenate(to_x, axis=2), to_positions.astype(positions.dtype)


def _align(products: Float[Array, "*axes block differences"], length: int) -> Float[Array, "*axes block length"]:
    """Returns columns block - 1 - i to block - 1 - i + length of each row i."""
    *axes, block, differences = products.shape
    flat = products.reshape(*axes, block * differences)[..., block - 1 : -1]
    return flat.reshape(*axes, block, differences - 1)[..., :length]


def _undo_align(change: Float[Array, "*axes block length"], length: int) -> Float[Array, "*axes block differences"]:
    """Returns each row at the columns from which `_align` takes it, zeros elsewhere."""
    *axes, block, _ = change.shape
    before = [(0, 0)] * len(axes)
    flat = jnp.pad(change, (*before, (0, 0), (0, block - 1))).reshape(*axes, block * (length + block - 1))
    return jnp.pad(flat, (*before, (block - 1, 1))).reshape(*axes, block, length + block)
