# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One attention in two forms: they compute the same, and the fused one is taken only where it can be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.models import attention
from xlkd.models.encoder import attention_bias

ROWS, LENGTH, HEADS, WIDTH = 3, 16, 2, 8


@pytest.fixture(scope="module")
def arrays():
    q, k, v = (jax.random.normal(key, (ROWS, LENGTH, HEADS, WIDTH)) for key in jax.random.split(jax.random.key(0), 3))
    mask = (np.arange(LENGTH) < np.array([[16], [9], [1]])).astype(np.int32)
    return q, k, v, attention_bias(mask)


def test_both_forms_give_the_same(arrays):
    ours, theirs = attention.attend(*arrays), attention.fused(*arrays, "xla")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_both_forms_have_the_same_gradient(arrays):
    *qkv, bias = arrays
    weights = jax.random.normal(jax.random.key(1), qkv[0].shape)

    def gradient(function):
        return jax.grad(lambda *qkv: (function(*qkv, bias) * weights).sum(), argnums=(0, 1, 2))(*qkv)

    pairs = zip(gradient(attention.attend), gradient(lambda *a: attention.fused(*a, "xla")), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_masked_positions_are_not_looked_at(arrays):
    q, k, v, bias = arrays
    found = attention.attend(q, k, v.at[1, 9:].set(1e6), bias)
    np.testing.assert_array_equal(found[1], attention.attend(*arrays)[1])


@pytest.mark.parametrize(
    ("backend", "dtype", "drops", "kernel", "taken"),
    [
        ("gpu", "bfloat16", False, True, True),
        ("gpu", "float16", False, True, True),
        ("gpu", "float32", False, True, False),
        ("gpu", "bfloat16", True, True, False),
        ("gpu", "bfloat16", False, False, False),
        ("cpu", "bfloat16", False, True, False),
        ("tpu", "bfloat16", False, True, False),
    ],
)
def test_the_kernel_is_taken_where_it_can_be(arrays, monkeypatch, backend, dtype, drops, kernel, taken):
    called = []

    def fused(q, k, v, bias, implementation):
        called.append(implementation)
        return q

    monkeypatch.setattr(attention, "fused", fused)
    monkeypatch.setattr(attention, "has_kernel", lambda heads, dtype: kernel)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    *qkv, bias = arrays
    attention.attend(*(x.astype(dtype) for x in qkv), bias, (lambda w: w) if drops else None)
    assert called == (["cudnn"] if taken else [])


def test_where_it_does_not_compile_it_is_not_there():
    assert not attention.has_kernel((HEADS, WIDTH), "bfloat16")  # this machine computes on its CPU


def test_half_precision_keeps_a_softmax_in_float32(arrays):
    *qkv, bias = arrays
    half = attention.attend(*(x.astype(jnp.bfloat16) for x in qkv), bias)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), attention.attend(*arrays), atol=0.03)
