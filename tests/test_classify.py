# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classification: labels by name, batches, scores by language, and what the data report counts."""

import json
import pathlib

import numpy as np
import pytest
from qa_toys import make_word_tokenizer

from xlkd import check
from xlkd.data import labels, sources
from xlkd.errors import UserError
from xlkd.rows import Cell, Labelled, make_key
from xlkd.spec.tasks import Classify as Settings
from xlkd.tasks import Draw
from xlkd.tasks.classify import build, match_labels
from xlkd.tasks.labelled import describe_labelled

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "protocol.json").read_text())["classification"]
WORDS = [f"w{i}" for i in range(20)]
NLI = ("entailment", "neutral", "contradiction")


def make_row(number=0, label="neutral", language="en", text="w1 w2", second="w3", set="toy", group="g"):
    key = make_key(number, label, language, text)
    return Labelled(str(number), key, group, set, text, second, label, language)


def make_task(**settings):
    return build(Settings(**{"max_length": 16} | settings), make_word_tokenizer(WORDS))


def make_arrays(task, features, index, length=16, purpose="train"):
    return task.arrays(features, np.array(index), {"text": length}, Draw(0, 0, purpose))


def make_logits(predicted, classes):
    return {"logits": np.eye(classes, dtype=np.float32)[list(predicted)]}


def test_single_texts_and_pairs_are_encoded_as_by_the_tokenizer():
    task = make_task()
    batch = make_arrays(task, task.features([make_row(), make_row(second=None), make_row()]), [0, 1, -1], 8)
    ids = [task.tokenizer.fast.convert_ids_to_tokens(line) for line in batch["text"]["ids"]]
    assert ids[0] == ["[CLS]", "w1", "w2", "[SEP]", "w3", "[SEP]", "[PAD]", "[PAD]"]
    assert ids[1] == ["[CLS]", "w1", "w2", "[SEP]", *["[PAD]"] * 4]
    assert batch["text"]["types"][0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert batch["text"]["mask"].sum(1).tolist() == [6, 4, 1]  # attention needs a key in padded rows too
    assert batch["mask"].tolist() == [1, 1, 0]
    assert batch["labelled"].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (("contradiction", "neutral", "entailment"), NLI),
        (("Contradictory", "entailment "), ("entailment ", "Contradictory")),
        (("positive", "negative"), ("negative", "positive")),
        (("POSITIVE", "Neg"), ("Neg", "POSITIVE")),
        (("10", "9", "1"), ("1", "9", "10")),
        (("us", "US", "Us"), ("US", "Us", "us")),
        (("sport", "art", "10"), ("10", "art", "sport")),
    ],
)
def test_the_order_of_labels_follows_from_the_data_and_is_recorded(names, order):
    features = make_task().features([make_row(i, label) for i, label in enumerate(names)])
    assert tuple(features["labels"]) == order
    assert [order[i] for i in features["label"]] == list(names)


def test_the_order_of_labels_can_be_set_in_the_config():
    task = make_task(labels=("contradictory", "neutral", "entailment"))
    features = task.features([make_row(label="entailment"), make_row(label="contradiction")])
    assert features["label"].tolist() == [2, 0]
    assert features["labels"].tolist() == ["contradictory", "neutral", "entailment"]
    assert make_task(labels=("not_paraphrase", "paraphrase")).features([make_row(label="1")])["label"].tolist() == [1]
    assert task.identity() != make_task(labels=NLI).identity() != make_task().identity()


def test_an_unknown_label_is_refused():
    with pytest.raises(UserError, match="row 3 in de: label 'maybe' is not one of entailment, neutral, contradiction"):
        make_task(labels=NLI).features([make_row(), make_row(3, "maybe", "de")])
    with pytest.raises(UserError, match="a label occurs twice in neutral, neutral"):
        make_task(labels=("neutral", "neutral"))


@pytest.mark.parametrize(
    "names",
    [("us", "Us"), ("contradiction", "contradictory"), ("a", "a "), ("e\u0301", "é"), ("1", "1.0"), ("U.S.", "US")],
)
def test_labels_that_differ_only_in_spelling_are_different_and_reported(names):
    task, rows = make_task(), [make_row(i, label) for i, label in enumerate(names)]
    features = task.features(rows)
    assert set(features["labels"].tolist()) == set(names)
    assert len(set(features["label"].tolist())) == 2
    report = task.report(features, rows)
    assert [set(group) for group in report["similar_labels"]] == [set(names)]
    assert "labels that differ only in spelling are different labels" in report["shown"]
    with pytest.raises(UserError, match="is not one of"):  # never merged into one label of a model
        make_task(labels=(names[0], "other")).features(rows)


@pytest.mark.parametrize("names", [("1.0", "10"), ("+", "-"), ("1", "-1"), ("👍", "👎"), ("ä", "a"), ("0", "1", "2")])
def test_other_labels_are_not_reported_as_similar(names):
    assert labels.find_similar_labels(names) == []


