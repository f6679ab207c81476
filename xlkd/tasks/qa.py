# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Extractive question answering: cuts questions into windows, pads windows to batches, decodes and scores answers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xlkd.data.share import Share
from xlkd.files import Json
from xlkd.rows import Cell, Question
from xlkd.tasks import Batch, Draw, Features, Outputs, Progress, Records, Scores, report_nothing
from xlkd.tasks.ceilings import compute_ceilings
from xlkd.tasks.scores import average_records, find_rank, find_unanswerable_cells, score_examples
from xlkd.tasks.spans import Predictions, decode
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.tasks.windows import ABSENT, EXACT, LOST, WIDE, Settings, Windows, cut_into_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = "qa"


@dataclasses.dataclass(frozen=True)
class QA:
    """Answers as spans of a context; one view, `text`: question first, then a window of the context."""

    tokenizer: TextTokenizer
    settings: Settings
    mlqa_fallback: bool = False
    name: str = "qa"
    teacher_views: tuple[str, ...] = ()
    uncut_views: tuple[str, ...] = ()

    def identity(self) -> str:
        return f"qa 1 {self.tokenizer.identity} {self.settings.windowing()}"

    def features(
        self, rows: Sequence[Question], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        return cut_into_windows(rows, self.tokenizer, self.settings, progress, share).to_arrays()

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": features["lengths"]}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        windows = Windows.from_arrays(features)
        batch = pad_windows(windows, index, lengths["text"])
        if draw.for_training and self.settings.no_answer == "drop":
            unanswerable = windows.gold[windows.row_of[np.maximum(index, 0)]] == ABSENT
            batch["mask"] = batch["mask"] * (batch["answerable"] | unanswerable)
        return batch

    def decode(self, outputs: Outputs, features: Features) -> Predictions:
        """Returns the answers to all examples, with their candidates."""
        return decode(outputs, Windows.from_arrays(features), self.settings)

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Question], records: Records | None = None
    ) -> Scores:
        return average_records(self.records(outputs, features, rows) if records is None else records, rows)

    def records(
        self, outputs: Outputs, features: Features, rows: Sequence[Question], share: Share | None = None
    ) -> Records:
        """Returns the records of the best spans; those in cells with unanswerable questions have `null_odds`.

        `nulls.apply_threshold` decides which of these get no answer.
        """
        unanswerable = find_unanswerable_cells(rows)
        if share is None:
            return self.make_records(self.decode(outputs, features), rows, unanswerable)
        bounds = [len(rows) * place // share.processes for place in range(share.processes + 1)]
        own = slice(*bounds[share.process : share.process + 2])

        def make_own_records() -> bytes:
            if own.start == own.stop:
                return b"[]"
            windows = Windows.from_arrays(features)
            of_own = slice(*np.searchsorted(windows.row_of, (own.start, own.stop)))
            own_outputs = {name: value[of_own] for name, value in outputs.items()}
            own_rows = [rows[i] for i in range(own.start, own.stop)]
            selected = windows.select_examples(own, of_own).to_arrays()
            predictions = self.decode(own_outputs, selected)
            return json.dumps(self.make_records(predictions, own_rows, unanswerable)).encode()

        return [record for part in share.gather(make_own_records) for record in json.loads(part)]

    def make_records(
        self, predictions: Predictions, rows: Sequence[Question], unanswerable: Collection[Cell]
    ) -> Records:
        """Returns the records of predictions; `unanswerable` are the cells with unanswerable questions.

        Records of the other cells have `rank`, the place of the first exactly right candidate among the first ten, or
        0. Where "no answer" is possible, the null odds decide on it and not its place among the candidates.
        """
        scores = score_examples(predictions.texts, rows, self.mlqa_fallback, unanswerable)
        records: Records = [
            {
                "key": row.key,
                "id": row.id,
                "group": row.group,
                "set": row.set,
                "question_language": row.question_language,
                "context_language": row.context_language,
                **{name: float(values[i]) for name, values in scores.items()},
                "prediction": best.text,
                "start": best.start if best.start >= 0 else None,
                "end": best.end if best.start >= 0 else None,
            }
            for i, (row, (best, *_)) in enumerate(zip(rows, predictions.candidates, strict=True))
        ]
        all_odds = predictions.null_odds.tolist()
        for row, record, candidates, odds in zip(rows, records, predictions.candidates, all_odds, strict=True):
            if unanswerable and Cell.from_example(row) in unanswerable:
                record["null_odds"] = odds
            else:
                record["rank"] = find_rank((each.text for each in candidates), row, self.mlqa_fallback)
        return records

    def report(self, features: Features, rows: Sequence[Question]) -> dict[str, Json]:
        windows = Windows.from_arrays(features)
        spans, ceilings = count_spans(windows), compute_ceilings(windows, rows, self.settings, self.mlqa_fallback)
        answers = {tag: n["rows"] - n.get("unanswerable", 0) for tag, n in spans.items()}
        shares = "  ".join(
            f"{tag} {100 * (n['exact'] + n['wide']) / answers[tag]:.1f}%" for tag, n in spans.items() if answers[tag]
        )
        low = "  ".join(f"{tag} {best['f1']:.1f}" for tag, best in ceilings.items() if best["f1"] < 99)
        shown = f"answers kept by tokens and windows: {shares}" + (f"; highest F1 possible: {low}" if low else "")
        if without := len(rows) - sum(answers.values()):
            shown += f"; {without} of {len(rows)} questions are unanswerable"
        return {"shown": shown, "spans": spans, "ceilings": ceilings}


def build(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> QA:
    """Builds the task for a tokenizer."""
    return QA(TextTokenizer(tokenizer), settings, settings.mlqa_fallback)


def pad_windows(windows: Windows, index: np.ndarray, length: int) -> Batch:
    """Returns a batch of windows, padded to `length`; an index of -1 is a padded row, whose `mask` is 0.

    `text` has ids, mask and types [rows, length]; beside it `start` and `end` [rows] are the gold positions,
    `answerable` [rows] says whether they are an answer, `context_mask` and `start_mask` [rows, length] which positions
    are context, and which of them have their maximum context in this window.
    """
    present = index >= 0
    window = np.where(present, index, 0)
    if (windows.lengths[window][present] > length).any():
        raise ValueError(f"a window of {windows.lengths[window][present].max()} tokens does not fit {length}")
    place = np.arange(length)
    inside = present[:, None] & (place < windows.lengths[window, None])
    row = windows.row_of[window]
    context = windows.context_offset()[window]
    query = len(windows.before)
    bounds = np.stack([query + 0 * row, query + windows.query[row], context, context + windows.count[window]], axis=1)
    part = (place[None, :, None] >= bounds[:, None, :]).sum(axis=-1)  # 0 before, 1 question, 2 between, 3 context, 4
    ids = _gather_ids(windows, window, part, place, bounds)
    best = (windows.best_first - windows.first)[window] + context
    within = (place >= best[:, None]) & (place < (best + windows.best_count[window])[:, None])
    return {
        "text": {
            "ids": np.where(inside, ids, windows.pad).astype(np.int32),
            "mask": inside | (~present[:, None] & (place == 0)),  # a softmax over no position would not be finite
            "types": np.where(inside, windows.types[part], 0).astype(np.int32),
        },
        "start": np.where(present, windows.start[window], 0).astype(np.int32),
        "end": np.where(present, windows.end[window], 0).astype(np.int32),
        "answerable": present & windows.answerable[window],
        "context_mask": inside & (part == 3),
        "start_mask": inside & within,
        "mask": present.astype(np.float32),
    }


def _gather_ids(
    windows: Windows, window: np.ndarray, part: np.ndarray, place: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Returns the token at each place; places beyond the window have any token."""
    row = windows.row_of[window]
    specials = np.concatenate([windows.before, windows.between, windows.after])
    splits, zero = windows.token_splits, np.zeros(len(row), np.int64)
    origin = [  # place of the first token of each part: among the special tokens, or among the tokens of all texts
        zero,
        splits[windows.question[row]],
        zero + len(windows.before),
        splits[windows.context[row]] + windows.first[window],
        zero + len(windows.before) + len(windows.between),
    ]
    shift = np.stack(origin, axis=1) - np.concatenate([zero[:, None], bounds], axis=1)
    at = np.take_along_axis(shift, part, axis=1) + place
    tokens = windows.token_ids[np.clip(at, 0, len(windows.token_ids) - 1)]
    return np.where((part == 1) | (part == 3), tokens, specials[np.clip(at, 0, len(specials) - 1)])


def count_spans(windows: Windows) -> dict[str, dict[str, int]]:
    """Counts by context language how many answers tokenization and windows keep, for the data report.

    `exact` examples have a window whose gold span is the answer's text, in `wide` ones its tokens cover more than that,
    in `beyond` ones no window contains all of them and in `lost` ones there are none: together they are all examples,
    with the `unanswerable` ones, which are counted where there are any.
    """
    contained = np.zeros(len(windows.question), bool)
    contained[windows.row_of[windows.answerable]] = True
    cut = np.diff(windows.token_splits)[windows.question] - windows.query
    count, without = (
        np.bincount(rows, minlength=len(contained)) for rows in (windows.row_of, windows.row_of[~windows.answerable])
    )
    has_unanswerable = bool((windows.gold == ABSENT).any())
    report = {}
    for language in np.unique(windows.context_language):
        rows = windows.context_language == language
        report[language.decode()] = {
            "rows": int(rows.sum()),
            "windows": int(count[rows].sum()),
            "windows_without_answer": int(without[rows].sum()),
            "exact": int((rows & contained & (windows.gold == EXACT)).sum()),
            "wide": int((rows & contained & (windows.gold == WIDE)).sum()),
            "beyond": int((rows & ~contained & (windows.gold < LOST)).sum()),
            "lost": int((rows & (windows.gold == LOST)).sum()),
            **({"unanswerable": int((rows & (windows.gold == ABSENT)).sum())} if has_unanswerable else {}),
            "questions_cut": int((rows & (cut > 0)).sum()),
            "question_tokens_cut": int(cut[rows].sum()),
        }
    return report
