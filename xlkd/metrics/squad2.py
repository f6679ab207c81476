# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The numbers of SQuAD 2: scores of questions with and without an answer, and the best threshold of the null odds.

The null odds of a question are the score of "no answer" minus that of the best span: above the threshold the answer is
the empty text. Arrays have one value for each question of a data set, in the order of its file; scores are in percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

Scores = Float[np.ndarray, " rows"]


def score_null(prediction: str, golds: Sequence[str]) -> float | None:
    """Returns the score of an empty prediction or of an unanswerable question by any metric; None for other pairs.

    Texts must be normalised, with `golds` as `select_golds` returns them.
    """
    return None if prediction and golds[0] else float(prediction in golds)


def select_golds(golds: Sequence[str]) -> list[str]:
    """Returns the normalised gold answers that have a word, or else the empty text alone: "no answer"."""
    return [gold for gold in golds if gold] or [""]


def split_scores(exact: Scores, f1: Scores, has_answer: Bool[np.ndarray, " rows"]) -> dict[str, float]:
    """Returns the means over questions with an answer, `HasAns_exact` and `HasAns_f1`, and their number `HasAns_total`.

    The same for questions without one begins with `NoAns`. A part without questions is left out.
    """
    numbers: dict[str, float] = {}
    for name, part in (("HasAns", has_answer), ("NoAns", ~has_answer)):
        if part.any():
            means = {"exact": float(exact[part].mean()), "f1": float(f1[part].mean()), "total": int(part.sum())}
            numbers |= {f"{name}_{key}": value for key, value in means.items()}
    return numbers


def find_best_threshold(
    scores: Scores, odds: Scores, has_answer: Bool[np.ndarray, " rows"], is_empty: Bool[np.ndarray, " rows"]
) -> tuple[float, float]:
    """Returns the highest mean score that a threshold can give, and that threshold.

    `scores` are those of the best spans, and `is_empty` says where a span has no text. At first no question has an
    answer; then they get their spans in the order of their odds, equal odds in the order of the file. The threshold is
    the odds of the question after which the sum is highest, the first of equals; 0 where no span raises the sum.
    """
    order = np.argsort(odds, kind="stable")
    changes = np.where(has_answer, scores, np.where(is_empty, 0.0, -100.0))[order]
    nothing = 100.0 * float((~has_answer).sum())
    sums = nothing + np.cumsum(changes)
    best = int(np.argmax(sums))
    if sums[best] <= nothing:
        return nothing / len(scores), 0.0
    return float(sums[best]) / len(scores), float(odds[order[best]])
