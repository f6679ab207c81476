# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs and exports of version 0.1: they resume, are evaluated and reported, and their models answer.

`golden/run-0.1/run` was stopped by SIGTERM at step 8 of its third stage; it lacks the checkpoints of the finished
stages. `golden/run-0.1/branches` is the export of an MBLM student with three branches.
"""

import json
import pathlib
import shutil

import toy_models

import xlkd
from xlkd import evaluate, report

GOLDEN = pathlib.Path(__file__).parent / "golden" / "run-0.1"


FORMER_DEFAULTS = {  # values of the config that have changed since
    "data.ntl": "1",
    "encoder.dropout": "0.1",
    "english.encoder.dropout": "0",
    "english.optim.lr": "5e-4",
    "method.generation_epochs": "1",
    "method.k": "10",
    "method.window": "5,4",
}


def read_flags(run: pathlib.Path) -> list[str]:
    """Returns the flags that a run was started with, except --workdir, and those that restore former defaults.

    The former controls are those of the variant `ablation`.
    """
    command = json.loads((run / "environment.json").read_text())["command"]
    flags = [flag for flag in command[3:] if not flag.startswith("--workdir")]
    former = [f"--config.{key}={value}" for key, value in FORMER_DEFAULTS.items()]
    return [flag.replace("configs/gxlt.py", "configs/gxlt.py:ablation") for flag in flags] + former


def test_a_stopped_run_resumes_and_its_report_evaluation_and_answers_work(tmp_path, capsys, monkeypatch):
    run, cache = tmp_path / "run", tmp_path / "cache"
    monkeypatch.setenv("XLKD_CACHE", str(cache))
    shutil.copytree(GOLDEN / "run", run)
    resumed = toy_models.run_command("main", *read_flags(run), f"--workdir={run}", cache=cache)
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    assert resumed.stdout.count("finished before") == 2
    assert "restored step 8" in resumed.stdout
    steps = [json.loads(line)["step"] for line in (run / "stages/03-skd_map/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 53, 2))
    results = json.loads((run / "results.json").read_text())
    systems = results["sets"]["atlas"]["systems"]
    assert {name: "em_at" in scores for name, scores in systems.items()} == {
        "english": False,
        "ce": False,
        "skd_map": True,
    }, "answers of version 0.1 have no ranks"

    report.main([str(run)])
    assert "skd_map" in (run / "report.txt").read_text()

    model = run / "stages" / "02-ce" / "export"
    data = "atlas?split=test&languages=en,de&size=4&pairs=all&facts=2"
    capsys.readouterr()
    evaluate.main([f"--model={model}", f"--data={data}"])
    (printed,) = [line.split()[-3:] for line in capsys.readouterr().out.splitlines() if line.startswith("all cells")]
    recorded = json.loads((run / "stages/02-ce/evaluation/52-eval.json").read_text())["cells"].values()
    assert float(printed[0]) == round(sum(cell["f1"] for cell in recorded) / len(recorded), 2)

    answer = xlkd.load(model).answer("Who went?", "It was Anna who went.")
    assert answer["answer"] in "It was Anna who went."


def test_a_student_with_branches_classifies_texts_by_every_route():
    model = xlkd.load(GOLDEN / "branches")
    assert model.classify("Anna ging.", "Anna blieb.", language="de")["route"] == "de"
    assert model.classify("Anna ging.", "Anna blieb.")["route"] == "mixture"
    assert model.branch("ru").architecture.layers == 2
