# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The two official metrics of answers: golden cases from the official scripts, and refused predictions."""

import hashlib
import json
import pathlib

import pytest

from xlkd.errors import UserError
from xlkd.metrics import mlqa, squad
from xlkd.rows import Answer, Cell, Question
from xlkd.tasks.scores import score_file

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "qa_metrics.json").read_text(encoding="utf-8"))
CASES = [pytest.param(case, id=f"{n}-{case['lang']}") for n, case in enumerate(GOLDEN["cases"])]


@pytest.mark.parametrize("case", CASES)
def test_squad_golden(case):
    prediction, golds = case["prediction"], case["golds"]
    assert [squad.normalise(text) for text in [prediction, *golds]] == case["squad_norm"], case["why"]
    assert squad.em(prediction, golds) == case["squad_em"], case["why"]
    assert squad.f1(prediction, golds) == pytest.approx(case["squad_f1"], abs=1e-12), case["why"]


@pytest.mark.parametrize("case", CASES)
def test_mlqa_golden(case):
    prediction, golds, language = case["prediction"], case["golds"], case["lang"]
    if case["mlqa_em"] is None:
        with pytest.raises(UserError, match="ar, de, en, es, hi, vi, zh"):
            mlqa.em(prediction, golds, language)
        name, fallback = "mlqa_fallback", True
    else:
        name, fallback = "mlqa", False
    assert [mlqa.normalise(text, language, fallback) for text in [prediction, *golds]] == case[f"{name}_norm"]
    assert mlqa.em(prediction, golds, language, fallback) == case[f"{name}_em"], case["why"]
    assert mlqa.f1(prediction, golds, language, fallback) == pytest.approx(case[f"{name}_f1"], abs=1e-12), case["why"]


def test_punctuation_table_golden():
    points = mlqa.list_punctuation()
    digest = hashlib.sha256(",".join(f"{point:04X}" for point in points).encode()).hexdigest()
    assert (len(points), digest) == (GOLDEN["punctuation"]["count"], GOLDEN["punctuation"]["sha256"])


def make_file_rows(set="squad"):
    questions = [qa for part in GOLDEN["whole_file"]["data"][0]["paragraphs"] for qa in part["qas"]]
    answers = [tuple(Answer(a["text"], a["answer_start"]) for a in qa["answers"]) for qa in questions]
    return [
        Question(qa["id"], str(n), "g", set, qa["question"], "", gold, "en", "en")
        for n, (qa, gold) in enumerate(zip(questions, answers, strict=True))
    ]


def test_whole_file_golden():
    for set, name in (("squad", "squad"), ("mlqa", "mlqa_en")):
        scores, missing = score_file(GOLDEN["whole_file"]["predictions"], make_file_rows(set))
        cell = scores.cells[Cell.parse(f"{set} en-en")]
        assert cell["f1"] == pytest.approx(GOLDEN["whole_file"][name]["f1"], abs=1e-9)
        assert cell["em"] == pytest.approx(GOLDEN["whole_file"][name]["exact_match"], abs=1e-9)
        assert (cell["n"], missing) == (6, 1)


@pytest.mark.parametrize("value", [None, 3, ["Paris"], {"text": "Paris"}])
def test_a_prediction_that_is_not_a_string_is_refused_by_its_id(value):
    with pytest.raises(UserError, match="'q1'"):
        score_file({"q1": value}, make_file_rows(), "answers.json")


def test_a_missing_prediction_is_not_an_empty_one():
    row = Question("q4", "k", "g", "squad", "?", "the", (Answer("the", 0),), "en", "en")
    for predictions, em, missing in (({"q4": ""}, 100.0, 0), ({}, 0.0, 1)):
        scores, count = score_file(predictions, [row])
        assert (scores.cells[Cell.parse("squad en-en")]["em"], count) == (em, missing)


def test_files_without_an_object_are_refused():
    with pytest.raises(UserError, match=r"answers\.json.*not a JSON object"):
        score_file(["Paris"], make_file_rows(), "answers.json")


def test_a_language_without_rules_is_scored_only_on_request():
    for scored in (lambda: mlqa.f1("the", ["the"], "sw"), lambda: mlqa.normalise("the", "sw")):
        with pytest.raises(UserError, match="mlqa_fallback"):
            scored()
    assert mlqa.normalise("The", "sw", fallback=True) == "the"


def test_rules_depend_on_the_context_language():
    assert mlqa.em("la casa", ["casa"], "es") == 1.0
    assert mlqa.em("la casa", ["casa"], "en") == 0.0
