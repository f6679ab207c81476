# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The learning rate by step, and the weight decay of every parameter: golden lists."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xlkd.errors import UserError
from xlkd.models import encoder as encoders
from xlkd.models.family import Architecture
from xlkd.models.heads import ClassifierHead, MaskedLMHead, SpanHead, init_head
from xlkd.spec import read_block
from xlkd.spec.optim import Optim
from xlkd.train import optim

GOLDEN = pathlib.Path(__file__).parent / "golden" / "decay.json"


def make_settings(**changes) -> Optim:
    return dataclasses.replace(Optim(lr=1.0), **changes)


# Steps 0, 1, middle, last of ten, by hand: warm-up s / w, then the remaining share (10 - s) / (10 - w).
@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, {0: 1, 1: 1, 5: 1, 9: 1}),
        ("linear", 0.0, {0: 1, 1: 0.9, 5: 0.5, 9: 0.1}),
        ("cosine", 0.0, {0: 1, 1: 0.9755283, 5: 0.5, 9: 0.0244717}),
        ("linear", 0.2, {0: 0, 1: 0.5, 2: 1, 5: 0.625, 9: 0.125}),  # a share of the steps
        ("linear", 0.05, {0: 1, 1: 0.9, 9: 0.1}),  # half a step is rounded to none
        ("linear", 4, {0: 0, 1: 0.25, 4: 1, 7: 0.5, 9: 1 / 6}),  # steps
        ("constant", 4, {0: 0, 3: 0.75, 4: 1, 9: 1}),
        ("cosine", 2, {0: 0, 2: 1, 6: 0.5, 9: 0.0380602}),
        ("linear", 20, {0: 0, 1: 0.05, 9: 0.45}),  # the run ends before the warm-up does
    ],
)
def test_rate_by_step(schedule, warmup, expected):
    rate = optim.make_schedule(make_settings(schedule=schedule, warmup=float(warmup)), steps=10)
    rates = {step: float(rate(jnp.int32(step))) for step in expected}
    assert rates == pytest.approx(expected, abs=1e-6)


def test_a_schedule_depends_on_the_step_alone():
    rate = jax.jit(optim.make_schedule(make_settings(lr=3e-5), steps=100))
    assert [float(rate(s)) for s in (50, 3, 50)] == [float(rate(s)) for s in (50, 3, 50)]
    assert float(rate(10)) == pytest.approx(3e-5)


def test_an_unknown_choice_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="one of constant, linear, cosine"):
        read_block(Optim, {"schedule": "other"}, "optim")
    with pytest.raises(UserError, match="one of matrices, all"):
        read_block(Optim, {"decay_mask": "other"}, "optim")


def make_parameter_shapes(model_type):
    """Returns the shapes of an encoder and all its heads."""
    architecture = Architecture(
        model_type, 20, 8, 2, 2, 16, positions=12, types=2 if model_type == "bert" else 1, pad_id=1, position_offset=2
    )

    def create(key):
        heads = (SpanHead(architecture), ClassifierHead(architecture, 3), MaskedLMHead(architecture))
        named = zip(("span", "classifier", "masked_lm"), heads, strict=True)
        return {"encoder": encoders.init(architecture, key)} | {n: init_head(head, key) for n, head in named}

    return jax.eval_shape(create, jax.random.key(0))


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
def test_the_golden_list_says_which_parameters_decay(model_type):
    mask = optim.mask_matrices(make_parameter_shapes(model_type))
    decays = {
        "/".join(part.key for part in path): decayed for path, decayed in jax.tree_util.tree_flatten_with_path(mask)[0]
    }
    assert decays == json.loads(GOLDEN.read_text())[model_type]


def test_only_parameters_in_the_mask_decay():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "norm": {"scale": jnp.ones(2)}}
    optimizer = optim.make_optimizer(make_settings(weight_decay=0.5))
    direction, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert jax.tree.map(float, jax.tree.map(jnp.max, direction)) == {"kernel": 0.5, "bias": 0.0, "norm": {"scale": 0.0}}
    optimizer = optim.make_optimizer(make_settings(weight_decay=0.5, decay_mask="all"))
    direction, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert all(float(leaf.max()) == 0.5 for leaf in jax.tree.leaves(direction))


def test_the_first_direction_of_adam_is_the_sign_of_the_gradient():
    params = {"kernel": jnp.zeros(3)}
    optimizer = optim.make_optimizer(make_settings())
    direction, _ = optimizer.update({"kernel": jnp.array([4.0, -0.02, 0.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(direction["kernel"], [1, -1, 0], atol=1e-5)


def test_moments_are_those_of_optax_and_stay_where_a_step_is_not_finite():
    gradients = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    ours, theirs = optim.scale_by_adam(), optax.scale_by_adam()
    state = theirs.init({"kernel": jnp.zeros((2, 3))})
    for gradient in gradients:
        direction, after = jax.jit(ours.update)({"kernel": gradient}, state)
        expected, state = theirs.update({"kernel": gradient}, state)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), (direction, after), (expected, state))
    _, after = ours.update({"kernel": jnp.full((2, 3), jnp.nan)}, state, ok=jnp.zeros((), bool))
    jax.tree.map(np.testing.assert_array_equal, after, state)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only a CPU stores moments before it computes the direction")
def test_an_update_of_donated_moments_copies_none():
    optimizer = optim.make_optimizer(make_settings(weight_decay=0.5))

    def update(gradient, state, params):
        direction, state = optimizer.update(gradient, state, params, ok=jnp.isfinite(gradient["kernel"]).all())
        return state, jax.tree.map(lambda p, d: p - 0.1 * d, params, direction)

    params = {"kernel": jnp.zeros((1024, 1024))}
    step = jax.jit(update, donate_argnums=(1, 2)).lower(params, optimizer.init(params), params)
    assert step.compile().memory_analysis().temp_size_in_bytes < 2**21  # a moment has 4 MiB
