# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The SQuAD v1.1 rules: exact match and F1, as the official script has them, odd cases included."""

from __future__ import annotations

import collections
import functools
import re
import string
from collections.abc import Mapping, Sequence

from xlkd.errors import UserError
from xlkd.rows import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@functools.lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """Lower case, no ASCII punctuation, no English articles, single spaces; the same in every language."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def em(prediction: str, golds: Sequence[str]) -> float:
    """1 where the prediction equals a gold once both are normalised, else 0."""
    return best_em(normalise(prediction), map(normalise, golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """The best F1 over the golds, between bags of normalised tokens."""
    return best_f1(normalise(prediction), map(normalise, golds))


def select(predictions: Mapping[str, object], rows: Sequence[Question], where: str = "") -> list[str | None]:
    """The prediction of each row, None where there is none; ids that no row has are ignored."""
    if not isinstance(predictions, Mapping):
        raise UserError("predictions are not an object of id: answer", where)
    chosen = []
    for row in rows:
        text = predictions.get(row.id)
        if row.id in predictions and not isinstance(text, str):
            raise UserError(f"the prediction for id {row.id!r} is {type(text).__name__}, not a string", where)
        chosen.append(text)
    return chosen


def gold_texts(row: Question) -> tuple[str, ...]:
    """The gold answers of a row; a row without any cannot be scored."""
    if not row.answers:
        raise UserError("no gold answer to score against", f"{row.set}, id {row.id!r}")
    return tuple(answer.text for answer in row.answers)


def best_em(prediction: str, golds) -> float:
    """Exact match of normalised strings."""
    return float(any(prediction == gold for gold in golds))


def best_f1(prediction: str, golds) -> float:
    """Bag F1 of normalised strings; 0 where nothing is shared, two empty strings included."""
    return max(_bag_f1(prediction.split(), gold.split()) for gold in golds)


def _bag_f1(prediction: list[str], gold: list[str]) -> float:
    shared = sum((collections.Counter(prediction) & collections.Counter(gold)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
