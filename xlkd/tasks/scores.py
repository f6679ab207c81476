# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores answers officially: which script judges which example, and the means of each cell.

A cell with unanswerable questions is judged by the rules of SQuAD 2, any other by those of SQuAD 1.1 or MLQA.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from xlkd.metrics import mlqa, ranks, squad, squad2
from xlkd.rows import Cell, Question
from xlkd.tasks import Records, Scores, metrics


def score(texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool = False) -> Scores:
    """Returns the means of each cell; an example without a prediction (None) counts 0."""
    return average_by_cell(score_examples(texts, rows, mlqa_fallback, find_unanswerable_cells(rows)), rows)


def average_records(records: Records, rows: Sequence[Question]) -> Scores:
    """Returns the means of each cell, from the scores of each example.

    Where the examples of a cell have null odds, `best_f1`, `best_f1_thresh` and the same for `exact` are added: the
    best scores that a threshold could have given in the cell, and that threshold.
    """
    values = {metric.name: np.array([record[metric.name] for record in records]) for metric in metrics.QA}
    scores = average_by_cell(values, rows)
    for cell, own in _group_by_cell(rows).items():
        if all("span" in records[i] for i in own):
            scores.cells[cell].update(_find_best_scores([records[i] for i in own], [rows[i] for i in own]))
    return scores


def _find_best_scores(records: Records, rows: Sequence[Question]) -> dict[str, float]:
    odds = np.array([record["null_odds"] for record in records])
    has_answer, is_empty = np.array([[bool(row.answers) for row in rows], [not record["span"] for record in records]])
    best = {}
    for name, metric in (("exact", "em"), ("f1", "f1")):
        spans = np.array([record[f"span_{metric}"] for record in records])
        score, threshold = squad2.find_best_threshold(spans, odds, has_answer, is_empty)
        best |= {f"best_{name}": score, f"best_{name}_thresh": threshold}
    return best


def average_by_cell(values: Mapping[str, Float[np.ndarray, " rows"]], rows: Sequence[Question]) -> Scores:
    """Returns the means of each cell of the metrics of each example."""
    cells = {}
    for cell, own in _group_by_cell(rows).items():
        cells[cell] = {name: float(np.mean(scores[own])) for name, scores in values.items()} | {"n": len(own)}
        has_answer = np.array([bool(rows[i].answers) for i in own])
        if not has_answer.all():
            cells[cell] |= squad2.split_scores(values["em"][own], values["f1"][own], has_answer)
    return Scores(cells, metrics.QA[0].name, metrics.QA)


def _group_by_cell(rows: Sequence[Question]) -> dict[Cell, list[int]]:
    members: dict[Cell, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(Cell.from_example(row), []).append(i)
    return members


def find_unanswerable_cells(rows: Iterable[Question]) -> frozenset[Cell]:
    """Returns the cells with unanswerable questions."""
    return frozenset(Cell.from_example(row) for row in rows if not row.answers)


def score_examples(
    texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool, unanswerable: Collection[Cell]
) -> dict[str, Float[np.ndarray, " rows"]]:
    """Returns each metric of each answer, in percent; `unanswerable` are the cells with unanswerable questions."""
    scores = [
        score_answer(text, row, mlqa_fallback, bool(unanswerable) and Cell.from_example(row) in unanswerable)
        for text, row in zip(texts, rows, strict=True)
    ]
    return {metric.name: 100.0 * np.array([row[metric.name] for row in scores], np.float64) for metric in metrics.QA}


def score_file(
    predictions: Mapping[str, object], rows: Sequence[Question], where: str = "", mlqa_fallback: bool = False
) -> tuple[Scores, int]:
    """Scores an official `{id: answer}` file of any system; returns too how many examples it has no answer for.

    `where` is the file's name, for error messages.
    """
    texts = squad.select_predictions(predictions, rows, where)
    return score(texts, rows, mlqa_fallback), sum(text is None for text in texts)


def score_answer(
    text: str | None, row: Question, mlqa_fallback: bool = False, with_null: bool = False
) -> dict[str, float]:
    """Returns each metric of an answer, from 0 to 1; None, no prediction, has 0.

    Examples of MLQA are normalised by its rules, by the language of the context, all others by SQuAD's. `with_null`
    applies the rules of SQuAD 2, where an empty text is the answer to an unanswerable question.
    """
    if text is None:
        return {metric.name: 0.0 for metric in metrics.QA}
    normalise = _choose_rules(row, mlqa_fallback)
    prediction, normal = normalise(text), [normalise(answer.text) for answer in row.answers]
    if with_null:
        normal = squad2.select_golds(normal)
        if (value := squad2.score_null(prediction, normal)) is not None:
            return {metric.name: value for metric in metrics.QA}
    return {metric.name: metric.score(prediction, normal) for metric in metrics.QA}


def find_rank(texts: Iterable[str], row: Question, mlqa_fallback: bool = False) -> int:
    """Returns the place of the first of an example's candidates that is exactly right, as `ranks.find_rank` does.

    The rules are those of `score_answer`, without those of SQuAD 2.
    """
    normalise = _choose_rules(row, mlqa_fallback)
    return ranks.find_rank(map(normalise, texts), [normalise(answer.text) for answer in row.answers])


def _choose_rules(row: Question, mlqa_fallback: bool) -> Callable[[str], str]:
    """Returns the normalisation of texts by the rules of an example's data set."""
    if row.set == "mlqa":
        return functools.partial(mlqa.normalise, language=row.context_language, fallback=mlqa_fallback)
    return squad.normalise
