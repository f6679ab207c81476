# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `check` reports every fault of every source, what the data contains, and how a tokenizer splits it."""

import json

import pytest
from toy_models import DATA, RECORD, save_span_model

from xlkd import check
from xlkd.errors import DONE, USER_INPUT, UserError


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path_factory.getbasetemp() / "check-cache"))


def run_check(file, *flags, code=DONE) -> dict:
    assert check.main([*flags, f"--json={file}"]) == code
    return json.loads(file.read_text())


def write_squad(path, *questions, context="It was Anna who went."):
    qas = [
        {"id": id, "question": question, "answers": [{"text": text, "answer_start": start}]}
        for id, question, text, start in questions
    ]
    path.write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": [{"context": context, "qas": qas}]}]}))
    return path


GOOD = ("good", "who?", "Anna", 7)


def test_all_faults_of_all_sources_are_listed(tmp_path, capsys):
    first = write_squad(tmp_path / "a.json", GOOD, ("b", "who?", "Anna", 3), ("c", "", "Anna", 7))
    second = write_squad(tmp_path / "b.json", ("d", "who?", "Berta", 3))
    data = f"squad:{first}+squad:{tmp_path / 'none.json'}+squad:{second}"
    report = run_check(tmp_path / "out.json", f"--data={data}", code=USER_INPUT)
    faults = capsys.readouterr().err.splitlines()
    assert [fault.partition("; ")[0] for fault in faults] == [
        f"{first}: data[0].paragraphs[0].qas[1] (id 'b'): wrong offset: answer 'Anna' is not at character 3 but at 7",
        f"{first}: data[0].paragraphs[0].qas[2] (id 'c'): empty question",
        f"{tmp_path / 'none.json'}: no such file",
        f"{second}: data[0].paragraphs[0].qas[0] (id 'd'): answer not in the context: 'Berta'",
    ]
    assert report["faults"] == faults
    assert report["rows"] == 1


def test_rows_groups_and_lengths_by_cell(tmp_path, capsys):
    file = write_squad(tmp_path / "a.json", GOOD, ("b", "who went?", "Anna who", 7))
    report = run_check(tmp_path / "out.json", f"--data=squad:{file}?languages=de")
    assert report["cells"] == {
        "squad de-de": {
            "rows": 2,
            "groups": 1,
            "characters": {"context": [21, 21, 21], "question": [6.5, 8.8, 9], "answer": [6, 7.8, 8]},
        }
    }
    assert "squad de-de" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "cells", "parts"),
    [
        ("qa", {"atlas en-en", "atlas de-de"}, {"context", "question", "answer"}),
        ("parallel", {"atlas en-de"}, {"source", "target"}),
        ("classify", {"atlas en", "atlas de"}, {"text", "second"}),
    ],
)
def test_every_task_has_a_report(tmp_path, task, cells, parts):
    report = run_check(tmp_path / "out.json", f"--data={DATA}", f"--task={task}")
    assert set(report["cells"]) == cells
    assert all(set(cell["characters"]) == parts for cell in report["cells"].values())
    labels = [sum(cell["labels"].values()) == cell["rows"] for cell in report["cells"].values() if "labels" in cell]
    assert labels == ([True, True] if task == "classify" else [])


def test_pairs_that_cleaning_leaves_out_are_counted_and_are_no_faults(tmp_path, capsys):
    (tmp_path / "corpus.en").write_text("Anna wrote a letter.\nsame\n\n")
    (tmp_path / "corpus.de").write_text("Anna schrieb einen Brief.\nsame\nx\n")
    report = run_check(tmp_path / "out.json", f"--data=moses:{tmp_path / 'corpus'}?languages=en,de")
    assert (report["rows"], report["faults"]) == (1, [])
    assert sorted(report["left_out"]) == ["empty: 1 of 3 pairs", "identical sides: 1 of 3 pairs"]
    assert "left out: empty: 1 of 3 pairs" in capsys.readouterr().out


def test_with_a_tokenizer_windows_and_reachable_answers_are_reported(tmp_path, capsys):
    model = save_span_model(tmp_path, RECORD)
    (model / "model.safetensors").unlink()  # no weights are read
    flags = (f"--data={DATA}", "--task=qa", f"--model={model}", "--buckets=2")
    windows = run_check(tmp_path / "out.json", *flags)["windows"]
    assert windows["settings"]["max_length"] == 64
    assert windows["windows"] > 40
    assert len(windows["buckets"]) == 2
    assert windows["padding"] < windows["padding_at_longest"]
    spans = windows["task"]["spans"]
    assert {language: values["exact"] for language, values in spans.items()} == {"de": 20, "en": 20}
    assert windows["task"]["ceilings"]["en"]["f1"] == 100
    assert "unreachable" in capsys.readouterr().out
    longer = run_check(tmp_path / "out.json", *flags, "--max_length=120")["windows"]
    assert longer["windows"] < windows["windows"]


def test_pairs_of_sentences_with_a_tokenizer(tmp_path, capsys):
    model = save_span_model(tmp_path, RECORD)
    report = run_check(
        tmp_path / "out.json", f"--data={DATA}", "--task=parallel", f"--model={model}", "--max_length=12"
    )
    assert report["windows"]["task"]["shown"] in capsys.readouterr().out
    assert max(int(shape.split()[-1]) for shape in report["windows"]["buckets"]) == 16  # 12 tokens, rounded up


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no --data"),
        (["--data=atlas"], "has data for several tasks (qa, classify, parallel, masked); choose one with --task"),
        (["--data=sqad:x"], "did you mean 'squad'?"),
        (["--data=atlas", "--task=qa", "--max_length=3"], "--max_length needs a tokenizer; add --model"),
        (["--data=atlas", "--tsk=qa"], "did you mean --task?"),
    ],
)
def test_bad_flags_are_refused(flags, message):
    with pytest.raises(UserError) as error:
        check.main(flags)
    assert message in str(error.value)


def test_a_source_without_rows_is_a_fault(tmp_path, capsys):
    path = tmp_path / "empty.json"
    path.write_text('{"version": "1.1", "data": []}')
    assert check.main([f"--data=squad:{path}"]) == USER_INPUT
    assert capsys.readouterr().err == f"squad:{path}: no rows\n"


def test_unanswerable_questions_are_counted(tmp_path, capsys):
    document = {"data": [{"paragraphs": [{"context": "It was Anna.", "qas": [
        {"id": "a", "question": "who?", "answers": [{"text": "Anna", "answer_start": 7}]},
        {"id": "b", "question": "when?", "answers": [], "is_impossible": True},
    ]}]}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(document))
    report = run_check(tmp_path / "out.json", f"--data=squad:{tmp_path / 'a.json'}")
    assert report["cells"]["squad en-en"]["unanswerable"] == 1
    assert "1 unanswerable" in capsys.readouterr().out
