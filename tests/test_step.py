# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One training step: padding, uneven batches, micro-batches and numbers that are not finite."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict
from step_toys import largest_absolute, report_gradient

from xlkd.keys import PURPOSES
from xlkd.losses.terms import Term, make_term
from xlkd.methods import Loss, Method, Start, Variables, key_for
from xlkd.models.dropout import dropout
from xlkd.train import optim, step
from xlkd.train import state as states

ROWS, WIDTH = 8, 5


@functools.cache
def toy(coupled=None, dropped=0.0) -> Method:
    """Returns a regression with a term by row and one by token, a frozen scale, and statistics that `coupled` updates."""

    def init(key, start):
        params = {"kernel": jnp.sin(jnp.arange(WIDTH * 3.0)).reshape(WIDTH, 3), "bias": jnp.zeros(3)}
        return Variables(params, frozen={"scale": jnp.full((), 2.0)}, statistics={"mean": jnp.zeros(3)})

    def loss(variables, batch, targets, key, step):
        x = dropout(jnp.asarray(batch["x"]), dropped, key)
        y = jnp.tanh(x @ variables.params["kernel"] + variables.params["bias"]) * variables.frozen["scale"]
        by_row = make_term(jnp.square(y.sum(-1) - batch["y"]), batch["mask"], 1.0)
        by_token = make_term(jnp.abs(y), batch["tokens"] * batch["mask"][:, None], 0.25)
        absent = make_term(jnp.full(len(y), jnp.nan), jnp.zeros(len(y)), 3.0)
        size = make_term(jnp.abs(batch["y"]), batch["mask"])
        return Loss({"row": by_row, "token": by_token, "absent": absent}, {"size": size}, {"y": y})

    return Method(init, loss, outputs=FrozenDict(), exports=lambda variables: {}, coupled=coupled)


def similarities(variables, embeddings, batch, targets, step):
    """Computes terms that couple all rows of a step: pairwise cosines and the mean and variance of a BatchNorm."""
    y, mask = embeddings["y"], batch["mask"]
    n = mask.sum()
    mean = (y * mask[:, None]).sum(0) / n
    variance = (jnp.square(y - mean) * mask[:, None]).sum(0) / n
    z = (y - mean) * jax.lax.rsqrt(variance + 1e-5) + variables.params["bias"]
    unit = z * jax.lax.rsqrt(jnp.square(z).sum(-1, keepdims=True) + 1e-6)
    cosine, pairs = unit @ unit.T, mask[:, None] * mask[None] * (1 - jnp.eye(len(mask)))
    terms = {
        "cosine": make_term(jnp.square(cosine - 0.3), pairs, 0.5),
        "norm": make_term(jnp.abs(z).sum(-1), mask, 0.125),
    }
    return terms, {"variance": Term(variance.sum(), 1.0)}, {"mean": 0.9 * variables.statistics["mean"] + 0.1 * mean}


def batch_of(rows=ROWS, seed=0):
    random = np.random.default_rng(seed)
    return {
        "x": random.normal(size=(rows, WIDTH)).astype(np.float32),
        "y": random.normal(size=rows).astype(np.float32),
        "tokens": (random.random((rows, 3)) < 0.6).astype(np.float32),
        "mask": np.ones(rows, np.float32),
    }


ADAM = optim.scale_by_adam()


@functools.partial(jax.jit, static_argnums=(0, 1))
def create_state(method, optimizer=ADAM):
    # Jitting gives every leaf its own buffer.
    return states.create_state(method, Start(None, (), {}), optimizer, seed=3)


@functools.partial(jax.jit, static_argnums=(0, 2))
def compute_gradient(method, batch, micro_batches=1):
    return step.compute_gradient(method, create_state(method), batch, (), jax.random.key(0), micro_batches)


def make_jitted_step(method, *, rate=lambda s: 0.1, clip_norm=0.0, micro_batches=1, optimizer=ADAM):
    take_step = step.make_step(method, optimizer, rate, seed=3, clip_norm=clip_norm, micro_batches=micro_batches)
    return jax.jit(take_step)


def assert_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **({"rtol": 1e-5, "atol": 1e-6} | tolerance)), a, b)


def pad_batch(batch, rows):
    """Appends rows of random numbers with mask 0 to the batch."""
    nonsense = batch_of(rows - len(batch["mask"]), seed=9)
    nonsense["x"] *= 1e4
    nonsense["mask"][:] = 0
    return {name: np.concatenate([value, nonsense[name]]) for name, value in batch.items()}


def test_the_gradient_equals_that_of_weighted_sums_over_counts():
    method, batch = toy(), batch_of()
    batch["mask"][-3:] = 0

    def by_hand(params):
        y = 2 * jnp.tanh(batch["x"][:5] @ params["kernel"] + params["bias"])
        tokens = batch["tokens"][:5]
        return jnp.square(y.sum(-1) - batch["y"][:5]).mean() + 0.25 * (jnp.abs(y) * tokens).sum() / tokens.sum()

    gradients, terms, _ = compute_gradient(method, batch)
    assert_close(gradients, jax.grad(by_hand)(create_state(method).variables.params))
    assert float(terms["row"].count) == 5
    assert float(terms["token"].count) == batch["tokens"][:5].sum()


