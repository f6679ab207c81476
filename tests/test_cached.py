# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cached teacher targets equal the teacher's current outputs, and are never those of another teacher."""

import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from share_toys import Processes

from xlkd.data import cache
from xlkd.data.batches import PAD, Plan, PlannedBatch
from xlkd.errors import UserError
from xlkd.methods import Teacher
from xlkd.runtime import mesh as meshes
from xlkd.spec.stage import Mesh
from xlkd.train.targets import cached, choose_targets
from xlkd.train.targets.live import LiveTargets

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
    """A task whose ids follow from the row's number; padded rows and positions are 0."""

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
    """Computes outputs that are not zero in the padding either, as a real teacher does."""
    ids = batch["ids"] * weights["w"] + 0.5
    return {"start": ids, "hidden": jnp.stack([ids, -ids], axis=-1), "pooled": batch["ids"].sum(1)}


def make_targets(
    weight=2.0, task="task", dtype="float32", uses=3.0, teacher_cache="auto", evolves=False, rows=4, steps=9
):
    ragged = ("start", "hidden")
    teacher = Teacher(init=lambda variables, start: (), forward=forward, uses=uses, evolves=evolves, ragged=ragged)
    plan = Plan({"text": LENGTHS}, batch=4, edges=(16, 32), seed=0)
    job = types.SimpleNamespace(
        method=types.SimpleNamespace(teacher=teacher),
        mesh=meshes.build_mesh(Mesh()),
        plan=plan,
        shapes=tuple(shape.with_rows(rows) for shape in plan.shapes),
        steps=steps,
        layout=types.SimpleNamespace(rows=rows),
        batch_at=lambda step: plan.at(step).pad_rows(rows),
        task=Task(task),
        features={"keys": np.arange(100, 100 + len(LENGTHS), dtype=np.uint64)},
        known_targets=None,
        teacher_cache=teacher_cache,
        teacher_dtype=dtype,
        log=Log(),
        seed=0,
    )
    weights = {"w": jnp.float32(weight)}
    targets = choose_targets(job, () if evolves else weights)
    state = types.SimpleNamespace(teacher=weights)
    for shape in job.shapes:
        targets.compile(shape, place_rows(job, shape, np.full(rows, PAD)), state)
    job.task.asked.clear()
    targets.fill_cache(0)
    return targets, job, state


def place_rows(job, shape, index):
    return meshes.place_batch(job.mesh, job.task.arrays(job.features, index, dict(shape.lengths), None), shape.rows)


def read_counts(job):
    """Returns the number of cached targets and of targets to compute, from the log."""
    line = next(line for line in job.log if " targets cached" in line).split()
    return int(line[2]), int(line[5])


def test_cached_targets_equal_the_teachers_outputs():
    targets, job, state = make_targets()
    assert read_counts(job) == (0, 9)
    for step in range(job.plan.steps_per_epoch):
        planned = job.plan.at(step)
        from_cache, from_teacher = (
            targets.for_batch(planned, {}),
            targets.ask_teacher(planned.shape, place_rows(job, planned.shape, planned.index), state),
        )
        is_row = planned.index != PAD
        inside = np.arange(planned.shape.lengths[0][1]) < np.where(is_row, LENGTHS[planned.index], 0)[:, None]
        assert {name: value.shape for name, value in from_cache.items()} == {
            n: v.shape for n, v in from_teacher.items()
        }
        np.testing.assert_array_equal(from_cache["start"], np.where(inside, from_teacher["start"], 0))
        np.testing.assert_array_equal(from_cache["hidden"], np.where(inside[..., None], from_teacher["hidden"], 0))
        np.testing.assert_array_equal(from_cache["pooled"], np.where(is_row, from_teacher["pooled"], 0))


def test_rows_padded_for_the_devices_change_no_target():
    """A batch of four is padded to six rows in training; the cache is filled six rows at a time."""
    six_rows, job, _ = make_targets(rows=6)
    four_rows, _, _ = make_targets()
    for step in range(job.plan.steps_per_epoch):
        planned = job.plan.at(step)
        padded, plain = six_rows.for_batch(planned.pad_rows(6), {}), four_rows.for_batch(planned, {})
        for name, value in plain.items():
            np.testing.assert_array_equal(padded[name][:4], value)
            assert not padded[name][4:].any()


def test_a_row_has_no_cached_target_in_another_shape():
    targets, job, _ = make_targets()
    short, long = job.plan.shapes
    assert targets.for_batch(types.SimpleNamespace(index=np.array([0, PAD, PAD, PAD]), shape=long), {}) is None
    assert targets.for_batch(types.SimpleNamespace(index=np.array([0, PAD, PAD, PAD]), shape=short), {}) is not None


