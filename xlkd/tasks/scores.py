# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers to official scores: which script judges which row, and the figures of each cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.metrics import mlqa, squad
from xlkd.rows import Question
from xlkd.tasks.spans import Predictions


@dataclasses.dataclass(frozen=True)
class Scores:
    """Percentages by cell (set, question language, context language) and for each row."""

    cells: Mapping[tuple[str, str, str], Mapping[str, float]]  # f1, em, n
    rows: Mapping[str, np.ndarray]  # f1, em
    missing: int = 0  # rows without a prediction: they count 0


def score(
    predictions: Predictions | Sequence[str | None], rows: Sequence[Question], mlqa_fallback: bool = False
) -> Scores:
    """Official scores: MLQA's rules for its own rows, by the context's language, and SQuAD's for all others."""
    texts = predictions.texts if isinstance(predictions, Predictions) else list(predictions)
    pairs = [row_score(text, row, mlqa_fallback) for text, row in zip(texts, rows, strict=True)]
    em, f1 = 100.0 * np.array(pairs, np.float64).reshape(-1, 2).T
    members: dict[tuple[str, str, str], list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault((row.set, row.question_language, row.context_language), []).append(i)
    cells = {
        cell: {"f1": float(np.mean(f1[which])), "em": float(np.mean(em[which])), "n": len(which)}
        for cell, which in members.items()
    }
    return Scores(cells, {"f1": f1, "em": em}, sum(text is None for text in texts))


def score_file(
    predictions: Mapping[str, object], rows: Sequence[Question], where: str = "", mlqa_fallback: bool = False
) -> Scores:
    """Scores of an official `{id: answer}` file that any system made; `where` is its name, for what is wrong in it."""
    return score(squad.select(predictions, rows, where), rows, mlqa_fallback)


def row_score(text: str | None, row: Question, mlqa_fallback: bool = False) -> tuple[float, float]:
    """EM and F1 of an answer, between 0 and 1."""
    golds = squad.gold_texts(row)
    if text is None:
        return 0.0, 0.0
    if row.set != "mlqa":
        return squad.em(text, golds), squad.f1(text, golds)
    rule = {"language": row.context_language, "fallback": mlqa_fallback}
    return mlqa.em(text, golds, **rule), mlqa.f1(text, golds, **rule)