@pytest.mark.parametrize("coupled", [None, similarities])
def test_padded_rows_change_nothing(coupled):
    method, batch = toy(coupled), batch_of(5)
    assert_close(compute_gradient(method, pad_batch(batch, 8)), compute_gradient(method, batch))


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("coupled", [None, similarities])
def test_padded_rows_change_nothing_with_dropout(coupled, micro_batches):
    """Every example keeps its micro-batch and its position in it, and so its dropout is bit-identical."""
    method, batch = toy(coupled, dropped=0.5), batch_of(6)
    plain = compute_gradient(method, batch, micro_batches)
    assert_close(compute_gradient(method, pad_batch(batch, 24), micro_batches), plain)
    without = compute_gradient(toy(coupled), batch, micro_batches)
    assert abs(float(without[1]["row"].sum - plain[1]["row"].sum)) > 1e-2, "dropout took part"


def test_micro_batches_of_three_rows_and_one_equal_a_batch_of_four():
    """Micro-batches may be uneven: sums and counts are added before the division."""
    method, whole = toy(), batch_of(4)
    uneven = {name: np.zeros((6, *value.shape[1:]), value.dtype) for name, value in whole.items()}
    for name, value in whole.items():
        uneven[name][[0, 2, 4, 1]] = value  # rows 0, 2, 4 are the first micro-batch; 1, 3, 5 the second
    assert_close(compute_gradient(method, uneven, micro_batches=2)[0], compute_gradient(method, whole)[0])


@pytest.mark.parametrize("micro_batches", [2, 8])
@pytest.mark.parametrize("coupled", [None, similarities])
def test_accumulation_equals_one_pass(coupled, micro_batches):
    method, batch = toy(coupled), batch_of()
    batch["mask"][[1, 2, 6]] = 0
    whole, parts = compute_gradient(method, batch), compute_gradient(method, batch, micro_batches)
    assert whole[1].keys() == parts[1].keys()
    assert_close(whole, parts)


def test_coupled_terms_have_gradients_below_the_embeddings():
    coupled_gradient = compute_gradient(toy(similarities), batch_of(), 4)[0]
    plain_gradient = compute_gradient(toy(), batch_of(), 4)[0]
    assert np.abs(coupled_gradient["kernel"] - plain_gradient["kernel"]).max() > 1e-2


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_term_without_a_count_is_absent(micro_batches):
    """Its sum consists of NaN, and neither the gradient nor the loss contains it."""
    gradients, terms, _ = compute_gradient(toy(), batch_of(), micro_batches)
    assert float(terms["absent"].count) == 0
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    _, report = make_jitted_step(toy(), micro_batches=micro_batches)(create_state(toy()), batch_of(), ())
    assert np.isfinite(report["loss"])


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_metrics_are_counted_and_not_learned_from(micro_batches):
    _, report = make_jitted_step(toy(similarities), micro_batches=micro_batches)(create_state(toy()), batch_of(), ())
    total, count = report["terms"]["size"]
    np.testing.assert_allclose(total / count, np.abs(batch_of()["y"]).mean(), rtol=1e-6)
    weights = {"row": 1.0, "token": 0.25, "cosine": 0.5, "norm": 0.125}
    by_hand = sum(w * report["terms"][name][0] / report["terms"][name][1] for name, w in weights.items())
    np.testing.assert_allclose(report["loss"], by_hand, rtol=1e-6)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_that_is_not_finite_changes_nothing(micro_batches):
    method = toy(similarities)
    take_step = make_jitted_step(method, micro_batches=micro_batches)
    state, report = take_step(create_state(method), batch_of(), ())
    assert bool(report["ok"])
    assert int(state.step) == 1
    bad = batch_of()
    bad["y"][5] = np.inf
    after, report = take_step(state, bad, ())
    assert not bool(report["ok"])
    # This batch is finite, but no step is taken after one that was not finite.
    again, report = take_step(after, batch_of(), ())
    assert not bool(report["ok"])
    for unchanged in (after, again):
        jax.tree.map(np.testing.assert_array_equal, unchanged._replace(ok=()), state._replace(ok=()))


