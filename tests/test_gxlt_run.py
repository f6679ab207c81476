# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generations and kept targets in real runs: killed, cached, on one device and on eight."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_models

FLAGS = [
    "--config=configs/gxlt.py",
    "--config.stages=skd_map",
    "--config.data.train=atlas?split=train&size=16&languages=en,de&facts=2",
    "--config.data.eval=atlas?split=test&size=4&languages=en,de&facts=2&pairs=all",
    "--config.data.batch=8",
    "--config.data.buckets=1",
    "--config.task.max_length=96",
    "--config.method.coefficient_group=2",
    "--config.budget.epochs=3",
    "--config.save.every=4",
    "--config.log.every=1",
    "--config.optim.lr=1e-2",
]


def start(model, workdir, *flags, devices=1, store=None, optimized=False):
    environment = os.environ | {
        "XLKD_CACHE": str(store or model.parent / "cache"),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    environment |= toy_models.OPTIMIZED if optimized else {}
    command = [sys.executable, "-m", "xlkd.main", *FLAGS, f"--config.start={model}", f"--workdir={workdir}", *flags]
    return subprocess.Popen(
        command, env=environment, cwd=toy_models.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(model, workdir, *flags, code=0, **options):
    process = start(model, workdir, *flags, **options)
    output = process.communicate()[0]
    assert process.returncode == code, output
    return output


def kill(model, workdir, at, *flags, **options):
    """What a run said before it was killed past a step."""
    before = changed(workdir)
    process = start(model, workdir, *flags, **options)
    while (changed(workdir) == before or step_of(workdir) < at) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    return output


def stage(workdir):
    return workdir / "stages" / "01-skd_map"


def lines(workdir):
    try:
        return [json.loads(line) for line in (stage(workdir) / "metrics.jsonl").read_text().splitlines()]
    except (OSError, json.JSONDecodeError):
        return []


def step_of(workdir):
    return max((line["step"] for line in lines(workdir)), default=-1)


def changed(workdir):
    """When a step was last written: a run that goes on finds lines of the one before it."""
    file = stage(workdir) / "metrics.jsonl"
    return file.stat().st_mtime_ns if file.exists() else 0


def assert_equal(a, b):
    from safetensors.numpy import load_file

    left, right = (load_file(stage(x) / "export" / "model.safetensors") for x in (a, b))
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert lines(a) == lines(b)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_models.save_span_model(tmp_path_factory.mktemp("toy"), toy_models.RECORD)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """Three epochs of 8 steps: generations begin at steps 8 and 16, where checkpoints are due too."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, finish(model, folder)


def test_the_evolving_teacher_lags_a_generation(whole):
    folder, output = whole
    assert "each of its targets is used once" in output
    kl = {line["step"]: line["kl"] for line in lines(folder)}
    assert max(kl) == 24
    agreement = {line["step"]: line["agreement"] for line in lines(folder)}
    assert agreement[9] > agreement[8], "the new teacher is the student itself, dropout apart"
    assert kl[9] < kl[8]
    assert {"coefficient", "teacher_entropy", "agreement", "ce", "kl"} <= lines(folder)[0].keys()


def test_killed_in_a_generation_and_at_its_boundary_it_ends_with_the_same_bits(model, whole, tmp_path):
    """Saved every 4 steps: killed past 8 it goes on exactly where a generation begins, past 12 in the middle of one."""
    kill(model, tmp_path / "run", 9)
    assert "restored step" in kill(model, tmp_path / "run", 13)
    assert "restored step" in finish(model, tmp_path / "run")
    assert_equal(whole[0], tmp_path / "run")


FIXED = ["--config.method.generations=fixed", "--config.budget.epochs=7", "--config.data.eval="]


@pytest.mark.long  # that cached targets equal the teacher's is held by test_cached.py
@pytest.mark.parametrize(("devices", "buckets"), [(1, 1), (1, 4), (8, 1)])
def test_kept_targets_change_no_bit(model, tmp_path, devices, buckets):
    """56 steps of shuffled rows, killed on the way, against a teacher that is asked in each.

    Optimized as a user's runs are, since the same row has another place where targets are made. Batches of several
    lengths are shown on one device, where a program compiles faster.
    """
    where = {"devices": devices, "store": tmp_path / "cache", "optimized": True}
    flags = [*FIXED, f"--config.data.buckets={buckets}"]
    output = kill(model, tmp_path / "kept", 20, *flags, **where)
    assert "0 targets cached, 64 to compute" in output
    again = finish(model, tmp_path / "kept", *flags, **where)
    assert "restored step" in again
    assert "64 targets cached, 0 to compute" in again
    finish(model, tmp_path / "asked", *flags, "--config.teacher.cache=off", **where)
    assert max(line["step"] for line in lines(tmp_path / "kept")) == 56
    assert_equal(tmp_path / "kept", tmp_path / "asked")
