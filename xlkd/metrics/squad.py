# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 by the rules of SQuAD v1.1, as in the official script, odd cases included."""

from __future__ import annotations

import collections
import functools
import re
import string
from collections.abc import Iterable, Mapping, Sequence

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.rows import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


@functools.lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """Returns the text in lower case, without ASCII punctuation and English articles, whatever its language."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def em(prediction: str, golds: Sequence[str]) -> float:
    """Returns 1 where the normalised prediction equals a normalised gold answer, else 0."""
    return best_em(normalise(prediction), map(normalise, golds))


def f1(prediction: str, golds: Sequence[str]) -> float:
    """Returns the best F1 over the gold answers, between bags of normalised words."""
    return best_f1(normalise(prediction), map(normalise, golds))


def select_predictions(predictions: Json, rows: Sequence[Question], where: str = "") -> list[str | None]:
    """Returns the prediction for each row, None where there is none; ids that no row has are ignored."""
    if not isinstance(predictions, Mapping):
        raise UserError("predictions are not a JSON object {id: answer}", where)
    texts: list[str | None] = []
    for row in rows:
        text = predictions.get(row.id)
        if isinstance(text, str) or row.id not in predictions:
            texts.append(text if isinstance(text, str) else None)
        else:
            raise UserError(f"the prediction for id {row.id!r} is {type(text).__name__}, not a string", where)
    return texts


def best_em(prediction: str, golds: Iterable[str]) -> float:
    """Returns 1 where a prediction equals a gold answer, else 0; all texts must be normalised."""
    return float(any(prediction == gold for gold in golds))


def best_f1(prediction: str, golds: Iterable[str]) -> float:
    """Returns the best F1 of bags of words, for normalised texts; 0 where no word is shared, as in two empty texts."""
    return max(_bag_f1(prediction.split(), gold.split()) for gold in golds)


def _bag_f1(prediction: list[str], gold: list[str]) -> float:
    shared = sum((collections.Counter(prediction) & collections.Counter(gold)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