@functools.cache
def make_distillation(prepared: bool) -> Method:
    """Returns a regression on targets whose loss stops no gradient; with `prepared`, `prepare` transforms the targets."""
    plain = toy()

    def loss(variables, batch, targets, key, step):
        plain_loss = plain.loss(variables, batch, targets, key, step)
        distance = make_term(jnp.square(plain_loss.embeddings["y"] - targets["teacher"]).sum(-1), batch["mask"], 0.5)
        return plain_loss._replace(terms=plain_loss.terms | {"distance": distance})

    def prepare(batch, targets):
        return {"teacher": jnp.tanh(targets["teacher"])}

    return dataclasses.replace(plain, loss=loss, prepare=prepare if prepared else None)


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("prepared", [False, True])
def test_targets_receive_no_gradient(prepared, micro_batches):
    method, batch = make_distillation(prepared), jax.tree.map(jnp.asarray, batch_of())
    state = create_state(method)
    take = report_gradient(method, lambda teacher: (state, {"teacher": teacher}), batch, micro_batches)
    teacher = jnp.sin(jnp.arange(ROWS * 3.0)).reshape(ROWS, 3)
    reported, learned = take(teacher)
    assert largest_absolute(learned) == 0
    assert float(reported) != float(take(2 * teacher)[0])


def test_a_step_does_not_change_the_teacher():
    teacher = {"kernel": jnp.arange(3.0)}
    state = create_state(toy())._replace(teacher=teacher)
    after, _ = make_jitted_step(toy())(state, batch_of(), ())
    assert_close(after.teacher, teacher, rtol=0, atol=0)


def test_clipping_scales_the_whole_gradient():
    gradients = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}
    assert_close(
        optim.clip_gradients(gradients, optax.tree.norm(gradients), 1.0), {"a": np.array([0.6, 0.0]), "b": 0.8}
    )
    assert_close(optim.clip_gradients(gradients, optax.tree.norm(gradients), 10.0), gradients)
    assert_close(optim.clip_gradients(gradients, optax.tree.norm(gradients), 0.0), gradients)


def test_a_step_clips_and_reports_the_unclipped_norm():
    plain = optax.identity()
    state = create_state(toy(), plain)
    free, report = make_jitted_step(toy(), optimizer=plain)(state, batch_of(), ())
    clipped, _ = make_jitted_step(toy(), optimizer=plain, clip_norm=0.5)(state, batch_of(), ())
    norm = float(report["grad_norm"])
    assert norm > 0.5

    def subtract_start(after):
        return jax.tree.map(lambda a, b: a - b, after.variables.params, state.variables.params)

    assert_close(subtract_start(clipped), jax.tree.map(lambda d: d * 0.5 / norm, subtract_start(free)))


def test_only_params_have_moments_and_change():
    state = create_state(toy())
    assert jax.tree.structure(state.optimizer.mu) == jax.tree.structure(state.variables.params)
    assert len(jax.tree.leaves(state.optimizer)) == 2 * len(jax.tree.leaves(state.variables.params)) + 1
    after, _ = make_jitted_step(toy())(state, batch_of(), ())
    assert float(after.variables.frozen["scale"]) == 2.0
    assert np.abs(after.variables.params["kernel"] - state.variables.params["kernel"]).max() > 1e-3


def test_the_learning_rate_depends_on_the_step_in_the_state():
    take_step = make_jitted_step(toy(), rate=lambda s: jnp.where(s == 1, 0.5, 0.0))
    first, report = take_step(create_state(toy()), batch_of(), ())
    assert float(report["lr"]) == 0
    assert_close(first.variables.params, create_state(toy()).variables.params)
    second, report = take_step(first, batch_of(), ())
    assert float(report["lr"]) == 0.5
    assert np.abs(second.variables.params["kernel"] - first.variables.params["kernel"]).max() > 1e-2


def test_the_state_is_donated():
    take_step = step.make_step(toy(), ADAM, lambda s: 0.1, seed=3, clip_norm=1.0)
    state = create_state(toy())
    copy = jax.tree.map(np.array, state)
    new, _ = jax.jit(take_step, donate_argnums=0)(state, batch_of(), ())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.variables.params))
    expected, _ = jax.jit(take_step)(copy, batch_of(), ())
    jax.tree.map(np.testing.assert_array_equal, new, expected)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_dropout_differs_between_steps_and_not_between_runs(micro_batches):
    method = toy(dropped=0.5)
    take_step = make_jitted_step(method, rate=lambda s: 0.0, micro_batches=micro_batches)
    state, first = take_step(create_state(method), batch_of(), ())
    _, second = take_step(state, batch_of(), ())
    _, replayed = take_step(state, batch_of(), ())
    assert float(first["loss"]) != float(second["loss"]), "same parameters, same rows, another step"
    assert float(second["loss"]) == float(replayed["loss"])


def test_keys_differ_by_seed_purpose_and_step():
    names = [(s, p, i) for s in (0, 1) for p in PURPOSES for i in (0, 1)]
    keys = {tuple(np.asarray(jax.random.key_data(key_for(*name)))) for name in names}
    assert len(keys) == len(names)


def test_the_schedule_begins_again_after_each_period():
    take_step = make_jitted_step(dataclasses.replace(toy(), period=2), rate=lambda s: s / 10)
    state, rates = create_state(toy()), []
    for _ in range(4):
        state, report = take_step(state, batch_of(), ())
        rates.append(float(report["lr"]))
    np.testing.assert_allclose(rates, [0, 0.1, 0, 0.1], atol=1e-7)
