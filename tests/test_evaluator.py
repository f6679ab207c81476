# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Outputs over all rows of a set: each row once, in the order of the features, on one device and on eight."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.errors import Stopped
from xlkd.evaluation.evaluator import Evaluator, join_outputs
from xlkd.runtime import mesh
from xlkd.spec.stage import Mesh
from xlkd.tasks.ragged import pack, pad_rows


class Toy:
    """Rows of numbers; the model gives their sum, weighted, and the first of them."""

    name = "toy"

    def __init__(self):
        self.asked = []

    def lengths(self, features):
        return {"text": np.diff(features["x_at"]).astype(np.int32)}

    def arrays(self, features, index, lengths, draw):
        self.asked.append((index.tolist(), lengths["text"], draw))
        x = pad_rows(features, "x", index, lengths["text"], 0)
        return {"text": {"x": x.astype(np.float32)}, "mask": (index >= 0).astype(np.float32)}


def outputs(variables, batch):
    x = batch["text"]["x"]
    return {"sum": variables * x.sum(1), "first": x[:, :2].astype(jnp.int32)}


def evaluator(batch=4, buckets=2):
    devices = mesh.build_mesh(Mesh())
    return Evaluator(outputs, devices, batch=batch, buckets=buckets)


def features(rows=11):
    random = np.random.default_rng(0)
    return pack("x", [random.integers(1, 9, n) for n in random.integers(2, 60, rows)], np.int32)


def expected(found):
    rows = np.split(found["x"], found["x_at"][1:-1])
    return [2.0 * row.sum() for row in rows], [row[:2].tolist() for row in rows]


@pytest.mark.parametrize(("rows", "batch"), [(11, 4), (1, 4), (8, 4), (3, 16)])
def test_each_row_once_in_the_order_of_the_features(rows, batch):
    task, given = Toy(), features(rows)
    found = evaluator(batch).compute_outputs(jnp.float32(2), task, given)
    sums, firsts = expected(given)
    assert found["sum"].tolist() == sums
    assert found["first"].tolist() == firsts
    assert found["first"].dtype == np.int32
    seen = [i for index, _, _ in task.asked for i in index if i >= 0]
    assert sorted(seen) == list(range(rows))
    assert all(len(index) == batch for index, _, _ in task.asked), "the last batch is padded"


def test_rows_are_sorted_by_length_into_few_shapes():
    task, given = Toy(), features(40)
    evaluator().compute_outputs(jnp.float32(2), task, given)
    lengths = task.lengths(given)["text"]
    order = [lengths[i] for index, _, _ in task.asked for i in index if i >= 0]
    assert order == sorted(order)
    assert len({length for _, length, _ in task.asked}) <= 2
    assert {draw for _, _, draw in task.asked} == {task.asked[0][2]}, "the same draw at every evaluation"


def test_buckets_may_be_given():
    task = Toy()
    evaluator(buckets=(64, 128)).compute_outputs(jnp.float32(2), task, features())
    assert {length for _, length, _ in task.asked} == {64}


def test_a_second_evaluation_compiles_nothing():
    one, given, traced = evaluator(), features(), []

    def counted(variables, batch):
        traced.append(batch["text"]["x"].shape)
        return outputs(variables, batch)

    one._forward = jax.jit(counted)
    first = one.compute_outputs(jnp.float32(2), Toy(), given)
    shapes = len(traced)
    second = one.compute_outputs(jnp.float32(4), Toy(), given)
    assert len(traced) == shapes == len(set(traced))
    np.testing.assert_array_equal(second["sum"], 2 * first["sum"])


def test_a_signal_stops_it_between_batches():
    task, calls = Toy(), []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise Stopped("SIGTERM")

    with pytest.raises(Stopped):
        evaluator().compute_outputs(jnp.float32(2), task, features(20), stop)
    assert len(task.asked) == 2


def test_a_process_reads_the_rows_of_its_devices_once_each_and_in_order(monkeypatch):
    index = np.arange(8) + 10
    assert mesh.select_local_rows(None, index) is index
    here = {"device 2": (slice(4, 6),), "device 0": (slice(0, 2),), "device 3": (slice(4, 6),)}
    spread = type("Spread", (), {"addressable_devices_indices_map": lambda self, shape: here})()
    monkeypatch.setattr(mesh, "row_sharding", lambda _: spread)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    assert mesh.select_local_rows(None, index).tolist() == [10, 11, 14, 15]


EIGHT = """
import sys; sys.path.insert(0, sys.argv[1])
import jax.numpy as jnp
from test_evaluator import Toy, evaluator, expected, features
task = Toy()
found = evaluator(batch=5).compute_outputs(jnp.float32(2), task, features())
assert found["sum"].tolist() == expected(features())[0]
print([len(index) for index, _, _ in task.asked])
"""


def test_eight_devices_give_the_same():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    command = [sys.executable, "-c", EIGHT, os.path.dirname(__file__)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "[8, 8]", "five rows become eight, one a device"


def test_what_is_of_a_token_each_may_come_from_several_buckets():
    shapes = ((np.array([0, -1]), 3), (np.array([2, 1]), 5), (np.array([3]), 2))
    found = join_outputs([(index, {"x": np.ones((len(index), width))}) for index, width in shapes], rows=4)
    assert found["x"].sum(1).tolist() == [3, 5, 5, 2]
    assert found["x"].shape == (4, 5)
