# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A teacher that is asked once: what is kept is what it would say now, and is never another's."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from xlkd.data import cache
from xlkd.data.batches import PAD, Plan
from xlkd.errors import UserError
from xlkd.methods import Teacher
from xlkd.runtime import mesh as meshes
from xlkd.spec.stage import Mesh
from xlkd.train.targets import cached, choose_targets

LENGTHS = np.array([3, 30, 12, 16, 7, 20, 9, 31, 25], np.int32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path))


class Log(list):
    def __call__(self, line):
        self.append(line)

    def live(self, line):
        self.append(line)


class Task:
    """A row's ids are told by its number; padding of rows and of positions has 0."""

    def __init__(self, name="task"):
        self.name, self.asked = name, []

    def identity(self):
        return self.name

    def arrays(self, features, index, lengths, draw):
        real = index[index != PAD]
        assert (LENGTHS[real] <= lengths["text"]).all()
        self.asked += real.tolist()
        inside = np.arange(lengths["text"]) < np.where(index == PAD, 0, LENGTHS[index])[:, None]
        return {"ids": np.where(inside, index[:, None] * 100 + np.arange(lengths["text"]) + 1, 0).astype(np.float32)}


def forward(weights, batch):
    """Something in the padding too, as a real one gives."""
    ids = batch["ids"] * weights["w"] + 0.5
    return {"start": ids, "hidden": jnp.stack([ids, -ids], axis=-1), "pooled": batch["ids"].sum(1)}


def teaching(weight=2.0, task="task", dtype="float32", uses=3.0, kept="auto", evolves=False, rows=4):
    ragged = ("start", "hidden")
    told = Teacher(variables=lambda variables, start: (), forward=forward, uses=uses, evolves=evolves, ragged=ragged)
    plan = Plan({"text": LENGTHS}, batch=4, edges=(16, 32), seed=0)
    job = types.SimpleNamespace(
        method=types.SimpleNamespace(teacher=told),
        mesh=meshes.build_mesh(Mesh()),
        plan=plan,
        shapes=tuple(shape.with_rows(rows) for shape in plan.shapes),
        task=Task(task),
        features={"keys": np.arange(100, 100 + len(LENGTHS), dtype=np.uint64)},
        computed_targets=None,
        teacher_cache=kept,
        teacher_dtype=dtype,
        log=Log(),
        seed=0,
    )
    weights = {"w": jnp.float32(weight)}
    found = choose_targets(job, () if evolves else weights)
    state = types.SimpleNamespace(teacher=weights)
    for shape in job.shapes:
        found.example(shape, batch_of(job, shape, np.full(rows, PAD)), state)
    job.task.asked.clear()
    found.prepare()
    return found, job, state


def batch_of(job, shape, index):
    return meshes.place_batch(job.mesh, job.task.arrays(job.features, index, dict(shape.lengths), None), shape.rows)


def counts(job):
    """How many targets were there, and how many were to make."""
    line = next(line for line in job.log if " targets cached" in line).split()
    return int(line[2]), int(line[5])


def test_what_is_kept_is_what_the_teacher_says():
    found, job, state = teaching()
    assert counts(job) == (0, 9)
    for step in range(job.plan.steps_per_epoch):
        planned = job.plan.at(step)
        kept, said = (
            found.for_batch(planned),
            found.ask(planned.shape, batch_of(job, planned.shape, planned.index), state),
        )
        there = planned.index != PAD
        inside = np.arange(planned.shape.lengths[0][1]) < np.where(there, LENGTHS[planned.index], 0)[:, None]
        assert {name: value.shape for name, value in kept.items()} == {n: v.shape for n, v in said.items()}
        np.testing.assert_array_equal(kept["start"], np.where(inside, said["start"], 0))
        np.testing.assert_array_equal(kept["hidden"], np.where(inside[..., None], said["hidden"], 0))
        np.testing.assert_array_equal(kept["pooled"], np.where(there, said["pooled"], 0))