@pytest.mark.parametrize("name", ["rows", "groups", "no_label", "elsewhere"])
def test_a_label_with_the_name_of_a_count_replaces_no_count(name):
    cell = describe_labelled([make_row(0, name), make_row(1, "b")])["cells"]["toy en"]
    assert (cell["rows"], cell["groups"], cell["no_label"], cell[f"label {name}"], cell["b"]) == (2, 1, 0, 1, 1)


def test_the_labels_of_examples_match_those_of_a_model_by_name_and_the_report_says_so():
    task, rows = make_task(labels=NLI), [make_row(0, "Contradictory"), make_row(1, "NEUTRAL"), make_row(2, "neutral")]
    features = task.features(rows[:2])
    assert features["label"].tolist() == [2, 1]
    assert (
        "labels matched by name: 'Contradictory' as 'contradiction', 'NEUTRAL' as 'neutral'"
        in (task.report(features, rows[:2])["shown"])
    )
    with pytest.raises(UserError, match="label 'NEUTRAL' is not one of"):  # beside 'neutral' it is another label
        task.features(rows)


def test_logits_of_another_model_are_reordered_by_name():
    order = match_labels(("CONTRADICTION", "entailment", "neutral"), NLI, "teacher", "")
    assert np.array([10.0, 20.0, 30.0])[order].tolist() == [20, 30, 10]
    assert match_labels(("different_meaning", "paraphrase"), ("0", "1"), "teacher", "").tolist() == [0, 1]
    for theirs in (("LABEL_0", "LABEL_1", "LABEL_2"), NLI[:2], (*NLI, "other"), ("neutral", "neutral", "entailment")):
        with pytest.raises(UserError, match="teacher: its labels "):
            match_labels(theirs, NLI, "teacher", "")


def test_rows_without_a_label_are_predicted_but_not_scored():
    task = make_task(labels=NLI)
    rows = [make_row(0), make_row(1, None), make_row(2, "entailment")]
    features = task.features(rows)
    with pytest.raises(UserError, match="1 rows without a label"):
        make_arrays(task, features, [0, 2])
    assert make_arrays(task, features, [0, 1, 2], purpose="evaluation")["labelled"].tolist() == [1, 0, 1]
    assert make_arrays(make_task(labels=NLI, unlabelled="keep"), features, [0, 1, 2])["labelled"].tolist() == [1, 0, 1]
    outputs = make_logits([1, 2, 1], 3)
    scores = task.score(outputs, features, rows)
    assert scores.cells[Cell.parse("toy en")] == {
        "accuracy": 50,
        "macro_f1": pytest.approx(100 / 3),
        "majority": 50,
        "n": 2,
    }
    assert ["accuracy" in record for record in task.records(outputs, features, rows)] == [True, False, True]
    assert [prediction.label for prediction in task.decode(outputs, features)] == [
        "neutral",
        "contradiction",
        "neutral",
    ]
    assert task.decode(outputs, features)[0].probabilities["neutral"] == pytest.approx(np.e / (np.e + 2))
    with pytest.raises(UserError, match="no row has a label"):
        task.score(make_logits([1], 3), task.features(rows[1:2]), rows[1:2])
    assert "1 rows without a label" in task.report(features, rows)["shown"]


@pytest.mark.parametrize("language", ["de", "sw"])
def test_golden_scores(language):
    gold, predicted = GOLDEN[language]["gold"], GOLDEN[language]["predicted"]
    rows = [make_row(i, NLI[label], language) for i, label in enumerate(gold)]
    rows += [make_row(i, "neutral", "zz") for i in range(3)]  # another cell changes nothing
    task = make_task(labels=NLI)
    cells = task.score(make_logits([*predicted, 0, 0, 0], 3), task.features(rows), rows).cells
    assert cells[Cell("toy", (language,))]["accuracy"] == pytest.approx(100 * GOLDEN[language]["accuracy"])
    assert cells[Cell("toy", (language,))]["macro_f1"] == pytest.approx(100 * GOLDEN[language]["macro_f1"])
    assert "mae" not in cells[Cell("toy", (language,))]
    assert cells[Cell("toy", ("zz",))]["accuracy"] == 0


def test_ties_go_to_the_lower_label():
    task = make_task(labels=NLI)
    rows = [make_row(0, "entailment")]
    assert (
        task.score({"logits": np.zeros((1, 3))}, task.features(rows), rows).cells[Cell.parse("toy en")]["accuracy"]
        == 100
    )


def test_ordered_labels_have_a_mean_absolute_error():
    rows = [make_row(i, str(star)) for i, star in enumerate((1, 5, 3))]
    for task in (make_task(), make_task(ordered=True)):
        cell = task.score(make_logits([2, 2, 1], 3), task.features(rows), rows).cells[Cell.parse("toy en")]  # 5, 5, 3
        assert cell["mae"] == pytest.approx((4 + 0 + 0) / 3)
    task = make_task(ordered=True)
    with pytest.raises(UserError, match="are not numbers"):
        task.score(make_logits([0], 1), task.features([make_row()]), [make_row()])


