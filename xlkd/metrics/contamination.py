# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds evaluation examples in training data: by id, by paragraph, by near-duplicate text; nothing is sampled."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from xlkd.languages import get_base_language, list_common_tags
from xlkd.rows import Labelled, Pair, Question

GRAM = 5
JACCARD = 0.7
CONTAINMENT = 0.9
LEAST_GRAMS = 30  # shorter texts are listed, not flagged: one word decides
PARALLEL_ID, PARAGRAPH, NEAR_DUPLICATE = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Item:
    """The compared part of an example: its id, its group, and the text that a model reads, with its language."""

    id: str
    group: str
    language: str
    text: str


@dataclasses.dataclass(frozen=True)
class NearDuplicate:
    """Two texts that are nearly the same, by their places in training and evaluation; too short if not `flagged`."""

    train: int
    test: int
    flagged: bool


@dataclasses.dataclass(frozen=True)
class Contamination:
    """The places of contaminated evaluation examples, by level; and the near-duplicates, once for each text."""

    test: dict[int, frozenset[int]]
    near: tuple[NearDuplicate, ...]


def make_item(row: Question | Labelled | Pair) -> Item:
    """Takes a question's context, a classified text with its second one, or both sides of a pair."""
    if isinstance(row, Question):
        return Item(row.id, row.group, row.context_language, row.context)
    if isinstance(row, Labelled):
        return Item(row.id, row.group, row.language, " ".join(filter(None, (row.text, row.second))))
    return Item(row.id, row.group, row.source_language, f"{row.source} {row.target}")


def find_contamination(train: Sequence[Item], test: Sequence[Item]) -> Contamination:
    """Finds the examples of an evaluation set that occur in training data, at all three levels."""
    texts: dict[str, str] = {}
    for item in (*train, *test):
        if item.text not in texts:
            texts[item.text] = normalise(item.text)
    in_train, in_test = ([texts[item.text] for item in side] for side in (train, test))
    same_id = _find_equal([_strip_language(item.id) for item in train], [_strip_language(item.id) for item in test])
    same_text = _find_equal(in_train, in_test)
    same_group = _find_equal([_drop_number(item.group) for item in train], [_drop_number(item.group) for item in test])
    near, duplicates = _find_near(train, test, in_train, in_test)
    return Contamination({PARALLEL_ID: same_id, PARAGRAPH: same_text | same_group, NEAR_DUPLICATE: duplicates}, near)


class _ToSpace(dict[int, int]):
    """A table for str.translate that maps categories P, S, Z and C to a space, and is filled on demand."""

    def __missing__(self, code: int) -> int:
        self[code] = 32 if unicodedata.category(chr(code))[0] in "PSZC" else code
        return self[code]


_TO_SPACE = _ToSpace()


def normalise(text: str) -> str:
    """Returns the text in NFKC, casefolded, with letters, marks and numbers only and single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_TO_SPACE).split())


def character_ngrams(normal: str, n: int = GRAM) -> set[str]:
    """Returns the character n-grams of a normalised text, with spaces; a shorter text is its own only n-gram."""
    return {normal[i : i + n] for i in range(max(1, len(normal) - n + 1))}


def similarity(a: set[str], b: set[str]) -> tuple[float, float]:
    """Returns the Jaccard index, and the containment: the share of the smaller set that is common."""
    common = len(a & b)
    return common / (len(a) + len(b) - common), common / min(len(a), len(b))


def is_near_duplicate(jaccard: float, containment: float) -> bool:
    """Returns whether two texts count as nearly the same."""
    return jaccard >= JACCARD or containment >= CONTAINMENT


# Levels 1 and 2.


@functools.cache
def _compile_mark() -> re.Pattern[str]:
    """Compiles the pattern of language marks: one or two common languages, perhaps with script or region."""
    language = (
        rf"(?:{'|'.join(sorted(list_common_tags(), key=len, reverse=True))})(?:[_-][A-Z][a-z]{{3}})?(?:[_-][A-Z]{{2}})?"
    )
    return re.compile(rf"[_.:-]{language}(?:-{language})?$")


def _strip_language(id_: str) -> str:
    """Removes language marks as in `ID_en-de` or `ID-de`; returns "" where the id is only a row number."""
    return _drop_number(_compile_mark().sub("", id_))


def _drop_number(name: str) -> str:
    """Returns "" for a row number, which means nothing outside its file."""
    return "" if name.isdigit() else name


def _find_equal(train: Sequence[str], test: Sequence[str]) -> frozenset[int]:
    """Returns the places in evaluation whose value occurs in training; empty values match nothing."""
    values = set(train) - {""}
    return frozenset(i for i, value in enumerate(test) if value in values)


# Level 3: candidates through an inverted index of n-gram hashes, then an exact comparison.


def _find_near(
    train: Sequence[Item], test: Sequence[Item], in_train: Sequence[str], in_test: Sequence[str]
) -> tuple[tuple[NearDuplicate, ...], frozenset[int]]:
    """Returns near-duplicates within each language, one for each pair of texts, and the places in evaluation."""
    rows = [_group_rows_by_text(side, normal) for side, normal in ((train, in_train), (test, in_test))]
    duplicates: list[NearDuplicate] = []
    places: set[int] = set()
    for language in sorted(set(rows[0]) & set(rows[1])):
        train_texts, test_texts = (list(side[language]) for side in rows)
        for a, b in _find_candidates(train_texts, test_texts):
            ngrams_a, ngrams_b = character_ngrams(train_texts[a]), character_ngrams(test_texts[b])
            if not is_near_duplicate(*similarity(ngrams_a, ngrams_b)):
                continue
            rows_a, rows_b = rows[0][language][train_texts[a]], rows[1][language][test_texts[b]]
            flagged = min(len(ngrams_a), len(ngrams_b)) >= LEAST_GRAMS
            duplicates.append(NearDuplicate(rows_a[0], rows_b[0], flagged))
            if flagged:
                places.update(rows_b)
    return tuple(duplicates), frozenset(places)


def _group_rows_by_text(items: Sequence[Item], normal: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """Returns language, whatever its script → distinct text → the rows that have it."""
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (item, text) in enumerate(zip(items, normal, strict=True)):
        if text:
            rows[get_base_language(item.language)][text].append(i)
    return rows


def _find_candidates(train: Sequence[str], test: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields pairs that may be near-duplicates; no near-duplicate is missed.

    A pair over either threshold shares at least a = ⌈0.7·s⌉ of the s n-grams of its smaller text. So of any s − a + c
    of these at least c are shared; the rarest are taken, because few other texts contain as many of them.
    """
    index = _Index(test)
    for a, text in enumerate(train):
        hashes = _hash_ngrams(text)
        for b in index.find_candidates(hashes):
            yield a, int(b)


