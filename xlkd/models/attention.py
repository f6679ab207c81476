# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes attention: by cuDNN's fused kernel on a GPU that has it, by products and a softmax elsewhere.

The backward pass computes the weights again, so that nothing of [length, length] is kept between the two passes: much
less memory for a few per cent more work (Korthikanti et al., arXiv 2205.05198, section 5). A CPU computes a few heads
at a time, so that their intermediate results stay in its caches. docs/performance.md says how much both save. Where
tokens attend only within a window, long rows are computed in blocks of queries with the keys of the block and its two
neighbours, so that the cost grows with length times window.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from xlkd.models.dropout import dropout
from xlkd.models.layers import MASKED
from xlkd.models.matmul import multiply, transposed_matmul

HALF = (jnp.bfloat16, jnp.float16)  # the types that the kernel supports
GROUPS = 4  # most groups of heads that a CPU computes one after another: each makes the program longer
FEW = 2**20  # scores that a group may have before there are more groups
LEAST_BLOCK = 32  # queries of a block, where the window is narrower
MANY_BLOCKS = 4  # rows of fewer blocks are computed whole
FAR = 2 * MASKED  # the score of a position outside the window

Head = Float[Array, "rows heads length head_size"]
Bias = Float[Array, "rows 1 1 length"]
Norms = Float[Array, "rows heads length 1"]  # a value for each query: its largest score, the sum of its weights
Place = tuple[Integer[Array, ""] | int, ...]
Blocks = Float[Array, "rows heads *blocks queries head_size"]  # the axis of blocks is absent where rows are whole

_sum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def attend(
    q: Float[Array, "rows length heads head_size"],
    k: Float[Array, "rows length heads head_size"],
    v: Float[Array, "rows length heads head_size"],
    bias: Bias,
    rate: float = 0.0,
    key: PRNGKeyArray | None = None,
    *place: Integer[Array, ""] | int,
    window: int | None = None,
) -> Float[Array, "rows length heads head_size"]:
    """Computes softmax(q·k / √d + bias)·v; the softmax is float32, and with a key it has dropout.

    The bias is 0, or far below it where a position is masked, and has no gradient. With a window, positions further
    apart than it do not attend to each other; without one, only positions at the end of a row may be masked. The fused
    kernel cannot drop weights by the bits of `models/dropout.py`, so training with dropout on the weights does not use
    it.
    """
    rate, length = 0.0 if key is None else rate, q.shape[1]
    if not rate and q.dtype in HALF and jax.default_backend() == "gpu" and has_kernel(q.shape[-2:], q.dtype.name):
        return attend_fused(q, k, v, bias, "cudnn", window)
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    if size := _choose_block(length, window):
        rest = -length % size
        q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, rest), (0, 0))) for x in (q, k, v))
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, 0), (0, rest)), constant_values=FAR)
    return jnp.swapaxes(_attend(rate, window, size, q, k, v, bias, key, place)[:, :, :length], 1, 2)


def _choose_block(length: int, window: int | None) -> int:
    """Returns the number of queries of a block; 0 where rows are computed whole."""
    size = length if window is None else max(window, LEAST_BLOCK)
    return size if length >= MANY_BLOCKS * size else 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attend(
    rate: float,
    window: int | None,
    size: int,
    q: Head,
    k: Head,
    v: Head,
    bias: Bias,
    key: PRNGKeyArray | None,
    place: Place,
) -> Head:
    """Attends in blocks of `size` queries, which divides the length; 0 = in whole rows."""
    return _forward(rate, window, size, q, k, v, bias, key, place)[0]


Residuals = tuple[Head, Head, Head, Bias, PRNGKeyArray | None, Place, Head, Norms, Norms]


