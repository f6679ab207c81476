# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint goes on, and by whose labels."""

import json
from types import SimpleNamespace

import pytest
from stages import make_spec

from xlkd.errors import UserError
from xlkd.evaluation import provenance, selection
from xlkd.rows import Labelled, Pair, make_key
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import Eval
from xlkd.spec.tasks import Classify

SCORES = {  # step: accuracy by language
    10: {"en": 60.0, "de": 50.0, "zh": 90.0},
    20: {"en": 70.0, "de": 40.0, "zh": 50.0},
    30: {"en": 65.0, "de": 55.0, "zh": 10.0},
    40: {"en": 70.0, "de": 30.0, "zh": 10.0},
}


def rows(languages):
    return [Labelled(tag, make_key(tag), tag, "set", "a text", None, "yes", tag) for tag in languages]


def rule(keep, *, languages=(), supervised=("en", "de"), tags=("en", "de", "zh"), dev=True):
    stage = make_spec(Classify(languages=languages), eval=Eval(keep=keep))
    sets = {"dev" if dev else "eval": SimpleNamespace(rows=rows(tags))}
    return selection.build_rule(stage, sets, supervised)


@pytest.fixture
def folder(tmp_path):
    for step, cells in SCORES.items():
        scores = {f"set {tag}": {"accuracy": value, "macro_f1": 0.0} for tag, value in cells.items()}
        for name in ("dev", "eval"):
            values = scores if name == "dev" else {"set en": {"accuracy": float(step)}}
            (tmp_path / f"{step}-{name}.json").write_text(
                json.dumps({"step": step, "main": "accuracy", "cells": values})
            )
    return tmp_path


@pytest.mark.parametrize(("keep", "step"), [("best", 10), ("english", 20), ("supervised", 30)])
def test_each_rule_keeps_its_own_step(folder, keep, step):
    assert rule(keep).choose_step(folder) == step


def test_without_a_dev_set_the_evaluation_set_chooses(folder):
    assert rule("english", dev=False).choose_step(folder) == 40


@pytest.mark.parametrize(
    ("keep", "chosen"), [("last", []), ("english", ["en"]), ("supervised", ["de", "en"]), ("best", ["de", "en", "zh"])]
)
def test_the_badge_names_the_languages_that_chose(keep, chosen):
    stage = make_spec()
    looked_at = rule(keep).select_examples(rows(("en", "de", "zh")))
    assert provenance.collect_seen_languages(stage, [], looked_at, {}, has_teacher=False)["selection"] == chosen


@pytest.mark.parametrize(("steps", "before", "languages"), [(4, [], ["de", "en"]), (0, [], []), (0, ["fr"], ["fr"])])
def test_the_languages_of_parallel_text_are_recorded(steps, before, languages):
    """Two texts in one language are none; a stage without steps has only what came before it."""
    stage = make_spec(horizon=Horizon(steps, steps, (0,)))
    pairs = [Pair("1", "k", "g", "s", "a", "b", *tags) for tags in (("en", "de"), ("ru", "ru"))]
    found = provenance.collect_seen_languages(stage, pairs, [], {"parallel": before}, has_teacher=False)
    assert found == {"training": [], "selection": [], "teacher": [], "parallel": languages}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"keep": "best", "languages": ("en", "de")}, "labels in zh, which are called zero-shot"),
        ({"keep": "english", "tags": ("de",)}, "has no examples in en"),
        ({"keep": "english", "languages": ("de",), "tags": ("en",)}, "keep=english would choose by labels in en"),
    ],
)
def test_what_cannot_be_is_refused(given, says):
    with pytest.raises(UserError, match=says):
        rule(**given)


def test_supervised_rows_may_choose_beside_zero_shot_ones():
    assert rule("supervised", languages=("en", "de")).languages == {"en", "de"}


def test_a_rule_needs_rows():
    stage = make_spec(Classify(), eval=Eval(keep="english"))
    with pytest.raises(UserError, match=r"config\.data\.dev"):
        selection.build_rule(stage, {}, ())
