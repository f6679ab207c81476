# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A card says where a model comes from, its training data and its scores, and escapes all text from data."""

import dataclasses
import json
import pathlib
import re

import pytest
import stages
from huggingface_hub import ModelCard

from xlkd import settings, spec
from xlkd.errors import escape_controls
from xlkd.export import cards
from xlkd.export import head as heads
from xlkd.methods import Export
from xlkd.models import hf

NOWHERE = cards.Place(None, None)
PACKAGED = pathlib.Path(hf.__file__).parent / "encoders"
SEEN = {"training": ["de", "en"], "selection": [], "teacher": ["en"]}
EXPORT = Export(None, {}, {})
HOSTILE = "x|y`z``\n---\nlicense: mit\n# <script>alert(1)</script> [a](javascript:b) \u202eevil\x1b[31m"


def read_stage(*flags, name="configs/finetune.py:classify"):
    values = settings.apply_flags(settings.read_config(name), list(flags))
    return settings.read_stage(values, values.stages[0])


def write_card(stage, results=None, seen=SEEN, exported=EXPORT, place=NOWHERE, teacher="", contamination=()):
    return cards.write_card(stage, results or {}, seen, exported, place, teacher, contamination=dict(contamination))


def read_head(card):
    """Returns the head as the hub's own client reads it, which refuses scores without their required parts."""
    return ModelCard(card).data


