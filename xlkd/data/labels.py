# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Names of labels: their order, names that are alike, and the match between two lists of names.

A label is exactly what stands in the file. Only two lists that should name the same labels, as a model's and the
data's, are matched by their normalised names.
"""

from __future__ import annotations

import collections
import unicodedata
from collections.abc import Iterable, Sequence

from xlkd.data.sources import is_whole
from xlkd.rows import Labelled

NLI = ("entailment", "neutral", "contradiction")
PARAPHRASE = ("0", "1")
SENTIMENT = ("negative", "neutral", "positive")
STARS = ("1", "2", "3", "4", "5")

# Other names of the same labels, in files of known data sets and in models
NLI_SPELLINGS = {"contradictory": "contradiction", "contradicts": "contradiction", "entails": "entailment"}
PARAPHRASE_SPELLINGS = {
    "different_meaning": "0",
    "not_paraphrase": "0",
    "no_paraphrase": "0",
    "paraphrase": "1",
    "same_meaning": "1",
}
SENTIMENT_SPELLINGS = {"neg": "negative", "neu": "neutral", "pos": "positive"}
_STARS_SPELLINGS = {"1 star": "1", **{f"{n} stars": str(n) for n in range(2, 6)}}
_SPELLINGS = NLI_SPELLINGS | PARAPHRASE_SPELLINGS | SENTIMENT_SPELLINGS | _STARS_SPELLINGS


def normalise_label(label: str) -> str:
    """Returns the name by which lists of labels are matched: trimmed, casefolded, known spellings replaced."""
    folded = unicodedata.normalize("NFKC", label).strip().casefold()
    return _SPELLINGS.get(folded, _SPELLINGS.get(folded.replace(" ", "_"), folded))


def match_names(names: Iterable[str], labels: Sequence[str]) -> dict[str, int]:
    """Returns the index among `labels` of each name: of the equal label, else of the only one normalised alike.

    Names without such a label are left out, and so are those that would share it with another name.
    """
    names = set(names)
    alike: dict[str, list[int]] = collections.defaultdict(list)
    for index, label in enumerate(labels):
        alike[normalise_label(label)].append(index)
    equal = {name: labels.index(name) for name in names if labels.count(name) == 1}
    candidates = {name: alike[normalise_label(name)] for name in names - set(equal)}
    similar = {name: indices[0] for name, indices in candidates.items() if len(indices) == 1}
    uses = collections.Counter([*equal.values(), *similar.values()])
    return equal | {name: index for name, index in similar.items() if uses[index] == 1}


def order_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Returns each label once in the customary order: that of NLI, of sentiment, of numbers, else alphabetical."""
    names = {label: normalise_label(label) for label in labels}
    normalised = set(names.values())
    for order in (NLI, SENTIMENT):
        if normalised <= set(order):
            return tuple(sorted(names, key=lambda label: (order.index(names[label]), label)))
    if all(map(is_whole, normalised)):
        return tuple(sorted(names, key=lambda label: (int(names[label]), label)))
    return tuple(sorted(names, key=lambda label: (names[label], label)))


def find_similar_labels(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns groups of labels that may be meant as one.

    They differ only in case, spaces, punctuation or Unicode form, or are known spellings of one name.
    """
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for label in sorted(set(labels)):
        groups[_reduce_label(label)].append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _reduce_label(label: str) -> str:
    """Returns the letters, digits and accents of a label; of a number its value; of other signs all but spaces."""
    name = normalise_label(label)
    try:
        return str(float(name))
    except ValueError:
        letters = any(map(str.isalnum, name))
    return "".join(c for c in name if (c.isalnum() or unicodedata.category(c)[0] == "M" if letters else c.strip()))


def alignment_id(row: Labelled) -> str:
    """Returns the id that all translations of an example share: its id without a language that the source put there."""
    return row.id.replace(f":{row.language}:", ":")
