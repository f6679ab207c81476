# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The matmul of rows and a kernel: the values and gradients of the plain one, whichever operand is transposed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.models.matmul import matmul


def plain_matmul(x, kernel):
    return x @ kernel


def compute_gradients(function, x, kernel):
    above = jax.random.normal(jax.random.key(2), (*x.shape[:-1], kernel.shape[-1]))
    return jax.jit(jax.grad(lambda x, kernel: (function(x, kernel) * above).sum(), (0, 1)))(x, kernel)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)], ids=["narrower", "wider", "square"])
@pytest.mark.parametrize("rows", [(6,), (2, 3), (2, 1, 3)])
def test_values_and_gradients_equal_those_of_the_plain_matmul(rows, shape):
    x, kernel = (jax.random.normal(jax.random.key(i), size) for i, size in enumerate([(*rows, shape[0]), shape]))
    np.testing.assert_allclose(matmul(x, kernel), plain_matmul(x, kernel), rtol=1e-6)
    for ours, known in zip(
        compute_gradients(matmul, x, kernel), compute_gradients(plain_matmul, x, kernel), strict=True
    ):
        np.testing.assert_allclose(ours, known, rtol=1e-5, atol=1e-6)


def test_a_batch_of_kernels_has_the_gradients_of_the_plain_matmul():
    """Several branches, or a scan over layers, have one kernel each."""
    x, kernels = jax.random.normal(jax.random.key(0), (2, 6, 5)), jax.random.normal(jax.random.key(1), (2, 5, 3))
    batched = compute_gradients(jax.vmap(matmul), x, kernels)
    for ours, known in zip(batched, compute_gradients(plain_matmul, x, kernels), strict=True):
        np.testing.assert_allclose(ours, known, rtol=1e-5, atol=1e-6)


def test_half_precision_keeps_its_type():
    x, kernel = jnp.ones((4, 8), jnp.bfloat16), jnp.ones((8, 2), jnp.bfloat16)
    assert matmul(x, kernel).dtype == jnp.bfloat16
    gradients = compute_gradients(lambda x, k: matmul(x, k).astype(jnp.float32), x, kernel)
    assert [gradient.dtype for gradient in gradients] == [x.dtype] * 2


def lower_gradient(shape: tuple[int, int], platform: str) -> str:
    """Returns the lowered program of a kernel's gradient over four rows."""
    gradient = jax.jit(jax.grad(lambda kernel: matmul(jnp.ones((4, shape[0])), kernel).sum()))
    return gradient.trace(jnp.ones(shape)).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("shape", "transposed"), [((8, 2), "2x4"), ((2, 8), "2x4"), ((3, 3), "3x4")])
def test_on_cpu_the_smaller_operand_is_transposed_behind_a_barrier(shape, transposed):
    barriers = [line for line in lower_gradient(shape, "cpu").splitlines() if "optimization_barrier" in line]
    assert f"tensor<{transposed}xf32>" in barriers[0]
    assert len(barriers) == 1 + (shape[0] > shape[1])


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_on_other_platforms_there_is_no_barrier(platform):
    assert "optimization_barrier" not in lower_gradient((8, 2), platform)
