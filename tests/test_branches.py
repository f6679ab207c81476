# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A trunk and its branches: both come from one encoder, a vmap equals a loop, and padding changes nothing."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mblm_toys import make_architecture, make_batch, spread_branches

from xlkd.models import branches
from xlkd.models import encoder as encoders

ROWS = make_batch()["text"]


def make_encoder(layers=3, dropout=0.0, **changes):
    return encoders.Encoder(make_architecture(layers, dropout), **changes)


def split_model(count=3, top=1, layers=3):
    params = encoders.init(make_architecture(layers), jax.random.key(0), 1.0)
    trunk, stacked = branches.split_encoder(params, count, top)
    return params, trunk, stacked


def run_first_positions(encoder, trunk, stacked, key=None):
    hidden = branches.run_trunk(encoder, trunk, ROWS, key)
    return branches.run_branches(encoder, trunk, stacked, hidden, ROWS["mask"], key)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_every_branch_starts_as_the_encoder(top):
    params, trunk, stacked = split_model(top=top)
    expected = make_encoder().apply({"params": params}, ROWS["ids"], ROWS["mask"], ROWS["types"])[-1][:, 0]
    hidden = run_first_positions(make_encoder(), trunk, stacked)
    assert hidden.shape == (3, 6, 16)
    for branch_hidden in hidden:
        np.testing.assert_allclose(branch_hidden, expected, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, branches.join_encoder(trunk, stacked, 2), params)


def test_one_vmap_equals_a_loop_in_values_and_gradients():
    _, trunk, stacked = split_model(top=2)
    stacked = spread_branches(stacked)

    def run_mapped(stacked):
        return run_first_positions(make_encoder(), trunk, stacked)

    def run_looped(stacked):
        hidden = []
        for k in range(3):
            params = branches.join_encoder(trunk, stacked, k)
            hidden.append(make_encoder().apply({"params": params}, ROWS["ids"], ROWS["mask"], ROWS["types"])[-1][:, 0])
        return jnp.stack(hidden)

    def differentiate(run):
        """Returns the gradient of the sum of squares, and the values."""

        def loss(stacked):
            values = run(stacked)
            return jnp.sum(values**2), values

        return jax.jit(jax.grad(loss, has_aux=True))(stacked)

    (a, mapped), (b, looped) = differentiate(run_mapped), differentiate(run_looped)
    np.testing.assert_allclose(mapped, looped, atol=1e-5)
    assert not np.allclose(mapped[0], mapped[1], atol=0.1)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), a, b)


@pytest.mark.parametrize("changes", [{"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}])
def test_scanned_and_rematerialised_layers_are_the_same(changes):
    _, trunk, stacked = split_model(top=2)
    stacked = spread_branches(stacked)
    np.testing.assert_allclose(
        run_first_positions(make_encoder(**changes), trunk, stacked),
        run_first_positions(make_encoder(), trunk, stacked),
        atol=1e-5,
    )


def test_dropout_depends_on_the_branch_and_the_key_only():
    _, trunk, stacked = split_model()
    encoder = make_encoder(dropout=0.3)
    hidden = run_first_positions(encoder, trunk, stacked, jax.random.key(1))
    assert not np.allclose(hidden[0], hidden[1])
    np.testing.assert_array_equal(hidden, run_first_positions(encoder, trunk, stacked, jax.random.key(1)))
    assert not np.allclose(hidden, run_first_positions(encoder, trunk, stacked, jax.random.key(2)))


@pytest.mark.parametrize(("count", "multiple", "expected"), [(3, 4, 4), (3, 2, 4), (4, 4, 4), (3, 1, 3), (5, 4, 8)])
def test_padding_fills_a_mesh_axis_with_copies(count, multiple, expected):
    _, trunk, stacked = split_model(count)
    stacked = spread_branches(stacked)
    padded = branches.pad_branches(stacked, multiple)
    assert branches.count_branches(padded) == expected
    hidden = run_first_positions(make_encoder(), trunk, padded)
    np.testing.assert_allclose(hidden[:count], run_first_positions(make_encoder(), trunk, stacked), atol=1e-5)
    for k in range(count, expected):
        np.testing.assert_array_equal(hidden[k], hidden[count - 1])


SHARDED = """
import sys; sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from mblm_toys import make_batch, make_student, make_targets

method, variables = make_student(mix="logits", weights="dirichlet", mesh={"branch": 2})
targets = method.prepare(make_batch(8), make_targets(8))
mesh = jax.make_mesh((2, 2), ("data", "branch"), axis_types=(AxisType.Auto,) * 2)

def term(params, batch, targets):
    return method.loss(variables._replace(params=params), batch, targets, jax.random.key(0), 3).terms["zero_shot"].sum

step = jax.jit(jax.value_and_grad(term))
def put(tree, *axes):
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P(*axes))), tree)
params = put({k: v for k, v in variables.params.items() if k != "branches"})
params |= {"branches": put(variables.params["branches"], "branch")}
plain = step(variables.params, make_batch(8), targets)
shared = step(params, put(make_batch(8), "data"), put(targets, "data"))
kernel = shared[1]["branches"]["up"]["kernel"]
assert kernel.shape[0] == 4 and not np.any(np.asarray(kernel)[3])
assert "branch" in str(kernel.sharding.spec), kernel.sharding
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), plain, shared)
print("identical on", jax.device_count())
"""


@pytest.mark.long
def test_a_branch_axis_spread_over_devices_is_the_same():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SHARDED, str(pathlib.Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "identical on 4", done.stderr


def test_flops_of_branches():
    architecture = make_architecture(layers=12)
    plain = encoders.forward_flops(architecture, 1000, 10)
    assert branches.flops(architecture, 3, 3, 1000, 10) == pytest.approx(1.5 * plain)
    assert branches.flops(architecture, 1, 3, 1000, 10) == plain
