# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The best score that any model could reach under a run's windows and limits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlkd.rows import Question
from xlkd.tasks.scores import row_score
from xlkd.tasks.windows import LOST, Features, Settings, gold_span


def ceilings(
    features: Features, rows: Sequence[Question], settings: Settings, mlqa_fallback: bool = False
) -> dict[str, dict[str, float]]:
    """By context language: the ceilings `em` and `f1` in percent, the rows `n`, and `unreachable` ones among them.

    A gold answer is reachable where the decoder may give its span; a row without such a gold is searched for the best
    F1 among the spans that touch one.
    """
    bounds = np.searchsorted(features.row_of, np.arange(len(rows) + 1))
    known: dict[tuple, np.ndarray] = {}  # cells of a parallel set share contexts, golds and mostly windows
    sums: dict[str, np.ndarray] = {}
    for r, row in enumerate(rows):
        windows = slice(bounds[r], bounds[r + 1])
        layout = np.stack([features.first[windows], features.count[windows]]).tobytes()
        key = (row.set, row.context_language, int(features.context[r]), row.answers, layout)
        if key not in known:
            known[key] = _best(features, r, row, windows, settings, mlqa_fallback)
        sums[row.context_language] = sums.get(row.context_language, 0) + known[key]
    return {
        language: {"em": float(100 * em / n), "f1": float(100 * f1 / n), "n": int(n), "unreachable": int(unreachable)}
        for language, (em, f1, n, unreachable) in sorted(sums.items())
    }


def _best(
    features: Features, r: int, row: Question, windows: slice, settings: Settings, mlqa_fallback: bool
) -> np.ndarray:
    """EM and F1 of the best answer to a row, 1, and whether no gold answer can be reached."""
    golds = _golds(features, r, row)
    reached = golds[_reachable(features, windows, settings, golds)]
    spans = reached if len(reached) else _nearby(features, windows, settings, golds)
    scores = [row_score(text, row, mlqa_fallback) for text in _texts(features, r, row, spans)]
    return np.array([*np.max([(0.0, 0.0), *scores], axis=0), 1, not len(reached)])


def _golds(features: Features, r: int, row: Question) -> np.ndarray:
    """The spans of the gold answers: first and last piece [golds, 2]."""
    found = [gold_span(features.pieces, int(features.context[r]), row.context, answer) for answer in row.answers]
    return np.array([span for what, *span in found if what != LOST], np.int64).reshape(-1, 2)


def _reachable(features: Features, windows: slice, settings: Settings, spans: np.ndarray) -> np.ndarray:
    """Which spans the decoder may give: not too long, whole in a window where their start may stand."""
    first, last = spans[:, :1], spans[:, 1:]
    low, count = features.first[windows], features.count[windows]
    inside = last < low + count
    if settings.max_context:
        low, count = features.best_first[windows], features.best_count[windows]
    starts = (first >= low) & (first < low + count)
    return (starts & inside).any(axis=1) & (last - first < settings.max_answer_tokens)[:, 0]


def _nearby(features: Features, windows: slice, settings: Settings, golds: np.ndarray) -> np.ndarray:
    """All spans that the decoder may give and that share a piece with a gold answer."""
    limit, spans = settings.max_answer_tokens, [np.zeros((0, 2), np.int64)]
    for low, high in golds:
        first = np.arange(max(0, low - limit + 1), high + 1)[:, None] + np.zeros(limit, np.int64)
        last = first + np.arange(limit)
        spans.append(np.stack([first, last], axis=-1)[last >= low])
    spans = np.unique(np.concatenate(spans), axis=0)
    return spans[_reachable(features, windows, settings, spans)]


def _texts(features: Features, r: int, row: Question, spans: np.ndarray) -> dict[str, None]:
    base = features.pieces.splits[features.context[r]]
    begin, end = features.pieces.begin[base + spans[:, 0]], features.pieces.end[base + spans[:, 1]]
    return dict.fromkeys(row.context[b:e].strip() for b, e in zip(begin.tolist(), end.tolist(), strict=True))
