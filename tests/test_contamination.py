# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Contamination of training data is found at each level, and the index misses no near-duplicate."""

import itertools
import json
import pathlib
import string

import numpy as np
import pytest

from xlkd.metrics import contamination as seen
from xlkd.rows import Labelled, Pair, Question

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "protocol.json").read_text())["jaccard"]
LONG = "The river rises in the northern hills and flows 120 km to the sea"


def compare_texts(a, b):
    """Checks two texts in one language for contamination."""
    return seen.find_contamination([seen.Item("a", "ag", "en", a)], [seen.Item("b", "bg", "en", b)])


@pytest.mark.parametrize(
    "golden", GOLDEN["pairs"], ids=lambda pair: f"{pair['normal_a'][-12:]}/{pair['normal_b'][-12:]}"
)
def test_golden_pairs(golden):
    assert (seen.normalise(golden["a"]), seen.normalise(golden["b"])) == (golden["normal_a"], golden["normal_b"])
    a, b = (seen.character_ngrams(golden[k], golden["n"]) for k in ("normal_a", "normal_b"))
    assert (len(a), len(b), len(a & b)) == (golden["grams_a"], golden["grams_b"], golden["common"])
    assert seen.similarity(a, b) == pytest.approx((golden["jaccard"], golden["containment"]), abs=1e-9)
    assert seen.similarity(a, b) == seen.similarity(b, a)
    assert seen.is_near_duplicate(*seen.similarity(a, b)) == golden["over_threshold"]
    if golden["n"] == seen.GRAM:
        report = compare_texts(golden["a"], golden["b"])
        assert bool(report.near) == golden["over_threshold"]
        assert bool(report.test[seen.NEAR_DUPLICATE]) == golden["flag"]


def test_golden_thresholds():
    assert GOLDEN["threshold"] == {
        "jaccard": seen.JACCARD,
        "containment": seen.CONTAINMENT,
        "least_grams_to_flag": seen.LEAST_GRAMS,
    }


def test_normalise():
    assert seen.normalise("  Ｚürich—«1ﬁ» \u00a0STRASSE\u200b ß!€2 ") == "zürich 1fi strasse ss 2"


def test_parallel_ids_match_with_and_without_language_suffix():
    train = [seen.Item(id_, "", "de", f"text {i}") for i, id_ in enumerate(("56be_de-en", "77aa-de", "99-de", "12"))]
    test = [seen.Item(id_, "", "el", f"other {i}") for i, id_ in enumerate(("56be", "77aa_el", "99", "12", "zz"))]
    report = seen.find_contamination(train, test)
    assert report.test[seen.PARALLEL_ID] == {0, 1}  # plain row numbers are ignored


def test_paragraphs_match_by_text_or_by_group_in_any_language():
    train = [seen.Item("a", "p1", "en", "A Text."), seen.Item("b", "p2", "fr", "un texte")]
    test = [
        seen.Item("c", "p9", "de", "a text"),
        seen.Item("d", "p2", "el", "κείμενο"),
        seen.Item("e", "p8", "en", "b"),
    ]
    report = seen.find_contamination(train, test)
    assert report.test[seen.PARAGRAPH] == {0, 1}
    assert not any(report.test[level] for level in (seen.PARALLEL_ID, seen.NEAR_DUPLICATE))


def test_near_duplicates_are_found_within_a_language_and_flag_all_rows_of_a_text():
    train = [seen.Item(str(i), "", "en", LONG + " today") for i in range(3)] + [seen.Item("x", "", "de", LONG)]
    test = [seen.Item("y", "", "en", LONG), seen.Item("z", "", "en", LONG), seen.Item("w", "", "fr", LONG + " today")]
    report = seen.find_contamination(train, test)
    assert len(report.near) == 1
    assert report.near[0].train == 0
    assert report.test[seen.NEAR_DUPLICATE] == {0, 1}


@pytest.mark.parametrize(
    ("jaccard", "containment", "over"), [(0.7, 0.82, True), (0.69, 0.89, False), (0.4, 0.9, True), (0.6, 0.75, False)]
)
def test_either_threshold_is_sufficient_and_inclusive(jaccard, containment, over):
    assert seen.is_near_duplicate(jaccard, containment) is over


