# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of classification by language, and their named means over languages."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from xlkd.errors import UserError
from xlkd.metrics import statistics


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Share of the rows that are right."""
    gold, predicted = _same_length(gold, predicted)
    return int(np.sum(gold == predicted)) / len(gold)


def macro_f1(gold: Sequence[int], predicted: Sequence[int], classes: int) -> float:
    """Mean F1 over the classes that occur in gold or in predictions."""
    return float(macro_f1_of(confusion(gold, predicted, classes)))


def mae(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Mean distance of ordered labels, such as stars."""
    gold, predicted = _same_length(gold, predicted)
    return float(np.mean(np.abs(gold - predicted)))


def predictions(logits: np.ndarray) -> np.ndarray:
    """The best label of each row; ties go to the lower index."""
    return np.argmax(logits, axis=-1)


def confusion(gold: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """Counts [gold, predicted]."""
    gold, predicted = _same_length(gold, predicted)
    return np.bincount(gold * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def f1_by_class(confusion: np.ndarray) -> np.ndarray:
    """2·TP / (2·TP + FP + FN) of counts [..., gold, predicted]; NaN for a class that occurs nowhere."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    occurs = confusion.sum(-1) + confusion.sum(-2)
    return np.divide(2.0 * right, occurs, out=np.full(right.shape, np.nan), where=occurs > 0)


def macro_f1_of(confusion: np.ndarray) -> np.ndarray:
    """Macro-F1 of counts [..., gold, predicted]; NaN without any row."""
    f1 = f1_by_class(confusion)
    occurs = ~np.isnan(f1)
    classes = occurs.sum(-1)
    return np.divide(np.where(occurs, f1, 0).sum(-1), classes, out=np.full(classes.shape, np.nan), where=classes > 0)


@dataclasses.dataclass(frozen=True)
class Mean:
    """An unweighted mean over languages; None over no language."""

    value: float | None
    languages: tuple[str, ...]


def means(
    values: Mapping[str, float],
    *,
    supervised: Collection[str] = (),
    zero_shot: Collection[str] = (),
    pivot: str | None = None,
) -> dict[str, Mean]:
    """The named means of one score by language; `supervised` and `zero_shot` come from the badges."""
    found = {
        "macro_mean": _mean(values, values),
        "supervised_mean": _mean(values, [language for language in values if language in supervised]),
        "zero_shot_mean": _mean(values, [language for language in values if language in zero_shot]),
    }
    if pivot is not None:
        zero = found["zero_shot_mean"]
        gap = None if zero.value is None or pivot not in values else values[pivot] - zero.value
        found["transfer_gap"] = Mean(gap, (pivot, *zero.languages))
    return found


def majority(gold: Sequence[int]) -> float:
    """The accuracy of always answering the most frequent label."""
    return int(np.bincount(np.asarray(gold)).max()) / len(gold)


@dataclasses.dataclass(frozen=True)
class Answers:
    """One system's answers in one language."""

    ids: Sequence[str]
    groups: Sequence[str]
    gold: Sequence[int]
    predicted: Sequence[int]


def compare_macro_f1(
    a: Mapping[str, Answers],
    b: Mapping[str, Answers],
    classes: int,
    *,
    averages: Mapping[str, Sequence[str]] | None = None,
    resamples: int = statistics.RESAMPLES,
    seed: int = statistics.SEED,
) -> statistics.Comparison:
    """A − B in percent, by language and for averages over languages: each of the two is a Holm family.

    Macro-F1 is no ratio of sums: the counts of the drawn groups are added, and the score is taken of those.
    """
    _same_rows(a, b)
    number = {group: i for i, group in enumerate(sorted({group for of in a.values() for group in of.groups}))}
    counts_a, counts_b = (np.stack([counts_by_group(run[x], number, classes) for x in a]) for run in (a, b))
    score = 100 * (macro_f1_of(counts_a.sum(1)) - macro_f1_of(counts_b.sum(1)))
    resamples = max(resamples, 100 * len(a))
    theta = np.concatenate(
        [
            100 * (macro_f1_resampled(counts_a, drawn) - macro_f1_resampled(counts_b, drawn))
            for drawn in statistics.draws(np.random.default_rng(seed), len(number), resamples)
        ]
    )
    same = [list(a[x].predicted) == list(b[x].predicted) for x in a]
    rows = counts_a.sum((-1, -2))

    def result(languages: Sequence[str]) -> statistics.Result:
        at = [list(a).index(language) for language in languages]
        count = int(rows[at].sum()), int((rows[at].sum(0) > 0).sum())
        theta_mean = statistics.mean_over_cells(theta[:, at])
        return statistics.tested(theta_mean, [float(score[at].mean())], count, all(same[i] for i in at))

    cells = statistics.judge({language: result([language]) for language in a})
    means = statistics.judge({name: result(languages) for name, languages in (averages or {}).items()})
    return statistics.Comparison(cells, means, resamples, seed, statistics.caption(1))


def macro_f1_resampled(by_group: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Macro-F1 [resamples, languages] of counts [languages, groups, gold, predicted] over the drawn groups."""
    languages, groups, classes, _ = by_group.shape
    flat = by_group.transpose(1, 0, 2, 3).reshape(groups, -1)
    return macro_f1_of((drawn @ flat).reshape(len(drawn), languages, classes, classes))


def counts_by_group(answers: Answers, number: Mapping[str, int], classes: int) -> np.ndarray:
    """Counts [groups, gold, predicted]; `number` says which group is which."""
    gold, predicted = _same_length(answers.gold, answers.predicted)
    group = np.array([number[g] for g in answers.groups])
    flat = (group * classes + gold) * classes + predicted
    return np.bincount(flat, minlength=len(number) * classes**2).reshape(len(number), classes, classes)


def _same_rows(a: Mapping[str, Answers], b: Mapping[str, Answers]) -> None:
    if set(a) != set(b):
        only = ", ".join(sorted(set(a) ^ set(b)))
        raise UserError(f"only one side has {only}", remedy="compare runs that were evaluated on the same sets")
    for language in a:
        x, y = a[language], b[language]
        if (list(x.ids), list(x.groups), list(x.gold)) != (list(y.ids), list(y.groups), list(y.gold)):
            raise UserError("the rows differ", language, "compare runs that answered the same rows in the same order")


def _same_length(gold: Sequence, predicted: Sequence) -> tuple[np.ndarray, np.ndarray]:
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    if len(gold) != len(predicted) or not len(gold):
        raise ValueError(f"{len(gold)} gold labels and {len(predicted)} predictions")
    return gold, predicted


def _mean(values: Mapping[str, float], languages: Collection[str]) -> Mean:
    languages = tuple(languages)
    return Mean(sum(values[language] for language in languages) / len(languages) if languages else None, languages)
