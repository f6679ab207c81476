# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Attention in two implementations: both compute the same, and the fused kernel is used only where it is supported."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.models import attention
from xlkd.models.dropout import dropout
from xlkd.models.layers import attention_bias
from xlkd.train import loop

ROWS, LENGTH, HEADS, WIDTH = 3, 16, 2, 8


@pytest.fixture(scope="module")
def arrays():
    q, k, v = (jax.random.normal(key, (ROWS, LENGTH, HEADS, WIDTH)) for key in jax.random.split(jax.random.key(0), 3))
    mask = (np.arange(LENGTH) < np.array([[16], [9], [1]])).astype(np.int32)
    return q, k, v, attention_bias(mask)


def test_both_implementations_compute_the_same(arrays):
    ours, theirs = attention.attend(*arrays), attention.attend_fused(*arrays, "xla")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def compute_gradient(function, *qkv):
    weights = jax.random.normal(jax.random.key(1), qkv[0].shape)
    return jax.jit(jax.grad(lambda *qkv: (function(*qkv) * weights).sum(), argnums=(0, 1, 2)))(*qkv)


@pytest.mark.parametrize("few", [0, attention.FEW], ids=["some heads at a time", "all at once"])
def test_both_implementations_have_the_same_gradient(arrays, monkeypatch, few):
    monkeypatch.setattr(attention, "FEW", few)
    *qkv, bias = arrays
    kernel = compute_gradient(lambda *qkv: attention.attend_fused(*qkv, bias, "xla"), *qkv)
    for ours, theirs in zip(compute_gradient(lambda *qkv: attention.attend(*qkv, bias), *qkv), kernel, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("few", [0, attention.FEW], ids=["some heads at a time", "all at once"])
def test_dropout_of_weights_does_not_depend_on_the_grouping_of_heads(arrays, monkeypatch, few):
    """Values and gradients are those of dropout on the whole array, whichever heads are computed together."""
    monkeypatch.setattr(attention, "FEW", few)
    *qkv, bias = arrays
    key = jax.random.key(5)

    def attend_plainly(q, k, v):
        weights = jax.nn.softmax(jnp.einsum("blhd,bmhd->bhlm", q, k) * WIDTH**-0.5 + bias)
        return jnp.einsum("bhlm,bmhd->blhd", dropout(weights, 0.3, key, 1, 2), v)

    def attend(*qkv):
        return attention.attend(*qkv, bias, 0.3, key, 1, 2)

    np.testing.assert_allclose(attend(*qkv), attend_plainly(*qkv), atol=1e-5)
    for gradient, expected in zip(compute_gradient(attend, *qkv), compute_gradient(attend_plainly, *qkv), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


WINDOW = 3
FORMS = pytest.mark.parametrize(("blocks", "few"), [(99, attention.FEW), (1, attention.FEW), (1, 0)])


def set_form(monkeypatch, blocks, few):
    """Has rows of at least so many blocks computed in blocks, of as many queries as the window is wide to one side."""
    monkeypatch.setattr(attention, "LEAST_BLOCK", 1)
    monkeypatch.setattr(attention, "MANY_BLOCKS", blocks)
    monkeypatch.setattr(attention, "FEW", few)


@FORMS
def test_a_window_hides_positions_further_apart_than_it(arrays, monkeypatch, blocks, few):
    set_form(monkeypatch, blocks, few)
    *qkv, bias = arrays
    distance = np.abs(np.arange(LENGTH)[:, None] - np.arange(LENGTH))

    def attend_plainly(q, k, v):
        scores = jnp.einsum("blhd,bmhd->bhlm", q, k) * WIDTH**-0.5 + bias
        weights = jax.nn.softmax(jnp.where(distance <= WINDOW, scores, -jnp.inf))
        return jnp.einsum("bhlm,bmhd->blhd", weights, v)

    def attend(*qkv):
        return attention.attend(*qkv, bias, window=WINDOW)

    np.testing.assert_allclose(attend(*qkv), attend_plainly(*qkv), atol=1e-5)
    fused = attention.attend_fused(*qkv, bias, "xla", WINDOW)
    np.testing.assert_allclose(fused[0], attend_plainly(*qkv)[0], atol=1e-5)
    for gradient, expected in zip(compute_gradient(attend, *qkv), compute_gradient(attend_plainly, *qkv), strict=True):
        np.testing.assert_allclose(gradient, expected, atol=1e-5)


@FORMS
def test_dropout_in_a_window_depends_neither_on_other_rows_nor_on_the_grouping_of_heads(
    arrays, monkeypatch, blocks, few
):
    *qkv, bias = arrays

    def attend(*qkv):
        return attention.attend(*qkv, bias[: len(qkv[0])], 0.3, jax.random.key(5), 1, 2, window=WINDOW)

    set_form(monkeypatch, blocks, attention.FEW)
    expected, gradients = attend(*qkv), compute_gradient(attend, *qkv)
    assert np.abs(expected - attention.attend(*qkv, bias, window=WINDOW)).max() > 0.1
    set_form(monkeypatch, blocks, few)
    np.testing.assert_allclose(attend(*(x[:2] for x in qkv)), expected[:2], atol=1e-6)
    for gradient, other in zip(compute_gradient(attend, *qkv), gradients, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5)

    monkeypatch.setattr(attention, "_attend", lambda *arguments: attention._forward(*arguments)[0])
    for gradient, other in zip(compute_gradient(attend, *qkv), gradients, strict=True):
        np.testing.assert_allclose(gradient, other, atol=1e-5)


def test_long_rows_are_computed_in_blocks():
    x = jax.ShapeDtypeStruct((1, 1024, 1, 8), jnp.float32)
    bias = jax.ShapeDtypeStruct((1, 1, 1, 1024), jnp.float32)

    def list_shapes(window):
        def total(q, k, v, bias):
            return attention.attend(q, k, v, bias, window=window).sum()

        lowered = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(x, x, x, bias).lower()
        return lowered.as_text()

    assert "1024x1024x" in list_shapes(None)
    assert "1024x1024x" in list_shapes(257)
    assert "1024x1024x" not in list_shapes(256)
    assert "16x64x192x" in list_shapes(64)


def test_no_attention_matrix_is_stored_for_the_backward_pass(arrays):
    *qkv, bias = arrays
    _, back = jax.vjp(lambda *qkv: attention.attend(*qkv, bias, 0.3, jax.random.key(5)), *qkv)
    assert max(x.size for x in jax.tree.leaves(back)) == qkv[0].size < ROWS * HEADS * LENGTH**2


@pytest.mark.parametrize(("platform", "products"), [("cpu", 2 * HEADS), ("tpu", 2), ("cuda", 2)])
def test_only_a_cpu_computes_groups_of_heads(arrays, monkeypatch, platform, products):
    monkeypatch.setattr(attention, "FEW", 0)
    text = jax.jit(lambda *a: attention.attend(*a)).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("dot_general") == products


@pytest.mark.parametrize(("more", "products"), [(0, 2 * HEADS), (1, 2)])
def test_few_scores_are_computed_at_once(arrays, monkeypatch, more, products):
    monkeypatch.setattr(attention, "FEW", ROWS * HEADS * LENGTH**2 + more)
    assert jax.jit(lambda *a: attention.attend(*a)).lower(*arrays).as_text().count("dot_general") == products


@pytest.mark.parametrize(("platform", "barriers"), [("cpu", 1), ("tpu", 0)])
def test_only_a_cpu_computes_exponentials_apart_from_products(arrays, platform, barriers):
    text = jax.jit(lambda *a: attention.attend(*a)).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("optimization_barrier") == barriers


def test_masked_positions_are_ignored(arrays):
    q, k, v, bias = arrays
    outputs = attention.attend(q, k, v.at[1, 9:].set(1e6), bias)
    np.testing.assert_array_equal(outputs[1], attention.attend(*arrays)[1])


@pytest.mark.parametrize(
    ("backend", "dtype", "drops", "kernel", "uses_kernel"),
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
def test_the_fused_kernel_is_used_only_where_supported(arrays, monkeypatch, backend, dtype, drops, kernel, uses_kernel):
    implementations = []

    def record_call(q, k, v, bias, implementation, window):
        implementations.append(implementation)
        return q

    monkeypatch.setattr(attention, "attend_fused", record_call)
    monkeypatch.setattr(
        attention, "has_kernel", lambda heads, name: kernel and (heads, name) == ((HEADS, WIDTH), dtype)
    )
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    *qkv, bias = arrays
    attention.attend(*(x.astype(dtype) for x in qkv), bias, 0.1, jax.random.key(0) if drops else None)
    assert implementations == (["cudnn"] if uses_kernel else [])


@pytest.mark.parametrize(("window", "pairs"), [(None, False), (3, True)])
def test_the_fused_kernel_takes_lengths_instead_of_a_mask_of_all_pairs(monkeypatch, window, pairs):
    """Makes the program for a GPU, forward and backward, without cuDNN: its calls are there, but cannot be run."""
    fused_attention = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(fused_attention, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention, "check_compute_capability", lambda capability: True)
    q = jax.ShapeDtypeStruct((2, 384, 6, 64), jnp.bfloat16)
    bias = jax.ShapeDtypeStruct((2, 1, 1, 384), jnp.float32)

    def total(q, k, v, bias):
        return attention.attend_fused(q, k, v, bias, "cudnn", window).astype(jnp.float32).sum()

    lowered = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(q, q, q, bias).lower(lowering_platforms=("cuda",))
    program = lowered.as_text()
    assert attention.has_fused_attention(program)
    assert "__cudnn$fmhaSoftmaxBackward" in program or "fmhaScaleBiasSoftmaxBackward" in program
    assert ("384x384x" in program) == pairs


def test_a_program_without_the_fused_kernel_says_so(arrays):
    assert not attention.has_fused_attention(jax.jit(lambda *a: attention.attend(*a)).lower(*arrays).as_text())


@pytest.mark.parametrize(
    ("backend", "program", "said"),
    [
        ("gpu", "call @__cudnn$fmhaSoftmax(", ", attention by cuDNN"),
        ("gpu", "dot", ", attention by products"),
        ("cpu", "dot", ""),
    ],
)
def test_the_log_says_which_attention_a_program_of_a_gpu_has(monkeypatch, backend, program, said):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert loop._describe_attention(types.SimpleNamespace(as_text=lambda: program)) == said


def test_a_row_of_padding_alone_stays_finite(arrays):
    q, k, v, bias = arrays
    bias = bias.at[1].set(bias.min())
    for outputs in (attention.attend(q, k, v, bias), attention.attend_fused(q, k, v, bias, "xla")):
        assert np.isfinite(outputs).all()


def test_a_kernel_that_does_not_compile_is_reported_as_absent():
    assert not attention.has_kernel((HEADS, WIDTH), "bfloat16")  # the tests run on the CPU


def test_half_precision_computes_the_softmax_in_float32(arrays):
    *qkv, bias = arrays
    half = attention.attend(*(x.astype(jnp.bfloat16) for x in qkv), bias)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), attention.attend(*arrays), atol=0.03)