class _Index:
    """The n-grams of the evaluation texts: which texts contain each, and which have it among their rarest."""

    def __init__(self, texts: Sequence[str]) -> None:
        hashes = [_hash_ngrams(text) for text in texts]
        self.sizes = np.array([len(h) for h in hashes])
        prefix, self.needed = _count_needed(self.sizes)
        self.vocabulary, gram, frequency = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
        # From here on an n-gram's number is its rank by frequency: the first ones of a text are its rarest.
        self.rank = np.empty(len(frequency), np.int64)
        self.rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
        owner, rank = _sort_pairs(np.repeat(np.arange(len(texts)), self.sizes), self.rank[gram])
        place = np.arange(len(rank)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        rare = place < prefix[owner]
        self.all = _build_postings(rank, owner, len(frequency))
        self.rarest = _build_postings(rank[rare], owner[rare], len(frequency))

    def find_candidates(self, hashes: np.ndarray) -> np.ndarray:
        """Returns the texts that share enough of the rarest n-grams of the smaller text."""
        at = np.minimum(np.searchsorted(self.vocabulary, hashes), len(self.vocabulary) - 1)
        known = np.sort(self.rank[at[self.vocabulary[at] == hashes]])
        prefix, needed = _count_needed(np.array([len(hashes)]))
        # N-grams that no evaluation text has are the rarest of all, and cannot be shared.
        own = known[: max(0, int(prefix[0]) - (len(hashes) - len(known)))]
        larger = self._find_texts(self.all, own, needed[0])
        smaller = self._find_texts(self.rarest, known, self.needed)
        fits = larger[self.sizes[larger] >= len(hashes)], smaller[self.sizes[smaller] <= len(hashes)]
        return np.unique(np.concatenate(fits))

    def _find_texts(
        self, postings: tuple[np.ndarray, np.ndarray], grams: np.ndarray, needed: np.ndarray | np.integer | int
    ) -> np.ndarray:
        """Returns the texts in the postings of at least `needed` of these n-grams."""
        starts, owners = postings
        counts = starts[grams + 1] - starts[grams]
        if not counts.sum():
            return np.zeros(0, np.int64)
        ends = np.cumsum(counts)
        at = np.arange(ends[-1]) + np.repeat(starts[grams] - (ends - counts), counts)
        hits = np.bincount(owners[at], minlength=len(self.sizes))
        return np.flatnonzero(hits >= needed)


def _count_needed(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many of the rarest n-grams are compared, and how many must be shared, for each size of text."""
    shared = np.ceil(JACCARD * sizes - 1e-9).astype(np.int64)
    needed = np.maximum(1, sizes // 20)
    return np.minimum(sizes, sizes - shared + needed), needed


def _build_postings(rank: np.ndarray, owner: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the owners of each n-gram start, and the owners."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(rank, minlength=vocabulary))])
    return starts, _sort_pairs(rank, owner)[1].astype(np.int32)


def _sort_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts both arrays by a, then b; sorting one combined number is many times faster than lexsort."""
    pairs = np.sort(a.astype(np.int64) << 32 | b)
    return pairs >> 32, pairs & 0xFFFFFFFF


_MULTIPLIERS = np.random.default_rng(0).integers(0, 2**63, GRAM, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _hash_ngrams(normal: str) -> np.ndarray:
    """Returns 64-bit hashes of the distinct n-grams of a text, sorted."""
    code = np.frombuffer(normal.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    n = max(1, len(code) - GRAM + 1)
    total = np.zeros(n, np.uint64)
    for offset, multiplier in enumerate(_MULTIPLIERS[: min(GRAM, len(code))]):
        total += code[offset : offset + n] * multiplier
    return np.unique(total ^ (total >> np.uint64(29)))
