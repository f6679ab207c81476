# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows times a kernel, and sums over rows, by what the device has.

XLA's fast kernels for CPU take a product whose left side is summed over its last axis. A kernel's gradient sums over
rows, as attention's gradients do, so that one of both sides has to be turned first; left alone, XLA folds the turn into
a product that only its slower kernels know. docs/performance.md has what it costs.
"""

from __future__ import annotations

import jax

_keep = jax.lax.optimization_barrier  # nothing is folded across it


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x·kernel over the last axis of x."""
    return x @ kernel


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _backward(kept: tuple[jax.Array, jax.Array], above: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    rows, change = (each.reshape(-1, each.shape[-1]) for each in (x, above))
    return jax.lax.dot_general(above, kernel, (((above.ndim - 1,), (1,)), ((), ()))), transposed_matmul(rows, change)


matmul.defvjp(_forward, _backward)


def transposed_matmul(x: jax.Array, y: jax.Array) -> jax.Array:
    """xᵀ·y of [..., rows, a] and [..., rows, b]."""
    return jax.lax.platform_dependent(x, y, cpu=_turned, default=lambda x, y: x.mT @ y)


def _turned(x: jax.Array, y: jax.Array) -> jax.Array:
    """The same; the narrower side is turned, being the less to move."""
    if x.shape[-1] > y.shape[-1]:
        return _keep(_keep(y.mT) @ x).mT
    return _keep(x.mT) @ y
