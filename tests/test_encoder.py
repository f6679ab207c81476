# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Hidden states and gradients against golden values; padding, scan, remat and a split do not change them."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.errors import UserError
from xlkd.models import hf, layout
from xlkd.models.encoder import Encoder, embed, init, run_layers
from xlkd.models.families import find_form
from xlkd.models.family import Architecture
from xlkd.models.layers import attention_bias

GOLDEN = pathlib.Path(__file__).parent / "golden" / "encoders"
KINDS = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "deberta-v2"]
TINY = Architecture("bert", 40, 16, 2, 2, 24, 12, 2, 0, 0)
KEY = jax.random.key(3, impl="rbg")  # compiles in a third of the time of threefry


def load_golden(kind):
    checkpoint = hf.load(GOLDEN / kind)
    values = dict(np.load(GOLDEN / kind / "golden.npz"))
    inputs = (values["input_ids"], values["attention_mask"], values.get("token_type_ids"))
    return checkpoint, values, inputs


def apply_compiled(run, params, *inputs, **options):
    """Applies the encoder in one compiled call."""
    return jax.jit(lambda params, *inputs: run.apply({"params": params}, *inputs, **options))(params, *inputs)


@pytest.fixture(scope="module")
def tiny():
    """Returns parameters of TINY, ids and a mask; no bias is zero, so that a missing one is noticed."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: init(TINY, key), jax.random.key(0))
    params = jax.tree.map(lambda x: draw.normal(0, 0.4, x.shape).astype(np.float32), shapes)
    mask = (np.arange(8) < np.array([[8], [5], [0]])).astype(np.int32)
    return params, draw.integers(1, 40, (3, 8)), mask


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_and_gradients_equal_golden_values(kind):
    checkpoint, values, inputs = load_golden(kind)
    architecture, mask = checkpoint.architecture, inputs[1]
    simplify_name = find_form(architecture).simplify_name

    def loss(params):
        states = Encoder(architecture, scan=True).apply({"params": params}, *inputs)
        return (states[-1] * mask[..., None] * jnp.cos(jnp.arange(16.0))).sum(), states

    gradient, states = jax.jit(jax.grad(loss, has_aux=True))(checkpoint.params["encoder"])
    for ours, theirs in zip(states, values["hidden"], strict=True):
        np.testing.assert_allclose(np.asarray(ours)[mask == 1], theirs[mask == 1], atol=1e-5)
    ours = layout.to_tensors(architecture, {"encoder": gradient})
    theirs = {simplify_name(k.removeprefix("gradient/")): v for k, v in values.items() if k.startswith("gradient/")}
    assert len(states) == architecture.layers + 1
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4, rtol=1e-3, err_msg=name)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "multilingual-e5-small"])
def test_real_encoders_equal_golden_values(shared, name):
    checkpoint = hf.load(shared / "models" / name)
    values = np.load(shared / "models" / name / "golden.npz")
    mask = values["attention_mask"]

    def loss(params):
        inputs = (values["input_ids"], mask, values["token_type_ids"])
        states = jnp.stack(Encoder(checkpoint.architecture, scan=True).apply({"params": params}, *inputs))
        pooled = (states[-1] * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        return (pooled * jnp.cos(jnp.arange(384.0))).sum(), (states, pooled)

    gradient, (states, pooled) = jax.jit(jax.grad(loss, has_aux=True))(checkpoint.params["encoder"])
    difference = (states[:, :, :6, :24] - values["hidden_states"]) * mask[:, :6, None]
    assert np.abs(difference).max() < 1e-4
    np.testing.assert_allclose(pooled, values["pooled"], atol=1e-4)
    ours = layout.to_tensors(checkpoint.architecture, {"encoder": gradient})
    for theirs in (key.removeprefix("gradnorm/") for key in values.files if key.startswith("gradnorm/")):
        norm = values[f"gradnorm/{theirs}"]
        assert abs(np.linalg.norm(ours[theirs]) - norm) < 1e-3 * norm
        rows = values["grad_rows"] if theirs == find_form(checkpoint.architecture).words else slice(6)
        part = ours[theirs][rows, :24] if ours[theirs].ndim == 2 else ours[theirs][:24]
        assert np.abs(part - values[f"grad/{theirs}"]).max() < 1e-3 * norm


def test_scanned_and_unrolled_layers_have_the_same_dropout(tiny):
    params, ids, mask = tiny
    options = {"train": True, "key": KEY}
    runs = [apply_compiled(Encoder(TINY, scan=scan), params, ids, mask, **options) for scan in (False, True)]
    for unrolled, scanned in zip(*runs, strict=True):
        np.testing.assert_allclose(unrolled, scanned, atol=1e-5)
    without_dropout = apply_compiled(Encoder(TINY), params, ids, mask)
    other = apply_compiled(Encoder(TINY), params, ids, mask, train=True, key=jax.random.key(4, impl="rbg"))
    for i in range(3):
        assert np.abs(runs[0][i] - without_dropout[i]).max() > 0.1
        assert np.abs(runs[0][i] - other[i]).max() > 0.1


def test_layers_differ_in_their_dropout(tiny):
    params, ids, mask = tiny
    first_layer = jax.tree.map(lambda x: x[:1], params["layers"])
    hidden = embed(TINY, params["embeddings"], ids)

    @jax.jit
    def run(first):
        return run_layers(TINY, first_layer, hidden, attention_bias(mask), first=first, key=KEY)[0]

    assert np.abs(run(0) - run(1)).max() > 0.1


@pytest.mark.parametrize("scan", [False, True])
def test_a_trunk_and_its_upper_layers_equal_the_encoder(tiny, scan):
    params, ids, mask = tiny
    run = Encoder(TINY, scan=scan)
    all_states = apply_compiled(run, params, ids, mask, train=True, key=KEY)
    trunk = apply_compiled(run, params, ids, mask, train=True, key=KEY, layers=1)

    @jax.jit
    def run_upper_layers(layers, hidden):
        return run_layers(TINY, layers, hidden, attention_bias(mask), first=1, scan=scan, key=KEY)

    upper = run_upper_layers(jax.tree.map(lambda x: x[1:], params["layers"]), trunk[-1])
    for expected, computed in zip(all_states, (*trunk, *upper), strict=True):
        np.testing.assert_allclose(expected, computed, atol=1e-5)


def test_padding_changes_nothing(tiny):
    params, ids, mask = tiny
    for architecture in (TINY, dataclasses.replace(TINY, model_type="roberta", position_offset=1)):
        run = Encoder(architecture, scan=True)
        ids = np.where(mask == 1, ids, architecture.pad_id)
        narrow = apply_compiled(run, params, ids, mask)
        wide = apply_compiled(run, params, *(np.pad(x, ((0, 0), (0, 3))) for x in (ids, mask)))
        for padded, unpadded in zip(wide, narrow, strict=True):
            np.testing.assert_allclose(padded[:2, :8][mask[:2] == 1], unpadded[:2][mask[:2] == 1], atol=1e-5)


def test_a_row_without_a_valid_key_is_finite_with_its_gradient(tiny):
    params, ids, mask = tiny
    assert mask[2].sum() == 0
    for dtype in (jnp.float32, jnp.bfloat16):

        def loss(params, dtype=dtype):
            return (
                Encoder(TINY, dtype=dtype, scan=True).apply({"params": params}, ids, mask)[-1].astype(jnp.float32).sum()
            )

        value, gradient = jax.jit(jax.value_and_grad(loss))(params)
        assert np.isfinite(value)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_bfloat16_is_close_to_float32(tiny):
    params, ids, mask = tiny
    full = apply_compiled(Encoder(TINY), params, ids, mask)
    half = apply_compiled(Encoder(TINY, dtype=jnp.bfloat16), params, ids, mask)
    for exact, rounded in zip(full, half, strict=True):
        assert rounded.dtype == jnp.bfloat16
        assert 0 < np.abs(exact - rounded.astype(jnp.float32)).mean() < 2e-2


@pytest.mark.parametrize(("remat", "scan"), [("full", True), ("dots", False)])
def test_remat_saves_memory_and_has_the_same_gradients(tiny, remat, scan):
    params, ids, mask = tiny

    def loss(params, remat):
        states = Encoder(TINY, scan=scan, remat=remat).apply({"params": params}, ids, mask, train=True, key=KEY)
        return jnp.square(states[-1]).sum()

    def count_saved_values(remat):
        pullback = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(p, remat), params)[1], params)
        return sum(x.size for x in jax.tree.leaves(pullback))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    assert count_saved_values(remat) < 0.7 * count_saved_values("none")
    close = functools.partial(np.testing.assert_allclose, atol=1e-3, rtol=1e-3)
    jax.tree.map(close, gradient(params, "none"), gradient(params, remat))


def test_an_unknown_remat_policy_names_the_known_ones(tiny):
    params, ids, mask = tiny
    with pytest.raises(UserError, match="none, full, dots"):
        Encoder(TINY, remat="most").apply({"params": params}, ids, mask)


def test_a_row_longer_than_the_positions_is_refused(tiny):
    params, _, _ = tiny
    ids = jnp.ones((1, 13), jnp.int32)
    with pytest.raises(UserError, match=r"13 tokens .* 12 positions"):
        Encoder(TINY).apply({"params": params}, ids, ids)


def test_training_needs_a_key(tiny):
    params, ids, mask = tiny
    with pytest.raises(ValueError, match="key"):
        Encoder(TINY).apply({"params": params}, ids, mask, train=True)


def test_init_returns_the_tree_of_the_module_in_the_given_scale():
    ids = jnp.ones((1, 4), jnp.int32)
    module = jax.eval_shape(lambda key: Encoder(TINY).init(key, ids, ids)["params"], KEY)
    plain = init(TINY, KEY, embedding_scale=0.1)
    assert jax.tree.structure(module) == jax.tree.structure(plain)
    assert jax.tree.map(jnp.shape, module) == jax.tree.map(jnp.shape, plain)
    assert abs(float(plain["embeddings"]["words"].std()) - 0.1) < 0.01
    assert abs(float(plain["layers"]["up"]["kernel"].std()) - 0.02) < 0.002
    assert plain["layers"]["up"]["kernel"].shape == (2, 16, 24)