def _forward(
    rate: float,
    window: int | None,
    size: int,
    q: Head,
    k: Head,
    v: Head,
    bias: Bias,
    key: PRNGKeyArray | None,
    place: Place,
) -> tuple[Head, Residuals]:
    near_bias = _split_bias(bias, size)

    def attend_heads(first: int, q: Head, k: Head, v: Head) -> tuple[Head, Norms, Norms]:
        """Attends over heads from number `first` on; returns outputs, and maximum and sum of each query's softmax."""
        near_v = _split_keys(v, size)
        scores = _compute_scores(_split_queries(q, size), _split_keys(k, size), near_bias, window)
        scores, highest = _separate(scores, scores.max(axis=-1, keepdims=True))
        weights = jnp.exp(scores - highest)
        total = weights.sum(axis=-1, keepdims=True)
        weights = dropout(weights, rate, key, *place, first=first * math.prod(scores.shape[2:]))
        output = (_sum("...lm,...md->...ld", weights.astype(v.dtype), near_v) / total).astype(v.dtype)
        return _join_queries(output), _join_queries(highest), _join_queries(total)

    output, highest, total = _map_heads(attend_heads, 3 * size or q.shape[2], q, k, v)
    return output, (q, k, v, bias, key, place, output, highest, total)


def _backward(
    rate: float, window: int | None, size: int, residuals: Residuals, gradient: Head
) -> tuple[Head, Head, Head, None, None, None]:
    q, k, v, bias, key, place, output, *norms = residuals
    mean = _sum("bhld,bhld->bhl", gradient, output)[..., None]  # of a query's changes under its weights
    near_bias = _split_bias(bias, size)

    def differentiate_heads(
        first: int, q: Head, k: Head, v: Head, gradient: Head, mean: Norms, highest: Norms, total: Norms
    ) -> tuple[Head, Head, Head]:
        q, gradient, mean, highest, total = (_split_queries(x, size) for x in (q, gradient, mean, highest, total))
        k, v = _split_keys(k, size), _split_keys(v, size)
        scores, highest = _separate(_compute_scores(q, k, near_bias, window), highest)

        def drop(x: Float[Array, "rows heads *blocks queries keys"]) -> Float[Array, "rows heads *blocks queries keys"]:
            return dropout(x, rate, key, *place, first=first * math.prod(scores.shape[2:]))

        weights = jnp.exp(scores - highest) / total
        change = weights * (drop(_sum("...ld,...md->...lm", gradient, v)) - mean) * q.shape[-1] ** -0.5
        change = change.astype(q.dtype)
        to_k, to_v = transposed_matmul(change, q), transposed_matmul(drop(weights).astype(v.dtype), gradient)
        return _join_queries(multiply("...lm,...md->...ld", change, k)), _sum_keys(to_k, size), _sum_keys(to_v, size)

    to_q, to_k, to_v = _map_heads(differentiate_heads, 3 * size or q.shape[2], q, k, v, gradient, mean, *norms)
    return to_q, to_k, to_v, None, None, None


_attend.defvjp(_forward, _backward)


def _compute_scores(
    q: Blocks,
    k: Float[Array, "rows heads *blocks keys head_size"],
    bias: Float[Array, "rows 1 *blocks 1 keys"],
    window: int | None,
) -> Float[Array, "rows heads *blocks queries keys"]:
    scale = q.shape[-1] ** -0.5
    if q.dtype == jnp.float32:  # fewer products; a type with fewer bits would round once more
        scores = _sum("...ld,...md->...lm", q * scale, k) + bias
    else:
        scores = _sum("...ld,...md->...lm", q, k) * scale + bias
    if window is None:
        return scores
    queries, keys = scores.shape[-2:]
    distance = jnp.arange(keys) - (keys - queries) // 2 - jnp.arange(queries)[:, None]  # keys begin a block earlier
    return jnp.where(jnp.abs(distance) <= window, scores, FAR)


