# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `evaluate`: the same scores on any devices and batches, other systems' answers, clear errors."""

import json
import pathlib
import subprocess
import sys

import pytest
from toy_models import DATA, RECORD, run_command, save_span_model

from xlkd import evaluate
from xlkd.data import sources
from xlkd.errors import UserError

GRID = "atlas?split=validation&size=4&languages=en,de&pairs=all"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def model(folder):
    return save_span_model(folder, RECORD)


@pytest.fixture(scope="module")
def cache(folder):
    return folder / "cache"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, cache):
    monkeypatch.setenv("XLKD_CACHE", str(cache))


def run_evaluate(file, *flags) -> dict:
    evaluate.main([*flags, f"--json={file}"])
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def reference_run(model, folder, cache):
    """Runs the command in another process on one device; returns its output and the scores that it wrote."""
    done = run_command("evaluate", f"--model={model}", f"--data={DATA}", f"--json={folder / 'whole.json'}", cache=cache)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "whole.json").read_text())


def test_the_table_names_cells_questions_and_averages(reference_run):
    printed, scores = reference_run
    cells = scores["sets"]["atlas"]["cells"]
    assert {name: cell["n"] for name, cell in cells.items()} == {"en-en": 20, "de-de": 20}
    mean = (cells["en-en"]["f1"] + cells["de-de"]["f1"]) / 2
    assert scores["sets"]["atlas"]["averages"]["xlt"]["f1"] == scores["mean"]["f1"] == pytest.approx(mean, abs=1e-12)
    lines = {line.split()[0]: line.split()[1:] for line in printed.splitlines()}
    assert lines["en-en"] == [f"{cells['en-en']['f1']:.2f}", f"{cells['en-en']['em']:.2f}", "20"]
    assert lines["xlt"][:2] == [f"{mean:.2f}", f"{scores['mean']['em']:.2f}"]


def test_scores_depend_on_neither_batch_nor_devices(reference_run, model, folder, cache, tmp_path):
    reference = reference_run[1]
    assert reference["mean"]["f1"] > 1  # some answers share a word with the gold answer
    assert not reference["near_ties"]
    assert (
        run_evaluate(tmp_path / "7.json", f"--model={model}", f"--data={DATA}", "--batch=7")["sets"]
        == reference["sets"]
    )
    flags = (f"--model={model}", f"--data={DATA}", f"--json={tmp_path / '8.json'}", "--batch=20")
    assert run_command("evaluate", *flags, cache=cache, devices=8).returncode == 0
    assert json.loads((tmp_path / "8.json").read_text())["sets"] == reference["sets"]


def test_flags_override_the_settings_of_the_model(reference_run, model, tmp_path):
    assert (reference_run[1]["task"]["max_length"], reference_run[1]["task"]["doc_stride"]) == (64, 24)
    report = run_evaluate(tmp_path / "a.json", f"--model={model}", f"--data={DATA}", "--max_answer_tokens=1")
    assert (report["task"]["max_answer_tokens"], report["task"]["max_length"]) == (1, 64)
    assert report["sets"] != reference_run[1]["sets"]


@pytest.mark.long
def test_an_exported_model_has_the_scores_of_its_run(model, cache, tmp_path):
    flags = [
        "--config=configs/finetune.py",
        f"--config.encoder.path={model}",
        "--config.task.max_length=80",
        "--config.data.train=atlas?split=train&size=16&languages=en",
        f"--config.data.eval={DATA}",
        "--config.optim.lr=1e-2",
        "--config.data.buckets=1",
        f"--workdir={tmp_path / 'run'}",
    ]
    trained = run_command("main", *flags, cache=cache)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    written = json.loads((tmp_path / "run" / "results.json").read_text())["stages"]["finetune"]["sets"]["eval"]
    export = tmp_path / "run" / "stages" / "01-finetune" / "export"
    assert json.loads((export / "xlkd.json").read_text())["task"]["max_length"] == 80
    report = run_evaluate(tmp_path / "found.json", f"--model={export}", f"--data={DATA}", "--batch=5")
    cells = {f"atlas {name}": cell for name, cell in report["sets"]["atlas"]["cells"].items()}
    assert {name: cell.pop("languages") for name, cell in cells.items()} == written["languages"]
    assert cells == written["cells"]
    assert report["mean"]["f1"] == pytest.approx(written["mean"], abs=1e-12)
    with pytest.raises(UserError, match=r"a run's folder, not a model; give what it exported: .*01-finetune/export"):
        evaluate.main([f"--model={tmp_path / 'run'}", f"--data={DATA}"])


def collect_answers(rows, wrong=()) -> dict[str, str]:
    return {row.id: "zzz" if row.id in wrong else row.answers[0].text for row in rows}


