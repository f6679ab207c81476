# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the best score that any model could reach under a run's windows and limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlkd.rows import Cell, Question
from xlkd.tasks.scores import find_unanswerable_cells, score_answer
from xlkd.tasks.windows import LOST, Settings, Windows, find_gold_span


def compute_ceilings(
    windows: Windows, rows: Sequence[Question], settings: Settings, mlqa_fallback: bool = False
) -> dict[str, dict[str, float]]:
    """Returns by context language the ceilings `em` and `f1` in percent, examples `n`, and how many are `unreachable`.

    A gold answer is reachable where the decoder may return its span; for an example without such an answer the best F1
    is searched among the spans that overlap one. "No answer" to an unanswerable question is always reachable.
    """
    unanswerable = find_unanswerable_cells(rows)
    bounds = np.searchsorted(windows.row_of, np.arange(len(rows) + 1))
    known: dict[tuple, np.ndarray] = {}  # cells of a parallel set share contexts, golds and mostly windows
    sums: dict[str, np.ndarray] = {}
    for i, row in enumerate(rows):
        own = slice(bounds[i], bounds[i + 1])
        layout = np.stack([windows.first[own], windows.count[own]]).tobytes()
        with_null = bool(unanswerable) and Cell.from_example(row) in unanswerable
        key = (row.set, row.context_language, int(windows.context[i]), row.answers, layout, with_null)
        if key not in known:
            known[key] = _find_best_scores(windows, i, row, own, settings, mlqa_fallback, with_null)
        sums[row.context_language] = sums.get(row.context_language, np.zeros(4)) + known[key]
    return {
        language: {"em": float(100 * em / n), "f1": float(100 * f1 / n), "n": int(n), "unreachable": int(unreachable)}
        for language, (em, f1, n, unreachable) in sorted(sums.items())
    }


def _find_best_scores(
    windows: Windows, number: int, row: Question, own: slice, settings: Settings, mlqa_fallback: bool, with_null: bool
) -> np.ndarray:
    """Returns EM and F1 of the best answer to an example, the count 1, and 1 if no gold answer can be reached."""
    if not row.answers:
        return np.array([1, 1, 1, 0])
    golds = _find_gold_tokens(windows, number, row)
    reached = golds[_find_reachable_spans(windows, own, settings, golds)]
    spans = reached if len(reached) else _find_overlapping_spans(windows, own, settings, golds)
    scores = [score_answer(text, row, mlqa_fallback, with_null) for text in _cut_texts(windows, number, row, spans)]
    best = [max((score[metric] for score in scores), default=0.0) for metric in ("em", "f1")]
    return np.array([*best, 1, not len(reached)])


def _find_gold_tokens(windows: Windows, number: int, row: Question) -> np.ndarray:
    """Returns the spans of the gold answers: first and last token [golds, 2]."""
    begin, end = windows.token_characters(windows.context[number])
    spans = [find_gold_span(begin, end, row.context, answer) for answer in row.answers]
    return np.array([span for gold, *span in spans if gold != LOST], np.int64).reshape(-1, 2)


def _find_reachable_spans(windows: Windows, own: slice, settings: Settings, spans: np.ndarray) -> np.ndarray:
    """Returns which spans the decoder may return: not too long, and inside a window that allows their start."""
    first, last = spans[:, :1], spans[:, 1:]
    low, count = windows.first[own], windows.count[own]
    inside = last < low + count
    if settings.max_context:
        low, count = windows.best_first[own], windows.best_count[own]
    starts = (first >= low) & (first < low + count)
    return (starts & inside).any(axis=1) & (last - first < settings.max_answer_tokens)[:, 0]


def _find_overlapping_spans(windows: Windows, own: slice, settings: Settings, golds: np.ndarray) -> np.ndarray:
    """Returns all spans that the decoder may return and that share a token with a gold answer."""
    limit, spans = settings.max_answer_tokens, [np.zeros((0, 2), np.int64)]
    for low, high in golds:
        first = np.arange(max(0, low - limit + 1), high + 1)[:, None] + np.zeros(limit, np.int64)
        last = first + np.arange(limit)
        spans.append(np.stack([first, last], axis=-1)[last >= low])
    unique = np.unique(np.concatenate(spans), axis=0)
    return unique[_find_reachable_spans(windows, own, settings, unique)]


def _cut_texts(windows: Windows, number: int, row: Question, spans: np.ndarray) -> dict[str, None]:
    """Returns the different texts of spans of the context, in order."""
    begin, end = windows.token_characters(windows.context[number])
    edges = zip(begin[spans[:, 0]].tolist(), end[spans[:, 1]].tolist(), strict=True)
    return dict.fromkeys(row.context[low:high].strip() for low, high in edges)
