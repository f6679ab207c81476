# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Unanswerable questions: scores by the rules of SQuAD 2, null odds, and the threshold that is chosen on the dev set."""

import collections
import itertools
import math
import string

import numpy as np
import pytest
from qa_toys import compute_outputs, make_question, make_word_tokenizer
from share_toys import run_on_all

from xlkd.errors import UserError
from xlkd.evaluation import thresholds
from xlkd.evaluation.selection import Rule
from xlkd.inputs.data import EvaluationSet
from xlkd.rows import Answer, Cell, Question
from xlkd.tasks import nulls, qa, spans
from xlkd.tasks.scores import average_records, find_unanswerable_cells, score, score_file
from xlkd.tasks.spans import Candidate, Predictions
from xlkd.tasks.windows import Settings

SETTINGS = Settings(max_length=14, doc_stride=4)
TASK = qa.build(SETTINGS, make_word_tokenizer(["q1", "q2", *(f"w{i}" for i in range(40))]))


def make_scored(number, golds, **changes):
    answers = tuple(Answer(gold, 0) for gold in golds)
    values = {"set": "squad", "question_language": "en", "context_language": "en"} | changes
    return Question(id=f"i{number}", key=f"k{number}", group="g", question="?", context="c", answers=answers, **values)


def make_predictions(texts, odds):
    candidates = tuple((Candidate(text, 1.0, 0.0, 0.0, 0, len(text)),) for text in texts)
    return Predictions(candidates, np.zeros(len(texts), bool), np.array(odds, np.float64))


def decide(rows, texts, odds, threshold):
    records = TASK.make_records(make_predictions(texts, odds), rows, find_unanswerable_cells(rows))
    return nulls.apply_threshold(records, rows, threshold)


# The rules of SQuAD 2, stated plainly: one question at a time.


def normalise_plainly(text):
    letters = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in letters.split() if word not in ("a", "an", "the")]


def score_plainly(text, golds):
    """Returns exact match and F1 of an answer; a question without a gold answer expects no words."""
    words = normalise_plainly(text)
    candidates = [gold for gold in map(normalise_plainly, golds) if gold] or [[]]
    exact, f1 = 0.0, 0.0
    for gold in candidates:
        exact = max(exact, float(words == gold))
        if not words or not gold:
            f1 = max(f1, float(words == gold))
            continue
        common = sum((collections.Counter(words) & collections.Counter(gold)).values())
        f1 = max(f1, 2 * common / (len(words) + len(gold)))
    return exact, f1


def find_best_plainly(values, rows, texts, odds):
    """Returns the best mean score and its threshold, over the questions in the order of their odds."""
    total = best = sum(not row.answers for row in rows)
    threshold = 0.0
    for i in sorted(range(len(rows)), key=lambda i: odds[i]):
        total += values[i] if rows[i].answers else -1 if texts[i] else 0
        if total > best:
            best, threshold = total, odds[i]
    return 100 * best / len(rows), threshold


def evaluate_plainly(rows, texts, odds, threshold):
    golds = [[answer.text for answer in row.answers] for row in rows]
    final = [score_plainly("" if o > threshold else text, own) for text, own, o in zip(texts, golds, odds, strict=True)]
    numbers = {"em": np.mean([e for e, _ in final]) * 100, "f1": np.mean([f for _, f in final]) * 100, "n": len(rows)}
    for name, has in (("HasAns", True), ("NoAns", False)):
        part = [pair for pair, row in zip(final, rows, strict=True) if bool(row.answers) == has]
        if part:
            numbers |= {f"{name}_total": len(part), f"{name}_exact": 100 * sum(e for e, _ in part) / len(part)}
            numbers[f"{name}_f1"] = 100 * sum(f for _, f in part) / len(part)
    plain = [score_plainly(text, own) for text, own in zip(texts, golds, strict=True)]
    for side, name in enumerate(("exact", "f1")):
        best = find_best_plainly([pair[side] for pair in plain], rows, texts, odds)
        numbers[f"best_{name}"], numbers[f"best_{name}_thresh"] = best
    return numbers


