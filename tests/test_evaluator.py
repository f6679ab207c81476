# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Outputs for all rows of a set: each row once, in the order of the features, on one device and on eight."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.errors import Stopped
from xlkd.evaluation.evaluator import Evaluator, choose_batch, count_cached_rows, join_outputs
from xlkd.runtime import mesh
from xlkd.spec.stage import Mesh
from xlkd.tasks.ragged import pack, pad_rows


class Toy:
    """A task whose rows are numbers; the model returns their weighted sum and the first two."""

    name = "toy"

    def __init__(self):
        self.asked = []

    def lengths(self, features):
        return {"text": np.diff(features["x_at"]).astype(np.int32)}

    def arrays(self, features, index, lengths, draw):
        self.asked.append((index.tolist(), lengths["text"], draw))
        x = pad_rows(features, "x", index, lengths["text"], 0)
        return {"text": {"x": x.astype(np.float32)}, "mask": (index >= 0).astype(np.float32)}


def compute_outputs(variables, batch):
    x = batch["text"]["x"]
    return {"sum": variables * x.sum(1), "first": x[:, :2].astype(jnp.int32)}


def make_evaluator(batch=4, buckets=2):
    devices = mesh.build_mesh(Mesh())
    return Evaluator(compute_outputs, devices, batch=batch, buckets=buckets)


def make_features(rows=11):
    random = np.random.default_rng(0)
    return pack("x", [random.integers(1, 9, n) for n in random.integers(2, 60, rows)], np.int32)


def compute_expected(features):
    rows = np.split(features["x"], features["x_at"][1:-1])
    return [2.0 * row.sum() for row in rows], [row[:2].tolist() for row in rows]


@pytest.mark.parametrize(("rows", "batch"), [(11, 4), (1, 4), (8, 4), (3, 16)])
def test_each_row_is_computed_once_in_the_order_of_the_features(rows, batch):
    task, features = Toy(), make_features(rows)
    outputs = make_evaluator(batch).compute_outputs(jnp.float32(2), task, features)
    sums, firsts = compute_expected(features)
    assert outputs["sum"].tolist() == sums
    assert outputs["first"].tolist() == firsts
    assert outputs["first"].dtype == np.int32
    seen = [i for index, _, _ in task.asked for i in index if i >= 0]
    assert sorted(seen) == list(range(rows))
    assert all(len(index) == batch for index, _, _ in task.asked), "the last batch is padded"


@pytest.mark.parametrize(
    ("asked", "examples", "shards", "least", "rows"),
    [
        (64, 13_000, 1, 8, 64),  # one accelerator: as asked for
        (4, 13_000, 1, 8, 4),  # nor more where memory allows only a few
        (64, 13_000, 64, 1, 64),  # processors: as asked for
        (64, 13_000, 64, 8, 512),
        (65, 13_000, 64, 8, 512),
        (2048, 13_000, 64, 8, 2048),
        (64, 100, 64, 8, 128),  # not more padding than needed
        (64, 5, 64, 8, 64),
    ],
)
def test_a_batch_gives_each_accelerator_a_useful_number_of_rows(asked, examples, shards, least, rows):
    assert choose_batch(asked, examples, shards, least) == rows


def test_a_raised_batch_is_described():
    evaluator = make_evaluator(batch=64)
    assert evaluator.describe_batch(13_000) == ""
    evaluator._shards, evaluator._least = 64, 8
    assert evaluator.describe_batch(13_000) == "evaluation batches of 512 rows instead of 64: 8 on each device"
    assert evaluator.describe_batch(5) == ""


def test_rows_are_sorted_by_length_into_few_shapes():
    task, features = Toy(), make_features(40)
    make_evaluator().compute_outputs(jnp.float32(2), task, features)
    lengths = task.lengths(features)["text"]
    order = [lengths[i] for index, _, _ in task.asked for i in index if i >= 0]
    assert order == sorted(order)
    assert len({length for _, length, _ in task.asked}) <= 2
    assert {draw for _, _, draw in task.asked} == {task.asked[0][2]}, "the same draw at every evaluation"


