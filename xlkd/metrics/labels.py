# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of classification by language, and their named means over languages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from xlkd.errors import UserError
from xlkd.metrics import statistics

Labels = Int[np.ndarray, " rows"] | Sequence[int]  # a label's index for each row
Numbers = Float[np.ndarray, " rows"] | Sequence[float]
Counts = Shaped[np.ndarray, "*batch classes classes"]  # confusion matrices; floats where groups were drawn
CellScore = Callable[[Counts], Float[np.ndarray, "*batch"]]


def accuracy(gold: Labels, predicted: Labels) -> float:
    """Returns the share of the rows whose label is right."""
    gold_array, predicted_array = _check_arrays(gold, predicted)
    return int(np.sum(gold_array == predicted_array)) / len(gold_array)


def is_same_label(gold: str, predicted: str) -> float:
    """Returns 1 where the predicted label is the gold one, else 0."""
    return float(gold == predicted)


def macro_f1(gold: Labels, predicted: Labels, classes: int) -> float:
    """Returns the mean F1 over the classes that occur in gold or in predictions."""
    return float(macro_f1_from_counts(confusion_matrix(gold, predicted, classes)))


def mean_absolute_error(gold: Numbers, predicted: Numbers) -> float:
    """Returns the mean distance of ordered labels, such as stars."""
    gold_array, predicted_array = _check_arrays(gold, predicted)
    return float(np.mean(np.abs(gold_array - predicted_array)))


def predict_labels(logits: Float[np.ndarray, "*batch classes"]) -> Int[np.ndarray, "*batch"]:
    """Returns the index of the best label of each row; ties go to the lower index."""
    return np.argmax(logits, axis=-1)


def confusion_matrix(gold: Labels, predicted: Labels, classes: int) -> Int[np.ndarray, "gold predicted"]:
    """Counts how often each label was predicted for each gold label."""
    gold_array, predicted_array = _check_arrays(gold, predicted)
    return np.bincount(gold_array * classes + predicted_array, minlength=classes * classes).reshape(classes, classes)


