# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The placement of arrays by axis, on eight virtual devices of another process."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from xlkd.errors import UserError
from xlkd.runtime import mesh
from xlkd.spec import read_block
from xlkd.spec.stage import Mesh

SCRIPT = """
import json
import jax, numpy as np
from xlkd.spec.optim import Optim
from xlkd.spec import read_block
from xlkd.spec.stage import Mesh
from xlkd.errors import UserError
from xlkd.models import encoder as encoders
from xlkd.models.family import Architecture
from xlkd.models.heads import SpanHead, init_head
from xlkd.runtime import mesh
from xlkd.train import optim

def build(data, fsdp, tensor):
    return mesh.build_mesh(Mesh(data=data, fsdp=fsdp, tensor=tensor))

def build_or_explain(*sizes):
    try:
        return dict(build(*sizes).shape)
    except UserError as error:
        return str(error)

results = {"shapes": {str(s): build_or_explain(*s) for s in json.loads(SIZES)}}

architecture = Architecture("bert", 102, 8, 2, 2, 16, positions=13, types=2, pad_id=0, position_offset=0)
def create(key):
    params = {"encoder": encoders.init(architecture, key), "span": init_head(SpanHead(architecture), key)}
    return params, optim.make_optimizer(Optim()).init(params)
devices = build(2, 2, 2)
shapes = jax.eval_shape(create, jax.random.key(0))
shardings = mesh.make_shardings(devices, shapes)
names = lambda tree: {jax.tree_util.keystr(p, simple=True, separator="/"): str(tuple(s.spec)) for p, s in jax.tree_util.tree_flatten_with_path(tree)[0]}
results["params"] = names(shardings[0])
results["mu"], results["nu"] = names(shardings[1][0].mu), names(shardings[1][0].nu)
placed = jax.jit(create, out_shardings=shardings)(jax.random.key(0))
kernel = placed[0]["encoder"]["layers"]["query"]["kernel"]
results["local"] = [list(s.data.shape) for s in kernel.addressable_shards][0]
uneven = build(1, 1, 8)
results["odd"] = names(mesh.make_shardings(uneven, shapes[0]))["encoder/embeddings/words"]

batch = {"text": {"ids": np.arange(24).reshape(8, 3)}, "mask": np.ones(8, np.float32)}
placed_batch = mesh.place_batch(devices, batch, 8)
results["rows"] = sorted({s.data[:, 0].tolist().__str__() for s in placed_batch["text"]["ids"].addressable_shards})
results["same"] = bool((np.asarray(placed_batch["text"]["ids"]) == batch["text"]["ids"]).all())
results["row_shards"] = mesh.count_row_shards(devices)

import sys
sys.path.insert(0, TESTS)
import test_step
from xlkd.models import rows
from xlkd.planning import traffic
from xlkd.train import loop, state as states
test_step.WIDTH = 8  # which fsdp divides

def train(method, micro_batches, count=8, **sizes):
    settings = Mesh(**sizes)
    devices = mesh.build_mesh(settings, jax.devices()[:count])
    optim_settings = Optim(lr=0.01, warmup=0, schedule="constant")
    create = lambda: states.create_state(method, test_step.Start(None, (), {}), optim.make_optimizer(optim_settings), 3)
    shardings = states.shard_state(devices, jax.eval_shape(create), settings)
    state = jax.jit(create, out_shardings=shardings)()
    batch = test_step.batch_of(32)
    batch["mask"][5:9] = 0
    placed = mesh.place_batch(devices, batch, 32)
    jitted = loop.jit_step(method, optim_settings, 9, 3, devices, shardings, micro_batches=micro_batches, sharding=settings)
    compiled = jitted.lower(state, placed, ()).compile()
    numbers = []
    for _ in range(2):
        state, report = compiled(state, placed, ())
        numbers += [float(report["loss"]), float(report["grad_norm"])]
    numbers += np.asarray(state.variables.params["kernel"]).ravel().tolist()
    found = traffic.list_collectives(compiled.as_text(), count)
    reductions = [[c.bytes, c.times] for c in found if c.kind in traffic.REDUCTIONS]
    shards = [x["kernel"].addressable_shards[0].data.shape for x in (state.variables.params, state.optimizer[0].mu)]
    return {"numbers": numbers, "reductions": reductions, "shards": shards}

methods = {"plain": test_step.toy(None, 0.5), "coupled": test_step.toy(test_step.similarities, 0.5)}
results["steps"] = {}
for name, micro_batches, sizes in STEPS:
    for count, own in ((1, {}), (8, sizes)):
        key = str(count) + json.dumps([name, micro_batches, own])
        if key not in results["steps"]:
            results["steps"][key] = train(methods[name], micro_batches, count, **own)

def number_all(groups):
    partition = jax.P(("data", "fsdp"))
    function = lambda x: rows.number_rows(len(x) * groups, groups).reshape(groups, -1)
    run = jax.shard_map(function, mesh=devices, in_specs=partition, out_specs=jax.P(None, ("data", "fsdp")), axis_names={"data", "fsdp"}, check_vma=False)
    return jax.jit(run)(np.zeros(8)).ravel().tolist()

results["numbers"] = {groups: number_all(groups) for groups in (1, 3)}
print(json.dumps(results))
"""
STEPS = [  # method, micro-batches, mesh
    ("plain", 4, {}),
    ("coupled", 4, {}),
    ("plain", 2, {"fsdp": 2}),
    ("coupled", 2, {"fsdp": 2, "fsdp_shards": "moments"}),
    ("plain", 1, {"fsdp": 8, "fsdp_shards": "moments"}),
    ("plain", 1, {"sum_dtype": "bfloat16"}),
]
SIZES = [(-1, 1, 1), (2, -1, 2), (2, 2, 2), (-1, -1, 1), (3, 1, 1), (-1, 3, 1), (8, 8, 1)]