@pytest.mark.parametrize("seed", range(40))
def test_all_numbers_equal_the_rules_stated_plainly(seed):
    random = np.random.default_rng(seed)
    words = ["the", "A", "red", "Red!", "cat", "in", "9", "“", "an", "...", "house"]

    def draw_text():
        return " ".join(random.choice(words, random.integers(1, 4)))

    rows, texts = [], []
    for number in range(random.integers(1, 25)):
        rows.append(make_scored(number, [draw_text() for _ in range(max(0, random.integers(-3, 4)))]))
        texts.append(draw_text() if random.random() < 0.9 else "")
        if rows[-1].answers and random.random() < 0.4:
            texts[-1] = rows[-1].answers[0].text
    rows.append(make_scored(99, []))
    texts.append(draw_text())
    # Few different odds give ties, whose order is that of the file
    odds = (random.integers(-3, 4, len(rows)) if seed % 2 else random.normal(size=len(rows))).astype(float).tolist()
    threshold = float(random.choice([*odds, 0.5]))
    scores = average_records(decide(rows, texts, odds, threshold), rows).cells[Cell("squad", ("en", "en"))]
    expected = evaluate_plainly(rows, texts, odds, threshold)
    assert scores.keys() == expected.keys()
    assert scores == pytest.approx(expected, abs=1e-9, rel=0)


FOUR = [make_scored(0, ["Anna"]), make_scored(1, ["red house"]), make_scored(2, []), make_scored(3, [])]
TEXTS, ODDS = ["Anna", "the red car", "x", "y"], [-3.0, -1.0, 0.0, 2.0]


def test_numbers_of_four_questions_golden():
    """With a threshold of 0 the last question alone has no answer; above -1 both that have none would."""
    scores = average_records(decide(FOUR, TEXTS, ODDS, 0.0), FOUR).cells[Cell("squad", ("en", "en"))]
    assert scores == {
        "f1": 62.5, "em": 50.0, "n": 4,
        "HasAns_exact": 50.0, "HasAns_f1": 75.0, "HasAns_total": 2,
        "NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2,
        "best_exact": 75.0, "best_exact_thresh": -3.0, "best_f1": 87.5, "best_f1_thresh": -1.0,
    }  # fmt: skip


def test_the_threshold_is_the_one_with_the_best_f1():
    records = TASK.make_records(make_predictions(TEXTS, ODDS), FOUR, find_unanswerable_cells(FOUR))
    assert nulls.choose_threshold(records, FOUR) == -1.0
    wrong = TASK.make_records(make_predictions(["z"] * 4, ODDS), FOUR, find_unanswerable_cells(FOUR))
    assert nulls.choose_threshold(wrong, FOUR) == 0.0, "no span raises the score"


def test_records_have_the_answer_and_the_best_span():
    kept, *_, emptied = decide(FOUR, TEXTS, ODDS, 0.0)
    assert (kept["prediction"], kept["span"], kept["start"], kept["null_odds"]) == ("Anna", "Anna", 0, -3.0)
    assert (emptied["prediction"], emptied["span"], emptied["start"], emptied["end"]) == ("", "y", None, None)
    assert (emptied["f1"], emptied["span_f1"], emptied["em"], emptied["span_em"]) == (100, 0, 100, 0)
    never = decide(FOUR, TEXTS, ODDS, None)
    assert [record["prediction"] for record in never] == TEXTS, "without a threshold every question gets its span"


