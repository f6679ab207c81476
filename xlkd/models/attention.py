# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention by what the device has: cuDNN's fused kernel on a GPU that takes it, products and a softmax elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

HALF = (jnp.bfloat16, jnp.float16)  # the kernel takes no others


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, drop: Callable[[jax.Array], jax.Array] | None = None
) -> jax.Array:
    """softmax(q·k / √d + bias)·v of [rows, length, heads, d]; the softmax is float32, `drop` is given its weights.

    The bias [rows, 1, 1, length] is 0, or far below it where a position is masked. The kernel drops nothing by our
    bits, so training with dropout on the weights does without it.
    """
    if drop is None and q.dtype in HALF and jax.default_backend() == "gpu" and has_kernel(q.shape[-2:], q.dtype.name):
        return fused(q, k, v, bias, "cudnn")
    scores = jnp.einsum("blhd,bmhd->bhlm", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5 + bias, axis=-1)
    return jnp.einsum("bhlm,bmhd->blhd", (drop(weights) if drop else weights).astype(v.dtype), v)


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