@pytest.fixture
def place(tmp_path):
    """Makes a run whose second stage started from its first, which started from another model."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlanguage: en\nlicense: cc-by-4.0\n---\n# Base\n")
    first, second = (tmp_path / "run" / "stages" / name for name in ("01-one", "02-two"))
    for stage in (first, second):
        (stage / "export").mkdir(parents=True)
        (stage / "rows").mkdir()
    record = {"version": 1, "task": {}, "base": cards.find_origin(str(base))._asdict()}
    (first / "export" / hf.RECORD).write_text(json.dumps(record))
    environment = {
        "command": ["python", "-m", "xlkd.main", "--config=configs/mine.py", "--config.data.train=tsv:a b"],
        "git": "0123abc",
        "git_changes": True,
        "python": "3.11",
        "packages": {"jax": "0.10"},
    }
    (tmp_path / "run" / "environment.json").write_text(json.dumps(environment))
    return cards.Place.find(second / "export" / "de")


def write_rows(place, name="eval", count=40):
    lines = [
        {
            "key": str(i),
            "id": str(i),
            "group": str(i // 2),
            "set": "mine",
            "language": language,
            "gold": "a",
            "prediction": "a" if i % 4 else "b",
            "accuracy": 100.0 if i % 4 else 0.0,
            "accuracy_via_de": 100.0 * (i % 2),
        }
        for language in ("de", "en")
        for i in range(count)
    ]
    (place.stage / "rows" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    cells = {f"mine {language}": {"accuracy": 75.0, "accuracy_via_de": 50.0, "n": count} for language in ("de", "en")}
    return {name: {"main": "accuracy", "step": 7, "mean": 75.0, "cells": cells}}


def test_the_base_model_is_traced_through_stages_with_its_licence(place):
    stage = dataclasses.replace(read_stage(), start="one")
    card = write_card(stage, place=place)
    assert re.search(r"\| base model \| `[^`]*/base`; licence: `?cc-by-4\.0`? \|", card)
    assert "| start | `one` |" in card


def test_command_version_and_revision(place):
    card = write_card(read_stage(), place=place)
    assert "python -m xlkd.main --config=configs/mine.py '--config.data.train=tsv:a b'" in card
    assert f"xlkd {cards.read_version()} (revision `0123abc`, with changes that were not committed)" in card
    assert "left no record of its command" in write_card(read_stage())


def test_scores_have_intervals_and_a_branch_has_its_own_scores(place):
    results = write_rows(place)
    table = re.findall(
        r"^\| (mine de|mean) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|",
        write_card(read_stage(), results, place=place),
        re.M,
    )
    assert [name for name, *_ in table] == ["mine de", "mean"]
    for _, value, low, high in table:
        assert float(low) < float(value) < float(high)
    card = write_card(read_stage(), results, place=place, exported=EXPORT._replace(route="de"))
    assert "accuracy through de at step 7" in card
    assert re.search(r"^\| mine de \| 50\.0 \| 50\.0 to 50\.0 \| 40 \|", card, re.M), (
        "each group has one right and one wrong answer"
    )


def test_intervals_equal_those_of_the_report(place):
    from xlkd.metrics import statistics
    from xlkd.reports import grid, labelled, results

    write_rows(place)
    lines = [json.loads(line) for line in (place.stage / "rows" / "eval.jsonl").read_text().splitlines()]
    labels_of_cells = {cell: {"badges": "", "word": ""} for cell in ("de", "en")}
    expected = grid.score_system((labelled.make_table(lines, ("accuracy",)),), {}, labels_of_cells, statistics.SEED)[
        "cells"
    ]
    cells, _ = results.score_rows(lines, "eval", {}, "accuracy")["mine"]
    assert cells == {cell: scores["accuracy"] for cell, scores in expected.items()}


def test_licences_are_quoted_and_never_guessed(tmp_path):
    (tmp_path / "mine.tsv").write_text("text\tlabel\n")
    flags = [f"--config.data.train=tsv:{tmp_path}/mine.tsv?languages=en"]
    assert f"`tsv:{tmp_path}/mine.tsv?languages=en`; licence: {cards.UNSTATED}" in write_card(read_stage(*flags))
    (tmp_path / "LICENSE").write_text("\n  MIT License \n\nCopyright\n")
    assert "licence: MIT License" in write_card(read_stage(*flags))
    (tmp_path / "README.md").write_bytes(b"---\nlicense:\n- cc0-1.0\n---\n\xff")
    assert "licence: `cc0-1.0`" in write_card(read_stage(*flags))


def test_text_from_data_is_escaped():
    stage = stages.change(read_stage(), data__train=f"tsv:{HOSTILE}", encoder__path=HOSTILE)
    results = {HOSTILE: {"main": "accuracy", "step": 1, "mean": 1.0, "cells": {HOSTILE: {"accuracy": 1.0, "n": 1}}}}
    card = write_card(stage, results, {"training": [HOSTILE]}, EXPORT._replace(labels=(HOSTILE, "b")))
    head, body = ModelCard(card).data.to_dict(), card.removeprefix("---\n").split("\n---\n", 1)[1]
    assert set(head) == {"library_name", "language", "pipeline_tag", "tags", "model-index"}
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == escape_controls(HOSTILE)
    assert not re.search(r"^(---|license:|# <)", body, re.M)
    assert not set(card) & {"\u202e", "\x1b"}
    outside = re.sub(r"(?s)(`+)(?!`).*?(?<!`)\1(?!`)", "", body)
    assert "script" not in outside
    assert "javascript" not in outside
    for line in body.splitlines():
        if line.startswith("| base model"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 3, "a bar in the data adds no column"


def test_the_card_contains_every_setting():
    stage = read_stage("--config.optim.lr=0.00123")
    block = re.search(r"```json\n(.*?)\n```", write_card(stage), re.S)
    values = json.loads(block[1])
    assert values["optim"]["lr"] == 0.00123
    assert values == {key: spec.to_plain(stage)[key] for key in cards.SETTINGS}


def test_teachers_are_named(place):
    teachers = {"en": f"one + {place.workdir.parent / 'base'}"}
    stage = dataclasses.replace(read_stage(), teachers=teachers)
    card = write_card(stage, place=place)
    assert "| teacher of en | stage `one`, which began with" in card
    assert "/base`; licence: `cc-by-4.0` |" in card
    own = settings.read_config("configs/gxlt.py")
    origin = "the student itself: `epoch_snapshot`"
    assert f"| teacher | {origin} |" in write_card(settings.read_stage(own, own.stages[-1]), teacher=origin)


# The head that the hub reads


def test_the_head_has_all_that_the_hub_asks_for(place):
    stage = stages.change(read_stage(), data__train="hf:an/owner?split=train+tfds:xnli+tsv:mine.tsv")
    stage = dataclasses.replace(stage, start="some/encoder")
    data = read_head(write_card(stage, seen={"training": ["zh-Hant", "de", "und"], "parallel": ["pt-BR"]}))
    assert data.to_dict() == {
        "library_name": "transformers",
        "language": ["de", "pt", "zh"],
        "base_model": "some/encoder",
        "base_model_relation": "finetune",
        "datasets": ["an/owner", "facebook/xnli"],
        "pipeline_tag": "text-classification",
        "tags": ["xlkd", "finetune"],
    }
    card = write_card(dataclasses.replace(stage, start="one"), place=place)
    assert read_head(card).license == "cc-by-4.0"
    assert cards.UNLICENSED not in card


@pytest.mark.parametrize("licence", ["", "other", "My own licence", "Apache License"])
def test_a_licence_that_the_hub_does_not_know_is_left_out_with_a_line(place, licence):
    (place.workdir.parent / "base" / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    record = {"version": 1, "task": {}, "base": cards.find_origin(str(place.workdir.parent / "base"))._asdict()}
    (place.workdir / "stages" / "01-one" / "export" / hf.RECORD).write_text(json.dumps(record))
    card = write_card(dataclasses.replace(read_stage(), start="one"), place=place)
    assert read_head(card).license is None
    assert f"\n{cards.UNLICENSED}\n" in card


def test_data_sets_of_earlier_stages_are_listed_too(place):
    first = place.workdir / "stages" / "01-one" / "export"
    (first / "README.md").write_text("---\ndatasets:\n- rajpurkar/squad\n- [1]\n---\n")
    stage = stages.change(dataclasses.replace(read_stage(), start="one"), data__train="xnli:DIR")
    assert read_head(write_card(stage, place=place)).datasets == ["facebook/xnli", "rajpurkar/squad"]


@pytest.mark.parametrize(
    ("head", "pooling", "tag", "library"),
    [
        ("span", "", "question-answering", "transformers"),
        ("classifier", "", "text-classification", "transformers"),
        ("masked_lm", "", "fill-mask", "transformers"),
        ("other", "mean", "sentence-similarity", "sentence-transformers"),
    ],
)
def test_the_page_of_the_hub_offers_what_the_model_can_do(head, pooling, tag, library):
    data = read_head(write_card(read_stage(), exported=EXPORT._replace(heads={head: {}}, pooling=pooling)))
    assert (data.pipeline_tag, data.library_name) == (tag, library)


def test_branches_are_no_model_of_transformers():
    assert (
        read_head(write_card(read_stage(), exported=EXPORT._replace(encoder={"branches": {}}))).library_name == "xlkd"
    )


def score(cells, main="f1", task="qa"):
    metrics = {name: {} for values in cells.values() for name in values if name != "n"}
    return {"eval": {"task": task, "main": main, "step": 7, "mean": 50.0, "cells": cells, "metrics": metrics}}


def test_scores_are_read_by_the_client_of_the_hub_with_the_labels_that_the_model_saw():
    stage = stages.change(read_stage(name="configs/finetune.py"), data__eval="mlqa:DIR?pairs=all&split=test")
    cells = {"mlqa en-en": {"f1": 70.123, "em": 50.0, "n": 9}, "mlqa de-hi": {"f1": 30.0, "em": 20.0, "n": 9}}
    clean = {"eval": {"by_language": {}}}
    data = read_head(write_card(stage, score(cells), {"training": ["en"]}, contamination=clean))
    shown = [
        (result.dataset_type, result.dataset_config, result.metric_type, result.metric_value, result.metric_name)
        for result in data.eval_results
    ]
    assert shown == [
        ("facebook/mlqa", "mlqa.en.en", "f1", 70.12, "F1, supervised"),
        ("facebook/mlqa", "mlqa.en.en", "exact_match", 50.0, "EM, supervised"),
        ("facebook/mlqa", "mlqa.hi.de", "f1", 30.0, "F1, zero-shot"),
        ("facebook/mlqa", "mlqa.hi.de", "exact_match", 20.0, "EM, zero-shot"),
    ]
    assert {(r.task_type, r.dataset_split) for r in data.eval_results} == {("question-answering", "test")}
    assert data.model_name == "finetune"
    for contamination in ({}, {"eval": {"by_language": {"hi": 3}}}):
        data = read_head(write_card(stage, score(cells), {"training": ["en"]}, contamination=contamination))
        assert data.eval_results[2].metric_name == "F1, transferred", "not known to be zero-shot"


def test_the_scores_of_a_branch_are_its_own(place):
    data = read_head(write_card(read_stage(), write_rows(place), exported=EXPORT._replace(route="de")))
    assert {(r.metric_type, r.metric_value, r.dataset_type) for r in data.eval_results} == {("accuracy", 50.0, "mine")}


def test_a_smaller_model_has_the_head_of_the_full_one_without_its_scores(place):
    cells = {"mine de": {"accuracy": 75.0, "n": 4}}
    full = place.stage / "export"
    stage = stages.change(read_stage(), data__train="xnli:DIR", encoder__path="package:english")
    (full / "README.md").write_text(write_card(stage, score(cells, "accuracy", "classify")))
    origin = cards.Origin("me/full", licence=cards.find_licence(full))
    data = read_head(cards.write_trimmed_card(full, origin, ["6 of 12 layers"], ["xlkd", "trim"])).to_dict()
    assert data == {
        "library_name": "transformers",
        "license": "apache-2.0",
        "language": ["de", "en"],
        "base_model": "me/full",
        "datasets": ["facebook/xnli"],
        "pipeline_tag": "text-classification",
        "tags": ["xlkd"],
    }


def test_what_is_no_path_has_no_licence_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "LICENSE").write_text("MIT License\n")
    monkeypatch.chdir(tmp_path)
    assert f"`tfds:xnli`; licence: {cards.UNSTATED}" in write_card(stages.change(read_stage(), data__train="tfds:xnli"))


@pytest.mark.parametrize(
    "text", ["", "# No head", "---\n- 1\n---\n", "---\na: [\n---\n", "---\n" + "[" * 9999 + "\n---\n"]
)
def test_a_head_that_cannot_be_read_is_empty(text):
    assert heads.parse_head(text) == {}


@pytest.mark.parametrize("name", ["english", "multilingual", "multilingual-tlm"])
def test_packaged_encoders_have_a_card_with_licence_and_command(name):
    text = (PACKAGED / name / "README.md").read_text(encoding="utf-8")
    data = read_head(text)
    assert (data.license, data.pipeline_tag) == ("apache-2.0", "fill-mask")
    assert f"\n# xlkd {name}\n" in text
    assert f"python -m xlkd.main --config=configs/pretrain.py:{name}\n" in text
