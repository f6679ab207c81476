# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention by what the device has: cuDNN's fused kernel on a GPU that takes it, products and a softmax elsewhere.

The backward pass asks for the weights again, so that nothing of [length, length] is kept between the two passes: much
less memory for a few per cent more work (Korthikanti et al., arXiv 2205.05198, section 5). A CPU takes a few heads at a
time, so that what is computed of them stays in its caches. docs/performance.md has what both bring.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from xlkd.models.dropout import dropout
from xlkd.models.matmul import transposed_matmul

HALF = (jnp.bfloat16, jnp.float16)  # the kernel takes no others
GROUPS = 4  # of heads, on a CPU,
FEW = 2**20  # unless there are fewer scores than this

_sum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array,
    rate: float = 0.0,
    key: jax.Array | None = None,
    *place: jax.Array | int,
) -> jax.Array:
    """softmax(q·k / √d + bias)·v of [rows, length, heads, d]; the softmax is float32; with a key, dropout on it.

    The bias [rows, 1, 1, length] is 0, or far below it where a position is masked, and has no gradient. The kernel
    drops nothing by our bits, so training with dropout on the weights does without it.
    """
    rate = 0.0 if key is None else rate
    if not rate and q.dtype in HALF and jax.default_backend() == "gpu" and has_kernel(q.shape[-2:], q.dtype.name):
        return fused(q, k, v, bias, "cudnn")
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(_attend(rate, q, k, v, bias, key, place), 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rate, q, k, v, bias, key, place):
    """Of [rows, heads, length, d]."""
    return _forward(rate, q, k, v, bias, key, place)[0]


def _forward(rate, q, k, v, bias, key, place):
    def some(first: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        scores = _scores(q, k, bias)
        highest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - highest)
        total = weights.sum(axis=-1, keepdims=True)
        weights = dropout(weights, rate, key, *place, first=first * q.shape[2] ** 2)
        return (_sum("bhlm,bhmd->bhld", weights.astype(v.dtype), v) / total).astype(v.dtype), highest, total

    found, *norms = _by_heads(some, q, k, v)
    return found, (q, k, v, bias, key, place, found, *norms)


def _backward(rate, kept, above):
    q, k, v, bias, key, place, found, *norms = kept
    mean = _sum("bhld,bhld->bhl", above, found)[..., None]  # of a row's changes under its weights

    def some(first: int, q, k, v, above, mean, highest, total) -> tuple[jax.Array, ...]:
        def drop(x: jax.Array) -> jax.Array:
            return dropout(x, rate, key, *place, first=first * q.shape[2] ** 2)

        weights = jnp.exp(_scores(q, k, bias) - highest) / total
        change = weights * (drop(_sum("bhld,bhmd->bhlm", above, v)) - mean) * q.shape[-1] ** -0.5
        change = change.astype(q.dtype)
        return change @ k, transposed_matmul(change, q), transposed_matmul(drop(weights).astype(v.dtype), above)

    return *_by_heads(some, q, k, v, above, mean, *norms), None, None, None


_attend.defvjp(_forward, _backward)


def _scores(q: jax.Array, k: jax.Array, bias: jax.Array) -> jax.Array:
    return _sum("bhld,bhmd->bhlm", q, k) * q.shape[-1] ** -0.5 + bias


def _by_heads(some: Callable[..., tuple[jax.Array, ...]], *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """`some(first, *arrays)` over all heads, axis 1; on a CPU a few at a time, the first by its number."""
    rows, heads, length, _ = arrays[0].shape
    groups = math.gcd(GROUPS, heads) if rows * heads * length**2 >= FEW else 1

    def in_turn(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        parts = zip(*(jnp.split(x, groups, axis=1) for x in arrays), strict=True)
        found = [some(i * heads // groups, *part) for i, part in enumerate(parts)]
        return tuple(jnp.concatenate(x, axis=1) for x in zip(*found, strict=True))

    return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=functools.partial(some, 0))


def fused(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, implementation: Any) -> jax.Array:
    """The same in one call; cuDNN wants a mask of every pair of positions."""
    length = q.shape[1]
    mask = jnp.broadcast_to(bias >= 0, (len(q), 1, length, length))
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)


@functools.cache
def has_kernel(heads: tuple[int, int], dtype: str) -> bool:
    """Whether this GPU and its libraries compile it, forward and backward: found by trying once."""
    x = jax.ShapeDtypeStruct((1, 16, *heads), dtype)
    bias = jax.ShapeDtypeStruct((1, 1, 1, 16), jnp.float32)

    def total(q, k, v, bias):
        return fused(q, k, v, bias, "cudnn").astype(jnp.float32).sum()

    try:
        jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(x, x, x, bias).compile()
    except (RuntimeError, ValueError, NotImplementedError):  # no cuDNN, too old a GPU, a width it does not know
        return False
    return True
