# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores answers officially: which script judges which example, and the means of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.metrics import mlqa, squad
from xlkd.rows import Cell, Question
from xlkd.tasks import Scores


def score(texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool = False) -> Scores:
    """Returns the means of each cell; an example without a prediction (None) counts 0."""
    values = score_examples(texts, rows, mlqa_fallback)
    members: dict[Cell, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(Cell.from_example(row), []).append(i)
    cells = {
        cell: {name: float(np.mean(scores[own])) for name, scores in values.items()} | {"n": len(own)}
        for cell, own in members.items()
    }
    return Scores(cells, "f1")


def score_examples(texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool) -> dict[str, np.ndarray]:
    """Returns official scores in percent: MLQA's rules for its own examples, by context language, else SQuAD's."""
    pairs = [score_answer(text, row, mlqa_fallback) for text, row in zip(texts, rows, strict=True)]
    em, f1 = 100.0 * np.array(pairs, np.float64).reshape(-1, 2).T
    return {"f1": f1, "em": em}


def score_file(
    predictions: Mapping[str, object], rows: Sequence[Question], where: str = "", mlqa_fallback: bool = False
) -> tuple[Scores, int]:
    """Scores an official `{id: answer}` file of any system; returns too how many examples it has no answer for.

    `where` is the file's name, for error messages.
    """
    texts = squad.select_predictions(predictions, rows, where)
    return score(texts, rows, mlqa_fallback), sum(text is None for text in texts)


def score_answer(text: str | None, row: Question, mlqa_fallback: bool = False) -> tuple[float, float]:
    """Returns EM and F1 of an answer, between 0 and 1."""
    golds = squad.gold_texts(row)
    if text is None:
        return 0.0, 0.0
    if row.set != "mlqa":
        return squad.em(text, golds), squad.f1(text, golds)
    em, f1 = (
        metric(text, golds, language=row.context_language, fallback=mlqa_fallback) for metric in (mlqa.em, mlqa.f1)
    )
    return em, f1
