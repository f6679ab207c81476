# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mixtures of branches: worked numbers, weights that sum to one, gradients without NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.losses import distill, mixture

pytestmark = pytest.mark.usefixtures("float64")

TEACHER = [[2.0, 0.0, -1.0]]
BRANCHES = [
    [[1.0, 0.5, -0.5]],
    [[0.0, 1.0, 0.0]],
    [[1.5, -0.5, 0.0]],
]  # the first is the branch of the example's language
OWN = [0]


def compute_log_weights(kind, allowed, alpha=1.0):
    if kind == "uniform":
        return mixture.uniform_log_weights(allowed)
    if kind == "learned":
        return mixture.learned_log_weights(jnp.array([0.1, 0.3, -0.2]), allowed)
    return mixture.dirichlet_log_weights(jax.random.key(3), jnp.arange(len(allowed)), alpha, allowed)


@pytest.mark.parametrize(
    ("level", "kind", "T", "ce", "kl"),
    [
        ("logits", "uniform", 1.0, 0.8204427161, 0.2961760994),
        ("logits", "uniform", 2.0, 1.0130315436, 0.1070722871),
        ("logits", "learned", 1.0, 0.9323308137, 0.4080641969),
        ("probability", "uniform", 1.0, 0.8239770894, 0.2997104727),
        ("probability", "uniform", 2.0, 1.0076356275, 0.1016763711),
    ],
)
def test_worked_numbers(level, kind, T, ce, kl):
    t, z = jnp.array(TEACHER), jnp.array(BRANCHES)
    allowed = mixture.select_branches(jnp.array(OWN), 3)
    logs = compute_log_weights(kind, allowed)
    for form, value in (("ce", ce), ("kl", kl)):
        if level == "logits":
            rows = distill.class_loss(
                t, mixture.mix(mixture.weights_from_log(logs, allowed), z), form=form, temperature=T
            )
        else:
            rows = distill.class_loss_from_log(t, mixture.mix_probabilities(logs, z, T), form=form, temperature=T)
        np.testing.assert_allclose(rows, [value], atol=1e-9)


def test_worked_total():
    t, z = jnp.array(TEACHER), jnp.array(BRANCHES)
    allowed = mixture.select_branches(jnp.array(OWN), 3)
    mixed = mixture.mix(mixture.weights_from_log(mixture.uniform_log_weights(allowed), allowed), z)
    settings = {"form": "ce", "temperature": 2.0, "t_squared": True}
    own, zero = (distill.class_loss(t, x, **settings)[0] for x in (z[0], mixed))
    hard = distill.label_loss(z[0], jnp.array([0]))[0][0]
    np.testing.assert_allclose([own, zero], [3.8977526375, 4.0521261744], atol=1e-9)
    np.testing.assert_allclose(own + 0.5 * zero + 0.3 * hard, 6.1050549063, atol=1e-9)


def test_worked_weights():
    allowed = mixture.select_branches(jnp.array(OWN), 3)
    learned = mixture.weights_from_log(compute_log_weights("learned", allowed), allowed)
    np.testing.assert_allclose(learned, [[0, 0.6224593312, 0.3775406688]], atol=1e-9)
    keep = mixture.select_branches(jnp.array(OWN), 3, keep_own=True)
    mixed = mixture.mix(mixture.weights_from_log(mixture.uniform_log_weights(keep), keep), jnp.array(BRANCHES))
    np.testing.assert_allclose(mixed, [[5 / 6, 1 / 3, -1 / 6]], atol=1e-9)
    np.testing.assert_allclose(distill.class_loss(jnp.array(TEACHER), mixed), [0.7793773365], atol=1e-9)


def test_the_own_branch_and_padding_branches_are_left_out():
    own = jnp.array([1, -1])
    assert mixture.select_branches(own, 3).tolist() == [[True, False, True], [True, True, True]]
    assert mixture.select_branches(own, 4, real_branches=3).tolist() == [
        [True, False, True, False],
        [True, True, True, False],
    ]
    assert mixture.select_branches(own, 3, keep_own=True).all()


@pytest.mark.parametrize("kind", ["uniform", "learned", "dirichlet"])
@pytest.mark.parametrize("keep", [False, True])
def test_weights_are_a_distribution(kind, keep):
    own = jnp.array([0, 1, 2, -1])
    allowed = mixture.select_branches(own, 3, keep_own=keep)
    w = mixture.weights_from_log(compute_log_weights(kind, allowed, alpha=0.05), allowed)
    np.testing.assert_allclose(w.sum(-1), np.ones(4), atol=1e-6)
    assert (w >= 0).all()
    assert (w[~allowed] == 0).all()


