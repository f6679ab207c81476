# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The quarter of an hour on a borrowed machine: what is packed, how time is divided, and that a command continues."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from xlkd.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))
accelerator, grid, packed = map(importlib.import_module, ("accelerator", "grid", "packed"))
Part, Record = accelerator.Part, accelerator.Record


def make_part(name: str, script: str, share: float = 1.0, **options) -> Part:
    """Returns a part whose process runs a script in the work folder."""
    return Part(name, (sys.executable, "-c", script), share, results=f"{name}/*.json", **options)


def write_result(name: str, value: int) -> str:
    return f"import pathlib as p; p.Path('{name}').mkdir(exist_ok=True); p.Path('{name}/a.json').write_text('{value}');"


def run_parts(tmp_path: pathlib.Path, *parts: Part, seconds: float = 1000.0) -> dict:
    """Runs the parts as a new command does, and returns the parts of its record."""
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    record = Record(tmp_path, out)
    accelerator.run_parts(parts, record, time.monotonic() + seconds)
    return json.loads((out / accelerator.RECORD).read_text())["parts"]


def test_weights_on_a_grid_are_stored_in_four_bits_without_loss():
    random = np.random.default_rng(0)
    codes = random.integers(-8, 8, (6, 4, 32)).astype(np.float32)
    scales = random.normal(0, 0.01, (6, 4, 1)).astype(np.float16)
    scales[0, 0] = 0
    matrix = (codes * scales.astype(np.float32)).astype(np.float16).reshape(6, 128)
    tensors = {"matrix": matrix, "vector": matrix[0], "other": random.normal(size=(2, 64)).astype(np.float16)}
    arrays = grid.encode(tensors)
    assert arrays["matrix.codes"].nbytes + arrays["matrix.scales"].nbytes == matrix.size // 2 + matrix.size // 16
    decoded = grid.decode(arrays)
    assert decoded.keys() == tensors.keys()
    assert all(np.array_equal(decoded[name], tensors[name]) for name in tensors)
    assert decoded["matrix"].dtype == np.float16


def test_requirements_are_those_of_the_package_without_what_the_machine_has_or_training_does_not_need():
    names = {packed.normalise_name(line) for line in packed.read_requirements(ROOT / "setup.cfg")}
    assert {"flax", "orbax-checkpoint", "ml-collections", "huggingface-hub"} <= names
    assert not names & {"jax", "tensorflow-datasets", "pyarrow", ""}


@pytest.mark.parametrize(
    ("wheel", "is_there"), [("ml_dtypes-0.6.0-cp312-x.whl", True), ("ml_collections-1.1.0-py3-none-any.whl", False)]
)
def test_wheels_of_the_machine_are_told_by_their_normalised_name(wheel, is_there):
    assert packed.is_on_machine(wheel, ("ML.dtypes", "ml")) is is_there


def test_a_sample_of_questions_is_the_same_each_time_and_has_their_contexts():
    paragraphs = [{"context": f"c{n}", "qas": [{"id": f"{n}a"}, {"id": f"{n}b"}]} for n in range(5)]
    document = {"version": "1", "data": [{"title": "t", "paragraphs": paragraphs}]}
    ids = packed.draw_ids(document, 4, "seed")
    assert ids == packed.draw_ids(document, 4, "seed")
    assert len(set(ids)) == 4
    sample = packed.select_questions(document, ids)
    chosen = [article["paragraphs"][0] for article in sample["data"]]
    assert [(p["context"], p["qas"][0]["id"]) for p in chosen] == [(f"c{name[0]}", name) for name in ids]
    assert len(packed.draw_ids(document, 99, "seed")) == 10


@pytest.mark.parametrize(("left", "share", "seconds"), [(100, 0.25, 25), (100, 1.0, 80), (40, 0.25, 0), (30, 1.0, 0)])
def test_a_part_gets_its_share_and_leaves_time_to_save(left, share, seconds):
    assert accelerator.grant_seconds(left, share) == seconds


