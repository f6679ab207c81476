# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The record of labels seen in training, and of evaluation examples that the training data contain."""

import pytest
from stages import make_spec

from xlkd.evaluation import provenance
from xlkd.inputs.data import EvaluationSet
from xlkd.rows import Answer, Labelled, Pair, Question
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import Teacher

SENTENCE = "The river rises in the northern hills and flows {} km to the sea"


def make_labelled(number, language="en", label="yes", text=""):
    key = f"{language}{number}"
    return Labelled(key, key, f"g{number}", "toy", text or SENTENCE.format(number), "", label, language)


def make_question(number, answered=True):
    answers = (Answer("river", 4),) if answered else ()
    return Question(f"q{number}", f"q{number}", "g", "toy", "What rises?", SENTENCE.format(number), answers, "de", "en")


def make_sets(**rows):
    return {name: EvaluationSet(None, examples, {}) for name, examples in rows.items()}


def test_contaminated_examples_are_recorded_with_those_of_earlier_training():
    test = (make_labelled(120), make_labelled(7, "de", text="Der Zug fährt am Abend nach Riga und hält in Tartu"))
    record = provenance.describe_contamination([make_labelled(120)], make_sets(eval=test), {})["eval"]
    assert (record["rows"], record["flagged"], record["by_language"]) == (2, 1, {"en": 1})
    assert record["keys"]["same paragraph"] == ["en120"]
    assert record["kinds"]["same paragraph"] == 1
    assert record["examples"][0] | {"kind": ""} == {
        "kind": "",
        "id": "en120",
        "language": "en",
        "text": SENTENCE.format(120),
    }
    before = {"eval": {"keys": {"near-duplicate": ["de7"]}}}
    both = provenance.describe_contamination([make_labelled(120)], make_sets(eval=test), before)["eval"]
    assert (both["flagged"], both["by_language"]) == (2, {"en": 1, "de": 1})
    assert both["keys"] == record["keys"] | {"near-duplicate": sorted(record["keys"]["near-duplicate"] + ["de7"])}


def test_only_sets_of_questions_and_labelled_examples_are_compared():
    pair = Pair("1", "1", "1", "toy", "a", "b", "en", "de")
    sets = make_sets(empty=(), pairs=(pair,), questions=(make_question(1),))
    assert provenance.describe_contamination([], sets, {}).keys() == {"questions"}
    assert provenance.sample_texts(sets).keys() == {"questions"}


def test_a_sample_has_all_examples_of_a_few_groups_and_is_the_same_in_every_order():
    examples = tuple(make_labelled(number, language) for language in ("en", "de") for number in range(9))
    sample = provenance.sample_texts(make_sets(eval=examples), groups=3)["eval"]
    groups = {row["group"] for row in sample}
    assert len(groups) == 3
    assert {row["key"] for row in sample} == {row.key for row in examples if row.group in groups}
    again = provenance.sample_texts(make_sets(eval=examples[::-1]), groups=3)["eval"]
    assert {row["key"] for row in again} == {row["key"] for row in sample}


def test_labels_are_in_the_language_of_the_context_and_unlabelled_examples_have_none():
    examples = [
        make_question(1),
        make_question(2, answered=False),
        make_labelled(1, "zh"),
        make_labelled(2, "fr", None),
    ]
    assert provenance.find_labelled_languages(examples) == {"en", "zh"}


@pytest.mark.parametrize(
    ("teacher", "teachers", "has_teacher", "languages"),
    [
        (Teacher(), {}, False, []),
        (Teacher(), {}, True, ["de", "ru"]),  # the teacher comes from the same training
        (Teacher(path="folder"), {}, True, []),  # an encoder, which has seen no labels
        (Teacher(), {"fi": "folder", "el": ""}, False, ["fi"]),
    ],
)
def test_the_languages_of_teachers_are_recorded(teacher, teachers, has_teacher, languages):
    spec = make_spec(horizon=Horizon(4, 4, (0,)), teacher=teacher, teachers=teachers)
    before = {"training": ["ru"]}
    seen = provenance.collect_seen_languages(spec, [make_labelled(1, "de")], [], before, has_teacher)
    assert seen == {"training": ["de", "ru"], "selection": [], "teacher": languages, "parallel": []}


def test_a_sample_has_the_texts_of_its_examples():
    question, labelled = make_question(1), make_labelled(2)
    sample = provenance.sample_texts(make_sets(questions=(question,), labelled=(labelled,)))
    assert sample["questions"][0] == {
        **{name: getattr(question, name) for name in ("key", "id", "group", "set", "question", "context")},
        **{name: getattr(question, name) for name in ("question_language", "context_language")},
        "answers": [{"text": "river", "start": 4}],
    }
    names = ("key", "id", "group", "set", "text", "second", "label", "language")
    assert sample["labelled"] == [{name: getattr(labelled, name) for name in names}]
