# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Names of labels: which of them mean the same, and the order in which they stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xlkd.data.sources import is_whole
from xlkd.rows import Labelled

NLI = ("entailment", "neutral", "contradiction")
PARAPHRASE = ("0", "1")
SENTIMENT = ("negative", "neutral", "positive")
STARS = ("1", "2", "3", "4", "5")

# Other names that files and models use
ALIASES = {
    "contradictory": "contradiction",
    "contradicts": "contradiction",
    "entails": "entailment",
    "different_meaning": "0",
    "not_paraphrase": "0",
    "no_paraphrase": "0",
    "paraphrase": "1",
    "same_meaning": "1",
    "neg": "negative",
    "neu": "neutral",
    "pos": "positive",
    "1 star": "1",
    **{f"{n} stars": str(n) for n in range(2, 6)},
}


def canonical(label: str) -> str:
    """The name used here: trimmed, casefolded, through the aliases."""
    folded = label.strip().casefold()
    return ALIASES.get(folded, ALIASES.get(folded.replace(" ", "_"), folded))


def find(label: str, labels: Sequence[str]) -> int:
    """The place of a label among labels by name; -1 where it has none."""
    if label in labels:
        return labels.index(label)
    name = canonical(label)
    return next((i for i, other in enumerate(labels) if canonical(other) == name), -1)


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the customary order: that of NLI, of sentiment, of numbers, else of the alphabet."""
    found = {canonical(label) for label in labels}
    for known in (NLI, SENTIMENT):
        if found <= set(known):
            return tuple(label for label in known if label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if all(map(is_whole, found)) else None))


def aligned(row: Labelled) -> str:
    """What the translations of a row share with it: its id, without the language where a source put it there."""
    return row.id.replace(f":{row.language}:", ":")