def _separate(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the arrays; a CPU fuses nothing across this line, since exp is slow in one kernel with a product."""
    return jax.lax.platform_dependent(*arrays, cpu=lambda *x: jax.lax.optimization_barrier(x), default=lambda *x: x)


def _split_queries(x: Head, size: int) -> Blocks:
    """Returns the blocks of queries, and of what else there is for each query."""
    rows, heads, length, width = x.shape
    return x.reshape(rows, heads, length // size, size, width) if size else x


def _join_queries(x: Blocks) -> Head:
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _split_keys(x: Head, size: int, outside: float = 0.0) -> Float[Array, "rows heads *blocks keys head_size"]:
    """Returns for each block the keys, or values, of the block before, of itself and of the one after it."""
    if not size:
        return x
    x = jnp.pad(_split_queries(x, size), ((0, 0), (0, 0), (1, 1), (0, 0), (0, 0)), constant_values=outside)
    return jnp.concatenate([x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]], axis=3)


def _sum_keys(x: Float[Array, "rows heads *blocks keys head_size"], size: int) -> Head:
    """Sums gradients of the same key in different blocks: the transpose of `_split_keys`."""
    if not size:
        return x
    before, own, after = (x[:, :, :, i * size : (i + 1) * size] for i in range(3))
    own = own.at[:, :, :-1].add(before[:, :, 1:]).at[:, :, 1:].add(after[:, :, :-1])
    return _join_queries(own)


def _split_bias(bias: Bias, size: int) -> Float[Array, "rows 1 *blocks 1 keys"]:
    return _split_keys(bias.mT, size, outside=FAR).mT


def _map_heads(
    function: Callable[..., tuple[jax.Array, ...]], keys: int, *arrays: Float[Array, "rows heads length _"]
) -> tuple[Float[Array, "rows heads length _"], ...]:
    """Calls `function(first, *arrays)` on all heads, on a CPU a few at a time; `first` is the number of the first.

    Each query is compared with a number of keys.
    """
    rows, heads, length, _ = arrays[0].shape
    scores = rows * heads * length * keys
    groups = next((n for n in range(1, GROUPS) if heads % n == 0 and scores < n * FEW), math.gcd(GROUPS, heads))

    def map_groups(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        parts = zip(*(jnp.split(x, groups, axis=1) for x in arrays), strict=True)
        results = [function(i * heads // groups, *part) for i, part in enumerate(parts)]
        return tuple(jnp.concatenate(x, axis=1) for x in zip(*results, strict=True))

    return jax.lax.platform_dependent(*arrays, cpu=map_groups, default=functools.partial(function, 0))


def attend_fused(
    q: Float[Array, "rows length heads head_size"],
    k: Float[Array, "rows length heads head_size"],
    v: Float[Array, "rows length heads head_size"],
    bias: Bias,
    implementation: Literal["xla", "cudnn"] | None,
    window: int | None = None,
) -> Float[Array, "rows length heads head_size"]:
    """Computes the attention in one fused call, without dropout.

    The kernel takes the number of keys of each row, so that nothing of [length, length] exists. Its windows are only to
    the left: with a window it takes a mask of every pair of positions.
    """
    attend_rows = functools.partial(jax.nn.dot_product_attention, q, k, v, implementation=implementation)
    is_token = bias[:, 0, 0] >= 0
    if window is None:
        return attend_rows(key_value_seq_lengths=jnp.maximum(is_token.sum(-1, dtype=jnp.int32), 1))
    places = jnp.arange(q.shape[1])
    is_near = jnp.abs(places[:, None] - places) <= window
    return attend_rows(mask=is_token[:, None, None, :] & is_near)


def has_fused_attention(program: str) -> bool:
    """Says whether the text of a program calls cuDNN's attention."""
    return "__cudnn$fmha" in program


@functools.cache
def has_kernel(heads: tuple[int, int], dtype: str) -> bool:
    """Says whether this GPU and its libraries compile the fused kernel, forward and backward, by trying once."""
    x = jax.ShapeDtypeStruct((1, 16, *heads), dtype)
    bias = jax.ShapeDtypeStruct((1, 1, 1, 16), jnp.float32)

    def total(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array) -> jax.Array:
        return attend_fused(q, k, v, bias, "cudnn").astype(jnp.float32).sum()

    try:
        jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(x, x, x, bias).compile()
    except (RuntimeError, ValueError):  # no cuDNN, a GPU that is too old, an unsupported width (NotImplementedError)
        return False
    return True
