# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Span cross-entropy: golden numbers, and its independence of padding."""

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


def load_logits(model="student", rows=slice(None)):
    return span.Span(*(jnp.array(INPUTS[f"{model}_{side}_logits"])[rows] for side in ("start", "end")))


def load_gold(rows=slice(None)):
    return span.Span(*(jnp.array(INPUTS[f"{side}_positions"])[rows] for side in ("start", "end")))


def make_full_mask(rows=4, length=24):
    return jnp.ones((rows, length), bool)


def test_golden_values():
    term = span.cross_entropy(load_logits(), load_gold(), make_full_mask(), jnp.ones(4))
    np.testing.assert_allclose(mean(term), GOLDEN["ce"]["total"], atol=1e-6)
    for side in range(2):
        side_term = span.cross_entropy(
            (load_logits()[side],) * 2, (load_gold()[side],) * 2, make_full_mask(), jnp.ones(4)
        )
        np.testing.assert_allclose(mean(side_term), GOLDEN["ce"][("start", "end")[side]], atol=1e-6)


def test_golden_gradient():
    def loss(student):
        return total({"ce": span.cross_entropy(student, load_gold(), make_full_mask(), jnp.ones(4))})

    gradient = jax.grad(loss)(load_logits())
    golden = GOLDEN["total"]["ce: 1*CE + 0*KL"]
    np.testing.assert_allclose(gradient.start, golden["grad_student_start_logits"], atol=1e-6)
    np.testing.assert_allclose(gradient.end, golden["grad_student_end_logits"], atol=1e-6)


def test_ignored_labels_change_neither_sum_nor_count():
    out = GOLDEN["ce_out_of_range"]
    labels = (jnp.array(out["start_positions"]), jnp.array(out["end_positions"]))
    term = span.cross_entropy(load_logits(), labels, make_full_mask(), jnp.ones(4))
    assert term.count == 3
    np.testing.assert_allclose(mean(term), out["total"], atol=1e-6)


def test_golden_masked_positions():
    mask = span.select_positions("padding", jnp.array(INPUTS["position_mask"]), jnp.zeros((4, 24)))
    term = span.cross_entropy(load_logits(), load_gold(), mask, jnp.ones(4))
    np.testing.assert_allclose(mean(term), GOLDEN["masked_positions"]["ce"], atol=1e-6)


def test_more_padding_changes_nothing():
    mask = jnp.array(INPUTS["position_mask"])
    longer = tuple(jnp.pad(x, ((0, 0), (0, 24)), constant_values=7.0) for x in load_logits())
    term = span.cross_entropy(longer, load_gold(), jnp.pad(mask, ((0, 0), (0, 24))), jnp.ones(4))
    same = span.cross_entropy(load_logits(), load_gold(), mask, jnp.ones(4))
    np.testing.assert_allclose(term.sum, same.sum, rtol=1e-12)


def test_three_and_one_rows_equal_four():
    a, b = (
        span.cross_entropy(load_logits(rows=rows), load_gold(rows), make_full_mask(n), jnp.ones(n))
        for rows, n in ((slice(0, 3), 3), (slice(3, 4), 1))
    )
    sums = {"ce": Term(a.sum + b.sum, a.count + b.count)}
    np.testing.assert_allclose(total(sums), GOLDEN["ce"]["total"], atol=1e-6)


def test_padding_rows_do_not_count():
    padded_logits = tuple(jnp.concatenate([x, jnp.full((3, 24), 50.0)]) for x in load_logits())
    labels = tuple(jnp.concatenate([y, jnp.array([1, 2, 3])]) for y in load_gold())
    rows = jnp.array([1, 1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(
        mean(span.cross_entropy(padded_logits, labels, make_full_mask(7), rows)), GOLDEN["ce"]["total"], atol=1e-6
    )


def test_positions_are_selected_by_padding_or_context():
    attended, context = jnp.array([[1, 1, 1, 1, 0]]), jnp.array([[0, 0, 1, 1, 1]])
    assert span.select_positions("padding", attended, context).tolist() == [[True, True, True, True, False]]
    assert span.select_positions("context", attended, context).tolist() == [[True, False, True, True, False]]
    assert span.select_positions("none", attended, context).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("valid", [0, 1])
def test_zero_or_one_position_gives_no_nan(dtype, valid):
    mask = jnp.zeros((4, 24), bool).at[:, :valid].set(True)
    labels = (jnp.zeros(4, int),) * 2

    def loss(student):
        return total({"ce": span.cross_entropy(student, labels, mask, jnp.ones(4))})

    value, gradient = jax.value_and_grad(loss)(tuple(x.astype(dtype) for x in load_logits()))
    assert value == 0  # The one remaining position is certain; without positions there is no label and no term.
    assert all(jnp.isfinite(g).all() and not g.any() for g in gradient)


def test_the_softmax_is_float32():
    half = tuple(x.astype(jnp.bfloat16) for x in load_logits())
    term = span.cross_entropy(half, load_gold(), make_full_mask(), jnp.ones(4))
    assert term.sum.dtype == jnp.float32
    exact = span.cross_entropy(tuple(x.astype(jnp.float64) for x in half), load_gold(), make_full_mask(), jnp.ones(4))
    np.testing.assert_allclose(term.sum, exact.sum, rtol=1e-6)
    assert abs(mean(term) - GOLDEN["ce"]["total"]) < 1e-2
