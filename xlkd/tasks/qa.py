# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Extractive question answering: rows to windows, windows to batches, scores of positions to answers and figures."""

from __future__ import annotations

import numpy as np

from xlkd.tasks.ceilings import ceilings
from xlkd.tasks.scores import Scores, score, score_file
from xlkd.tasks.spans import Candidate, Predictions, decode
from xlkd.tasks.windows import EXACT, LOST, WIDE, Features, Settings, features

__all__ = [
    "Candidate", "Features", "Predictions", "Scores", "Settings",
    "arrays", "ceilings", "counts", "decode", "features", "score", "score_file",
]  # fmt: skip


def arrays(features: Features, index: np.ndarray, length: int) -> dict[str, object]:
    """One batch of windows, padded to `length`; an index of -1 is a padded row, whose `mask` is 0.

    `text` holds ids, mask and types [rows, length]; beside it `start` and `end` [rows] are the gold positions,
    `answerable` [rows] says whether they are an answer, `context_mask` and `start_mask` [rows, length] which positions
    are context, and which of them have their maximum context in this window.
    """
    real = index >= 0
    window = np.where(real, index, 0)
    if (features.lengths[window][real] > length).any():
        raise ValueError(f"a window of {features.lengths[window][real].max()} tokens does not fit {length}")
    place = np.arange(length)
    inside = real[:, None] & (place < features.lengths[window, None])
    row = features.row_of[window]
    context = features.offset()[window]
    query = len(features.template.first)
    bounds = np.stack([query + 0 * row, query + features.query[row], context, context + features.count[window]], axis=1)
    part = (place[None, :, None] >= bounds[:, None, :]).sum(axis=-1)  # 0 first, 1 question, 2 middle, 3 context, 4 last
    ids = _ids(features, window, part, place, bounds)
    best = (features.best_first - features.first)[window] + context
    within = (place >= best[:, None]) & (place < (best + features.best_count[window])[:, None])
    return {
        "text": {
            "ids": np.where(inside, ids, features.template.pad).astype(np.int32),
            "mask": inside | (~real[:, None] & (place == 0)),  # softmax over no position at all would not be finite
            "types": np.where(inside, features.template.types[part], 0).astype(np.int32),
        },
        "start": np.where(real, features.start[window], 0).astype(np.int32),
        "end": np.where(real, features.end[window], 0).astype(np.int32),
        "answerable": real & features.answerable[window],
        "context_mask": inside & (part == 3),
        "start_mask": inside & within,
        "mask": real.astype(np.float32),
    }


def _ids(features: Features, window: np.ndarray, part: np.ndarray, place: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The token at each place; what lies beyond the window is any."""
    template, row = features.template, features.row_of[window]
    specials = np.concatenate([template.first, template.middle, template.last])
    splits, zero = features.pieces.splits, np.zeros(len(row), np.int64)
    origin = [  # where the first token of each part stands: among the specials, or among all pieces
        zero,
        splits[features.question[row]],
        zero + len(template.first),
        splits[features.context[row]] + features.first[window],
        zero + len(template.first) + len(template.middle),
    ]
    shift = np.stack(origin, axis=1) - np.concatenate([zero[:, None], bounds], axis=1)
    at = np.take_along_axis(shift, part, axis=1) + place
    pieces = features.pieces.ids[np.clip(at, 0, len(features.pieces.ids) - 1)]
    return np.where((part == 1) | (part == 3), pieces, specials[np.clip(at, 0, len(specials) - 1)])


def counts(features: Features) -> dict[str, dict[str, int]]:
    """For the data report, by context language: what tokenising and windowing left of the rows.

    `exact` rows have a window whose gold span is the answer's text, in `wide` rows its pieces cover more than that, in
    `beyond` rows no window holds all of them and in `lost` rows there are none: together they are all rows.
    """
    held = np.zeros(len(features.question), bool)
    held[features.row_of[features.answerable]] = True
    cut = np.diff(features.pieces.splits)[features.question] - features.query
    windows = np.bincount(features.row_of, minlength=len(held))
    report = {}
    for language in np.unique(features.context_language):
        rows = features.context_language == language
        report[language.decode()] = {
            "rows": int(rows.sum()),
            "windows": int(windows[rows].sum()),
            "windows_dropped": int((features.cut_into - windows)[rows].sum()),
            "exact": int((rows & held & (features.gold == EXACT)).sum()),
            "wide": int((rows & held & (features.gold == WIDE)).sum()),
            "beyond": int((rows & ~held & (features.gold != LOST)).sum()),
            "lost": int((rows & (features.gold == LOST)).sum()),
            "questions_cut": int((rows & (cut > 0)).sum()),
            "question_tokens_cut": int(cut[rows].sum()),
        }
    return report