def test_cells_without_unanswerable_questions_are_scored_as_before():
    """There an empty text is never right, two texts without words share none, and records have no null odds."""
    german = [make_scored(9, ["the"], context_language="de"), make_scored(10, ["Haus"], context_language="de")]
    rows = [*FOUR, *german]
    records = decide(rows, [*TEXTS, "an", "Haus"], [*ODDS, 9.0, 9.0], 0.0)
    assert records[4:] == TASK.make_records(make_predictions(["an", "Haus"], [9.0, 9.0]), german, ())
    assert records[5].keys() & {"null_odds", "span", "span_f1"} == set()
    assert [record.get("rank") for record in records] == [None] * 4 + [1, 1], "null odds decide there, not a rank"
    cells = average_records(records, rows).cells
    assert cells[Cell("squad", ("en", "de"))] == {"f1": 50.0, "em": 100.0, "n": 2}
    assert cells[Cell("squad", ("en", "en"))]["f1"] == 62.5
    assert score(["an"], german[:1]).cells[Cell("squad", ("en", "de"))]["f1"] == 0.0
    assert score(["an", ""], [german[0], make_scored(1, [], context_language="de")]).cells[
        Cell("squad", ("en", "de"))
    ] | {"em": 100.0, "f1": 100.0} == {
        "f1": 100.0, "em": 100.0, "n": 2, "HasAns_exact": 100.0, "HasAns_f1": 100.0, "HasAns_total": 1,
        "NoAns_exact": 100.0, "NoAns_f1": 100.0, "NoAns_total": 1,
    }  # fmt: skip


def test_answers_of_another_system_are_scored_with_empty_texts():
    scores, missing = score_file({"i0": "Anna", "i1": "", "i2": ""}, FOUR)
    cell = scores.cells[Cell("squad", ("en", "en"))]
    assert (cell["em"], cell["HasAns_exact"], cell["NoAns_exact"], missing) == (50.0, 50.0, 50.0, 1)
    assert "best_f1" not in cell, "a file of answers has no null odds"


def test_questions_of_mlqa_keep_its_rules():
    rows = [
        make_scored(0, ["casa"], set="mlqa", context_language="es"),
        make_scored(1, [], set="mlqa", context_language="es"),
    ]
    cell = score(["la casa", "el"], rows).cells[Cell("mlqa", ("en", "es"))]
    assert (cell["HasAns_exact"], cell["NoAns_exact"]) == (100.0, 100.0)


# Decoding

LONG = make_question(" ".join(f"w{i}" for i in range(16)), "w7 w8")
ABSENT = make_question(" ".join(f"w{i}" for i in range(16)), key="k2", id="j")


def make_logits(nulls_by_window, span=2.0):
    logits = np.zeros((len(nulls_by_window), 2, 14), np.float32)
    logits[:, 0, 0] = nulls_by_window
    logits[:, :, 6] = span
    return [tuple(each) for each in logits]


def test_the_null_score_is_the_lowest_of_the_windows():
    features = TASK.features([LONG, ABSENT])
    windows = qa.Windows.from_arrays(features)
    assert np.bincount(windows.row_of).tolist() == [3, 3]
    outputs = compute_outputs(make_logits([5.0, -1.5, 3.0, 9.0, 7.0, 8.0]), 20, windows, SETTINGS)
    predictions = TASK.decode(outputs, features)
    assert predictions.null_scores.tolist() == [-1.5, 7.0]
    assert predictions.null_odds.tolist() == [-5.5, 3.0]


def test_no_answer_is_a_candidate_by_its_score():
    plain = tuple(
        Candidate(text, 0.0, value, 0.0, i, i + 1) for i, (text, value) in enumerate([("a", 3.0), ("b", 1.0)])
    )
    ranked = spans.add_null(plain, 2.0, 20)
    assert [each.text for each in ranked] == ["a", "", "b"]
    assert [each.probability for each in ranked] == pytest.approx(np.exp([3, 2, 1]) / np.exp([3, 2, 1]).sum())
    assert [each.text for each in spans.add_null(plain, 1.0, 2)] == ["a", "b", ""], "it is added to the n best"
    assert [each.text for each in spans.add_null(plain, 3.0, 2)] == ["a", ""]
    empty = (Candidate("", 1.0, 0.0, 0.0, -1, -1),)
    assert [each.text for each in spans.add_null(empty, -4.0, 2)] == [""], "a context without tokens has nothing else"