def test_each_target_is_computed_once_and_stored_in_shards(monkeypatch):
    monkeypatch.setattr(cached, "SHARD", 4)
    _, job, _ = make_targets()
    timed = [np.flatnonzero(LENGTHS <= 16)[0], np.flatnonzero(LENGTHS > 16)[0]]
    assert sorted(job.task.asked) == sorted([*timed, *range(9)]), (
        "each row once, and one row of each shape to measure the time"
    )
    assert len(list(cache.get_folder().glob("targets-*"))) == 2 + 1  # five short rows, four long ones
    targets, job, _ = make_targets()
    assert read_counts(job) == (9, 0)
    assert sorted(job.task.asked) == list(range(9)), "a sample of each shard is computed again: here all of it"
    assert targets.for_batch(job.plan.at(0), {})["start"].any()


@pytest.mark.parametrize("other", [{"weight": 3.0}, {"task": "longer"}, {"dtype": "bfloat16"}])
def test_another_teacher_or_task_has_no_cached_targets(other):
    make_targets()
    assert read_counts(make_targets(**other)[1]) == (0, 9)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"evolves": True}, "the teacher changes"),
        ({"uses": 1.0}, "each target is used once"),
        ({"teacher_cache": "off"}, "config.teacher.cache is off"),
    ],
)
def test_without_a_cache_the_log_says_why(options, why):
    targets, job, state = make_targets(**options)
    assert [line for line in job.log if why in line]
    planned = job.plan.at(0)
    assert targets.for_batch(planned, {}) is None
    outputs = targets.ask_teacher(planned.shape, place_rows(job, planned.shape, planned.index), state)
    assert outputs["start"].max() > 2
    assert not list(cache.get_folder().glob("*"))


def damage_targets(name, change):
    """Changes every cached array of this name, as another build of a library could."""
    for entry in [path.name for path in cache.get_folder().glob("targets-*")]:
        arrays = {key: np.array(value) for key, value in cache.load(entry).items()}
        cache.delete(cache.get_folder() / entry)
        if len(arrays["keys"]) == 5:
            change(arrays[name])
        cache.load_or_build(entry, lambda arrays=arrays: arrays)


def make_change(place, by):
    def change(values):
        values[place] += by

    return change


@pytest.mark.parametrize(("name", "place"), [("pooled", 3), ("start", -1), ("hidden", (0, 1))])
def test_a_cached_target_that_differs_from_the_teachers_stops_the_run(name, place):
    make_targets()
    damage_targets(name, make_change(place, 1.0))
    keys = {"pooled": 104, "start": 106, "hidden": 100}  # the short rows are 0, 2, 3, 4, 6
    with pytest.raises(
        UserError, match=rf"example {keys[name]:016x} differs from the teacher's output \(by 1\)"
    ) as error:
        make_targets()
    assert "--delete_all" in str(error.value)


@pytest.mark.parametrize(("by", "close"), [(0.005, True), (0.05, False)])
def test_a_difference_in_the_last_bits_is_accepted(by, close):
    """The largest value is 1,218.5, and a hundred-thousandth of it (0.012) is allowed."""
    make_targets()
    damage_targets("start", make_change(0, by))
    if close:
        assert read_counts(make_targets()[1]) == (9, 0)
    else:
        with pytest.raises(UserError, match=r"example 0*64 "):
            make_targets()


def test_examples_that_are_read_in_blocks_have_no_cache():
    _, job, _ = make_targets()
    job.plan = object()  # a plan that does not know its rows
    assert isinstance(choose_targets(job, {"w": jnp.float32(2.0)}), LiveTargets)


def test_of_several_processes_each_asks_the_teacher_if_one_lacks_a_target(monkeypatch):
    """The batch is in the long shape, and row 0, which belongs to the other process, is cached in the short one."""
    targets, job, _ = make_targets()
    long = job.shapes[1]
    local_row = int(np.flatnonzero(job.plan.bucket == 1)[0])
    assert job.plan.bucket[0] == 0
    monkeypatch.setattr(cached.distributed, "has_several_processes", lambda: True)
    monkeypatch.setattr(cached.meshes, "select_local_rows", lambda mesh, index: index[:1])
    other_rows_cached = PlannedBatch(np.array([local_row, local_row, PAD, PAD]), long)
    assert targets.for_batch(other_rows_cached, {}) is not None
    assert targets.for_batch(PlannedBatch(np.array([local_row, 0, PAD, PAD]), long), {}) is None


def test_targets_of_another_layout_are_taken_only_where_the_config_says_so():
    """A step of four rows and one of six are two layouts, as on two meshes."""
    four_rows, _, _ = make_targets()
    assert read_counts(make_targets(rows=6, teacher_cache="tolerant", weight=3.0)[1]) == (0, 9), "another teacher"
    tolerant, job, _ = make_targets(rows=6, teacher_cache="tolerant")
    assert read_counts(job) == (9, 0)
    assert [line for line in job.log if "5 targets of 6 × text 16 taken from another layout" in line]
    for step in range(9):
        taken, own = tolerant.for_batch(job.batch_at(step), {}), four_rows.for_batch(job.plan.at(step), {})
        assert (taken is None) == (own is None)
        for name, value in (own or {}).items():
            np.testing.assert_array_equal(taken[name][:4], value)
    assert read_counts(make_targets(rows=6)[1]) == (0, 9), "auto takes its own alone"
    assert read_counts(make_targets(rows=6, teacher_cache="tolerant")[1]) == (9, 0)


