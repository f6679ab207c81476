# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sweeps: several runs, from one start that is trained once where their config has stages before the controls."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import toy_models

from xlkd import settings
from xlkd import sweep as sweeps
from xlkd.errors import UserError
from xlkd.reports import draws

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
    command = [sys.executable, "-m", "xlkd.sweep", f"--workdir={workdir}", *FLAGS, f"--config.encoder.path={model}"]
    return subprocess.run(
        [*command, *flags],
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


@pytest.mark.long
def test_the_draws_of_a_study_keep_their_numbers_and_are_not_repeated(model, tmp_path):
    results, compared = tmp_path / "results", ["--config.report.compare=ce:zs", "--config.report.primary=ce:zs"]
    flags = [*compared, "--config.report.judged_by=atlas/gxlt_off/f1", f"--results={results}"]
    process = run_sweep(model, tmp_path / "sweep", "--over=seed=0,1", *flags)
    assert process.returncode == 0, process.stdout + process.stderr
    assert sorted(path.name for path in results.iterdir()) == ["seed=0.json", "seed=1.json", "start.json"]
    assert "2 draws, atlas/gxlt_off/f1\nce − zs: " in process.stdout
    assert json.loads((tmp_path / "sweep" / "results.json").read_text())["sets"]["atlas"]["draws"] == [0, 1]
    record = draws.read_record(results / "seed=1.json")
    assert record["seed"] == 1
    assert record["curves"]["ce"]["step"]
    assert {"git", "processor", "packages", "command"} <= record["provenance"].keys()
    assert list(record["sets"]["atlas"]["systems"]) == ["zs", "ce"]
    scores = record["sets"]["atlas"]["systems"]["ce"]
    assert len(scores["em_at"]["gxlt_off"]) == 10
    assert scores["em_at"]["gxlt_off"][0] == pytest.approx(scores["averages"]["gxlt_off"]["em"][0], abs=1e-5)

    content = (results / "seed=0.json").read_bytes()
    (results / "seed=1.json").unlink()  # as on a machine that has the committed files alone
    elsewhere = run_sweep(model, tmp_path / "elsewhere", "--over=seed=0,1", *flags)
    assert elsewhere.returncode == 0, elsewhere.stdout + elsewhere.stderr
    assert not (tmp_path / "elsewhere" / "seed=0").exists()
    assert "no report of all draws: the runs of seed=0 are not in" in elsewhere.stdout
    assert (results / "seed=0.json").read_bytes() == content
    repeated = draws.read_record(results / "seed=1.json")
    assert draws.measure_deviation(repeated, record)[0] == 0

    changed = json.loads(content)
    changed["sets"]["atlas"]["systems"]["zs"]["averages"]["gxlt"]["f1"][0] += 2
    (results / "seed=0.json").write_text(json.dumps(changed))
    again = run_sweep(model, tmp_path / "sweep", "--over=seed=0", "--again", *flags)
    assert again.returncode == 2
    assert "seed=0.json: seed=0, repeated: averages differ by at most 2.00 points (atlas, zs, gxlt, f1)" in again.stderr


@pytest.mark.long
def test_a_config_without_a_shared_stage_is_repeated_whole(model, tmp_path):
    trained = run_sweep(model, tmp_path / "rates", "--config.controls=", "--over=optim.lr=1e-3,1e-4")
    assert trained.returncode == 0, trained.stdout + trained.stderr
    folders = sorted(folder.name for folder in (tmp_path / "rates").iterdir() if folder.is_dir())
    assert folders == ["optim.lr=1e-3", "optim.lr=1e-4"]
    assert all(len(list((tmp_path / "rates" / name / "stages").iterdir())) == 3 for name in folders)

    export = tmp_path / "rates" / folders[0] / "stages" / "01-english" / "export"
    judged = ["--config.report.compare=ce:zs", "--config.report.primary=ce:zs"]
    flags = [*judged, f"--results={tmp_path / 'results'}", f"--config.start={export}", "--config.stages=zs,ce"]
    wrong = run_sweep(
        model, tmp_path / "study", *flags, "--over=seed=0,1", "--config.report.judged_by=atlas/gxlt_of/f1"
    )
    assert wrong.returncode == 2
    assert "no scores of 'atlas/gxlt_of/f1': 'gxlt_of' is not among them" in wrong.stderr
    assert not list((tmp_path / "results").iterdir())

    flags.append("--config.report.judged_by=atlas/gxlt_off/f1")
    first = run_sweep(model, tmp_path / "study", *flags, "--over=seed=0")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "compiled" not in first.stdout, "the draw was trained before"
    study = run_sweep(model, tmp_path / "study", *flags, "--over=seed=0,1")
    assert study.returncode == 0, study.stdout + study.stderr
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["seed=0.json", "seed=1.json"]
    assert "2 draws, atlas/gxlt_off/f1\nce − zs: " in study.stdout


@pytest.mark.parametrize(
    ("flags", "folders", "stages"),
    [
        ([], ["start", "seed=0", "seed=1"], ("zs", "ce")),
        (["--config.start=model", "--config.stages=zs,ce"], ["seed=0", "seed=1"], ("zs", "ce")),
        (["--config.controls="], ["seed=0", "seed=1"], ("english", "zs", "ce")),
        (["--config.stages=english"], ["seed=0", "seed=1"], ("english",)),
    ],
    ids=["a stage before the controls", "controls alone", "no controls", "no control among the stages"],
)
def test_a_start_is_trained_only_where_runs_share_stages(tmp_path, monkeypatch, flags, folders, stages):
    runs = {}
    monkeypatch.setattr("xlkd.train.run.run", lambda config, folder, command: runs.update({folder: config}))
    monkeypatch.setattr("xlkd.reports.write", lambda *arguments: None)
    sweeps.main([f"--workdir={tmp_path}", "--over=seed=0,1", *FLAGS, *flags])
    assert [pathlib.Path(folder).name for folder in runs] == folders
    assert runs[str(tmp_path / "seed=1")].stages == stages


def test_a_changed_stage_before_the_controls_is_another_start(model, tmp_path):
    def choose(*flags):
        config = settings.apply_flags(settings.read_config("configs/gxlt.py"), [*FLAGS[1:], *flags])
        return config, sweeps._choose_start(first, config, ["english"])

    first = settings.apply_flags(settings.read_config("configs/gxlt.py"), FLAGS[1:])
    assert choose("--config.seed=5")[1].name == choose("--config.optim.lr=1e-3")[1].name == "start"
    config, start = choose("--config.english.seed=5", "--config.seed=7", "--config.ce.start=english+zs")
    assert re.fullmatch("start-[0-9a-f]{8}", start.name)
    assert start.name == choose("--config.english.seed=5")[1].name
    assert (start.config.english.seed, start.config.seed, start.config.stages) == (5, 0, ("english",))
    run = start.replace_names(config, tmp_path)
    export = f"{tmp_path}/stages/01-english/export"
    assert (run.start, run.ce.start, run.stages, run.seed) == (export, f"{export}+zs", ("zs", "ce"), 7)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--over=seed"], "write KEY=A,B"),
        (["--over=sead=1"], "did you mean"),
        ([], "no --over given"),
        (["--over=seed=1", "--again"], "give --results too"),
        (["--over=data.ntl=1,2", "--results=results"], "draws of one study do not differ in data.ntl"),
        (["--over=seed=1", "--results=results"], "config.report.primary: is empty"),
        (["--over=seed=1", "--config.report.judged_by=f1"], "'f1' is not SET/AVERAGE/METRIC"),
        (["--over=encoder.path=a,b"], "used only by stage english"),
    ],
)
def test_impossible_sweeps_are_refused(model, tmp_path, monkeypatch, flags, message):
    monkeypatch.setenv("XLKD_CACHE", str(model.parent / "cache"))
    with pytest.raises(UserError) as error:
        sweeps.main([f"--workdir={tmp_path / 'sweep'}", *flags, *FLAGS, f"--config.encoder.path={model}"])
    assert message in str(error.value)
    assert not (tmp_path / "sweep").exists()
