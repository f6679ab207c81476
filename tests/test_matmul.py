# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows times a kernel: the same values and gradients as the plain matmul, whichever side is turned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.models.matmul import matmul


def plain(x, kernel):
    return x @ kernel


def gradients(function, x, kernel):
    above = jax.random.normal(jax.random.key(2), (*x.shape[:-1], kernel.shape[-1]))
    return jax.jit(jax.grad(lambda x, kernel: (function(x, kernel) * above).sum(), (0, 1)))(x, kernel)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)], ids=["narrower", "wider", "square"])
@pytest.mark.parametrize("rows", [(6,), (2, 3), (2, 1, 3)])
def test_values_and_gradients_are_those_of_the_plain_product(rows, shape):
    x, kernel = (jax.random.normal(jax.random.key(i), of) for i, of in enumerate([(*rows, shape[0]), shape]))
    np.testing.assert_allclose(matmul(x, kernel), plain(x, kernel), rtol=1e-6)
    for ours, known in zip(gradients(matmul, x, kernel), gradients(plain, x, kernel), strict=True):
        np.testing.assert_allclose(ours, known, rtol=1e-5, atol=1e-6)


def test_a_batch_of_kernels():
    """As several branches or a scan over layers have them."""
    x, kernels = jax.random.normal(jax.random.key(0), (2, 6, 5)), jax.random.normal(jax.random.key(1), (2, 5, 3))
    many = gradients(jax.vmap(matmul), x, kernels)
    for ours, known in zip(many, gradients(plain, x, kernels), strict=True):
        np.testing.assert_allclose(ours, known, rtol=1e-5, atol=1e-6)


def test_half_precision_keeps_its_type():
    x, kernel = jnp.ones((4, 8), jnp.bfloat16), jnp.ones((8, 2), jnp.bfloat16)
    assert matmul(x, kernel).dtype == jnp.bfloat16
    assert [one.dtype for one in gradients(lambda x, k: matmul(x, k).astype(jnp.float32), x, kernel)] == [x.dtype] * 2


def lowered(shape: tuple[int, int], platform: str) -> str:
    """The gradient of a kernel over four rows."""
    gradient = jax.jit(jax.grad(lambda kernel: matmul(jnp.ones((4, shape[0])), kernel).sum()))
    return gradient.trace(jnp.ones(shape)).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("shape", "turned"), [((8, 2), "2x4"), ((2, 8), "2x4"), ((3, 3), "3x4")])
def test_on_cpu_the_narrower_side_is_turned_and_held_apart(shape, turned):
    held = [line for line in lowered(shape, "cpu").splitlines() if "optimization_barrier" in line]
    assert f"tensor<{turned}xf32>" in held[0]
    assert len(held) == 1 + (shape[0] > shape[1])


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_elsewhere_nothing_is_held_apart(platform):
    assert "optimization_barrier" not in lowered((8, 2), platform)
