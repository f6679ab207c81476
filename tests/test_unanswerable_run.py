# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run on files in the form of SQuAD 2: it learns to say that there is no answer, and so do all commands."""

import json
import pathlib
import shutil
from types import SimpleNamespace

import pytest
import toy_models

from xlkd import api, evaluate, predict
from xlkd.reports import files
from xlkd.train import stage

PEOPLE = ["Anna", "Tom", "Maria", "Ben", "Lea", "Max", "Eva", "Jan"]
PLACES = ["Riga", "Oslo", "Bonn", "Turin", "Lyon", "Graz"]


def write_squad2(path, shift=0, count=32):
    """Writes questions for a person, which the context answers, and for a reason, which it does not."""
    paragraphs = []
    for number in range(count):
        person, place = PEOPLE[(number + shift) % len(PEOPLE)], PLACES[(number // 2 + shift) % len(PLACES)]
        context = f"In the morning {person} went to {place} ."
        answer = {"text": person, "answer_start": context.index(person)}
        qas = [
            {"id": f"{number}-who", "question": f"who went to {place} ?", "answers": [answer], "is_impossible": False},
            {"id": f"{number}-why", "question": f"why did {person} go ?", "answers": [], "is_impossible": True,
             "plausible_answers": [answer]},
        ]  # fmt: skip
        paragraphs.append({"context": context, "qas": qas})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("squad2")


@pytest.fixture(scope="module")
def cache(folder):
    return folder / "cache"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, cache):
    monkeypatch.setenv("XLKD_CACHE", str(cache))


@pytest.fixture(scope="module")
def run(folder, cache):
    """Trains a toy model, and returns the log."""
    model = toy_models.save_span_model(folder, seed=1)
    data = {
        name: write_squad2(folder / f"{name}.json", shift) for name, shift in (("train", 0), ("dev", 3), ("test", 5))
    }
    flags = [
        "--config=configs/finetune.py",
        f"--config.encoder.path={model}",
        "--config.task.max_length=48",
        "--config.encoder.dropout=0",
        f"--config.data.train=squad:{data['train']}",
        f"--config.data.dev=squad:{data['dev']}",
        f"--config.data.eval=squad:{data['test']}",
        "--config.data.batch=16",
        "--config.data.buckets=1",
        "--config.optim.lr=5e-3",
        "--config.budget.epochs=12",
        f"--workdir={folder / 'run'}",
    ]
    done = toy_models.run_command("main", *flags, cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def get_stage(folder):
    return folder / "run" / "stages" / "01-finetune"


def read_json(path):
    return json.loads(path.read_text())


@pytest.mark.long
def test_a_model_learns_which_questions_have_no_answer(run, folder):
    assert "32 of 64 questions are unanswerable" in run
    cell = read_json(get_stage(folder) / "stage.json")["sets"]["eval"]["cells"]["squad en-en"]
    assert (cell["HasAns_total"], cell["NoAns_total"]) == (32, 32)
    assert cell["NoAns_f1"] > 90
    assert cell["HasAns_f1"] > 40
    assert cell["f1"] == pytest.approx((cell["NoAns_f1"] + cell["HasAns_f1"]) / 2)
    assert cell["best_f1"] >= cell["f1"]


@pytest.mark.long
def test_the_threshold_is_chosen_on_the_dev_set_and_exported(run, folder):
    record = read_json(get_stage(folder) / "stage.json")
    threshold = record["null_threshold"]
    assert threshold["origin"] == "chosen on config.data.dev"
    dev = record["sets"]["dev"]["cells"]["squad en-en"]
    assert threshold["value"] == dev["best_f1_thresh"]
    assert dev["f1"] == pytest.approx(dev["best_f1"], abs=1e-9)
    assert (
        record["sets"]["eval"]["null_threshold"]
        == threshold
        == read_json(get_stage(folder) / "export" / "xlkd.json")["null_threshold"]
    )
    assert record["seen"]["selection"] == ["en"], "labels of the dev set choose the threshold"
    assert (
        f"more than {threshold['value']:.6g} (chosen on config.data.dev)"
        in (get_stage(folder) / "export" / "README.md").read_text()
    )


@pytest.mark.long
def test_what_starts_from_the_model_inherits_its_threshold(run, folder, tmp_path):
    """From the folder of the run, and from a copy of the export alone."""
    export = get_stage(folder) / "export"
    threshold = read_json(export / "xlkd.json")["null_threshold"]
    copy = pathlib.Path(shutil.copytree(export, tmp_path / "copy"))
    for place in (export, copy):
        prior = stage.load_prior_training(SimpleNamespace(folder=place))
        assert prior["null_threshold"] == threshold
        assert prior["seen"]["training"] == ["en"]


@pytest.mark.long
def test_scores_that_were_lost_are_computed_again_with_the_same_threshold(run, folder, cache, tmp_path):
    copy = pathlib.Path(shutil.copytree(folder / "run", tmp_path / "run"))
    (lost,) = (copy / "stages" / "01-finetune" / "evaluation").glob("*-eval.json")
    expected = read_json(lost)
    lost.unlink()
    done = toy_models.run_command("main", f"--config={copy / 'config.json'}", f"--workdir={copy}", cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_json(lost) == expected


@pytest.mark.long
def test_the_report_has_the_official_numbers(run, folder):
    results = read_json(folder / "run" / "results.json")
    recorded = read_json(get_stage(folder) / "stage.json")["sets"]["eval"]
    shown = next(data for data in results["sets"].values() if data["in"] == "eval")["unanswerable"]["finetune"]
    assert shown["null_threshold"] == recorded["null_threshold"]
    official = {
        name: value for name, value in recorded["cells"]["squad en-en"].items() if name not in ("f1", "em", "n")
    }
    assert shown["cells"] == {"en-en": official}
    for name in ("report.txt", "report.html"):
        text = (folder / "run" / name).read_text()
        assert "en-en, HasAns_f1" in text
        assert "chosen on config.data.dev" in text
    rows = files.read_run(folder / "run").stages[0].rows("eval")
    assert {row["prediction"] for row in rows if row["id"].endswith("why")} == {""}
    assert all(row["span"] for row in rows)


@pytest.mark.long
def test_evaluate_has_the_scores_of_the_run(run, folder, tmp_path, capsys):
    export, data = get_stage(folder) / "export", f"squad:{folder / 'test.json'}"
    recorded = read_json(get_stage(folder) / "stage.json")["sets"]["eval"]
    evaluate.main([f"--model={export}", f"--data={data}", f"--json={tmp_path / 'own.json'}"])
    own = read_json(tmp_path / "own.json")
    assert own["null_threshold"] == recorded["null_threshold"]
    cell = own["sets"]["squad"]["cells"]["en-en"]
    assert cell.pop("languages") == ["en", "en"]
    assert cell == pytest.approx(recorded["cells"]["squad en-en"], abs=1e-6)
    assert "NoAns F1" in capsys.readouterr().out
    never = [f"--model={export}", f"--data={data}", "--null_threshold=1e6", f"--json={tmp_path / 'never.json'}"]
    evaluate.main(never)
    cell = read_json(tmp_path / "never.json")["sets"]["squad"]["cells"]["en-en"]
    assert cell["NoAns_f1"] == 0
    assert cell["best_f1"] == pytest.approx(recorded["cells"]["squad en-en"]["best_f1"], abs=1e-6)


@pytest.mark.long
def test_predict_says_that_there_is_no_answer(run, folder, capsys):
    context, export = "In the morning Tom went to Riga .", get_stage(folder) / "export"
    answers = {}
    for question in ("who went to Riga ?", "why did Tom go ?"):
        predict.main([f"--model={export}", f"--question={question}", f"--context={context}", "--n_best=1"])
        answers[question[:3]] = json.loads(capsys.readouterr().out)
    threshold = read_json(export / "xlkd.json")["null_threshold"]["value"]
    why, who = answers["why"], answers["who"]
    assert (why["answer"], why["start"], why["end"], why["n_best"][0]["text"]) == ("", -1, -1, "")
    assert who["answer"] == context[who["start"] : who["end"]] != ""
    assert [each["text"] for each in who["n_best"]] == [who["answer"], ""], "no answer is always listed"
    assert who["null_odds"] < threshold < why["null_odds"]
    assert 0 < why["probability"] <= 1
    assert api.load(export).answer("why did Tom go ?", context)["answer"] == ""
    predict.main([f"--model={export}", "--question=why did Tom go ?", f"--context={context}", "--null_threshold=1e6"])
    assert json.loads(capsys.readouterr().out)["answer"] != ""