def test_rows_that_are_only_there_for_the_devices_change_no_target():
    """Six rows of a batch of four: its last two are padding, in training; the cache is filled six rows at a time."""
    found, job, _ = teaching(rows=6)
    four, _, _ = teaching()
    for step in range(job.plan.steps_per_epoch):
        planned = job.plan.at(step)
        kept, plain = found.for_batch(planned.pad_rows(6)), four.for_batch(planned)
        for name, value in plain.items():
            np.testing.assert_array_equal(kept[name][:4], value)
            assert not kept[name][4:].any()


def test_a_row_in_another_shape_is_not_kept():
    found, job, _ = teaching()
    short, long = job.plan.shapes
    assert found.for_batch(types.SimpleNamespace(index=np.array([0, PAD, PAD, PAD]), shape=long)) is None
    assert found.for_batch(types.SimpleNamespace(index=np.array([0, PAD, PAD, PAD]), shape=short)) is not None


def test_each_target_is_made_once_and_in_shards(monkeypatch):
    monkeypatch.setattr(cached, "SHARD", 4)
    _, job, _ = teaching()
    timed = [np.flatnonzero(LENGTHS <= 16)[0], np.flatnonzero(LENGTHS > 16)[0]]
    assert sorted(job.task.asked) == sorted([*timed, *range(9)]), (
        "each once, and one of each shape to see how long it takes"
    )
    assert len(list(cache.get_folder().glob("targets-*"))) == 2 + 1  # five short rows, four long ones
    found, job, _ = teaching()
    assert counts(job) == (9, 0)
    assert sorted(job.task.asked) == list(range(9)), "a sample of each shard is asked again: here all of it"
    assert found.for_batch(job.plan.at(0))["start"].any()


@pytest.mark.parametrize("other", [{"weight": 3.0}, {"task": "longer"}, {"dtype": "bfloat16"}])
def test_another_teacher_or_task_finds_nothing(other):
    teaching()
    assert counts(teaching(**other)[1]) == (0, 9)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"evolves": True}, "the teacher changes"),
        ({"uses": 1.0}, "each target is used once"),
        ({"kept": "off"}, "config.teacher.cache is off"),
    ],
)
def test_where_nothing_is_kept_the_log_says_why(options, why):
    found, job, state = teaching(**options)
    assert [line for line in job.log if why in line]
    planned = job.plan.at(0)
    assert found.for_batch(planned) is None
    said = found.ask(planned.shape, batch_of(job, planned.shape, planned.index), state)
    assert said["start"].max() > 2
    assert not list(cache.get_folder().glob("*"))


def poisoned(name, change):
    """Every kept array of this name changed, as by another build of a library."""
    for entry in [path.name for path in cache.get_folder().glob("targets-*")]:
        held = {key: np.array(value) for key, value in cache.load(entry).items()}
        cache.delete(cache.get_folder() / entry)
        if len(held["keys"]) == 5:
            change(held[name])
        cache.load_or_build(entry, lambda held=held: held)


def set_to(place, by):
    def change(values):
        values[place] += by

    return change


@pytest.mark.parametrize(("name", "place"), [("pooled", 3), ("start", -1), ("hidden", (0, 1))])
def test_a_kept_target_that_is_not_the_teachers_stops_the_run(name, place):
    teaching()
    poisoned(name, set_to(place, 1.0))
    keys = {"pooled": 104, "start": 106, "hidden": 100}  # the short rows are 0, 2, 3, 4, 6
    with pytest.raises(
        UserError, match=rf"example {keys[name]:016x} differs from the teacher's output \(by 1\)"
    ) as refused:
        teaching()
    assert "--delete_all" in str(refused.value)


@pytest.mark.parametrize(("by", "close"), [(0.005, True), (0.05, False)])
def test_the_last_bits_may_differ(by, close):
    """The largest value is 1,218.5: a hundred-thousandth of that is 0.012."""
    teaching()
    poisoned("start", set_to(0, by))
    if close:
        assert counts(teaching()[1]) == (9, 0)
    else:
        with pytest.raises(UserError, match=r"example 0*64 "):
            teaching()