def f1_by_class(counts: Counts) -> Float[np.ndarray, "*batch classes"]:
    """Returns 2·TP / (2·TP + FP + FN); NaN for a class that occurs nowhere."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    occurs = counts.sum(-1) + counts.sum(-2)
    return np.divide(2.0 * right, occurs, out=np.full(right.shape, np.nan), where=occurs > 0)


def macro_f1_from_counts(counts: Counts) -> Float[np.ndarray, "*batch"]:
    """Returns the macro-F1 of confusion matrices; NaN for one without any row."""
    f1 = f1_by_class(counts)
    occurs = ~np.isnan(f1)
    classes = occurs.sum(-1)
    return np.divide(np.where(occurs, f1, 0).sum(-1), classes, out=np.full(classes.shape, np.nan), where=classes > 0)


@dataclasses.dataclass(frozen=True)
class Mean:
    """An unweighted mean over languages; None over no language."""

    value: float | None
    languages: tuple[str, ...]


def compute_means(
    values: Mapping[str, float],
    *,
    supervised: Collection[str] = (),
    zero_shot: Collection[str] = (),
    pivot: str | None = None,
) -> dict[str, Mean]:
    """Returns the named means of one score by language; `supervised` and `zero_shot` come from the badges."""
    means = {
        "macro_mean": _make_mean(values, values),
        "supervised_mean": _make_mean(values, [language for language in values if language in supervised]),
        "zero_shot_mean": _make_mean(values, [language for language in values if language in zero_shot]),
    }
    if pivot is not None:
        zero = means["zero_shot_mean"]
        gap = None if zero.value is None or pivot not in values else values[pivot] - zero.value
        means["transfer_gap"] = Mean(gap, (pivot, *zero.languages))
    return means


def majority_accuracy(gold: Labels) -> float:
    """Returns the accuracy of always predicting the most frequent label."""
    return int(np.bincount(np.asarray(gold)).max()) / len(gold)


@dataclasses.dataclass(frozen=True)
class Answers:
    """The labels that one system predicted in one language."""

    ids: Sequence[str]
    groups: Sequence[str]
    gold: Labels
    predicted: Labels


def compare_whole_cells(
    score: CellScore,
    a: Mapping[str, Answers],
    b: Mapping[str, Answers],
    classes: int,
    *,
    averages: Mapping[str, Sequence[str]] | None = None,
    resamples: int = statistics.RESAMPLES,
    seed: int = statistics.SEED,
) -> statistics.Comparison[str, str]:
    """Returns A − B in percent, by language and for averages over languages: each of the two is a Holm family.

    A score like macro-F1 is not a ratio of sums: the confusion matrices of the drawn groups are added, and scored as
    one.
    """
    _check_same_rows(a, b)
    number = number_groups(a)
    counts_a, counts_b = (np.stack([count_by_group(run[x], number, classes) for x in a]) for run in (a, b))
    difference = 100 * (score(counts_a.sum(1)) - score(counts_b.sum(1)))
    resamples = max(resamples, 100 * len(a))
    theta = np.concatenate(
        [
            100 * (score_resamples(score, counts_a, drawn) - score_resamples(score, counts_b, drawn))
            for drawn in statistics.draw_group_counts(np.random.default_rng(seed), len(number), resamples)
        ]
    )
    has_same_labels = [list(a[x].predicted) == list(b[x].predicted) for x in a]
    rows = counts_a.sum((-1, -2))

    def compute_result(languages: Sequence[str]) -> statistics.Result:
        at = [list(a).index(language) for language in languages]
        count = int(rows[at].sum()), int((rows[at].sum(0) > 0).sum())
        theta_mean = statistics.mean_over_cells(theta[:, at])
        identical = all(has_same_labels[i] for i in at)
        return statistics.summarize_difference(theta_mean, [float(difference[at].mean())], count, identical)

    cells = statistics.judge({language: compute_result([language]) for language in a})
    means = statistics.judge({name: compute_result(languages) for name, languages in (averages or {}).items()})
    return statistics.Comparison(cells, means, resamples, seed, statistics.describe_seeds(1))


def number_groups(answers: Mapping[str, Answers]) -> dict[str, int]:
    """Returns a number for each group that occurs in any language, in the order of the names."""
    groups = {group for answer in answers.values() for group in answer.groups}
    return {group: number for number, group in enumerate(sorted(groups))}


def score_resamples(
    score: CellScore,
    counts: Int[np.ndarray, "languages groups classes classes"],
    drawn: Float[np.ndarray, "resamples groups"],
) -> Float[np.ndarray, "resamples languages"]:
    """Returns the score of each language in each resample of the groups."""
    languages, groups, classes, _ = counts.shape
    flat = counts.transpose(1, 0, 2, 3).reshape(groups, -1)
    return score((drawn @ flat).reshape(len(drawn), languages, classes, classes))


def count_by_group(
    answers: Answers, number: Mapping[str, int], classes: int
) -> Int[np.ndarray, "groups classes classes"]:
    """Returns the confusion matrix of each group; `number` is the place of each group."""
    gold, predicted = _check_arrays(answers.gold, answers.predicted)
    group = np.array([number[g] for g in answers.groups])
    flat = (group * classes + gold) * classes + predicted
    return np.bincount(flat, minlength=len(number) * classes**2).reshape(len(number), classes, classes)


def _check_same_rows(a: Mapping[str, Answers], b: Mapping[str, Answers]) -> None:
    if set(a) != set(b):
        only = ", ".join(sorted(set(a) ^ set(b)))
        raise UserError(f"only one side has {only}", remedy="compare runs that were evaluated on the same sets")
    for language in a:
        x, y = a[language], b[language]
        if (list(x.ids), list(x.groups), list(x.gold)) != (list(y.ids), list(y.groups), list(y.gold)):
            raise UserError("the rows differ", language, "compare runs that answered the same rows in the same order")


def _check_arrays(gold: Labels | Numbers, predicted: Labels | Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Returns gold and predicted labels as arrays; raises where their lengths differ or there is no row."""
    gold_array, predicted_array = np.asarray(gold), np.asarray(predicted)
    if len(gold_array) != len(predicted_array) or not len(gold_array):
        raise ValueError(f"{len(gold_array)} gold labels and {len(predicted_array)} predictions")
    return gold_array, predicted_array


def _make_mean(values: Mapping[str, float], languages: Collection[str]) -> Mean:
    languages = tuple(languages)
    return Mean(sum(values[language] for language in languages) / len(languages) if languages else None, languages)