def test_targets_of_another_layout_that_differ_are_computed_again():
    make_targets()
    damage_targets("start", make_change(0, 1.0))  # of the five short rows
    targets, job, _ = make_targets(rows=6, teacher_cache="tolerant")
    assert [line for line in job.log if "of 6 × text 16 of another layout differ; not taken" in line]
    assert read_counts(job) == (4, 5)
    whole, _, _ = make_targets(rows=6)
    for step in range(9):
        for name, value in (whole.for_batch(job.batch_at(step), {}) or {}).items():
            np.testing.assert_array_equal(targets.for_batch(job.batch_at(step), {})[name], value)


@pytest.mark.parametrize(
    ("platform", "rows", "times"), [("cpu", 1, 1), ("tpu", 1, 32), ("tpu", 12, 2), ("gpu", 32, 1), ("tpu", 100, 1)]
)
def test_few_rows_of_many_accelerators_fill_the_cache_together(platform, rows, times):
    assert cached.choose_times(platform, rows) == times


def test_batches_that_fill_the_cache_can_be_larger_than_those_of_a_step(monkeypatch):
    whole, job, _ = make_targets()
    monkeypatch.setattr(cached, "choose_times", lambda platform, rows: 2)
    filled, filled_job, _ = make_targets()
    assert read_counts(filled_job) == (0, 9), "the name of the cache contains the shape"
    assert len(filled_job.task.asked) == len(job.task.asked)
    for step in range(9):
        for name, value in (whole.for_batch(job.plan.at(step), {}) or {}).items():
            np.testing.assert_array_equal(filled.for_batch(job.plan.at(step), {})[name], value)


class Pod(Processes):
    """Processes of which each has a half or a third of the rows of a batch; their devices are that of the test."""

    def __init__(self, monkeypatch, folder, *, shared):
        super().__init__(monkeypatch, folder, shared=shared)
        build, self._whole = cached.CachedTargets._build_batch, threading.local()

        def select_local_rows(mesh, index):
            if self.share is None or getattr(self._whole, "batch", False):
                return index
            return np.array_split(index, self.share.processes)[self.share.process]

        def build_whole_batch(*arguments):
            self._whole.batch = True
            batch = build(*arguments)
            self._whole.batch = False
            return batch

        monkeypatch.setattr(cached.distributed, "gather_to_host", jax.device_get)
        monkeypatch.setattr(cached.meshes, "select_local_rows", select_local_rows)
        monkeypatch.setattr(cached.CachedTargets, "_build_batch", build_whole_batch)

    def compute_targets(self, **options):
        """Returns the log, the number of stored targets, and the targets of each step."""
        targets, job, _ = make_targets(**options)
        batches = [targets.for_batch(job.batch_at(step), {}) for step in range(job.steps)]
        return job, sum(len(bucket.store) for bucket in targets._buckets.values()), batches


@pytest.mark.parametrize("shared", [False, True])
def test_each_process_keeps_the_targets_of_its_rows(shared, monkeypatch, tmp_path):
    whole, job, _ = make_targets(rows=6)
    expected = [whole.for_batch(job.batch_at(step), {}) for step in range(2)]
    needed = sum(job.batch_at(step).examples for step in range(2) if expected[step])
    assert 0 < needed < 9
    monkeypatch.setattr(cached, "SHARD", 2)
    pod = Pod(monkeypatch, tmp_path / "caches", shared=shared)
    for number, new in ((2, True), (2, False), (3, None)):
        results = pod.run(lambda: pod.compute_targets(rows=6, steps=2), number)
        for step, values in enumerate(expected):
            parts = [batches[step] for _, _, batches in results]
            if values is None:
                assert parts == [None] * number, "all processes ask the teacher, or none"
            else:
                for name, value in values.items():
                    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
        computed = read_counts(results[0][0])[1]
        if new is not None:
            assert (computed > 0) == new
        counts = [count for _, count, _ in results]
        keys = [key for folder in (tmp_path / "caches").iterdir() for key in list_stored(folder)]
        if shared:
            assert len(set(counts)) == 1
            assert len(set(keys)) == len(keys) == needed, "each target is written by one process"
        elif number == 2:
            assert len(keys) == sum(counts) == needed
            assert min(counts) > 0


def list_stored(folder):
    return [key for entry in folder.glob("targets-*") for key in np.load(entry / "keys.npy").tolist()]
