# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers to official scores: which script judges which row, and the figures of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.metrics import mlqa, squad
from xlkd.rows import Cell, Question
from xlkd.tasks import Scores


def score(texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool = False) -> Scores:
    """The means of each cell; a row without prediction (None) counts 0."""
    found = by_row(texts, rows, mlqa_fallback)
    members: dict[Cell, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(Cell.from_example(row), []).append(i)
    cells = {
        cell: {name: float(np.mean(values[which])) for name, values in found.items()} | {"n": len(which)}
        for cell, which in members.items()
    }
    return Scores(cells, "f1")


def by_row(texts: Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool) -> dict[str, np.ndarray]:
    """Official scores in percent: MLQA's rules for its own rows, by the context's language, else SQuAD's."""
    pairs = [row_score(text, row, mlqa_fallback) for text, row in zip(texts, rows, strict=True)]
    em, f1 = 100.0 * np.array(pairs, np.float64).reshape(-1, 2).T
    return {"f1": f1, "em": em}


def score_file(
    predictions: Mapping[str, object], rows: Sequence[Question], where: str = "", mlqa_fallback: bool = False
) -> tuple[Scores, int]:
    """Scores of an official `{id: answer}` file that any system made, and how many rows it has no answer for.

    `where` is the file's name, for what is wrong in it.
    """
    texts = squad.select_predictions(predictions, rows, where)
    return score(texts, rows, mlqa_fallback), sum(text is None for text in texts)


def row_score(text: str | None, row: Question, mlqa_fallback: bool = False) -> tuple[float, float]:
    """EM and F1 of an answer, between 0 and 1."""
    golds = squad.gold_texts(row)
    if text is None:
        return 0.0, 0.0
    if row.set != "mlqa":
        return squad.em(text, golds), squad.f1(text, golds)
    rule = {"language": row.context_language, "fallback": mlqa_fallback}
    return mlqa.em(text, golds, **rule), mlqa.f1(text, golds, **rule)