def test_near_duplicates_of_short_texts_are_listed_but_not_flagged():
    report = compare_texts("a red house", "a red house x")
    assert [pair.flagged for pair in report.near] == [False]
    assert not any(report.test.values())
    letters = string.ascii_lowercase + string.digits
    for length, flagged in ((33, False), (34, True)):  # 29 and 30 grams
        report = compare_texts(letters[:length], letters[:length] + "!")
        assert [pair.flagged for pair in report.near] == [flagged]
        assert bool(report.test[seen.NEAR_DUPLICATE]) is flagged


@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_the_same_as_a_comparison_of_all_pairs(seed):
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefgh"), rng.integers(2, 9))) for _ in range(150)]
    base = [list(rng.choice(words, rng.integers(3, 60))) for _ in range(40)]

    def change_text(text):
        text = [w if rng.random() > rng.choice([0.0, 0.03, 0.08, 0.15]) else rng.choice(words) for w in text]
        cut = slice(0, int(len(text) * rng.uniform(0.3, 1)) + 1)
        return " ".join(text[cut] if rng.random() < 0.4 else text + list(rng.choice(words, rng.integers(0, 40))))

    train = [change_text(base[i % 40]) for i in range(120)]
    test = [change_text(base[i % 40]) for i in range(80)]
    report = seen.find_contamination(
        *([seen.Item(f"{s}{i}", "", "en", t) for i, t in enumerate(side)] for s, side in (("a", train), ("b", test)))
    )
    grams = {text: seen.character_ngrams(seen.normalise(text)) for text in (*train, *test)}
    expected = {
        (a, b)
        for a, b in itertools.product(dict.fromkeys(train), dict.fromkeys(test))
        if seen.is_near_duplicate(*seen.similarity(grams[a], grams[b]))
    }
    assert {(train[pair.train], test[pair.test]) for pair in report.near} == expected
    assert len(expected) > 30


def test_the_compared_text_of_each_kind_of_row():
    question = Question("q", "k", "g", "s", "?", "the context", (), "en", "de")
    assert seen.make_item(question) == seen.Item("q", "g", "de", "the context")
    assert seen.make_item(Labelled("i", "k", "g", "s", "one", "two", None, "sw")).text == "one two"
    assert seen.make_item(Labelled("i", "k", "g", "s", "one", None, None, "sw")).text == "one"
    assert seen.make_item(Pair("i", "k", "g", "s", "one", "zwei", "en", "de")) == seen.Item("i", "g", "en", "one zwei")


def test_empty_data_is_not_contaminated():
    assert not any(seen.find_contamination([], [seen.Item("a", "", "en", "x")]).test.values())
    assert not compare_texts("", "").near


@pytest.mark.shared
def test_squad_dev_contains_paragraphs_of_xquad(shared, shared_data):
    def read_items(path, language):
        paragraphs = [p for article in json.loads(path.read_text())["data"] for p in article["paragraphs"]]
        return [
            seen.Item(q["id"], f"{path}{i}", language, p["context"]) for i, p in enumerate(paragraphs) for q in p["qas"]
        ]

    english, greek = (read_items(shared_data / "xquad" / f"xquad.{x}.json", x) for x in ("en", "el"))
    dev, train = (read_items(shared / "data" / "squad_en" / f"{part}.json", "en") for part in ("dev", "train"))
    report = seen.find_contamination(dev, english)
    assert len(report.test[seen.PARALLEL_ID]) == 213
    assert len({english[i].text for i in report.test[seen.PARAGRAPH]}) == 35
    assert report.test[seen.NEAR_DUPLICATE] >= report.test[seen.PARAGRAPH]
    assert len(seen.find_contamination(dev, greek).test[seen.PARALLEL_ID]) == 213
    assert len(seen.find_contamination(english, greek).test[seen.PARALLEL_ID]) == 1190
    train_report = seen.find_contamination(train, english)
    assert not train_report.test[seen.PARALLEL_ID] | train_report.test[seen.PARAGRAPH]
