# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Names of labels: which names mean the same label, and the order of labels."""

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


def normalise_label(label: str) -> str:
    """Returns xlkd's name of a label: trimmed, casefolded, aliases replaced."""
    folded = label.strip().casefold()
    return ALIASES.get(folded, ALIASES.get(folded.replace(" ", "_"), folded))


def find_label(label: str, labels: Sequence[str]) -> int:
    """Returns the index of a label among labels, compared by normalised name; -1 where it is missing."""
    if label in labels:
        return labels.index(label)
    name = normalise_label(label)
    return next((i for i, other in enumerate(labels) if normalise_label(other) == name), -1)


def order_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Returns each label once in the customary order: that of NLI, of sentiment, of numbers, else alphabetical."""
    names = {normalise_label(label) for label in labels}
    for order in (NLI, SENTIMENT):
        if names <= set(order):
            return tuple(label for label in order if label in names)
    return tuple(sorted(names, key=(lambda label: (int(label), label)) if all(map(is_whole, names)) else None))


def alignment_id(row: Labelled) -> str:
    """Returns the id that all translations of an example share: its id without a language that the source put there."""
    return row.id.replace(f":{row.language}:", ":")
