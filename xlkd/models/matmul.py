# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Matrix products whose gradients are fast on a CPU too.

XLA's fast kernels for CPU compute a product that sums over the last axis of its left side. A kernel's gradient sums
over rows, as attention's gradients do, so that one side has to be transposed first; by default XLA folds the transpose
into a product that only its slower kernels support. docs/performance.md says what that costs.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Float

AnyArray = jax.Array | np.ndarray  # parameters may come straight from `hf.load`, and batches from a task

_barrier = jax.lax.optimization_barrier  # XLA folds nothing across it


@jax.custom_vjp
def matmul(x: Float[Array, "*rows inputs"], kernel: Float[AnyArray, "inputs outputs"]) -> Float[Array, "*rows outputs"]:
    """Returns x·kernel over the last axis of x."""
    return x @ kernel


Operands = tuple[Float[Array, "*rows inputs"], Float[AnyArray, "inputs outputs"]]


def _forward(
    x: Float[Array, "*rows inputs"], kernel: Float[AnyArray, "inputs outputs"]
) -> tuple[Float[Array, "*rows outputs"], Operands]:
    return x @ kernel, (x, kernel)


def _backward(operands: Operands, gradient: Float[Array, "*rows outputs"]) -> Operands:
    x, kernel = operands
    rows, changes = (each.reshape(-1, each.shape[-1]) for each in (x, gradient))
    to_x = jax.lax.dot_general(gradient, kernel, (((gradient.ndim - 1,), (1,)), ((), ())))
    return to_x, transposed_matmul(rows, changes)


matmul.defvjp(_forward, _backward)


def transposed_matmul(
    x: Float[Array, "*axes rows inputs"], y: Float[Array, "*axes rows outputs"]
) -> Float[Array, "*axes inputs outputs"]:
    """Returns xᵀ·y, a sum over rows."""
    return jax.lax.platform_dependent(x, y, cpu=_transpose_narrower, default=lambda x, y: x.mT @ y)


def _transpose_narrower(
    x: Float[Array, "*axes rows inputs"], y: Float[Array, "*axes rows outputs"]
) -> Float[Array, "*axes inputs outputs"]:
    """Returns xᵀ·y, transposing the narrower of the two, which moves less memory."""
    if x.shape[-1] > y.shape[-1]:
        return _barrier(_barrier(y.mT) @ x).mT
    return _barrier(x.mT) @ y