@pytest.mark.parametrize(("length", "rows"), [(10, 205), (256, 8), (5000, 1)])
def test_a_batch_of_a_cpu_fits_its_caches(length, rows):
    assert count_cached_rows(np.full(7, length)) == rows
    assert count_cached_rows(np.zeros(0)) == 1


def test_a_batch_of_a_cpu_has_fewer_rows_where_they_are_long():
    task, features = Toy(), make_features(40)
    lengths = task.lengths(features)
    task.lengths = lambda _: {name: np.full_like(value, 700) for name, value in lengths.items()}
    outputs = make_evaluator(batch=16).compute_outputs(jnp.float32(2), task, features)
    assert {len(index) for index, _, _ in task.asked} == {3}
    assert outputs["sum"].tolist() == compute_expected(features)[0]


def test_a_cpus_batch_does_not_change_with_the_lengths_of_a_set_where_padded_lengths_are_set():
    evaluator = make_evaluator(batch=16, buckets=(64, 640))
    for rows in (3, 40):
        task = Toy()
        evaluator.compute_outputs(jnp.float32(2), task, make_features(rows))
        assert {len(index) for index, _, _ in task.asked} == {6}


def test_the_edges_of_buckets_can_be_set():
    task = Toy()
    make_evaluator(buckets=(64, 128)).compute_outputs(jnp.float32(2), task, make_features())
    assert {length for _, length, _ in task.asked} == {64}


def test_a_second_evaluation_compiles_nothing():
    evaluator, features, traced = make_evaluator(), make_features(), []

    def record_shape(variables, batch):
        traced.append(batch["text"]["x"].shape)
        return compute_outputs(variables, batch)

    evaluator._forward = jax.jit(record_shape)
    first = evaluator.compute_outputs(jnp.float32(2), Toy(), features)
    shapes = len(traced)
    second = evaluator.compute_outputs(jnp.float32(4), Toy(), features)
    assert len(traced) == shapes == len(set(traced))
    np.testing.assert_array_equal(second["sum"], 2 * first["sum"])


def test_a_signal_stops_the_evaluation_between_batches():
    task, calls = Toy(), []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise Stopped("SIGTERM")

    with pytest.raises(Stopped):
        make_evaluator().compute_outputs(jnp.float32(2), task, make_features(20), stop)
    assert len(task.asked) == 2


def test_a_process_reads_each_row_of_its_devices_once_and_in_order(monkeypatch):
    index = np.arange(8) + 10
    assert mesh.select_local_rows(None, index) is index
    local_slices = {"device 2": (slice(4, 6),), "device 0": (slice(0, 2),), "device 3": (slice(4, 6),)}
    spread = type("Spread", (), {"addressable_devices_indices_map": lambda self, shape: local_slices})()
    monkeypatch.setattr(mesh, "row_sharding", lambda _: spread)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert mesh.select_local_rows(None, index).tolist() == [10, 11, 14, 15]


EIGHT = """
import sys; sys.path.insert(0, sys.argv[1])
import jax.numpy as jnp
from test_evaluator import Toy, compute_expected, make_evaluator, make_features
task = Toy()
outputs = make_evaluator(batch=5).compute_outputs(jnp.float32(2), task, make_features())
assert outputs["sum"].tolist() == compute_expected(make_features())[0]
print([len(index) for index, _, _ in task.asked])
"""


def test_eight_devices_give_the_same_outputs():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    command = [sys.executable, "-c", EIGHT, os.path.dirname(__file__)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "[8, 8]", "five rows become eight, one per device"


def test_outputs_per_token_are_joined_over_buckets_of_different_lengths():
    shapes = ((np.array([0, -1]), 3), (np.array([2, 1]), 5), (np.array([3]), 2))
    outputs = join_outputs([(index, {"x": np.ones((len(index), width))}) for index, width in shapes], rows=4)
    assert outputs["x"].sum(1).tolist() == [3, 5, 5, 2]
    assert outputs["x"].shape == (4, 5)
