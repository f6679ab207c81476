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


def row(number=0, label="neutral", language="en", text="w1 w2", second="w3", set="toy", group="g"):
    key = make_key(number, label, language, text)
    return Labelled(str(number), key, group, set, text, second, label, language)


def task(**settings):
    return build(Settings(**{"max_length": 16} | settings), make_word_tokenizer(WORDS))


def arrays(of, features, index, length=16, purpose="train"):
    return of.arrays(features, np.array(index), {"text": length}, Draw(0, 0, purpose))


def logits(predicted, classes):
    return {"logits": np.eye(classes, dtype=np.float32)[list(predicted)]}


def test_one_text_and_a_pair_in_the_frame_of_the_tokenizer():
    of = task()
    batch = arrays(of, of.features([row(), row(second=None), row()]), [0, 1, -1], 8)
    ids = [of.tokenizer.fast.convert_ids_to_tokens(line) for line in batch["text"]["ids"]]
    assert ids[0] == ["[CLS]", "w1", "w2", "[SEP]", "w3", "[SEP]", "[PAD]", "[PAD]"]
    assert ids[1] == ["[CLS]", "w1", "w2", "[SEP]", *["[PAD]"] * 4]
    assert batch["text"]["types"][0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert batch["text"]["mask"].sum(1).tolist() == [6, 4, 1]  # attention needs a key also where no row is
    assert batch["mask"].tolist() == [1, 1, 0]
    assert batch["labelled"].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        (("contradiction", "neutral", "entailment"), NLI),
        (("Contradictory", "entailment "), ("entailment", "contradiction")),
        (("positive", "negative"), ("negative", "positive")),
        (("10", "9", "1"), ("1", "9", "10")),
        (("sport", "art", "10"), ("10", "art", "sport")),
    ],
)
def test_the_data_decide_the_order_and_it_is_recorded(given, order):
    features = task().features([row(i, label) for i, label in enumerate(given)])
    assert tuple(features["labels"]) == order
    assert [order[i] for i in features["label"]] == [labels.normalise_label(label) for label in given]


def test_the_config_decides_the_order_by_name():
    of = task(labels=("contradictory", "neutral", "entailment"))
    features = of.features([row(label="entailment"), row(label="contradiction")])
    assert features["label"].tolist() == [2, 0]
    assert features["labels"].tolist() == ["contradiction", "neutral", "entailment"]
    assert task(labels=("not_paraphrase", "paraphrase")).features([row(label="1")])["label"].tolist() == [1]
    assert of.identity() != task(labels=NLI).identity() != task().identity()


def test_a_label_that_is_none_of_them_is_refused():
    with pytest.raises(UserError, match="row 3 in de: label 'maybe' is not one of entailment, neutral, contradiction"):
        task(labels=NLI).features([row(), row(3, "maybe", "de")])
    with pytest.raises(UserError, match="two names for one label"):
        task(labels=("contradiction", "contradictory"))


def test_logits_of_another_model_are_put_in_our_order_by_name():
    found = match_labels(("CONTRADICTION", "entailment", "neutral"), NLI, "teacher")
    assert np.array([10.0, 20.0, 30.0])[found].tolist() == [20, 30, 10]
    assert match_labels(("different_meaning", "paraphrase"), ("0", "1"), "teacher").tolist() == [0, 1]
    for theirs in (("LABEL_0", "LABEL_1", "LABEL_2"), NLI[:2], (*NLI, "other"), ("neutral", "neutral", "entailment")):
        with pytest.raises(UserError, match="teacher: its labels are"):
            match_labels(theirs, NLI, "teacher")


def test_rows_without_a_label_are_predicted_never_scored_nor_trained_silently():
    of = task(labels=NLI)
    rows = [row(0), row(1, None), row(2, "entailment")]
    features = of.features(rows)
    with pytest.raises(UserError, match="1 rows without a label"):
        arrays(of, features, [0, 2])
    assert arrays(of, features, [0, 1, 2], purpose="evaluation")["labelled"].tolist() == [1, 0, 1]
    assert arrays(task(labels=NLI, unlabelled="keep"), features, [0, 1, 2])["labelled"].tolist() == [1, 0, 1]
    outputs = logits([1, 2, 1], 3)
    scores = of.score(outputs, features, rows)
    assert scores.cells[Cell.parse("toy en")] == {
        "accuracy": 50,
        "macro_f1": pytest.approx(100 / 3),
        "majority": 50,
        "n": 2,
    }
    assert ["accuracy" in record for record in of.records(outputs, features, rows)] == [True, False, True]
    assert [found.label for found in of.decode(outputs, features)] == ["neutral", "contradiction", "neutral"]
    assert of.decode(outputs, features)[0].probabilities["neutral"] == pytest.approx(np.e / (np.e + 2))
    with pytest.raises(UserError, match="no row has a label"):
        of.score(logits([1], 3), of.features(rows[1:2]), rows[1:2])
    assert "1 rows without a label" in of.report(features, rows)["shown"]