@pytest.mark.parametrize("kind", ["uniform", "learned", "dirichlet"])
def test_two_branches_leave_no_choice(kind):
    allowed = mixture.select_branches(jnp.array([0, 1]), 2)
    logs = (
        mixture.learned_log_weights(jnp.array([5.0, -5.0]), allowed)
        if kind == "learned"
        else compute_log_weights(kind, allowed)
    )
    assert mixture.weights_from_log(logs, allowed).tolist() == [[0, 1], [1, 0]]


def test_a_single_branch_has_weight_zero():
    allowed = mixture.select_branches(jnp.array([0]), 1)
    assert not allowed.any()
    assert mixture.weights_from_log(mixture.uniform_log_weights(allowed), allowed).tolist() == [[0.0]]


@pytest.mark.parametrize("kind", ["uniform", "learned", "dirichlet"])
@pytest.mark.parametrize("level", ["logits", "probability"])
@pytest.mark.parametrize(("branches", "keep"), [(1, False), (3, False), (3, True)])
def test_gradients_are_finite_and_left_out_branches_get_none(kind, level, branches, keep):
    own = jnp.array([0, branches - 1, 0])
    allowed = mixture.select_branches(own, branches, keep_own=keep)
    z = jnp.array(np.random.default_rng(0).normal(size=(branches, 3, 4)))
    t = jnp.array(np.random.default_rng(1).normal(size=(3, 4)))

    def loss(z, scores):
        logs = (
            mixture.learned_log_weights(scores, allowed)
            if kind == "learned"
            else compute_log_weights(kind, allowed, alpha=0.05)
        )
        if level == "logits":
            rows = distill.class_loss(t, mixture.mix(mixture.weights_from_log(logs, allowed), z))
        else:
            rows = distill.class_loss_from_log(t, mixture.mix_probabilities(logs, z))
        return jnp.sum(jnp.where(allowed.any(-1), rows, 0))

    to_z, to_scores = jax.grad(loss, argnums=(0, 1))(z, jnp.zeros(branches))
    assert jnp.isfinite(to_z).all()
    assert jnp.isfinite(to_scores).all()
    assert not to_z[~allowed.T].any()
    if kind == "learned" and branches == 3:
        assert to_scores.any()


def test_probability_mixture_is_the_mixture_of_probabilities():
    allowed = mixture.select_branches(jnp.array(OWN), 3, keep_own=True)
    logs = compute_log_weights("learned", allowed)
    direct = mixture.mix(mixture.weights_from_log(logs, allowed), jax.nn.softmax(jnp.array(BRANCHES) / 2.0))
    np.testing.assert_allclose(jnp.exp(mixture.mix_probabilities(logs, jnp.array(BRANCHES), 2.0)), direct, atol=1e-12)


@pytest.mark.parametrize(("alpha", "deviation"), [(0.05, 0.440), (1.0, 0.236), (10.0, 0.085)])
def test_dirichlet_has_the_measured_spread(alpha, deviation):
    allowed = jnp.ones((20_000, 3), bool)
    w = mixture.weights_from_log(
        mixture.dirichlet_log_weights(jax.random.key(0), jnp.arange(20_000), alpha, allowed), allowed
    )
    np.testing.assert_allclose(w.mean(0), [1 / 3] * 3, atol=0.01)
    np.testing.assert_allclose(w.std(0), [deviation] * 3, atol=0.006)


def test_a_dirichlet_draw_depends_on_the_row_alone():
    allowed, key = jnp.ones((8, 3), bool), jax.random.key(1)
    all_rows = mixture.dirichlet_log_weights(key, jnp.arange(8), 0.5, allowed)
    last_rows = mixture.dirichlet_log_weights(key, jnp.arange(4, 8), 0.5, allowed[4:])
    assert (all_rows[4:] == last_rows).all()
    assert (mixture.dirichlet_log_weights(jax.random.key(2), jnp.arange(8), 0.5, allowed) != all_rows).any()


def test_a_large_alpha_is_uniform():
    allowed = mixture.select_branches(jnp.array([0, 1, 2]), 3)
    logs = mixture.dirichlet_log_weights(jax.random.key(0), jnp.arange(3), 1e6, allowed)
    np.testing.assert_allclose(mixture.weights_from_log(logs, allowed), allowed * 0.5, atol=1e-3)
