# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decides which questions get no answer: by their null odds, above a threshold that is chosen on the dev set.

The null odds of a question are the score of "no answer" minus that of the best span.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlkd.errors import UserError
from xlkd.metrics.squad2 import find_best_threshold
from xlkd.rows import Question
from xlkd.tasks import Records
from xlkd.tasks.scores import score_answer

CHOSEN = "chosen on config.data.dev"
INHERITED = "of the model that training started from"
UNCHOSEN = "not chosen: no unanswerable questions in config.data.dev"


class Threshold(NamedTuple):
    """The null odds above which a question gets no answer, and where the number comes from."""

    value: float
    origin: str


def read_threshold(record: Mapping[str, Any], where: str) -> Threshold | None:
    """Reads `null_threshold` from the record of a stage or of an export; None where it has none."""
    if (entry := record.get("null_threshold")) is None:
        return None
    value = entry.get("value") if isinstance(entry, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError("null_threshold has no finite value", where, "export the model again, or remove the file")
    return Threshold(float(value), str(entry.get("origin", "")))


def apply_threshold(
    records: Records, rows: Sequence[Question], threshold: float | None, mlqa_fallback: bool = False
) -> Records:
    """Returns records in which questions with higher null odds have the empty answer; without a threshold none has it.

    Each record with null odds keeps its best span as `span`, with the scores of that answer as `span_f1` and so on.
    Records without null odds stay as they are.
    """
    decided = []
    for record, row in zip(records, rows, strict=True):
        if "null_odds" not in record:
            decided.append(record)
            continue
        empty = score_answer("", row, mlqa_fallback, with_null=True)
        span = {"span": record["prediction"]} | {f"span_{name}": record[name] for name in empty}
        if threshold is not None and float(record["null_odds"]) > threshold:
            scores = {name: 100.0 * value for name, value in empty.items()}
            record = record | scores | {"prediction": "", "start": None, "end": None}
        decided.append(record | span)
    return decided


def choose_threshold(records: Records, rows: Sequence[Question]) -> float:
    """Returns the threshold with the highest mean F1, by the rule of SQuAD 2, over the records that have null odds.

    The records must have the scores of the best spans: those before `apply_threshold`.
    """
    used = [(record, row) for record, row in zip(records, rows, strict=True) if "null_odds" in record]
    columns = ((record["f1"], record["null_odds"], bool(row.answers), not record["prediction"]) for record, row in used)
    _, threshold = find_best_threshold(*map(np.array, zip(*columns, strict=True)))
    return threshold


def find_near_threshold(records: Records, threshold: float | None, margin: float = 1e-4) -> list[int]:
    """Returns the examples whose null odds may pass the threshold with the last bits of the scores."""
    odds = {i: float(record["null_odds"]) for i, record in enumerate(records) if "null_odds" in record}
    return [] if threshold is None else [i for i, value in odds.items() if abs(value - threshold) < margin]
