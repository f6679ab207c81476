# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The draw of language pairs: golden totals, and independence from other questions and processes."""

import json
import os
import pathlib
import subprocess
import sys
from collections import Counter

import pytest

from xlkd.data import sampling
from xlkd.errors import UserError
from xlkd.rows import Question

FOLDER = pathlib.Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "sampling.json").read_text())
SEVEN = GOLDEN["xquad_seven_languages"]
PARALLEL = {f"q{i}": SEVEN["languages"] for i in range(SEVEN["questions"])}


@pytest.mark.parametrize("n", range(7))
def test_golden_totals(n):
    golden = SEVEN["by_ntl"][str(n)]
    drawn = sampling.draw_pairs(PARALLEL, n=n)
    assert (
        sampling.count_pairs(drawn).items()
        >= {k: golden[k] for k in ("examples", "same_language", "cross_language", "pivot_on_a_side")}.items()
    )
    assert len({(a, b) for _, a, b in drawn.examples}) == golden["distinct_pairs_seen"]
    assert set(Counter(question for question, _, _ in drawn.examples).values()) == {golden["per_question"]}
    assert len(set(drawn.examples)) == len(drawn.examples)


def test_golden_without_pivot_rule():
    for n, examples in GOLDEN["without_pivot_rule"]["examples_by_ntl"].items():
        assert len(sampling.draw_pairs(PARALLEL, n=int(n), pivot="none").examples) == examples


@pytest.mark.parametrize("name", list(GOLDEN["partially_parallel"]["results"]))
def test_golden_partially_parallel(name):
    golden = GOLDEN["partially_parallel"]["results"][name]
    which, n = name.split(",ntl=")
    available = {
        k: v.split() for k, v in GOLDEN["partially_parallel"]["available"].items() if k != "q5" or which == "with q5"
    }
    drawn = sampling.draw_pairs(available, n=int(n))
    counts = Counter(question for question, _, _ in drawn.examples)
    if "error" in golden:  # The published sampler fails on a question without the pivot; ours draws n languages.
        assert counts == {"q1": 4, "q2": 4, "q3": 1, "q4": 4, "q5": 1}
    else:
        assert counts == golden["per_question"]
        assert len(drawn.examples) == golden["total"]
    assert drawn.without_pivot == (which == "with q5")


def test_the_pivot_is_in_every_draw_that_has_it():
    by_question = {}
    for question, a, _ in sampling.draw_pairs(PARALLEL, n=1).examples:
        by_question.setdefault(question, set()).add(a)
    assert all("en" in languages and len(languages) == 2 for languages in by_question.values())
    drawn = Counter(next(iter(languages - {"en"})) for languages in by_question.values())
    assert min(drawn.values()) > 1190 / 6 * 0.75  # all languages are drawn about equally often


def test_other_questions_and_the_order_change_nothing():
    small = sampling.draw_pairs({"q7": ["en", "de", "es", "ar"]}, n=1)
    more = {"a": ["de", "en"], "q7": ["ar", "es", "de", "en"], "z": ["hi"]}
    within = [e for e in sampling.draw_pairs(more, n=1).examples if e[0] == "q7"]
    assert list(small.examples) == within


def test_seed_and_epoch_change_the_draw():
    base = sampling.draw_pairs(PARALLEL, n=1, seed=3)
    assert base == sampling.draw_pairs(PARALLEL, n=1, seed=3)
    assert base != sampling.draw_pairs(PARALLEL, n=1, seed=4)
    assert base != sampling.draw_pairs(PARALLEL, n=1, seed=3, epoch=1)


def test_a_process_with_another_string_hash_draws_the_same():
    program = "from xlkd.data.sampling import draw_pairs; print(draw_pairs({'q': {'en','de','es','ar','hi'}, 'r': {'zh','vi','en'}}, n=2).examples)"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "'q'" in outputs.pop()


def test_the_draw_with_a_larger_n_contains_that_with_a_smaller_one():
    for n in range(1, 6):
        assert set(sampling.draw_pairs(PARALLEL, n=n).examples) <= set(sampling.draw_pairs(PARALLEL, n=n + 1).examples)


def test_golden_draw():
    """Pins the draw; a change of these examples changes every run."""
    drawn = sampling.draw_pairs({"q1": ["ar", "de", "en", "es", "hi"], "q2": ["de", "es", "zh"]}, n=1)
    assert drawn.examples == (*(("q1", a, b) for a in ("en", "hi") for b in ("en", "hi")), ("q2", "es", "es"))
    without_pivot_rule = sampling.draw_pairs({"q1": ["ar", "de", "en", "es", "hi"]}, n=2, pivot="none", seed=1, epoch=2)
    assert (without_pivot_rule.examples[1], without_pivot_rule.without_pivot) == (("q1", "ar", "en"), 0)


def make_row(id_, question, context):
    return Question(id_, f"{id_} {question}-{context}", "", "mlqa", f"{question}?", context, (), question, context)


def test_languages_come_from_rows_in_one_language():
    rows = [make_row("a", "en", "en"), make_row("a", "de", "de"), make_row("a", "de", "en"), make_row("b", "es", "en")]
    assert sampling.group_languages(rows) == {"a": {"en", "de"}}


def test_rows_that_cannot_be_drawn_from_are_named():
    """Ids of TyDiQA occur several times in a file; the first row with an id is drawn from."""
    rows = [make_row("a", "en", "en"), make_row("a", "de", "en"), make_row("a", "en", "en")]
    assert sampling.list_undrawable(rows) == (
        ("mlqa: a", "question and context in two languages, from which no pair is drawn"),
        ("mlqa: a", "a second row of this id in en"),
    )
    (drawn,) = sampling.make_crossed_examples(rows, sampling.PairDraw((("a", "en", "en"),), 0))
    assert drawn is rows[0]


def test_drawn_examples_join_the_question_in_one_language_with_the_context_in_another():
    rows = [make_row("a", "en", "en"), make_row("a", "de", "de"), make_row("a", "de", "en")]
    examples = (("a", "de", "de"), ("a", "de", "en"), ("a", "en", "de"))
    same, de_en, en_de = sampling.make_crossed_examples(rows, sampling.PairDraw(examples, 0))
    assert same is rows[1]
    assert (de_en.id, de_en.question, de_en.context) == ("a_de-en", "de?", "en")
    assert (de_en.question_language, de_en.context_language) == ("de", "en")
    assert (en_de.id, en_de.question, en_de.context) == ("a_en-de", "en?", "de")
    assert len({same.key, de_en.key, en_de.key, *(row.key for row in rows)}) == 5


def test_joined_draws_contain_each_example_once():
    draws = [sampling.PairDraw((("a", "de", "de"), ("a", "de", "en")), 1), sampling.PairDraw((("a", "de", "de"),), 3)]
    assert sampling.join_draws(draws) == sampling.PairDraw(draws[0].examples, 3)


def test_a_negative_number_of_languages_is_refused():
    with pytest.raises(UserError, match="ntl=-1"):
        sampling.draw_pairs(PARALLEL, n=-1)


def test_golden_shares():
    golden = dict(json.loads((FOLDER / "protocol.json").read_text())["language_exponent"])
    rows = dict(zip("abc", golden.pop("rows"), strict=True))
    for exponent, expected in golden.items():
        assert list(sampling.compute_shares(rows, float(exponent)).values()) == pytest.approx(expected, abs=1e-9)
    assert sampling.compute_shares({"de": 5, "fr": 0}, 0.0) == {"de": 1.0, "fr": 0.0}
    with pytest.raises(UserError):
        sampling.compute_shares({"de": 0}, 1.0)
