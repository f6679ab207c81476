# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A card says where a model comes from, what it saw and scored, and takes nothing that data say for markup."""

import dataclasses
import json
import re

import pytest
import stages

from xlkd import settings, spec
from xlkd.export import cards
from xlkd.methods import Export
from xlkd.models import hf

NOWHERE = cards.Place(None, None)
SEEN = {"training": ["de", "en"], "selection": [], "teacher": ["en"]}
EXPORT = Export(None, {}, {})
HOSTILE = "x|y`z``\n---\nlicense: mit\n# <script>alert(1)</script> [a](javascript:b) \u202eevil\x1b[31m"


def config(*flags, name="configs/finetune.py:classify"):
    read = settings.apply_flags(settings.read_config(name), list(flags))
    return settings.read_stage(read, read.stages[0])


def written(config, told=None, seen=SEEN, exported=EXPORT, place=NOWHERE, teacher=""):
    return cards.write_card(config, told or {}, seen, exported, place, teacher)


@pytest.fixture
def place(tmp_path):
    """A run whose second stage began with its first, which began with another's model."""
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


def rows(place, name="eval", count=40):
    held = [
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
    (place.stage / "rows" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held))
    cells = {f"mine {of}": {"accuracy": 75.0, "accuracy_via_de": 50.0, "n": count} for of in ("de", "en")}
    return {name: {"main": "accuracy", "step": 7, "mean": 75.0, "cells": cells}}


def test_the_base_is_followed_through_stages_with_its_licence(place):
    stage = dataclasses.replace(config(), start="one")
    card = written(stage, place=place)
    assert re.search(r"\| base model \| `[^`]*/base`; licence: `?cc-by-4\.0`? \|", card)
    assert "| start | `one` |" in card


def test_command_version_and_revision(place):
    card = written(config(), place=place)
    assert "python -m xlkd.main --config=configs/mine.py '--config.data.train=tsv:a b'" in card
    assert f"xlkd {cards.read_version()} (revision `0123abc`, with changes that were not committed)" in card
    assert "left no record of its command" in written(config())


def test_scores_have_intervals_and_those_of_a_branch_are_its_own(place):
    told = rows(place)
    found = re.findall(
        r"^\| (mine de|mean) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", written(config(), told, place=place), re.M
    )
    assert [name for name, *_ in found] == ["mine de", "mean"]
    for _, value, low, high in found:
        assert float(low) < float(value) < float(high)
    card = written(config(), told, place=place, exported=EXPORT._replace(route="de"))
    assert "accuracy through de at step 7" in card
    assert re.search(r"^\| mine de \| 50\.0 \| 50\.0 to 50\.0 \| 40 \|", card, re.M), "each group holds one of both"


def test_intervals_are_those_of_the_report(place):
    from xlkd.metrics import statistics
    from xlkd.reports import grid, labelled, results

    rows(place)
    held = [json.loads(line) for line in (place.stage / "rows" / "eval.jsonl").read_text().splitlines()]
    told = {cell: {"badges": "", "word": ""} for cell in ("de", "en")}
    expected = grid.score_system((labelled.make_table(held, ("accuracy",)),), {}, told, statistics.SEED)["cells"]
    cells, _ = results.score_rows(held, "eval", {}, "accuracy")["mine"]
    assert cells == {cell: of["accuracy"] for cell, of in expected.items()}


def test_licences_are_given_as_they_stand_and_never_guessed(tmp_path):
    (tmp_path / "mine.tsv").write_text("text\tlabel\n")
    flags = [f"--config.data.train=tsv:{tmp_path}/mine.tsv?languages=en"]
    assert f"`tsv:{tmp_path}/mine.tsv?languages=en`; licence: {cards.UNSTATED}" in written(config(*flags))
    (tmp_path / "LICENSE").write_text("\n  MIT License \n\nCopyright\n")
    assert "licence: MIT License" in written(config(*flags))
    (tmp_path / "README.md").write_bytes(b"---\nlicense:\n- cc0-1.0\n---\n\xff")
    assert "licence: `cc0-1.0`" in written(config(*flags))


def test_what_data_say_stays_text():
    stage = stages.change(config(), data__train=f"tsv:{HOSTILE}", encoder__path=HOSTILE)
    told = {HOSTILE: {"main": "accuracy", "step": 1, "mean": 1.0, "cells": {HOSTILE: {"accuracy": 1.0, "n": 1}}}}
    card = written(stage, told, {"training": [HOSTILE]}, EXPORT._replace(labels=(HOSTILE, "b")))
    head, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert head.splitlines() == ["library_name: transformers", "tags: [xlkd]"]
    assert not re.search(r"^(---|license:|# <)", body, re.M)
    assert not set(card) & {"\u202e", "\x1b"}
    outside = re.sub(r"(?s)(`+)(?!`).*?(?<!`)\1(?!`)", "", body)
    assert "script" not in outside
    assert "javascript" not in outside
    for line in body.splitlines():
        if line.startswith("| base model"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 3, "a bar of the data makes no column"


def test_every_setting_is_there():
    stage = config("--config.optim.lr=0.00123")
    block = re.search(r"```json\n(.*?)\n```", written(stage), re.S)
    held = json.loads(block[1])
    assert held["optim"]["lr"] == 0.00123
    assert held == {key: spec.to_plain(stage)[key] for key in cards.SETTINGS}


def test_teachers_are_named(place):
    teachers = {"en": f"one + {place.workdir.parent / 'base'}"}
    stage = dataclasses.replace(config(), teachers=teachers)
    card = written(stage, place=place)
    assert "| teacher of en | stage `one`, which began with" in card
    assert "/base`; licence: `cc-by-4.0` |" in card
    own = settings.read_config("configs/gxlt.py")
    origin = "the student itself: `epoch_snapshot`"
    assert f"| teacher | {origin} |" in written(settings.read_stage(own, own.stages[-1]), teacher=origin)
