# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes attention: by cuDNN's fused kernel on a GPU that has it, by products and a softmax elsewhere.

The backward pass computes the weights again, so that nothing of [length, length] is kept between the two passes: much
less memory for a few per cent more work (Korthikanti et al., arXiv 2205.05198, section 5). A CPU computes a few heads
at a time, so that their intermediate results stay in its caches. docs/performance.md says how much both save.
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
from xlkd.models.matmul import transposed_matmul

HALF = (jnp.bfloat16, jnp.float16)  # the types that the kernel supports
GROUPS = 4  # groups of heads that a CPU computes one after another
FEW = 2**20  # fewer scores than this are computed at once

Head = Float[Array, "rows heads length head_size"]
Bias = Float[Array, "rows 1 1 length"]
Norms = Float[Array, "rows heads length 1"]  # a value for each query: its largest score, the sum of its weights
Place = tuple[Integer[Array, ""] | int, ...]

_sum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def attend(
    q: Float[Array, "rows length heads head_size"],
    k: Float[Array, "rows length heads head_size"],
    v: Float[Array, "rows length heads head_size"],
    bias: Bias,
    rate: float = 0.0,
    key: PRNGKeyArray | None = None,
    *place: Integer[Array, ""] | int,
) -> Float[Array, "rows length heads head_size"]:
    """Computes softmax(q·k / √d + bias)·v; the softmax is float32, and with a key it has dropout.

    The bias is 0, or far below it where a position is masked, and has no gradient. The fused kernel cannot drop weights
    by the bits of `models/dropout.py`, so training with dropout on the weights does not use it.
    """
    rate = 0.0 if key is None else rate
    if not rate and q.dtype in HALF and jax.default_backend() == "gpu" and has_kernel(q.shape[-2:], q.dtype.name):
        return attend_fused(q, k, v, bias, "cudnn")
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    return jnp.swapaxes(_attend(rate, q, k, v, bias, key, place), 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rate: float, q: Head, k: Head, v: Head, bias: Bias, key: PRNGKeyArray | None, place: Place) -> Head:
    return _forward(rate, q, k, v, bias, key, place)[0]


Residuals = tuple[Head, Head, Head, Bias, PRNGKeyArray | None, Place, Head, Norms, Norms]


def _forward(
    rate: float, q: Head, k: Head, v: Head, bias: Bias, key: PRNGKeyArray | None, place: Place
) -> tuple[Head, Residuals]:
    def attend_heads(first: int, q: Head, k: Head, v: Head) -> tuple[Head, Norms, Norms]:
        """Attends over heads from number `first` on; returns outputs, and maximum and sum of each query's softmax."""
        scores = _compute_scores(q, k, bias)
        highest = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - highest)
        total = weights.sum(axis=-1, keepdims=True)
        weights = dropout(weights, rate, key, *place, first=first * q.shape[2] ** 2)
        return (_sum("bhlm,bhmd->bhld", weights.astype(v.dtype), v) / total).astype(v.dtype), highest, total

    output, highest, total = _map_heads(attend_heads, q, k, v)
    return output, (q, k, v, bias, key, place, output, highest, total)


def _backward(rate: float, residuals: Residuals, gradient: Head) -> tuple[Head, Head, Head, None, None, None]:
    q, k, v, bias, key, place, output, *norms = residuals
    mean = _sum("bhld,bhld->bhl", gradient, output)[..., None]  # of a query's changes under its weights

    def differentiate_heads(
        first: int, q: Head, k: Head, v: Head, gradient: Head, mean: Norms, highest: Norms, total: Norms
    ) -> tuple[Head, Head, Head]:
        def drop(x: Float[Array, "rows heads length length"]) -> Float[Array, "rows heads length length"]:
            return dropout(x, rate, key, *place, first=first * q.shape[2] ** 2)

        weights = jnp.exp(_compute_scores(q, k, bias) - highest) / total
        change = weights * (drop(_sum("bhld,bhmd->bhlm", gradient, v)) - mean) * q.shape[-1] ** -0.5
        change = change.astype(q.dtype)
        return change @ k, transposed_matmul(change, q), transposed_matmul(drop(weights).astype(v.dtype), gradient)

    to_q, to_k, to_v = _map_heads(differentiate_heads, q, k, v, gradient, mean, *norms)
    return to_q, to_k, to_v, None, None, None


_attend.defvjp(_forward, _backward)


def _compute_scores(q: Head, k: Head, bias: Bias) -> Float[Array, "rows heads length length"]:
    return _sum("bhld,bhmd->bhlm", q, k) * q.shape[-1] ** -0.5 + bias


def _map_heads(
    function: Callable[..., tuple[jax.Array, ...]], *arrays: Float[Array, "rows heads length _"]
) -> tuple[Float[Array, "rows heads length _"], ...]:
    """Calls `function(first, *arrays)` on all heads, on a CPU a few at a time; `first` is the number of the first."""
    rows, heads, length, _ = arrays[0].shape
    groups = math.gcd(GROUPS, heads) if rows * heads * length**2 >= FEW else 1

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
) -> Float[Array, "rows length heads head_size"]:
    """Computes the attention in one fused call, without dropout; cuDNN needs a mask of every pair of positions."""
    length = q.shape[1]
    mask = jnp.broadcast_to(bias >= 0, (len(q), 1, length, length))
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)


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