def test_processes_have_the_records_of_one_process():
    rows = [LONG, ABSENT, make_question("w1 w2 w3", "w2", key="k3", id="l")]
    features = TASK.features(rows)
    windows = qa.Windows.from_arrays(features)
    logits = [tuple(each) for each in np.random.default_rng(0).normal(size=(len(windows), 2, 14)).astype(np.float32)]
    outputs = compute_outputs(logits, 20, windows, SETTINGS)
    whole = TASK.records(outputs, features, rows)
    assert all("null_odds" in record for record in whole)
    for future in run_on_all(lambda share: TASK.records(outputs, features, rows, share), 3):
        assert future.result() == whole


# The choice on the dev set


def make_rule(rows, languages=None, training=(), before=None):
    sets = {"dev": EvaluationSet(TASK, rows, {})} if rows else {}
    return thresholds.build_rule(sets, Rule("last", "dev", languages), training, before)


def test_the_dev_set_chooses_the_threshold_in_the_languages_that_count():
    german = [make_scored(10, ["Haus"], question_language="de", context_language="de")]
    german += [make_scored(11, [], question_language="de", context_language="de")]
    rows = [*FOUR, *german, make_scored(12, ["x"], context_language="fr")]
    everywhere = make_rule(rows)
    assert everywhere.positions == (0, 1, 2, 3, 4, 5), "a cell whose questions all have answers says nothing"
    english = make_rule(rows, frozenset({"en"}))
    assert english.select_examples(rows) == FOUR
    predictions = make_predictions([*TEXTS, "Haus", "z", "x"], [*ODDS, 0.5, 0.6, 9.0])
    records = TASK.make_records(predictions, rows, find_unanswerable_cells(rows))
    assert english.choose(records, rows) == (-1.0, nulls.CHOSEN)
    assert everywhere.choose(records, rows).value == -1.0
    records[4]["null_odds"] = -0.5
    assert everywhere.choose(records, rows).value == -0.5


def test_without_a_dev_set_the_threshold_is_that_of_earlier_training_or_zero():
    assert make_rule([], training=FOUR[:2]) == ((), None)
    assert make_rule([], training=FOUR) == ((), (0.0, nulls.UNCHOSEN))
    before = nulls.Threshold(1.5, nulls.CHOSEN)
    for training in (FOUR, ()):
        assert make_rule([], training=training, before=before) == ((), (1.5, nulls.INHERITED))
    assert make_rule(FOUR[:2], training=FOUR).fixed == (0.0, nulls.UNCHOSEN), "a dev set where all have answers"


@pytest.mark.parametrize("entry", [3, [], {}, {"value": None}, {"value": True}, {"value": math.nan}])
def test_a_damaged_threshold_is_refused(entry):
    with pytest.raises(UserError, match="null_threshold has no finite value"):
        nulls.read_threshold({"null_threshold": entry}, "xlkd.json")
    assert nulls.read_threshold({}, "") is None
    assert nulls.read_threshold({"null_threshold": {"value": 2}}, "") == (2.0, "")


def test_odds_near_the_threshold_are_near_ties():
    records = [{"null_odds": value} for value in (0.99995, 1.0, 1.001)] + [{}]
    assert nulls.find_near_threshold(records, 1.0) == [0, 1]
    assert nulls.find_near_threshold(records, None) == []


def test_crossed_questions_have_the_answer_of_their_context():
    from xlkd.data import sampling

    tags = {"de": "Haus", "en": "", "fr": "maison"}
    rows = [
        make_question(f"{word or 'x'} y", word, question_language=tag, context_language=tag, key=tag, text=f"{tag}?")
        for tag, word in tags.items()
    ]
    drawn = sampling.draw_pairs(sampling.group_languages(rows), n=2, seed=0)
    crossed = sampling.make_crossed_examples(rows, drawn)
    assert len(crossed) == 9
    for row, (a, b) in zip(crossed, itertools.product(sorted(tags), repeat=2), strict=True):
        assert (row.question, row.context_language, bool(row.answers)) == (f"{a}?", b, b != "en")
