# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Terms are added over the parts of a step and divided once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.losses.terms import Term, make_term, mean, number_groups, total


def test_terms_added_over_parts_equal_those_of_the_step():
    values = jnp.array([1.0, 2.0, 4.0, 9.0])
    mask = jnp.array([1, 1, 0, 1])
    a, b = make_term(values[:3], mask[:3], 0.5), make_term(values[3:], mask[3:], 0.5)
    parts = {"ce": Term(a.sum + b.sum, a.count + b.count, 0.5)}
    assert total(parts) == total({"ce": make_term(values, mask, 0.5)}) == 0.5 * 12 / 3


def test_a_term_without_count_is_absent_and_has_no_gradient():
    def loss(x):
        return total({"a": make_term(x, jnp.array([1, 1])), "b": make_term(jnp.log(x - x), jnp.array([0, 0]))})

    value, gradient = jax.value_and_grad(loss)(jnp.array([1.0, 3.0]))
    assert value == 2
    assert total({"b": Term(jnp.zeros(()), jnp.zeros(()))}) == 0
    count_only = jax.grad(lambda s: total({"b": Term(s, jnp.zeros(()))}))(jnp.ones(()))
    assert count_only == 0
    assert gradient.shape == (2,)


def test_masked_values_may_be_anything():
    assert total({"a": make_term(jnp.array([1.0, jnp.nan, jnp.inf]), jnp.array([1, 0, 0]))}) == 1


def test_each_weight_is_the_derivative_of_its_term():
    term = make_term(jnp.array([1.0, 4.0]), jnp.array([1, 1]))
    slope = jax.grad(lambda w: total({"a": term._replace(weight=w), "b": term}))(3.0)
    assert slope == mean(term) == 2.5
    assert total({"a": term._replace(weight=0.0)}) == 0


@pytest.mark.parametrize("rows", [[1, 1, 1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1, 0, 1]])
def test_group_numbers_count_real_rows_only(rows):
    groups = np.asarray(number_groups(jnp.array(rows), 2))
    assert groups[np.array(rows) == 1].tolist() == [0, 0, 1, 1, 2]
    assert not np.asarray(number_groups(jnp.array(rows), 0)).any()
