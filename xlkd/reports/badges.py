# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Badges: which labels, teachers and texts influenced a number, from the run's own record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xlkd.languages import has_language

LETTERS = {"training": "T", "selection": "S", "teacher": "K", "parallel": "X", "pretraining": "P"}
CONTAMINATED, UNKNOWN = "C", "?"
MEANING = {
    "T": "training had labels in at least one language of this number",
    "S": "labels in at least one language of this number helped to choose a checkpoint or a setting",
    "K": "a teacher was trained on labels in at least one language of this number",
    "C": "examples of this test set, or their paragraphs, occur in the training data, in any language",
    "X": "parallel text with this language was used in training",
    "P": "the language is in the encoder's pretraining data",
    "?": "no record says whether examples of this test set occur in the training data",
}
BRIEF = {
    "T": "labels in training",
    "S": "labels in selection",
    "K": "labels in a teacher's training",
    "C": "contaminated",
    "X": "parallel text",
    "P": "pretraining",
    "?": "contamination not checked",
}
SUPERVISED, ZERO_SHOT, TRANSFERRED, MIXED = "supervised", "zero-shot", "transferred", "mixed"

Seen = Mapping[str, Sequence[str]]


def list_badges(seen: Seen, languages: Iterable[str], contaminated: bool | None) -> list[str]:
    """Returns the badges of a cell, the union over its languages; `contaminated` is None where there is no record."""
    languages = set(languages)
    letters = [
        letter
        for kind, letter in LETTERS.items()
        if any(has_language(seen.get(kind, ()), language) for language in languages)
    ]
    if contaminated is None:
        return [*letters, UNKNOWN]
    return [*letters, CONTAMINATED] if contaminated else letters


def classify_cell(seen: Seen, languages: Iterable[str], contaminated: bool | None) -> str:
    """Returns supervised (labels in all its languages), else zero-shot (none of T, S, K, C, ?), else transferred."""
    languages = set(languages)
    if all(has_language(seen.get("training", ()), language) for language in languages):
        return SUPERVISED
    ends_zero_shot = set(list_badges(seen, languages, contaminated)) & {"T", "S", "K", CONTAMINATED, UNKNOWN}
    return TRANSFERRED if ends_zero_shot else ZERO_SHOT


def join_badges(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns badges and word of an average over cells, or of a difference between them."""
    order = [*LETTERS.values(), CONTAMINATED, UNKNOWN]
    letters = sorted({letter for cell in cells for letter in cell["badges"]}, key=order.index)
    words = {cell["word"] for cell in cells}
    return {"badges": letters, "word": words.pop() if len(words) == 1 else MIXED}


def list_unrecorded(seen: Seen) -> list[str]:
    """Returns the badges that a run does not record, so that their absence means nothing."""
    return [letter for kind, letter in LETTERS.items() if kind not in seen]


class Contamination:
    """The examples of an evaluation set that occur in the training data, as far as the run recorded them."""

    def __init__(self, contamination: Mapping[str, Any] | None) -> None:
        self.recorded = contamination is not None
        record = contamination or {}
        self._flagged = int(record.get("flagged", 0))
        self._keys = set().union(*record["keys"].values()) if record.get("keys") else None
        self._languages = record.get("by_language")

    def count(self, keys: Iterable[str], languages: Iterable[str]) -> int | None:
        """Returns how many of these examples occur in training; None where the record only says that some do."""
        if not self._flagged:
            return 0
        if self._keys is not None:
            return len(self._keys.intersection(keys))
        if self._languages is not None and not any(has_language(self._languages, tag) for tag in languages):
            return 0
        return None
