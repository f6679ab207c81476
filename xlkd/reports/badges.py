# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What touched a number: badges from the run's own record, and the words that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LETTERS = {"training": "T", "selection": "S", "teacher": "K", "parallel": "X", "pretraining": "P"}
CONTAMINATED, UNKNOWN = "C", "?"
MEANING = {
    "T": "labels in a language of this number were trained on",
    "S": "labels in a language of this number helped to choose a checkpoint or a setting",
    "K": "a teacher was trained on labels in a language of this number",
    "C": "rows of this test set, or their paragraphs, were met in training, in whatever language",
    "X": "parallel text with this language was used in training",
    "P": "the language is in the encoder's pre-training",
    "?": "no record says whether rows of this test set were met in training",
}
SUPERVISED, ZERO_SHOT, TRANSFERRED, MIXED = "supervised", "zero-shot", "transferred", "mixed"

Seen = Mapping[str, Sequence[str]]


def of(seen: Seen, languages: Iterable[str], touched: bool | None) -> list[str]:
    """The badges of a cell: the union over its languages; `touched` is None where there is no record."""
    languages = set(languages)
    found = [letter for kind, letter in LETTERS.items() if languages & set(seen.get(kind, ()))]
    if touched is None:
        return [*found, UNKNOWN]
    return [*found, CONTAMINATED] if touched else found


def word(seen: Seen, languages: Iterable[str], touched: bool | None) -> str:
    """Supervised has labels in all its languages; zero-shot has none of T, S, K, C, ?; all else is transferred."""
    languages = set(languages)
    if languages <= set(seen.get("training", ())):
        return SUPERVISED
    ends_zero_shot = set(of(seen, languages, touched)) & {"T", "S", "K", CONTAMINATED, UNKNOWN}
    return TRANSFERRED if ends_zero_shot else ZERO_SHOT


def joined(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Badges and word of an average over cells, or of a difference, that have theirs."""
    order = [*LETTERS.values(), CONTAMINATED, UNKNOWN]
    letters = sorted({letter for cell in cells for letter in cell["badges"]}, key=order.index)
    words = {cell["word"] for cell in cells}
    return {"badges": letters, "word": words.pop() if len(words) == 1 else MIXED}


def unrecorded(seen: Seen) -> list[str]:
    """Badges that a run's record says nothing of, so that their absence means nothing."""
    return [letter for kind, letter in LETTERS.items() if kind not in seen]


class Touched:
    """Which rows of an evaluation set were met in training, as far as the run's record goes."""

    def __init__(self, contamination: Mapping[str, Any] | None) -> None:
        self.recorded = contamination is not None
        found = contamination or {}
        self._flagged = int(found.get("flagged", 0))
        self._keys = set().union(*found["keys"].values()) if found.get("keys") else None
        self._languages = found.get("by_language")

    def count(self, keys: Iterable[str], languages: Iterable[str]) -> int | None:
        """How many of these rows; None where the record says only that there are some."""
        if not self._flagged:
            return 0
        if self._keys is not None:
            return len(self._keys.intersection(keys))
        if self._languages is not None and not set(self._languages) & set(languages):
            return 0
        return None