def group_by_cell(text):
    cells = {}
    for row in sources.read(text, "qa"):
        cells.setdefault((row.context_language, row.question_language), []).append(row)
    return cells


def test_answers_of_another_system_are_read_from_one_file_per_cell(tmp_path):
    for (context, question), rows in group_by_cell(GRID).items():
        wrong = {rows[0].id} if (context, question) == ("de", "en") else ()
        name = f"dev-context-{context}-question-{question}.json"
        (tmp_path / name).write_text(json.dumps(collect_answers(rows, wrong)))
    report = run_evaluate(tmp_path.with_suffix(".json"), f"--predictions={tmp_path}", f"--data={GRID}")
    scores = {name: cell["f1"] for name, cell in report["sets"]["atlas"]["cells"].items()}
    assert scores == {"en-en": 100, "en-de": 75, "de-en": 100, "de-de": 100}  # asked in English about German text
    averages = report["sets"]["atlas"]["averages"]
    assert (averages["xlt"]["f1"], averages["gxlt_off"]["f1"], averages["worst"]["f1_cell"]) == (100, 87.5, "en-de")


def test_questions_without_an_answer_are_wrong_and_counted_as_missing(tmp_path):
    data = "atlas?size=4&languages=en"
    answers = collect_answers(sources.read(data, "qa"))
    answers.pop(next(iter(answers)))
    (tmp_path / "answers.json").write_text(json.dumps(answers | {"nobody": "asked this"}))
    report = run_evaluate(tmp_path / "out.json", f"--predictions={tmp_path / 'answers.json'}", f"--data={data}")
    assert report["sets"]["atlas"]["cells"]["en-en"] == {
        "languages": ["en", "en"], "f1": 75.0, "em": 75.0, "n": 4, "missing": 1
    }  # fmt: skip


def write_xquad(folder, *languages):
    text = {"en": "It was Anna who went.", "de": "Anna ging fort."}
    for language in languages:
        answer = {"text": "Anna", "answer_start": text[language].index("Anna")}
        entry = {"id": "same", "question": "who?", "answers": [answer]}
        document = {"version": "1.1", "data": [{"paragraphs": [{"context": text[language], "qas": [entry]}]}]}
        (folder / f"xquad.{language}.json").write_text(json.dumps(document))
    return f"xquad:{folder}"


def test_files_of_answers_may_be_named_like_the_data_files(tmp_path):
    data, answers = tmp_path / "data", tmp_path / "answers"
    data.mkdir()
    answers.mkdir()
    source = write_xquad(data, "en", "de")
    (answers / "xquad.en.json").write_text('{"same": "Anna"}')
    (answers / "xquad.de.json").write_text('{"same": "Berta"}')
    report = run_evaluate(tmp_path / "out.json", f"--predictions={answers}", f"--data={source}")
    assert {name: cell["em"] for name, cell in report["sets"]["xquad"]["cells"].items()} == {"en-en": 100, "de-de": 0}
    title = report["sets"]["xquad"]["averages"]["xquad_11"]["title"]
    assert title.startswith("2 of 11 cells of xquad_11 (missing: ")
    with pytest.raises(UserError, match="one file for 2 cells that share ids"):
        evaluate.main([f"--predictions={answers / 'xquad.en.json'}", f"--data={source}"])
    (answers / "xquad.de.json").unlink()
    with pytest.raises(
        UserError, match=r"no file for questions in de about contexts in de; name it context-de-question-de\.json"
    ):
        evaluate.main([f"--predictions={answers}", f"--data={source}"])


FAULTS = {
    "nothing": ([], "give either --model or --predictions"),
    "both": (["--model=a", "--predictions=b", "--data=atlas"], "give either"),
    "no data": (["--model=a"], "no --data given"),
    "a misspelt flag": (["--modle=a"], "did you mean --model?"),
    "a value is missing": (["--data"], "--data needs a value"),
    "a word for a number": (["--model=MODEL", f"--data={DATA}", "--max_length=long"], "--max_length=long is not"),
    "no batch": (["--model=MODEL", f"--data={DATA}", "--batch=0"], "--batch=0"),
    "no such model": (["--model=/nowhere", f"--data={DATA}"], "/nowhere: no such directory"),
    "windows too long": (["--model=MODEL", f"--data={DATA}&facts=8", "--max_length=200"], "a model of 128 positions"),
    "nowhere to write": (["--model=MODEL", f"--data={DATA}", "--json=/nowhere/a.json"], "/nowhere/a.json: cannot be"),
    "a setting of a model": (["--predictions=a", f"--data={DATA}", "--n_best=3"], "--n_best needs --model"),
    "a threshold in words": (
        ["--model=MODEL", f"--data={DATA}", "--null_threshold=low"],
        "--null_threshold=low is not",
    ),
    "a threshold of answers": (["--predictions=a", f"--data={DATA}", "--null_threshold=1"], "--null_threshold needs"),
    "no predictions": (["--predictions=/nowhere.json", "--data=atlas?languages=en"], "/nowhere.json: cannot be read"),
    "another task": (["--model=MODEL", f"--data={DATA}", "--task=parallel"], "--task=parallel is not possible"),
}