@pytest.fixture(scope="module")
def results():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8", "OMP_NUM_THREADS": "1"}
    values = f"SIZES = {json.dumps(SIZES)!r}\nSTEPS = {STEPS!r}\nTESTS = {str(pathlib.Path(__file__).parent)!r}\n"
    command = [sys.executable, "-c", values + SCRIPT]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((-1, 1, 1), {"data": 8, "fsdp": 1, "tensor": 1, "branch": 1}),
        ((2, -1, 2), {"data": 2, "fsdp": 2, "tensor": 2, "branch": 1}),
        ((2, 2, 2), {"data": 2, "fsdp": 2, "tensor": 2, "branch": 1}),
        ((-1, -1, 1), "only one axis can be -1"),
        ((3, 1, 1), "data 3 × fsdp 1 × tensor 1 × branch 1 does not use the 8 devices"),
        (
            (-1, 3, 1),
            "data 2 × fsdp 3 × tensor 1 × branch 1 does not use the 8 devices; for example data 4",
        ),
        ((8, 8, 1), "does not use the 8 devices"),
    ],
)
def test_sizes_are_filled_in_or_refused(results, sizes, expected):
    shape = results["shapes"][str(list(sizes))]
    assert shape == expected if isinstance(expected, dict) else expected in shape


@pytest.mark.parametrize(
    ("leaf", "axes"),
    [
        ("encoder/embeddings/words", "(None, 'fsdp')"),  # 102 tokens on 2 × 2 devices
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
def test_parameters_are_sharded_by_the_table(results, leaf, axes):
    assert results["params"][leaf] == axes


def test_moments_are_sharded_like_their_parameters(results):
    assert results["mu"] == results["params"]
    assert results["nu"] == results["params"]


def test_a_device_stores_only_its_shard(results):
    assert results["local"] == [2, 4, 4], "[layers, 8, 8] cut in two twice"


def test_an_axis_that_does_not_divide_evenly_is_not_sharded(results):
    assert results["odd"] == "(None, 'fsdp')", "102 tokens on 8 devices"


def test_a_batch_is_spread_over_data_and_fsdp(results):
    assert results["row_shards"] == 4
    assert results["same"]
    assert results["rows"] == ["[0, 3]", "[12, 15]", "[18, 21]", "[6, 9]"]


KERNEL = 4 * 8 * 3  # bytes of the kernel that the steps train


def get_steps(results, method, micro_batches, sizes):
    """Returns the record of two steps on one device, and on eight."""
    return [
        results["steps"][str(number) + json.dumps([method, micro_batches, own])]
        for number, own in ((1, {}), (8, sizes))
    ]


@pytest.mark.parametrize(("method", "micro_batches", "sizes"), STEPS)
def test_a_step_is_the_same_however_devices_share_it(results, method, micro_batches, sizes):
    """Compares the loss and the norm of two steps with dropout, and the parameters after them."""
    one, eight = get_steps(results, method, micro_batches, sizes)
    tolerance = 2e-2 if "sum_dtype" in sizes else 1e-5
    np.testing.assert_allclose(eight["numbers"], one["numbers"], rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize(("method", "micro_batches", "sizes"), [step for step in STEPS if step[1] > 1])
def test_the_gradient_is_summed_over_data_once_a_step(results, method, micro_batches, sizes):
    _, eight = get_steps(results, method, micro_batches, sizes)
    kernels = [times for size, times in eight["reductions"] if size >= KERNEL / 2]
    in_loop = [times for times in kernels if times > 1]
    assert kernels
    assert bool(in_loop) == (sizes == {"fsdp": 2}), "only FSDP divides the gradient of each micro-batch"


@pytest.mark.parametrize(
    ("sizes", "shards"),
    [
        ({}, [[8, 3], [8, 3]]),
        ({"fsdp": 2}, [[4, 3], [4, 3]]),
        ({"fsdp": 8, "fsdp_shards": "moments"}, [[8, 3], [1, 3]]),
    ],
)
def test_fsdp_divides_parameters_or_moments_alone(results, sizes, shards):
    records = [value for key, value in results["steps"].items() if json.loads(key[1:])[2] == sizes and key[0] == "8"]
    assert [record["shards"] for record in records] == [shards] * len(records) != []


def test_rows_are_numbered_across_devices_within_each_group(results):
    assert results["numbers"] == {"1": list(range(8)), "3": list(range(24))}


def stand_in_mesh(platform, **sizes):
    """Returns what a table needs to know of a mesh of such devices."""
    device = types.SimpleNamespace(platform=platform)
    return types.SimpleNamespace(shape=dict.fromkeys(mesh.AXES, 1) | sizes, devices=np.array([device]))


def place_leaf(name, shape, platform="tpu", **sizes):
    """Returns the partition of a leaf on a mesh of such devices."""
    return tuple(mesh._choose_partition(stand_in_mesh(platform, **sizes), name.split("/"), shape))


@pytest.mark.parametrize(
    ("leaf", "shape", "sizes", "axes"),
    [
        ("layers/query/kernel", (12, 768, 768), {"fsdp": 8}, (None, "fsdp", "tensor")),
        ("layers/query/kernel", (12, 768, 768), {"fsdp": 64}, (None, None, "tensor")),  # 12 rows are no whole tiles
        ("layers/up/kernel", (12, 768, 3072), {"fsdp": 64}, (None, None, ("fsdp", "tensor"))),
        ("layers/down/kernel", (12, 3072, 768), {"fsdp": 64}, (None, ("tensor", "fsdp"), None)),
        ("layers/output/kernel", (12, 768, 768), {"fsdp": 16}, (None, "tensor", "fsdp")),
        ("span/kernel", (768, 2), {"fsdp": 64}, (None, None)),
        ("embeddings/words", (119547, 768), {"fsdp": 64}, ("tensor", "fsdp")),  # looked up, never gathered
        ("embeddings/words", (119552, 768), {"fsdp": 8, "tensor": 2}, (("tensor", "fsdp"), None)),
    ],
)
def test_a_tpu_divides_no_dimension_into_parts_of_tiles(leaf, shape, sizes, axes):
    assert place_leaf(leaf, shape, **sizes) == axes


@pytest.mark.parametrize(
    ("platform", "sizes", "rows"),
    [
        ("tpu", {"tensor": 2}, 112),
        ("tpu", {"tensor": 2, "fsdp": 8}, 128),
        ("cpu", {"tensor": 4}, 104),
        ("tpu", {"fsdp": 8}, 101),  # divides the columns
        ("cpu", {}, 101),
    ],
)
def test_tokens_are_appended_where_the_axis_tensor_would_not_divide_them(platform, sizes, rows):
    encoder = {"embeddings": {"words": np.ones((101, 4), np.float32)}, "layers": {}}
    padded = mesh.pad_vocabulary(stand_in_mesh(platform, **sizes), encoder)
    words = np.asarray(padded["embeddings"]["words"])
    assert len(words) == rows
    assert words[:101].all()
    assert not words[101:].any()
    assert padded is encoder or rows > 101


def test_other_devices_divide_a_dimension_into_any_equal_parts():
    assert place_leaf("layers/query/kernel", (12, 768, 768), "cpu", fsdp=64) == (None, "fsdp", "tensor")


def test_the_branch_axis_cannot_be_inferred_from_the_devices():
    """Branches are padded to this axis before the mesh exists."""
    with pytest.raises(UserError, match="branch=-1 is not possible"):
        read_block(Mesh, {"branch": -1}, "mesh")


@pytest.mark.parametrize(
    ("devices", "examples", "asked", "rows", "micro_batches"),
    [
        (1, 6, 1, 6, 1),
        (8, 6, 1, 8, 1),
        (8, 24, 4, 24, 3),  # three rows per device
        (16, 24, 4, 32, 2),
        (64, 24, 4, 64, 1),
        (1, 31, 4, 31, 1),  # rows are not padded for the sake of micro-batches
        (4, 6, 3, 8, 2),
        (4, 6, 1, 8, 1),
    ],
)
def test_a_batch_is_padded_to_the_devices_and_its_micro_batches_reduced(devices, examples, asked, rows, micro_batches):
    spread = jax.sharding.AbstractMesh((devices, 1, 1, 1), mesh.AXES)
    layout = mesh.fit_batch(spread, examples, asked)
    assert (layout.rows, layout.micro_batches) == (rows, micro_batches)


def test_rows_are_padded_only_for_the_axes_that_shard_them():
    """Devices along `tensor` and `branch` compute the same rows."""
    layout = mesh.fit_batch(jax.sharding.AbstractMesh((2, 2, 2, 1), mesh.AXES), 6, 1)
    assert (layout.rows, layout.devices) == (8, 8)


@pytest.mark.parametrize(
    ("layout", "line"),
    [
        (
            mesh.BatchLayout(6, 8, 8, 1, 3),
            "batch of 6 examples: 8 rows on 8 devices (75% useful), 1 micro-batch instead of 3",
        ),
        (mesh.BatchLayout(24, 32, 16, 2, 2), "batch of 24 examples: 32 rows on 16 devices (75% useful)"),
        (
            mesh.BatchLayout(24, 24, 8, 3, 4),
            "batch of 24 examples: 24 rows on 8 devices (100% useful), 3 micro-batches instead of 4",
        ),
        (mesh.BatchLayout(24, 24, 8, 3, 3), ""),
    ],
)
def test_a_layout_that_differs_from_the_config_is_described_in_one_line(layout, line):
    assert layout.describe() == line


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU device with the attributes that a mesh reads."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int
    device_kind: str
    platform: str = "tpu"
    core_on_chip: int = 0
    process_index: int = 0


def list_chips(kind: str, shape: tuple[int, int, int], slices: int = 1) -> list[Chip]:
    """Returns the devices of slices in the order in which JAX lists them: x runs fastest."""
    places = [(x, y, z) for z in range(shape[2]) for y in range(shape[1]) for x in range(shape[0])]
    cells = itertools.product(range(slices), places)
    return [Chip(number, place, index, kind) for number, (index, place) in enumerate(cells)]


def arrange_devices(devices: list[Chip], **sizes: int) -> np.ndarray:
    """Returns the devices in the order of the mesh [data, fsdp, tensor, branch]; jax itself needs real devices."""
    groups = mesh.group_by_slice(devices)
    return mesh._arrange_devices(groups, mesh._resolve_sizes(Mesh(**sizes), len(devices), len(groups)))


KINDS = {  # device_kind -> shapes of slices
    "TPU v4": [(2, 2, 1), (2, 2, 4), (4, 4, 4), (4, 4, 12)],
    "TPU v5 lite": [(1, 1, 1), (2, 2, 1), (2, 4, 1), (4, 4, 1), (4, 8, 1), (8, 8, 1), (16, 16, 1)],
    "TPU v5p": [(2, 2, 1), (2, 2, 2), (2, 2, 4), (4, 4, 4), (4, 4, 12)],
    "TPU v6 lite": [(1, 1, 1), (2, 2, 1), (2, 4, 1), (4, 4, 1), (4, 8, 1), (8, 8, 1), (16, 16, 1)],
}


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_division_of_every_slice_gives_a_mesh(kind, slices):
    for shape in KINDS[kind]:
        devices, size = list_chips(kind, shape, slices), math.prod(shape)
        for fsdp in (n for n in range(1, size + 1) if size % n == 0):
            for tensor in (n for n in (1, 2, 3, 4) if size // fsdp % n == 0):
                grid = arrange_devices(devices, fsdp=fsdp, tensor=tensor)
                assert grid.shape == (slices * size // fsdp // tensor, fsdp, tensor, 1)
                assert len(set(grid.flat)) == len(devices)
                by_data = grid.reshape(slices, -1)
                assert [{chip.slice_index for chip in part} for part in by_data] == [{n} for n in range(slices)]


def test_neighbours_in_a_slice_are_neighbours_in_the_inner_axis():
    grid = arrange_devices(list_chips("TPU v6 lite", (8, 8, 1)), tensor=2)
    steps = [
        sum(abs(a - b) for a, b in zip(*(chip.coords for chip in pair), strict=True)) for pair in grid.reshape(-1, 2)
    ]
    assert set(steps) == {1}


@pytest.mark.parametrize("left_out", [1, 3])
def test_part_of_a_slice_gives_a_mesh_too(left_out):
    devices = list_chips("TPU v6 lite", (4, 4, 1))[left_out:]
    assert set(arrange_devices(devices).flat) == set(devices)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"fsdp": 64},
            "data 1 × fsdp 64 × tensor 1 × branch 1 does not use the 32 devices; for example data 2 × fsdp 16",
        ),
        ({"data": 1, "fsdp": 32}, "does not fit 2 slices of 16 devices"),
        ({"data": 1, "fsdp": 32}, "data alone can cross slices: for example data 2 × fsdp 16 × tensor 1 × branch 1"),
        ({"fsdp": 3}, "for example data 16 × fsdp 2 × tensor 1 × branch 1"),
        ({"fsdp": 8, "tensor": 6}, "for example data 2 × fsdp 4 × tensor 4 × branch 1"),
        ({"dcn_data": 4}, "dcn_data=4, but the number of slices is 2; set dcn_data=2, or -1"),
        ({"dcn_data": 1}, "dcn_data=1, but the number of slices is 2"),
    ],
)
def test_an_impossible_layout_is_refused_with_a_possible_one(sizes, message):
    devices = list_chips("TPU v6 lite", (4, 4, 1), slices=2)
    with pytest.raises(UserError) as error:
        arrange_devices(devices, **sizes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    if named := re.search(r"for example (.*)", str(error.value)):
        layout = {axis: int(size) for axis, size in (part.split() for part in named[1].split(" × "))}
        assert arrange_devices(devices, **layout).size == 32


def test_the_number_of_slices_is_detected_or_given():
    devices = list_chips("TPU v5p", (2, 2, 1), slices=2)
    assert arrange_devices(devices, dcn_data=2).shape == arrange_devices(devices).shape == (8, 1, 1, 1)
    with pytest.raises(UserError, match="slices of 4 and 2 devices"):
        mesh.build_mesh(Mesh(), devices[:6])
    with pytest.raises(UserError, match="data alone can cross slices"):
        mesh.build_mesh(Mesh(data=1, fsdp=8), [StandIn() for _ in range(8)], slices=2)


class StandIn:
    """A CPU device that stands in for a missing chip."""

    platform = "cpu"