@pytest.mark.parametrize("language", ["de", "sw"])
def test_golden_scores(language):
    gold, predicted = GOLDEN[language]["gold"], GOLDEN[language]["predicted"]
    rows = [row(i, NLI[label], language) for i, label in enumerate(gold)]
    rows += [row(i, "neutral", "zz") for i in range(3)]  # another cell changes nothing
    of = task(labels=NLI)
    cells = of.score(logits([*predicted, 0, 0, 0], 3), of.features(rows), rows).cells
    assert cells[Cell("toy", (language,))]["accuracy"] == pytest.approx(100 * GOLDEN[language]["accuracy"])
    assert cells[Cell("toy", (language,))]["macro_f1"] == pytest.approx(100 * GOLDEN[language]["macro_f1"])
    assert "mae" not in cells[Cell("toy", (language,))]
    assert cells[Cell("toy", ("zz",))]["accuracy"] == 0


def test_ties_go_to_the_lower_label():
    of = task(labels=NLI)
    rows = [row(0, "entailment")]
    assert (
        of.score({"logits": np.zeros((1, 3))}, of.features(rows), rows).cells[Cell.parse("toy en")]["accuracy"] == 100
    )


def test_stars_are_a_scale():
    rows = [row(i, str(star)) for i, star in enumerate((1, 5, 3))]
    for of in (task(), task(ordered=True)):
        cell = of.score(logits([2, 2, 1], 3), of.features(rows), rows).cells[Cell.parse("toy en")]  # 5, 5, 3
        assert cell["mae"] == pytest.approx((4 + 0 + 0) / 3)
    of = task(ordered=True)
    with pytest.raises(UserError, match="are not numbers"):
        of.score(logits([0], 1), of.features([row()]), [row()])


def test_languages_are_placed_as_the_method_counts_them():
    of = task(languages=("zh-CN", "en"))
    features = of.features([row(language=language) for language in ("en", "de", "zh")])
    assert arrays(of, features, [0, 1, 2, -1], purpose="evaluation")["language"].tolist() == [1, -1, 0, -1]
    with pytest.raises(UserError, match=r"training rows in de, which task\.languages does not name"):
        arrays(of, features, [0, 1, 2, -1])
    assert "2 rows in zh, en, 1 in others" in of.report(features, [row(), row(), row()])["shown"]


def test_other_routes_stand_beside_the_rows_own():
    of = task(labels=NLI)
    rows = [row(0, "neutral", "en"), row(1, "entailment", "de"), row(2, "neutral", "de"), row(3, None, "de")]
    features = of.features(rows)
    outputs = logits([1, 1, 1, 1], 3) | {"logits_en": logits([0, 0, 1, 1], 3)["logits"]}
    scores = of.score(outputs, features, rows)
    assert [scores.cells[Cell.parse(f"toy {tag}")]["accuracy"] for tag in ("en", "de")] == [100, 50]
    assert [scores.cells[Cell.parse(f"toy {tag}")]["accuracy_via_en"] for tag in ("en", "de")] == [0, 100]
    assert scores.mean() == 75
    by_row = of.records(outputs, features, rows)
    assert [one.get("accuracy_via_en") for one in by_row] == [0, 100, 100, None]
    assert "accuracy_via_en" not in of.score(logits([1, 1, 1, 1], 3), features, rows).cells[Cell.parse("toy en")]


def test_what_max_length_costs():
    of = task(max_length=8)
    rows = [row(text="w1 " * 6, second="w2 " * 3), row(language="de")]
    features = of.features(rows)
    assert of.lengths(features)["text"].tolist() == [8, 6]
    cut = of.report(features, rows)["cut"]
    assert cut["toy en"] == {"cut_percent": 100, "tokens_lost": 4, "tokens": 8}
    assert cut["toy de"]["cut_percent"] == 0


def test_what_a_careful_reader_asks_of_the_data():
    train = [
        row("train:en:0", "neutral", "en", "a", "a", group="1"),
        row("train:de:0", "entailment", "de", "b", "c", group="1"),
        row("train:en:1", None, "en", "a", "a", group="1"),
        row("train:de:1", "neutral", "de", "x", "y", group="2"),
    ]
    test = [row("test:en:0", "entailment", "en", "a", "a", group="1"), row("test:en:1", "neutral", "en", "n", "m")]
    found = describe_labelled(sources.Rows((train, test), (("f: line 1", "empty text"), ("f: line 9", "empty text"))))
    common = {"entailment": 0, "neutral": 1}
    assert found["cells"]["toy en (1)"] == {
        "rows": 2, "groups": 1, "largest": 2, "no_label": 1, "equal_sides": 2, "repeated": 2, "elsewhere": 2, **common,
    }  # fmt: skip
    assert found["cells"]["toy en (2)"]["elsewhere"] == 1
    assert found["cells"]["toy de (1)"]["groups"] == 2
    assert found["labels_differ"] == ["train:0"]
    assert found["left_out"] == [("empty text", 2)]
    assert "1 ids whose label differs" in found["shown"]
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
    kept, dropped = (
        describe_labelled(sources.read(f"pawsx:{shared_data}/pawsx?split=dev&ns={ns}", "classify"))
        for ns in ("keep", "drop")
    )
    assert {cell.split()[1]: counts["equal_sides"] for cell, counts in dropped["cells"].items()} == {
        "de": 38, "en": 0, "es": 20, "fr": 57, "ja": 39, "ko": 18, "zh": 71,
    }  # fmt: skip
    assert len(kept["labels_differ"]) == 72
    assert not dropped["labels_differ"]
