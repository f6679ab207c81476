# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Extractive question answering: rows to windows, windows to batches, scores of positions to answers and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd import tasks
from xlkd.rows import Question
from xlkd.tasks.ceilings import ceilings
from xlkd.tasks.scores import by_row, score
from xlkd.tasks.spans import Predictions, decode
from xlkd.tasks.text import Template
from xlkd.tasks.windows import EXACT, LOST, WIDE, Features, Settings, features


@dataclasses.dataclass(frozen=True)
class QA:
    """Answers as spans of a context; one view, `text`: question first, then a window of the context."""

    template: Template
    settings: Settings
    mlqa_fallback: bool = False
    name: str = "qa"

    def identity(self) -> str:
        return f"qa 1 {self.template.identity} {self.settings.windowing()}"

    def features(self, rows: Sequence[Question], progress: tasks.Progress = tasks.silent) -> tasks.Features:
        return features(rows, self.template.tokenizer, self.settings, progress).to_arrays()

    def lengths(self, features: tasks.Features) -> dict[str, np.ndarray]:
        return {"text": features["lengths"]}

    def arrays(
        self, features: tasks.Features, index: np.ndarray, lengths: dict[str, int], draw: tasks.Draw
    ) -> dict[str, Any]:
        batch = arrays(Features.from_arrays(features), index, lengths["text"])
        if draw.purpose == "train" and self.settings.no_answer == "drop":
            batch["mask"] = batch["mask"] * batch["answerable"]
        return batch

    def decode(self, outputs: dict[str, np.ndarray], features: tasks.Features) -> Predictions:
        return decode(outputs, Features.from_arrays(features), self.settings)

    def score(self, outputs: dict[str, np.ndarray], features: tasks.Features, rows: Sequence[Question]) -> tasks.Scores:
        return score(self.decode(outputs, features).texts, rows, self.mlqa_fallback)

    def records(
        self, outputs: dict[str, np.ndarray], features: tasks.Features, rows: Sequence[Question]
    ) -> list[dict[str, Any]]:
        found = self.decode(outputs, features)
        scores = by_row(found.texts, rows, self.mlqa_fallback)
        return [
            {
                "key": row.key,
                "id": row.id,
                "group": row.group,
                "set": row.set,
                "question_language": row.question_language,
                "context_language": row.context_language,
                **{name: float(values[i]) for name, values in scores.items()},
                "prediction": found.texts[i],
                "start": best.start if best.start >= 0 else None,
                "end": best.end if best.start >= 0 else None,
            }
            for i, (row, (best, *_)) in enumerate(zip(rows, found.candidates, strict=True))
        ]

    def report(self, features: tasks.Features, rows: Sequence[Question]) -> dict[str, Any]:
        held = Features.from_arrays(features)
        spans, best = counts(held), ceilings(held, rows, self.settings, self.mlqa_fallback)
        kept = "  ".join(f"{of} {100 * (n['exact'] + n['wide']) / n['rows']:.1f}%" for of, n in spans.items())
        low = "  ".join(f"{of} {n['f1']:.1f}" for of, n in best.items() if n["f1"] < 99)
        shown = f"answers kept by tokens and windows: {kept}" + (f"; highest F1 possible: {low}" if low else "")
        return {"shown": shown, "spans": spans, "ceilings": best}


def build(settings: Settings, tokenizer: Any) -> QA:
    """Builds the task for a tokenizer."""
    return QA(Template(tokenizer), settings, settings.mlqa_fallback)


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
    query = len(features.frame.first)
    bounds = np.stack([query + 0 * row, query + features.query[row], context, context + features.count[window]], axis=1)
    part = (place[None, :, None] >= bounds[:, None, :]).sum(axis=-1)  # 0 first, 1 question, 2 middle, 3 context, 4 last
    ids = _ids(features, window, part, place, bounds)
    best = (features.best_first - features.first)[window] + context
    within = (place >= best[:, None]) & (place < (best + features.best_count[window])[:, None])
    return {
        "text": {
            "ids": np.where(inside, ids, features.frame.pad).astype(np.int32),
            "mask": inside | (~real[:, None] & (place == 0)),  # softmax over no position at all would not be finite
            "types": np.where(inside, features.frame.types[part], 0).astype(np.int32),
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
    frame, row = features.frame, features.row_of[window]
    specials = np.concatenate([frame.first, frame.middle, frame.last])
    splits, zero = features.pieces.splits, np.zeros(len(row), np.int64)
    origin = [  # where the first token of each part stands: among the specials, or among all pieces
        zero,
        splits[features.question[row]],
        zero + len(frame.first),
        splits[features.context[row]] + features.first[window],
        zero + len(frame.first) + len(frame.middle),
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
    windows, without = (
        np.bincount(of, minlength=len(held)) for of in (features.row_of, features.row_of[~features.answerable])
    )
    report = {}
    for language in np.unique(features.context_language):
        rows = features.context_language == language
        report[language.decode()] = {
            "rows": int(rows.sum()),
            "windows": int(windows[rows].sum()),
            "windows_without_answer": int(without[rows].sum()),
            "exact": int((rows & held & (features.gold == EXACT)).sum()),
            "wide": int((rows & held & (features.gold == WIDE)).sum()),
            "beyond": int((rows & ~held & (features.gold != LOST)).sum()),
            "lost": int((rows & (features.gold == LOST)).sum()),
            "questions_cut": int((rows & (cut > 0)).sum()),
            "question_tokens_cut": int(cut[rows].sum()),
        }
    return report
