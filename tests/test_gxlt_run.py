# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Generations and cached targets in real runs: killed, cached, on one device and on eight."""

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
    "--config.method.generation_epochs=1",
    "--config.save.every=4",
    "--config.log.every=1",
    "--config.optim.lr=1e-2",
]


def start_run(model, workdir, *flags, devices=1, store=None, optimized=False):
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


def finish_run(model, workdir, *flags, code=0, **options):
    process = start_run(model, workdir, *flags, **options)
    output = process.communicate()[0]
    assert process.returncode == code, output
    return output


def kill_run(model, workdir, at, *flags, **options):
    """Kills a run after a step, and returns its output."""
    before = read_modification_time(workdir)
    process = start_run(model, workdir, *flags, **options)
    while (read_modification_time(workdir) == before or read_last_step(workdir) < at) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    return output


def get_stage_folder(workdir):
    return workdir / "stages" / "01-skd_map"


def read_lines(workdir):
    try:
        return [json.loads(line) for line in (get_stage_folder(workdir) / "metrics.jsonl").read_text().splitlines()]
    except (OSError, json.JSONDecodeError):
        return []


def read_last_step(workdir):
    return max((line["step"] for line in read_lines(workdir)), default=-1)


def read_modification_time(workdir):
    """Returns when a step was last written; a resumed run finds lines of the former process."""
    file = get_stage_folder(workdir) / "metrics.jsonl"
    return file.stat().st_mtime_ns if file.exists() else 0


def assert_equal(a, b):
    from safetensors.numpy import load_file

    left, right = (load_file(get_stage_folder(x) / "export" / "model.safetensors") for x in (a, b))
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)
    assert read_lines(a) == read_lines(b)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_models.save_span_model(tmp_path_factory.mktemp("toy"), toy_models.RECORD)


@pytest.fixture(scope="module")
def undisturbed_run(model, tmp_path_factory):
    """Runs three epochs of 8 steps without a kill; generations start at steps 8 and 16, as do checkpoints."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, finish_run(model, folder)


def test_the_teacher_is_the_student_of_the_former_generation(undisturbed_run):
    folder, output = undisturbed_run
    assert "each of its targets is used once" in output
    kl = {line["step"]: line["kl"] for line in read_lines(folder)}
    assert max(kl) == 24
    agreement = {line["step"]: line["agreement"] for line in read_lines(folder)}
    assert agreement[9] > agreement[8], "the new teacher is the student itself, except for dropout"
    assert kl[9] < kl[8]
    assert {"coefficient", "teacher_entropy", "agreement", "ce", "kl"} <= read_lines(folder)[0].keys()


@pytest.mark.parametrize("at", [pytest.param(9, marks=pytest.mark.long), 13])
def test_a_run_killed_in_and_between_generations_ends_bit_identical(model, undisturbed_run, tmp_path, at):
    """The run saves every 4 steps: after step 8 it resumes at the start of a generation, after 12 within one."""
    kill_run(model, tmp_path / "run", at)
    assert "restored step" in finish_run(model, tmp_path / "run")
    assert_equal(undisturbed_run[0], tmp_path / "run")


FIXED = ["--config.method.generations=fixed", "--config.budget.epochs=7", "--config.data.eval="]


@pytest.mark.long  # test_cached.py checks that cached targets equal the teacher's
@pytest.mark.parametrize(("devices", "buckets"), [(1, 1), (1, 4), (8, 1)])
def test_a_run_with_cached_targets_is_bit_identical(model, tmp_path, devices, buckets):
    """Compares 56 steps of shuffled rows, killed in between, with a teacher forward pass in each step.

    Programs are optimized as in a user's run, because a row has another position when targets are computed. Batches of
    several lengths run on one device only, where programs compile faster.
    """
    options = {"devices": devices, "store": tmp_path / "cache", "optimized": True}
    flags = [*FIXED, f"--config.data.buckets={buckets}"]
    output = kill_run(model, tmp_path / "cached", 20, *flags, **options)
    assert "0 targets cached, 64 to compute" in output
    again = finish_run(model, tmp_path / "cached", *flags, **options)
    assert "restored step" in again
    assert "64 targets cached, 0 to compute" in again
    finish_run(model, tmp_path / "computed", *flags, "--config.teacher.cache=off", **options)
    assert max(line["step"] for line in read_lines(tmp_path / "cached")) == 56
    assert_equal(tmp_path / "cached", tmp_path / "computed")


CHEAP_CONTROLS = """
from xlkd.configs.gxlt import add_cheap_controls
from xlkd.configs.gxlt import get_config as gxlt


def get_config(variant=""):
    c = gxlt()
    add_cheap_controls(c)
    return c
"""


def test_cheap_controls_are_the_first_epoch_of_ce_and_the_mean_of_the_weights_around_it(model, tmp_path):
    from safetensors.numpy import load_file

    config, run = tmp_path / "cheap.py", tmp_path / "run"
    config.write_text(CHEAP_CONTROLS)
    short = ["--config.budget.epochs=2", "--config.save.every=8"]
    finish_run(model, run, f"--config={config}", "--config.stages=ce,ce_early,average", *short)
    place = {path.name[3:]: path for path in (run / "stages").iterdir()}
    exports = {name: load_file(folder / "export" / "model.safetensors") for name, folder in place.items()}
    start = load_file(model / "model.safetensors")
    for name, value in exports["average"].items():
        np.testing.assert_allclose(value, (start[name] + exports["ce"][name]) / 2, rtol=1e-6, atol=1e-7, err_msg=name)
    lines = {
        name: [json.loads(line) for line in (place[name] / "metrics.jsonl").read_text().splitlines()]
        for name in ("ce", "ce_early")
    }
    assert lines["ce_early"] == lines["ce"][: len(lines["ce"]) // 2], "the same steps at the same learning rates"
    record = json.loads((place["average"] / "stage.json").read_text())
    assert record["start"] == f"{model}+ce"
    assert record["seen"]["training"] == ["de", "en"], "of both models that were averaged"
