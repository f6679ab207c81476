# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Accuracy, macro-F1 and means over languages: golden numbers."""

import json
import pathlib

import numpy as np
import pytest

from xlkd.errors import UserError
from xlkd.metrics import labels

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "protocol.json").read_text())
CLASSES = GOLDEN["classification"]


@pytest.mark.parametrize("language", ["de", "sw"])
def test_golden_scores(language):
    golden = CLASSES[language]
    gold, predicted = golden["gold"], golden["predicted"]
    assert labels.accuracy(gold, predicted) == golden["accuracy"]
    assert labels.macro_f1(gold, predicted, 3) == pytest.approx(golden["macro_f1"], abs=1e-9)
    assert labels.f1_by_class(labels.confusion_matrix(gold, predicted, 3)) == pytest.approx(
        golden["f1_by_class"], abs=1e-9
    )


def test_golden_macro_f1_leaves_out_a_class_that_never_occurs():
    golden = CLASSES["two_class_gold_only"]
    value = labels.macro_f1(golden["gold"], golden["predicted"], golden["classes"])
    assert value == pytest.approx(golden["macro_f1_over_classes_seen_in_gold_or_predictions"], abs=1e-9)
    assert value != pytest.approx(golden["macro_f1_over_all_three_for_contrast"], abs=1e-3)
    assert np.isnan(labels.macro_f1_from_counts(np.zeros((4, 3, 3)))).all()


def test_golden_means():
    golden = CLASSES["means"]
    means = labels.compute_means(
        golden["accuracy"], supervised=golden["supervised"], zero_shot=golden["zero_shot"], pivot="en"
    )
    for name in ("macro_mean", "supervised_mean", "zero_shot_mean"):
        assert means[name].value == golden[name]
    assert means["transfer_gap"].value == 84.0 - 70.0
    assert means["zero_shot_mean"].languages == ("es", "sw")


def test_a_mean_over_no_language_is_none():
    means = labels.compute_means({"en": 80.0}, supervised=["en"], pivot="en")
    assert means["zero_shot_mean"].value is None
    assert means["transfer_gap"].value is None


def test_stars_ties_and_majority():
    assert labels.mean_absolute_error([1, 5, 3], [2, 2, 3]) == pytest.approx(4 / 3)
    assert labels.predict_labels(np.array([[0.5, 0.5, 0.1], [0.0, 1.0, 1.0]])).tolist() == [0, 1]
    assert labels.majority_accuracy([2, 2, 1]) == 2 / 3
    for gold, predicted in (([0, 1], [0]), ([], [])):
        with pytest.raises(ValueError, match=f"{len(gold)} gold labels and {len(predicted)} predictions"):
            labels.accuracy(gold, predicted)


def test_golden_macro_f1_of_resamples():
    golden = GOLDEN["macro_f1_bootstrap"]
    by_group = np.array([golden["confusion_by_group_gold_rows_predicted_columns"]])
    drawn = np.stack([np.bincount(row, minlength=3) for row in golden["explicit"]["resamples"]]).astype(float)
    values = labels.score_resamples(labels.macro_f1_from_counts, by_group, drawn)[:, 0]
    assert values == pytest.approx(golden["explicit"]["macro_f1"], abs=1e-9)


def make_answers(predicted, language="de", groups=(0, 0, 0, 1, 1, 1, 2, 2)):
    return labels.Answers([str(i) for i in range(8)], [f"g{g}" for g in groups], CLASSES[language]["gold"], predicted)


def test_golden_confusion_counts_by_group():
    golden = GOLDEN["macro_f1_bootstrap"]["confusion_by_group_gold_rows_predicted_columns"]
    counts = labels.count_by_group(make_answers(CLASSES["de"]["predicted"]), {"g0": 0, "g1": 1, "g2": 2}, 3)
    assert counts.tolist() == golden


def test_difference_of_macro_f1():
    worse = [0, 1, 1, 0, 2, 2, 1, 0]
    a, b = ({"de": make_answers(p), "sw": make_answers(p, "sw")} for p in (CLASSES["de"]["predicted"], worse))
    comparison = labels.compare_whole_cells(
        labels.macro_f1_from_counts, a, b, 3, averages={"macro_mean": ["de", "sw"]}, resamples=500
    )
    reversed_comparison = labels.compare_whole_cells(
        labels.macro_f1_from_counts, b, a, 3, averages={"macro_mean": ["de", "sw"]}, resamples=500
    )
    expected = 100 * (
        labels.macro_f1(CLASSES["de"]["gold"], CLASSES["de"]["predicted"], 3)
        - labels.macro_f1(CLASSES["de"]["gold"], worse, 3)
    )
    assert comparison.cells["de"].estimate == pytest.approx(expected)
    assert comparison.cells["de"].low == pytest.approx(-reversed_comparison.cells["de"].high)
    mean = comparison.averages["macro_mean"]
    assert mean.estimate == pytest.approx((comparison.cells["de"].estimate + comparison.cells["sw"].estimate) / 2)
    assert (mean.questions, mean.groups, mean.verdict) == (16, 3, "cannot tell: too few groups")
    comparison_with_itself = labels.compare_whole_cells(labels.macro_f1_from_counts, a, a, 3, resamples=150)
    assert {r.verdict for r in comparison_with_itself.cells.values()} == {"identical"}
    assert (comparison.resamples, comparison_with_itself.resamples) == (500, 200), "at least 100 for each language"


def test_other_rows_are_refused():
    a = {"de": make_answers(CLASSES["de"]["predicted"])}
    with pytest.raises(UserError, match="de: the rows differ"):
        labels.compare_whole_cells(
            labels.macro_f1_from_counts, a, {"de": make_answers(CLASSES["de"]["predicted"], "sw")}, 3
        )
    with pytest.raises(UserError, match="only one side has sw"):
        labels.compare_whole_cells(labels.macro_f1_from_counts, a, {**a, "sw": a["de"]}, 3)
