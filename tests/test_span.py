# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Span cross-entropy against golden numbers, and what must not change it."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.losses import span
from xlkd.losses.terms import Term, mean, total

pytestmark = pytest.mark.usefixtures("float64")

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "losses_span.json").read_text())
INPUTS = GOLDEN["inputs"]


def logits(who="student", rows=slice(None)):
    return span.Span(*(jnp.array(INPUTS[f"{who}_{side}_logits"])[rows] for side in ("start", "end")))


def gold(rows=slice(None)):
    return span.Span(*(jnp.array(INPUTS[f"{side}_positions"])[rows] for side in ("start", "end")))


def everywhere(rows=4, length=24):
    return jnp.ones((rows, length), bool)


def test_golden():
    term = span.cross_entropy(logits(), gold(), everywhere(), jnp.ones(4))
    np.testing.assert_allclose(mean(term), GOLDEN["ce"]["total"], atol=1e-6)
    for side in range(2):
        one = span.cross_entropy((logits()[side],) * 2, (gold()[side],) * 2, everywhere(), jnp.ones(4))
        np.testing.assert_allclose(mean(one), GOLDEN["ce"][("start", "end")[side]], atol=1e-6)


def test_golden_gradient():
    def loss(student):
        return total({"ce": span.cross_entropy(student, gold(), everywhere(), jnp.ones(4))})

    gradient = jax.grad(loss)(logits())
    golden = GOLDEN["total"]["ce: 1*CE + 0*KL"]
    np.testing.assert_allclose(gradient.start, golden["grad_student_start_logits"], atol=1e-6)
    np.testing.assert_allclose(gradient.end, golden["grad_student_end_logits"], atol=1e-6)


def test_ignored_labels_leave_sum_and_count():
    out = GOLDEN["ce_out_of_range"]
    labels = (jnp.array(out["start_positions"]), jnp.array(out["end_positions"]))
    term = span.cross_entropy(logits(), labels, everywhere(), jnp.ones(4))
    assert term.count == 3
    np.testing.assert_allclose(mean(term), out["total"], atol=1e-6)


def test_golden_masked_positions():
    mask = span.select_positions("padding", jnp.array(INPUTS["position_mask"]), jnp.zeros((4, 24)))
    term = span.cross_entropy(logits(), gold(), mask, jnp.ones(4))
    np.testing.assert_allclose(mean(term), GOLDEN["masked_positions"]["ce"], atol=1e-6)


def test_more_padding_changes_nothing():
    mask = jnp.array(INPUTS["position_mask"])
    longer = tuple(jnp.pad(x, ((0, 0), (0, 24)), constant_values=7.0) for x in logits())
    term = span.cross_entropy(longer, gold(), jnp.pad(mask, ((0, 0), (0, 24))), jnp.ones(4))
    same = span.cross_entropy(logits(), gold(), mask, jnp.ones(4))
    np.testing.assert_allclose(term.sum, same.sum, rtol=1e-12)


def test_three_and_one_rows_equal_four():
    a, b = (
        span.cross_entropy(logits(rows=rows), gold(rows), everywhere(n), jnp.ones(n))
        for rows, n in ((slice(0, 3), 3), (slice(3, 4), 1))
    )
    both = {"ce": Term(a.sum + b.sum, a.count + b.count)}
    np.testing.assert_allclose(total(both), GOLDEN["ce"]["total"], atol=1e-6)


def test_padded_rows_count_nowhere():
    twice = tuple(jnp.concatenate([x, jnp.full((3, 24), 50.0)]) for x in logits())
    labels = tuple(jnp.concatenate([y, jnp.array([1, 2, 3])]) for y in gold())
    rows = jnp.array([1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(
        mean(span.cross_entropy(twice, labels, everywhere(7), rows)), GOLDEN["ce"]["total"], atol=1e-6
    )


def test_kinds_of_positions():
    attended, context = jnp.array([[1, 1, 1, 1, 0]]), jnp.array([[0, 0, 1, 1, 1]])
    assert span.select_positions("padding", attended, context).tolist() == [[True, True, True, True, False]]
    assert span.select_positions("context", attended, context).tolist() == [[True, False, True, True, False]]
    assert span.select_positions("none", attended, context).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("valid", [0, 1])
def test_few_positions_give_no_nan(dtype, valid):
    mask = jnp.zeros((4, 24), bool).at[:, :valid].set(True)
    labels = (jnp.zeros(4, int),) * 2

    def loss(student):
        return total({"ce": span.cross_entropy(student, labels, mask, jnp.ones(4))})

    value, gradient = jax.value_and_grad(loss)(tuple(x.astype(dtype) for x in logits()))
    assert value == 0  # certain where one position is left; no label, no term where none is
    assert all(jnp.isfinite(g).all() and not g.any() for g in gradient)


def test_the_softmax_is_float32():
    half = tuple(x.astype(jnp.bfloat16) for x in logits())
    term = span.cross_entropy(half, gold(), everywhere(), jnp.ones(4))
    assert term.sum.dtype == jnp.float32
    exact = span.cross_entropy(tuple(x.astype(jnp.float64) for x in half), gold(), everywhere(), jnp.ones(4))
    np.testing.assert_allclose(term.sum, exact.sum, rtol=1e-6)
    assert abs(mean(term) - GOLDEN["ce"]["total"]) < 1e-2