def test_languages_are_numbered_in_the_order_of_the_config():
    task = make_task(languages=("zh-CN", "en"))
    features = task.features([make_row(language=language) for language in ("en", "de", "zh")])
    assert make_arrays(task, features, [0, 1, 2, -1], purpose="evaluation")["language"].tolist() == [1, -1, 0, -1]
    with pytest.raises(UserError, match=r"training rows in de, which task\.languages does not name"):
        make_arrays(task, features, [0, 1, 2, -1])
    assert "2 rows in zh, en, 1 in others" in task.report(features, [make_row(), make_row(), make_row()])["shown"]


def test_other_routes_are_scored_beside_the_rows_own():
    task = make_task(labels=NLI)
    rows = [
        make_row(0, "neutral", "en"),
        make_row(1, "entailment", "de"),
        make_row(2, "neutral", "de"),
        make_row(3, None, "de"),
    ]
    features = task.features(rows)
    outputs = make_logits([1, 1, 1, 1], 3) | {"logits_en": make_logits([0, 0, 1, 1], 3)["logits"]}
    scores = task.score(outputs, features, rows)
    assert [scores.cells[Cell.parse(f"toy {tag}")]["accuracy"] for tag in ("en", "de")] == [100, 50]
    assert [scores.cells[Cell.parse(f"toy {tag}")]["accuracy_via_en"] for tag in ("en", "de")] == [0, 100]
    assert scores.mean() == 75
    by_row = task.records(outputs, features, rows)
    assert [record.get("accuracy_via_en") for record in by_row] == [0, 100, 100, None]
    assert "accuracy_via_en" not in task.score(make_logits([1, 1, 1, 1], 3), features, rows).cells[Cell.parse("toy en")]


def test_the_report_counts_tokens_cut_by_max_length():
    task = make_task(max_length=8)
    rows = [make_row(text="w1 " * 6, second="w2 " * 3), make_row(language="de")]
    features = task.features(rows)
    assert task.lengths(features)["text"].tolist() == [8, 6]
    cut = task.report(features, rows)["cut"]
    assert cut["toy en"] == {"cut_percent": 100, "tokens_lost": 4, "tokens": 8}
    assert cut["toy de"]["cut_percent"] == 0


def test_the_report_counts_duplicates_and_contradicting_labels():
    train = [
        make_row("train:en:0", "neutral", "en", "a", "a", group="1"),
        make_row("train:de:0", "entailment", "de", "b", "c", group="1"),
        make_row("train:en:1", None, "en", "a", "a", group="1"),
        make_row("train:de:1", "neutral", "de", "x", "y", group="2"),
    ]
    test = [
        make_row("test:en:0", "entailment", "en", "a", "a", group="1"),
        make_row("test:en:1", "neutral", "en", "n", "m"),
    ]
    report = describe_labelled(sources.Rows((train, test), (("f: line 1", "empty text"), ("f: line 9", "empty text"))))
    common = {"entailment": 0, "neutral": 1}
    assert report["cells"]["toy en (1)"] == {
        "rows": 2, "groups": 1, "largest": 2, "no_label": 1, "equal_sides": 2, "repeated": 2, "elsewhere": 2, **common,
    }  # fmt: skip
    assert report["cells"]["toy en (2)"]["elsewhere"] == 1
    assert report["cells"]["toy de (1)"]["groups"] == 2
    assert report["labels_differ"] == ["train:0"]
    assert report["left_out"] == [("empty text", 2)]
    assert "1 ids whose label differs" in report["shown"]
    assert list(describe_labelled(train)["cells"]) == ["toy en", "toy de"]


def test_the_report_without_a_tokenizer(tmp_path, capsys):
    file = tmp_path / "dev-de.tsv"
    file.write_text("a\tb\t1\r\nNS\tb\t0\r\nc\tc\t0\r\n")
    assert check.main([f"--data=pawsx:{file}", f"--json={tmp_path / 'o.json'}"]) == 0
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["contents"]["left_out"] == [["not translated (NS)", 1]]
    assert report["cells"]["pawsx de"]["labels"] == {"0": 1, "1": 1}
    assert "1 rows left out: not translated (NS)" in capsys.readouterr().out


@pytest.mark.shared
def test_labels_that_differ_between_languages_in_pawsx(shared_data):
    with_untranslated, without_untranslated = (
        describe_labelled(sources.read(f"pawsx:{shared_data}/pawsx?split=dev&ns={ns}", "classify"))
        for ns in ("keep", "drop")
    )
    assert {cell.split()[1]: counts["equal_sides"] for cell, counts in without_untranslated["cells"].items()} == {
        "de": 38, "en": 0, "es": 20, "fr": 57, "ja": 39, "ko": 18, "zh": 71,
    }  # fmt: skip
    assert len(with_untranslated["labels_differ"]) == 72
    assert not without_untranslated["labels_differ"]