def test_a_command_continues_with_the_parts_that_are_not_done(tmp_path):
    flaky = make_part("two", f"{write_result('two', 2)} import sys; sys.exit(not p.Path('again').exists())")
    once = make_part("one", f"{write_result('one', 1)} open('times', 'a').write('.')")
    first = run_parts(tmp_path, once, flaky)
    assert (first["one"]["state"], first["two"]["state"]) == ("done", "failed with 1")
    assert first["two"]["results"] == {"two/a.json": 2}
    (tmp_path / "again").touch()
    second = run_parts(tmp_path, once, flaky)
    assert second["two"]["state"] == "done"
    assert (tmp_path / "times").read_text() == "."


def test_a_part_is_done_anew_where_its_files_are_gone_and_others_wait_for_it(tmp_path):
    setup = make_part("setup", "open('ready', 'w'); open('times', 'a').write('.')", proof="ready")
    assert run_parts(tmp_path, setup)["setup"]["state"] == "done"
    (tmp_path / "ready").unlink()
    assert run_parts(tmp_path, setup)["setup"]["state"] == "done"
    assert (tmp_path / "times").read_text() == ".."
    broken = make_part("broken", "raise SystemExit(3)", proof="never")
    parts = run_parts(tmp_path, broken, make_part("next", write_result("next", 1)))
    assert parts["next"]["state"] == "skipped: the machine is not set up"


def test_what_finds_no_time_is_skipped_and_what_takes_too_long_is_stopped(tmp_path, monkeypatch):
    slow = make_part("slow", f"{write_result('slow', 1)} import time; time.sleep(60)")
    assert run_parts(tmp_path, slow, seconds=10)["slow"]["state"] == "skipped: no time was left"
    monkeypatch.setattr(accelerator, "LEAST", 0.5)
    monkeypatch.setattr(accelerator, "GRACE", 0.2)
    part = run_parts(tmp_path, slow, seconds=1.5)["slow"]
    assert part["state"] == "stopped: its time was over"
    assert part["results"] == {"slow/a.json": 1}


def test_a_signal_ends_the_part_that_runs_and_keeps_its_results(tmp_path):
    child = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(75)))
{write_result("slow", 1)}
open("child", "w").write(str(os.getpid()))
time.sleep(60)
"""
    script = f"""
import pathlib, signal, sys, time
sys.path[:0] = [{str(ROOT / "bench")!r}]
import accelerator
from xlkd import cli
def main(arguments):
    signal.signal(signal.SIGTERM, accelerator._raise_stopped)
    place = pathlib.Path({str(tmp_path)!r})
    part = accelerator.Part("slow", (sys.executable, "-c", {child!r}), 1.0, "slow/*.json")
    accelerator.run_parts([part], accelerator.Record(place, place), time.monotonic() + 100)
sys.exit(cli.run(main))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    while not ((tmp_path / "child").exists() and (tmp_path / "child").read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # as `timeout` does, while the part saves
    assert process.communicate(timeout=30)[1] == "stopped: the same command continues\n"
    assert process.returncode == 75
    part = json.loads((tmp_path / accelerator.RECORD).read_text())["parts"]["slow"]
    assert (part["state"], part["results"]) == ("stopped by a signal", {"slow/a.json": 1})
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "child").read_text()), 0)


def test_training_flags_are_keys_of_the_config_and_follow_the_share():
    from xlkd import settings

    keys = accelerator.make_training_flags(0.01) | {"encoder.path": "package:multilingual"}
    flags = [f"--config.{key}={value}" for key, value in keys.items()]
    config = settings.apply_flags(settings.read_config("configs/gxlt.py:paper"), flags)
    stages = {stage.name: stage for stage in settings.read_stages(config)}
    assert list(stages) == accelerator.CONTROLS.split(",")
    for name in ("ce", "skd", "skd_map"):
        stage = stages[name]
        assert (stage.data.ntl, stage.budget.epochs, stage.optim.lr, stage.data.batch) == (5, 3, 5e-5, 24)
    assert "limit=3" in str(stages["skd"].data.train)
    assert "limit=1" in str(stages["skd"].data.eval)


def test_the_smallest_files_of_a_profile_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "ROOM", 100)
    for name, size in (("a", 60), ("b", 50), ("c", 30)):
        (tmp_path / name).write_bytes(bytes(size))
    assert [path.name for path in accelerator.list_fitting(tmp_path.iterdir())] == ["c", "b"]


@pytest.mark.parametrize("share", ["0", "1.5", "half", "nan"])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(UserError, match="--share"):
        accelerator.parse_share(share)
