# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sweeps: several runs of the controls from one start, which is trained once."""

import json
import os
import subprocess
import sys

import pytest
import toy_models

from xlkd import sweep as sweeps
from xlkd.errors import UserError

FLAGS = [
    "--config=configs/gxlt.py",
    "--config.stages=english,zs,ce",
    "--config.english.data.train=atlas?split=train&size=8&languages=en&facts=2",
    "--config.english.data.eval=atlas?split=test&size=2&languages=en&facts=2",
    "--config.data.train=atlas?split=train&size=4&languages=en,de&facts=2",
    "--config.data.eval=atlas?split=test&size=4&languages=en,de&facts=2&pairs=all",
    "--config.data.batch=8",
    "--config.data.buckets=1",
    "--config.budget.epochs=1",
    "--config.task.max_length=96",
]


def run_sweep(model, workdir, *flags):
    environment = os.environ | {"XLKD_CACHE": str(model.parent / "cache"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "xlkd.sweep", f"--workdir={workdir}", *flags]
    return subprocess.run(
        [*command, *FLAGS, f"--config.encoder.path={model}"],
        env=environment,
        cwd=toy_models.ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_models.save_span_model(tmp_path_factory.mktemp("toy"), toy_models.RECORD)


@pytest.mark.long
def test_the_start_is_trained_once_and_runs_are_compared_as_seeds(model, tmp_path):
    process = run_sweep(model, tmp_path / "sweep", "--over=seed=0,1")
    assert process.returncode == 0, process.stdout + process.stderr
    folders = sorted(folder.name for folder in (tmp_path / "sweep").iterdir() if folder.is_dir())
    assert folders == ["seed=0", "seed=1", "start"]
    assert [len(list((tmp_path / "sweep" / name / "stages").iterdir())) for name in folders] == [2, 2, 1]
    numbers = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert numbers["stages"]["ce"]["seeds"] == [0, 1]

    rerun = run_sweep(model, tmp_path / "sweep", "--over=seed=0,1")
    assert rerun.returncode == 0
    assert "compiled" not in rerun.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--over=seed"], "write KEY=A,B"),
        (["--over=sead=1"], "did you mean"),
        ([], "no --over given"),
        (["--over=seed=1", "--config.controls="], "0 controls"),
        (["--over=english.optim.lr=1e-4,5e-4"], "used only by stage english"),
        (["--over=encoder.path=a,b"], "used only by stage english"),
    ],
)
def test_impossible_sweeps_are_refused(model, tmp_path, monkeypatch, flags, message):
    monkeypatch.setenv("XLKD_CACHE", str(model.parent / "cache"))
    with pytest.raises(UserError) as error:
        sweeps.main([f"--workdir={tmp_path / 'sweep'}", *flags, *FLAGS, f"--config.encoder.path={model}"])
    assert message in str(error.value)
    assert not (tmp_path / "sweep").exists()
