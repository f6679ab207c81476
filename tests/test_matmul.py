# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The matmul of rows and a kernel, and the bias: the values and gradients of the plain ones, in fast kernels on CPU."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.models.matmul import add_bias, matmul


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


@pytest.mark.parametrize("rows", [(6,), (2, 3)])
def test_a_bias_has_the_gradient_of_an_addition(rows):
    x, bias, above = (jax.random.normal(jax.random.key(i), size) for i, size in enumerate([(*rows, 5), (5,), (5,)]))
    ours, known = (
        jax.grad(lambda x, bias, add=add: (add(x, bias) * above).sum(), (0, 1))(x, bias) for add in (add_bias, jnp.add)
    )
    for each, other in zip(ours, known, strict=True):
        np.testing.assert_allclose(each, other, rtol=1e-6)


def test_the_gradient_of_a_bias_is_summed_in_float32():
    def lower(add):
        x, bias = jnp.ones((4, 2), jnp.bfloat16), jnp.ones(2, jnp.bfloat16)
        gradient = jax.grad(lambda bias: add(x, bias).astype(jnp.float32).sum())
        return jax.jit(gradient).trace(bias).lower(lowering_platforms=("cpu",)).as_text()

    summed = re.compile(r"reduce.*across dimensions = \[0\] : \(tensor<4x2x(\w+)>")
    assert summed.findall(lower(add_bias)) == ["f32"]
    assert summed.findall(lower(jnp.add)) == ["bf16"]


def lower_gradient(shape: tuple[int, int], platform: str, dtype: str = "float32") -> str:
    """Returns the lowered program of the value and gradients of a matmul of four rows."""

    def total(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return matmul(x, kernel).astype(jnp.float32).sum()

    gradients = jax.jit(jax.value_and_grad(total, (0, 1)))
    arguments = jnp.ones((4, shape[0]), dtype), jnp.ones(shape, dtype)
    return gradients.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("shape", "transposed"), [((8, 2), "2x4"), ((2, 8), "2x4"), ((3, 3), "3x4")])
def test_on_cpu_the_smaller_operand_is_transposed_behind_a_barrier(shape, transposed):
    barriers = [line for line in lower_gradient(shape, "cpu").splitlines() if "optimization_barrier" in line]
    rows, columns = transposed.split("x")
    assert f"tensor<{int(rows) * int(columns)}xf32>" in barriers[0]
    assert f"-> tensor<{transposed}xf32>" in lower_gradient(shape, "cpu")
    assert len(barriers) == 1 + (shape[0] > shape[1])


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_on_other_platforms_there_is_no_barrier(platform):
    assert "optimization_barrier" not in lower_gradient((8, 2), platform)


PRODUCT = re.compile(r"dot_general.*: \(tensor<\S*x(\w+)>, tensor<\S*x(\w+)>\) -> tensor<\S*x(\w+)>")


@pytest.mark.parametrize("shape", [(8, 2), (2, 8)])
@pytest.mark.parametrize(("platform", "sums"), [("cpu", "f32"), ("tpu", "bf16")])
def test_all_three_products_take_bfloat16_and_on_cpu_return_float32(platform, sums, shape):
    assert PRODUCT.findall(lower_gradient(shape, platform, "bfloat16")) == [("bf16", "bf16", sums)] * 3
