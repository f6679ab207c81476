# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The selection of the checkpoint that is exported, and the languages whose labels select it."""

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


def make_rows(languages):
    return [Labelled(tag, make_key(tag), tag, "set", "a text", None, "yes", tag) for tag in languages]


def build_rule(keep, *, languages=(), supervised=("en", "de"), tags=("en", "de", "zh"), dev=True):
    stage = make_spec(Classify(languages=languages), eval=Eval(keep=keep))
    sets = {"dev" if dev else "eval": SimpleNamespace(rows=make_rows(tags))}
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
def test_each_rule_selects_its_own_step(folder, keep, step):
    assert build_rule(keep).choose_step(folder) == step


def test_without_a_dev_set_the_evaluation_set_selects_the_step(folder):
    assert build_rule("english", dev=False).choose_step(folder) == 40


@pytest.mark.parametrize(
    ("keep", "chosen"), [("last", []), ("english", ["en"]), ("supervised", ["de", "en"]), ("best", ["de", "en", "zh"])]
)
def test_the_languages_used_for_selection_are_recorded(keep, chosen):
    stage = make_spec()
    examples = build_rule(keep).select_examples(make_rows(("en", "de", "zh")))
    assert provenance.collect_seen_languages(stage, [], examples, {}, has_teacher=False)["selection"] == chosen


@pytest.mark.parametrize(("steps", "before", "languages"), [(4, [], ["de", "en"]), (0, [], []), (0, ["fr"], ["fr"])])
def test_the_languages_of_parallel_text_are_recorded(steps, before, languages):
    """Two texts in one language are no parallel text; a stage without steps has only the languages of earlier stages."""
    stage = make_spec(horizon=Horizon(steps, steps, (0,)))
    pairs = [Pair("1", "k", "g", "s", "a", "b", *tags) for tags in (("en", "de"), ("ru", "ru"))]
    seen = provenance.collect_seen_languages(stage, pairs, [], {"parallel": before}, has_teacher=False)
    assert seen == {"training": [], "selection": [], "teacher": [], "parallel": languages}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": "best", "languages": ("en", "de")}, "labels in zh, which are called zero-shot"),
        ({"keep": "english", "tags": ("de",)}, "has no examples in en"),
        ({"keep": "english", "languages": ("de",), "tags": ("en",)}, "keep=english would choose by labels in en"),
    ],
)
def test_impossible_rules_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        build_rule(**arguments)


def test_supervised_examples_may_select_beside_zero_shot_ones():
    assert build_rule("supervised", languages=("en", "de")).languages == {"en", "de"}


def test_a_rule_needs_examples():
    stage = make_spec(Classify(), eval=Eval(keep="english"))
    with pytest.raises(UserError, match=r"config\.data\.dev"):
        selection.build_rule(stage, {}, ())
