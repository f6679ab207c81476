# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores answers officially: which script judges which example, and the means of each cell."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from xlkd.metrics import mlqa, squad
from xlkd.rows import Cell, Question
from xlkd.tasks import Scores, metrics


def score(texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool = False) -> Scores:
    """Returns the means of each cell; an example without a prediction (None) counts 0."""
    return average_by_cell(score_examples(texts, rows, mlqa_fallback), rows)


def average_by_cell(values: Mapping[str, Float[np.ndarray, " rows"]], rows: Sequence[Question]) -> Scores:
    """Returns the means of each cell of the metrics of each example."""
    members: dict[Cell, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(Cell.from_example(row), []).append(i)
    cells = {
        cell: {name: float(np.mean(scores[own])) for name, scores in values.items()} | {"n": len(own)}
        for cell, own in members.items()
    }
    return Scores(cells, metrics.QA[0].name, metrics.QA)


def score_examples(
    texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool
) -> dict[str, Float[np.ndarray, " rows"]]:
    """Returns each metric of each answer, in percent."""
    scores = [score_answer(text, row, mlqa_fallback) for text, row in zip(texts, rows, strict=True)]
    return {metric.name: 100.0 * np.array([row[metric.name] for row in scores], np.float64) for metric in metrics.QA}


def score_file(
    predictions: Mapping[str, object], rows: Sequence[Question], where: str = "", mlqa_fallback: bool = False
) -> tuple[Scores, int]:
    """Scores an official `{id: answer}` file of any system; returns too how many examples it has no answer for.

    `where` is the file's name, for error messages.
    """
    texts = squad.select_predictions(predictions, rows, where)
    return score(texts, rows, mlqa_fallback), sum(text is None for text in texts)


def score_answer(text: str | None, row: Question, mlqa_fallback: bool = False) -> dict[str, float]:
    """Returns each metric of an answer, from 0 to 1; None, no answer, has 0.

    Examples of MLQA are normalised by its rules, by the language of the context, all others by SQuAD's.
    """
    golds = squad.gold_texts(row)
    if text is None:
        return {metric.name: 0.0 for metric in metrics.QA}
    normalise: Callable[[str], str] = squad.normalise
    if row.set == "mlqa":
        normalise = functools.partial(mlqa.normalise, language=row.context_language, fallback=mlqa_fallback)
    prediction, normal = normalise(text), [normalise(gold) for gold in golds]
    return {metric.name: metric.score(prediction, normal) for metric in metrics.QA}