@pytest.mark.parametrize(("flags", "message"), FAULTS.values(), ids=FAULTS)
def test_bad_flags_are_refused(model, flags, message):
    with pytest.raises(UserError) as error:
        evaluate.main([flag.replace("MODEL", str(model)) for flag in flags])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": ', "broken JSON"),
        ("[1]", "not a JSON object {id: answer}"),
        ('{"ID": null}', "NoneType, not a string"),
        ('{"ID": "a", "ID": "b"}', "the id 'ID' occurs twice"),
        ('{"other": "Anna"}', "has answers to none of the questions"),
        ("\udcff", "not UTF-8 at byte 0"),
    ],
)
def test_a_bad_file_of_predictions_is_named_and_nothing_is_written(tmp_path, content, message):
    data = "atlas?size=2&languages=en"
    path = tmp_path / "answers.json"
    first = sources.read(data, "qa")[0].id
    content, message = content.replace("ID", first), message.replace("ID", first)
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        evaluate.main([f"--predictions={path}", f"--data={data}", f"--json={tmp_path / 'out.json'}"])
    assert str(path) in str(error.value)
    assert not (tmp_path / "out.json").exists()


def test_a_model_without_a_head_is_refused(tmp_path, model):
    from xlkd.models import hf

    base = hf.load(model)
    encoder_only = hf.save(tmp_path / "bare", base.architecture, {"encoder": base.params["encoder"]}, tokenizer=model)
    with pytest.raises(UserError, match="has no question answering head; train one"):
        evaluate.main([f"--model={encoder_only}", f"--data={DATA}"])


def test_bad_rows_stop_the_command_or_are_listed(tmp_path, capsys):
    write_xquad(tmp_path, "en")
    document = json.loads((tmp_path / "xquad.en.json").read_text())
    document["data"][0]["paragraphs"][0]["qas"].append({"id": "bad", "question": "", "answers": []})
    (tmp_path / "xquad.en.json").write_text(json.dumps(document))
    answers = tmp_path / "answers.json"
    answers.write_text('{"same": "Anna"}')
    flags = [f"--predictions={answers}", f"--data=xquad:{tmp_path}?languages=en"]
    with pytest.raises(UserError, match=r"empty question; fix the row or set --on_bad_row=skip$"):
        evaluate.main(flags)
    evaluate.main([*flags, "--on_bad_row=skip"])
    assert "qas[1] (id 'bad'): empty question" in capsys.readouterr().err


def test_help_and_predictions_need_no_jax_and_a_closed_pipe_is_no_error(tmp_path):
    answers = tmp_path / "answers.json"
    answers.write_text("{}")
    flags = [f"--predictions={answers}", "--data=atlas?size=2&languages=en", f"--json={tmp_path / 'out.json'}"]
    code = "import sys; sys.modules['jax'] = None; from xlkd import evaluate; evaluate.main(sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *flags], check=True, capture_output=True)
    (tmp_path / "out.json").unlink()
    command = [sys.executable, "-m", "xlkd.evaluate"]
    process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (0, b"")
    assert (tmp_path / "out.json").exists()
    code = "import runpy, sys; sys.modules['jax'] = None; runpy.run_module('xlkd.evaluate', run_name='__main__', alter_sys=True)"
    shown = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--predictions=PATH" in shown.stdout


@pytest.mark.shared
def test_mlqa_gold_answers_score_100_in_every_cell(shared_data, tmp_path):
    data = f"mlqa:{shared_data / 'mlqa_dev'}?pairs=all"
    for (context, question), rows in group_by_cell(data).items():
        (tmp_path / f"dev-context-{context}-question-{question}.json").write_text(json.dumps(collect_answers(rows)))
    report = run_evaluate(tmp_path.with_suffix(".json"), f"--predictions={tmp_path}", f"--data={data}")
    cells = report["sets"]["mlqa"]["cells"]
    assert len(cells) == 49
    assert all(cell["em"] == 100 and cell["missing"] == 0 for cell in cells.values())
    assert report["sets"]["mlqa"]["averages"]["gxlt"]["title"] == "gxlt"
    assert pathlib.Path(report["predictions"]) == tmp_path
