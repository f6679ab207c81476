# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which axis of which array lies where, on eight virtual devices of another process."""

import json
import os
import subprocess
import sys

import pytest

from xlkd.errors import UserError
from xlkd.train import mesh

SCRIPT = """
import json
import jax, numpy as np
from ml_collections import ConfigDict
from xlkd.errors import UserError
from xlkd.models import encoder as encoders
from xlkd.models.heads import SpanHead, init_head
from xlkd.train import mesh, optim
from xlkd.configs.base import base

def build(data, fsdp, tensor):
    return mesh.build(ConfigDict({"data": data, "fsdp": fsdp, "tensor": tensor, "branch": 1}))

def failing(*sizes):
    try:
        return dict(build(*sizes).shape)
    except UserError as error:
        return str(error)

found = {"shapes": {str(s): failing(*s) for s in json.loads(SIZES)}}

architecture = encoders.Architecture("bert", 102, 8, 2, 2, 16, positions=13, types=2, pad_id=0, position_offset=0)
def create(key):
    params = {"encoder": encoders.init(architecture, key), "span": init_head(SpanHead(architecture), key)}
    return params, optim.optimizer(base().optim).init(params)
devices = build(2, 2, 2)
shapes = jax.eval_shape(create, jax.random.key(0))
chosen = mesh.shardings(devices, shapes)
names = lambda tree: {jax.tree_util.keystr(p, simple=True, separator="/"): str(tuple(s.spec)) for p, s in jax.tree_util.tree_flatten_with_path(tree)[0]}
found["params"] = names(chosen[0])
found["mu"], found["nu"] = names(chosen[1][0].mu), names(chosen[1][0].nu)
placed = jax.jit(create, out_shardings=chosen)(jax.random.key(0))
kernel = placed[0]["encoder"]["layers"]["query"]["kernel"]
found["local"] = [list(s.data.shape) for s in kernel.addressable_shards][0]
odd = build(1, 1, 8)
found["odd"] = names(mesh.shardings(odd, shapes[0]))["encoder/embeddings/words"]

batch = {"text": {"ids": np.arange(24).reshape(8, 3)}, "mask": np.ones(8, np.float32)}
there = mesh.place_batch(devices, batch, 8)
found["rows"] = sorted({s.data[:, 0].tolist().__str__() for s in there["text"]["ids"].addressable_shards})
found["same"] = bool((np.asarray(there["text"]["ids"]) == batch["text"]["ids"]).all())
found["row_shards"] = mesh.row_shards(devices)
for rows, parts in ((8, 2), (8, 4), (6, 1)):
    try:
        mesh.check_rows(devices, rows, parts)
        found[f"{rows}/{parts}"] = "fits"
    except UserError as error:
        found[f"{rows}/{parts}"] = str(error)
print(json.dumps(found))
"""
SIZES = [(-1, 1, 1), (2, -1, 2), (2, 2, 2), (-1, -1, 1), (3, 1, 1), (-1, 3, 1), (-1, 0, 1), (4, -2, -1), (8, 8, 1)]


@pytest.fixture(scope="module")
def found():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"SIZES = {json.dumps(SIZES)!r}\n{SCRIPT}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((-1, 1, 1), {"data": 8, "fsdp": 1, "tensor": 1, "branch": 1}),
        ((2, -1, 2), {"data": 2, "fsdp": 2, "tensor": 2, "branch": 1}),
        ((2, 2, 2), {"data": 2, "fsdp": 2, "tensor": 2, "branch": 1}),
        ((-1, -1, 1), "only one axis can be -1"),
        ((3, 1, 1), "data 3 × fsdp 1 × tensor 1 × branch 1 does not use the 8 devices"),
        ((-1, 3, 1), "data 2 × fsdp 3 × tensor 1 × branch 1 does not use the 8 devices"),
        ((-1, 0, 1), "neither -1 nor 1 or more"),
        ((4, -2, -1), "neither -1 nor 1 or more"),
        ((8, 8, 1), "does not use the 8 devices"),
    ],
)
def test_sizes_are_filled_in_or_refused(found, sizes, says):
    shape = found["shapes"][str(list(sizes))]
    assert shape == says if isinstance(says, dict) else says in shape


@pytest.mark.parametrize(
    ("leaf", "axes"),
    [
        ("encoder/embeddings/words", "('tensor', 'fsdp')"),
        ("encoder/embeddings/positions", "(None, None)"),
        ("encoder/layers/query/kernel", "(None, 'fsdp', 'tensor')"),
        ("encoder/layers/value/kernel", "(None, 'fsdp', 'tensor')"),
        ("encoder/layers/up/kernel", "(None, 'fsdp', 'tensor')"),
        ("encoder/layers/output/kernel", "(None, 'tensor', 'fsdp')"),
        ("encoder/layers/down/kernel", "(None, 'tensor', 'fsdp')"),
        ("encoder/layers/query/bias", "(None, None)"),
        ("encoder/layers/norm/scale", "(None, None)"),
        ("span/output/kernel", "('fsdp', None)"),
        ("span/output/bias", "(None,)"),
    ],
)
def test_the_table(found, leaf, axes):
    assert found["params"][leaf] == axes


def test_moments_lie_where_their_parameters_lie(found):
    assert found["mu"] == found["params"]
    assert found["nu"] == found["params"]


def test_a_device_holds_its_part_only(found):
    assert found["local"] == [2, 4, 4], "[layers, 8, 8] cut in two twice"


def test_an_axis_that_does_not_divide_is_left_out(found):
    assert found["odd"] == "(None, 'fsdp')", "102 pieces on 8 devices"


def test_a_batch_is_spread_over_data_and_fsdp(found):
    assert found["row_shards"] == 4
    assert found["same"]
    assert found["rows"] == ["[0, 3]", "[12, 15]", "[18, 21]", "[6, 9]"]


def test_the_axis_of_branches_is_told_and_not_what_is_left():
    """Branches are padded to it, before a mesh is there."""
    with pytest.raises(UserError, match="branch=-1 is not possible"):
        mesh.build({"data": 1, "fsdp": 1, "tensor": 1, "branch": -1})


def test_a_batch_that_does_not_divide_is_refused(found):
    assert found["8/2"] == "fits"
    assert "8 rows do not divide into 4 micro-batches on 4 devices" in found["8/4"]
    assert "choose a multiple of 4" in found["6/1"]
