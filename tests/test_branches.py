# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A trunk and its branches: the encoder they came from, one vmap equal to a loop, padding that changes nothing."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mblm_toys import apart, architecture, batch

from xlkd.models import branches
from xlkd.models import encoder as encoders

ROWS = batch()["text"]


def encoder(layers=3, dropout=0.0, **changes):
    return encoders.Encoder(architecture(layers, dropout), **changes)


def parts(count=3, top=1, layers=3):
    whole = encoders.init(architecture(layers), jax.random.key(0), 1.0)
    trunk, stacked = branches.split_encoder(whole, count, top)
    return whole, trunk, stacked


def first(of, trunk, stacked, key=None):
    hidden = branches.run_trunk(of, trunk, ROWS, key)
    return branches.run_branches(of, stacked, hidden, ROWS["mask"], key)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_every_branch_begins_as_the_encoder(top):
    whole, trunk, stacked = parts(top=top)
    expected = encoder().apply({"params": whole}, ROWS["ids"], ROWS["mask"], ROWS["types"])[-1][:, 0]
    found = first(encoder(), trunk, stacked)
    assert found.shape == (3, 6, 16)
    for of_branch in found:
        np.testing.assert_allclose(of_branch, expected, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, branches.join_encoder(trunk, stacked, 2), whole)


def test_one_vmap_equals_a_loop_in_values_and_gradients():
    _, trunk, stacked = parts(top=2)
    stacked = apart(stacked)

    def mapped(stacked):
        return first(encoder(), trunk, stacked)

    def looped(stacked):
        found = []
        for k in range(3):
            whole = branches.join_encoder(trunk, stacked, k)
            found.append(encoder().apply({"params": whole}, ROWS["ids"], ROWS["mask"], ROWS["types"])[-1][:, 0])
        return jnp.stack(found)

    np.testing.assert_allclose(mapped(stacked), looped(stacked), atol=1e-5)
    assert not np.allclose(mapped(stacked)[0], mapped(stacked)[1], atol=0.1)
    a, b = (jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))(stacked) for f in (mapped, looped))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-4), a, b)


@pytest.mark.parametrize("changes", [{"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}])
def test_scanned_and_rematerialised_layers_are_the_same(changes):
    _, trunk, stacked = parts(top=2)
    stacked = apart(stacked)
    np.testing.assert_allclose(first(encoder(**changes), trunk, stacked), first(encoder(), trunk, stacked), atol=1e-5)


def test_dropout_differs_by_branch_and_key_alone():
    _, trunk, stacked = parts()
    of = encoder(dropout=0.3)
    found = first(of, trunk, stacked, jax.random.key(1))
    assert not np.allclose(found[0], found[1])
    np.testing.assert_array_equal(found, first(of, trunk, stacked, jax.random.key(1)))
    assert not np.allclose(found, first(of, trunk, stacked, jax.random.key(2)))


@pytest.mark.parametrize(("count", "multiple", "expected"), [(3, 4, 4), (3, 2, 4), (4, 4, 4), (3, 1, 3), (5, 4, 8)])
def test_padding_fills_a_mesh_axis_with_copies(count, multiple, expected):
    _, trunk, stacked = parts(count)
    stacked = apart(stacked)
    padded = branches.pad_branches(stacked, multiple)
    assert branches.count_branches(padded) == expected
    found = first(encoder(), trunk, padded)
    np.testing.assert_allclose(found[:count], first(encoder(), trunk, stacked), atol=1e-5)
    for k in range(count, expected):
        np.testing.assert_array_equal(found[k], found[count - 1])


SHARDED = """
import sys; sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from mblm_toys import batch, student, targets

method, variables = student(mix="logits", weights="dirichlet", mesh={"branch": 2})
given = method.prepare(batch(8), targets(8))
mesh = jax.make_mesh((2, 2), ("data", "branch"), axis_types=(AxisType.Auto,) * 2)

def term(params, batch, given):
    return method.loss(variables._replace(params=params), batch, given, jax.random.key(0), 3).terms["zero_shot"].sum

step = jax.jit(jax.value_and_grad(term))
def put(tree, *axes):
    return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, P(*axes))), tree)
params = put({k: v for k, v in variables.params.items() if k != "branches"})
params |= {"branches": put(variables.params["branches"], "branch")}
plain = step(variables.params, batch(8), given)
shared = step(params, put(batch(8), "data"), put(given, "data"))
kernel = shared[1]["branches"]["up"]["kernel"]
assert kernel.shape[0] == 4 and not np.any(np.asarray(kernel)[3])
assert "branch" in str(kernel.sharding.spec), kernel.sharding
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4), plain, shared)
print("the same on", jax.device_count())
"""


@pytest.mark.long
def test_a_branch_axis_spread_over_devices_is_the_same():
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SHARDED, str(pathlib.Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "the same on 4", done.stderr


def test_counted_work():
    of = architecture(layers=12)
    plain = encoders.forward_flops(of, 1000, 10)
    assert branches.flops(of, 3, 3, 1000, 10) == pytest.approx(1.5 * plain)
    assert branches.flops(of, 1, 3, 1000, 10) == plain
