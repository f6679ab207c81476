# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Matrix products that are fast on a CPU too, in float32 and bfloat16, and so are their gradients.

XLA's fast kernels for CPU compute a product that sums over the last axis of its left side. A kernel's gradient sums
over rows, as attention's gradients do, so that one side has to be transposed first; by default XLA folds the transpose
into a product that only its slower kernels support. Products of bfloat16 are fast only if they return float32.
docs/performance.md says what that costs.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

AnyArray = jax.Array | np.ndarray  # parameters may come straight from `hf.load`, and batches from a task

_barrier = jax.lax.optimization_barrier  # XLA folds nothing across it


@jax.custom_vjp
def matmul(x: Float[Array, "*rows inputs"], kernel: Float[AnyArray, "inputs outputs"]) -> Float[Array, "*rows outputs"]:
    """Returns x·kernel over the last axis of x."""
    return multiply("...i,io->...o", x, kernel)


Operands = tuple[Float[Array, "*rows inputs"], Float[AnyArray, "inputs outputs"]]


def _forward(
    x: Float[Array, "*rows inputs"], kernel: Float[AnyArray, "inputs outputs"]
) -> tuple[Float[Array, "*rows outputs"], Operands]:
    return multiply("...i,io->...o", x, kernel), (x, kernel)


def _backward(operands: Operands, gradient: Float[Array, "*rows outputs"]) -> Operands:
    x, kernel = operands
    rows, changes = (each.reshape(-1, each.shape[-1]) for each in (x, gradient))
    return multiply("...o,io->...i", gradient, kernel), transposed_matmul(rows, changes)


matmul.defvjp(_forward, _backward)


@jax.custom_vjp
def add_bias(x: Float[Array, "*rows outputs"], bias: Float[AnyArray, " outputs"]) -> Float[Array, "*rows outputs"]:
    """Returns x + bias; the gradient of the bias is summed in float32, which a plain addition does not do."""
    return x + bias


def _sum_rows(
    bias: Float[AnyArray, " outputs"], gradient: Float[Array, "*rows outputs"]
) -> tuple[Float[Array, "*rows outputs"], Float[Array, " outputs"]]:
    return gradient, gradient.sum(range(gradient.ndim - 1)).astype(bias.dtype)


add_bias.defvjp(lambda x, bias: (x + bias, bias), _sum_rows)


def multiply(formula: str, x: Float[AnyArray, ...], y: Float[AnyArray, ...]) -> Float[Array, ...]:
    """Returns jnp.einsum(formula, x, y) in the type of both operands; a CPU rounds bfloat16 only after the product."""
    default = functools.partial(jnp.einsum, formula)
    if x.dtype != jnp.bfloat16:
        return default(x, y)

    def sum_in_float32(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.einsum(formula, x, y, preferred_element_type=jnp.float32).astype(x.dtype)

    return jax.lax.platform_dependent(x, y, cpu=sum_in_float32, default=default)


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
        return _barrier(multiply("...or,...ri->...oi", _transpose(y), x)).mT
    return multiply("...ir,...ro->...io", _transpose(x), y)


def _transpose(x: Float[Array, "*axes rows columns"]) -> Float[Array, "*axes columns rows"]:
    """Returns a transposed copy; flat at the barrier, because XLA takes a transposed shape for a strided array."""
    return _barrier(x.mT.reshape(-1)).reshape(x.mT.shape)
