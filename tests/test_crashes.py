# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""After a power failure at any moment the same command ends with the same result: see `crashes.py`."""

import json
import os
import pathlib
import random
import subprocess
import sys

import crashes
import pytest

from xlkd import files
from xlkd.runtime.workdir import WorkDirectory
from xlkd.train import checkpoint, checkpoint_folder, finished


def record_writes(folder: pathlib.Path, write) -> list[crashes.Operation]:
    folder.mkdir()
    recorder = crashes.Recorder(folder)
    try:
        write(folder)
    finally:
        log = recorder.stop()
    return log


def build_states(log, tmp_path, count=60):
    """Yields a folder for each of some crash states, of both models."""
    for number in range(count):
        draw = random.Random(number)
        state = crashes.build_state(log, draw.randint(1, len(log)), crashes.MODELS[number % 2], draw)
        folder = tmp_path / f"state-{number}"
        crashes.write_state(state, folder)
        yield folder


def test_a_file_is_written_as_a_whole_or_stays_as_it_was(tmp_path):
    def write(folder):
        files.write_text(folder / "a", "old" * 50)
        files.write_text(folder / "a", "new" * 50)

    log = record_writes(tmp_path / "run", write)
    first = next(number for number, op in enumerate(log) if op.kind == "rename") + 2  # with the flush of the folder
    contents = set()
    for number in range(200):
        draw = random.Random(number)
        state = crashes.build_state(log, draw.randint(first, len(log)), crashes.MODELS[number % 2], draw)
        contents.add(state["a"])
    assert contents == {b"old" * 50, b"new" * 50}


def test_a_file_that_is_not_flushed_can_be_lost(tmp_path):
    """Without this the other tests could not fail."""

    def write(folder):
        (folder / "draft").write_bytes(b"content")
        (folder / "draft").rename(folder / "a")

    log = record_writes(tmp_path / "run", write)
    states = [crashes.build_state(log, len(log), "journal", random.Random(number)) for number in range(50)]
    assert {state.get("a") for state in states} == {None, b"", b"con", b"\0" * 7, b"content"}


def test_the_marker_of_a_finished_stage_vouches_for_its_files(tmp_path):
    names = ("export/model.safetensors", "export/1_Pooling/config.json", "rows/eval.jsonl", "stage.json")

    def write(folder):
        (folder / ".lock").touch()
        state = (folder / ".lock").stat()
        workdir = WorkDirectory(folder, (state.st_dev, state.st_ino))
        for name in names:
            workdir.make_folder(folder / "stages" / "01-one" / pathlib.Path(name).parent)
            (folder / "stages" / "01-one" / name).write_text(name)
        finished.mark_finished(workdir, folder / "stages" / "01-one", [])

    finished_states = 0
    for folder in build_states(record_writes(tmp_path / "run", write), tmp_path):
        (folder / "stages" / "01-one" / "checkpoints" / "4").mkdir(parents=True)
        damage = finished.describe_damage(WorkDirectory(folder, None), folder / "stages" / "01-one")
        assert damage in (None, ""), damage
        finished_states += damage == ""
    assert finished_states


def test_the_last_checkpoint_with_checksums_is_intact(tmp_path):
    """An earlier one may be in the course of deletion."""

    def write(folder):
        checkpoints = checkpoint.Checkpoints(folder, lambda: None)
        for step in (1, 2, 3, 4):
            checkpoints.save(step, {"x": step})
        checkpoints.close()

    log, intact = record_writes(tmp_path / "run", write), 0
    for folder in build_states(log, tmp_path):
        sealed = sorted(file.parent for file in folder.glob("[0-9]/sums.json"))
        assert not sealed or checkpoint_folder._describe_damage(sealed[-1]) == ""
        intact += bool(sealed)
    assert intact > 20
    for number in range(20):  # all saves have returned
        assert {"3/sums.json", "4/sums.json"} <= crashes.build_state(
            log, len(log), "free", random.Random(number)
        ).keys()


def replay_runs(folder: pathlib.Path, states: int, seed: int) -> dict:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLKD_CACHE": str(folder / "cache")}
    command = [sys.executable, crashes.__file__, str(folder), "power", str(states), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_ends_bit_identical_after_a_power_failure(tmp_path):
    result = replay_runs(tmp_path, states=2, seed=0)
    assert result["operations"] > 200
    assert (result["cases"], result["wrong"], result["lost"]) == (2, [], [])


@pytest.mark.long
def test_a_run_ends_bit_identical_after_many_power_failures(tmp_path):
    result = replay_runs(tmp_path, states=100, seed=1)
    assert (result["wrong"], result["lost"]) == ([], [])
