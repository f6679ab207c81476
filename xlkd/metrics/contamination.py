# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What of an evaluation set was seen in training: by id, by paragraph, by near-duplicate text; nothing is sampled."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from xlkd.languages import NAMES
from xlkd.rows import Labelled, Pair, Question

GRAM = 5
JACCARD = 0.7
CONTAINMENT = 0.9
LEAST_GRAMS = 30  # below, one word moves a lot: listed, not flagged
PARALLEL_ID, PARAGRAPH, NEAR_DUPLICATE = 1, 2, 3


@dataclasses.dataclass(frozen=True)
class Item:
    """What is compared of a row: its id, its group, and the text that a model reads, with its language."""

    id: str
    group: str
    language: str
    text: str


@dataclasses.dataclass(frozen=True)
class Near:
    """Two texts that are nearly the same: their numbers in training and in evaluation; if not `flagged` too short."""

    train: int
    test: int
    flagged: bool


@dataclasses.dataclass(frozen=True)
class Seen:
    """By level the numbers of the evaluation rows that training met; and the near-duplicates, one row of each text."""

    test: dict[int, frozenset[int]]
    near: tuple[Near, ...]


def item(row: Question | Labelled | Pair) -> Item:
    """A question's context, a classified text with its second one, both sides of a pair."""
    if isinstance(row, Question):
        return Item(row.id, row.group, row.context_language, row.context)
    if isinstance(row, Labelled):
        return Item(row.id, row.group, row.language, " ".join(filter(None, (row.text, row.second))))
    return Item(row.id, row.group, row.source_language, f"{row.source} {row.target}")


def check(train: Sequence[Item], test: Sequence[Item]) -> Seen:
    """One training source against one evaluation set, at all three levels."""
    texts: dict[str, str] = {}
    for one in (*train, *test):
        if one.text not in texts:
            texts[one.text] = normalise(one.text)
    in_train, in_test = ([texts[one.text] for one in side] for side in (train, test))
    same_id = _match([_bare(one.id) for one in train], [_bare(one.id) for one in test])
    same_text = _match(in_train, in_test)
    same_group = _match([_named(one.group) for one in train], [_named(one.group) for one in test])
    near, alike = _near(train, test, in_train, in_test)
    return Seen({PARALLEL_ID: same_id, PARAGRAPH: same_text | same_group, NEAR_DUPLICATE: alike}, near)


class _ToSpace(dict):
    """For str.translate: characters of category P, S, Z or C become a space; filled as they are met."""

    def __missing__(self, code: int) -> int:
        self[code] = 32 if unicodedata.category(chr(code))[0] in "PSZC" else code
        return self[code]


_TO_SPACE = _ToSpace()


def normalise(text: str) -> str:
    """NFKC, casefold, letters, marks and numbers only, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().translate(_TO_SPACE).split())


def grams(normal: str, n: int = GRAM) -> set[str]:
    """The character n-grams of a normalised text, spaces included; a shorter text is its own only gram."""
    return {normal[i : i + n] for i in range(max(1, len(normal) - n + 1))}


def likeness(a: set[str], b: set[str]) -> tuple[float, float]:
    """Jaccard, and containment: what is common over the smaller set."""
    common = len(a & b)
    return common / (len(a) + len(b) - common), common / min(len(a), len(b))


def over_threshold(jaccard: float, containment: float) -> bool:
    """Whether two texts count as nearly the same."""
    return jaccard >= JACCARD or containment >= CONTAINMENT


# Levels 1 and 2.

_LANGUAGE = "|".join(sorted(NAMES, key=len, reverse=True))
_MARK = re.compile(rf"[_.:-](?:{_LANGUAGE})(?:-(?:{_LANGUAGE}))?$")


def _bare(id_: str) -> str:
    """An id without language marks, `ID_en-de` or `ID-de`; empty where it says nothing outside its file."""
    return _named(_MARK.sub("", id_))


def _named(name: str) -> str:
    """Names that are only a number are row numbers: equal ones mean nothing."""
    return "" if name.isdigit() else name


def _match(train: Sequence[str], test: Sequence[str]) -> frozenset[int]:
    """The places in evaluation whose value stands in training too; empty values match nothing."""
    met = set(train) - {""}
    return frozenset(i for i, value in enumerate(test) if value in met)


# Level 3: candidates through an inverted index of gram hashes, then exact.


def _near(
    train: Sequence[Item], test: Sequence[Item], in_train: Sequence[str], in_test: Sequence[str]
) -> tuple[tuple[Near, ...], frozenset[int]]:
    """The near-duplicates of every language, one for each pair of texts, and the evaluation rows that have one."""
    rows = [_rows_of_texts(side, normal) for side, normal in ((train, in_train), (test, in_test))]
    found, touched = [], set()
    for language in sorted(set(rows[0]) & set(rows[1])):
        ours, theirs = (list(side[language]) for side in rows)
        for a, b in _candidates(ours, theirs):
            of_a, of_b = grams(ours[a]), grams(theirs[b])
            if not over_threshold(*likeness(of_a, of_b)):
                continue
            in_a, in_b = rows[0][language][ours[a]], rows[1][language][theirs[b]]
            flagged = min(len(of_a), len(of_b)) >= LEAST_GRAMS
            found.append(Near(in_a[0], in_b[0], flagged))
            if flagged:
                touched.update(in_b)
    return tuple(found), frozenset(touched)


def _rows_of_texts(items: Sequence[Item], normal: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """language → distinct text → the rows that have it."""
    rows: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (one, text) in enumerate(zip(items, normal, strict=True)):
        if text:
            rows[one.language][text].append(i)
    return rows


def _candidates(train: Sequence[str], test: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs that may be near-duplicates, and every pair that is one.

    A pair over either threshold shares at least a = ⌈0.7·s⌉ of the s grams of its smaller text. So of any s − a + c of
    these at least c are shared; the rarest are taken, and few other texts hold as many of them.
    """
    index = _Index(test)
    for a, text in enumerate(train):
        hashes = _hashes(text)
        for b in index.like(hashes):
            yield a, int(b)


class _Index:
    """The grams of the evaluation texts: which texts hold a gram, and which have it among their rarest."""

    def __init__(self, texts: Sequence[str]) -> None:
        hashes = [_hashes(text) for text in texts]
        self.sizes = np.array([len(h) for h in hashes])
        prefix, self.needed = _needed(self.sizes)
        self.vocabulary, gram, frequency = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
        # A gram's rank by frequency is its number from here on: the first grams of a text are its rarest.
        self.rank = np.empty(len(frequency), np.int64)
        self.rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
        owner, rank = _sorted_pairs(np.repeat(np.arange(len(texts)), self.sizes), self.rank[gram])
        place = np.arange(len(rank)) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        rare = place < prefix[owner]
        self.all = _postings(rank, owner, len(frequency))
        self.rarest = _postings(rank[rare], owner[rare], len(frequency))

    def like(self, hashes: np.ndarray) -> np.ndarray:
        """The texts that share enough of the rarest grams of the smaller text."""
        at = np.minimum(np.searchsorted(self.vocabulary, hashes), len(self.vocabulary) - 1)
        known = np.sort(self.rank[at[self.vocabulary[at] == hashes]])
        prefix, needed = _needed(np.array([len(hashes)]))
        # Grams that no evaluation text has are the rarest of all and can be shared with none.
        own = known[: max(0, int(prefix[0]) - (len(hashes) - len(known)))]
        larger = self._holding(self.all, own, needed[0])
        smaller = self._holding(self.rarest, known, self.needed)
        fits = larger[self.sizes[larger] >= len(hashes)], smaller[self.sizes[smaller] <= len(hashes)]
        return np.unique(np.concatenate(fits))

    def _holding(
        self, postings: tuple[np.ndarray, np.ndarray], grams: np.ndarray, needed: np.ndarray | int
    ) -> np.ndarray:
        """The texts that stand in the postings of at least as many of these grams as needed."""
        starts, owners = postings
        counts = starts[grams + 1] - starts[grams]
        if not counts.sum():
            return np.zeros(0, np.int64)
        ends = np.cumsum(counts)
        at = np.arange(ends[-1]) + np.repeat(starts[grams] - (ends - counts), counts)
        hits = np.bincount(owners[at], minlength=len(self.sizes))
        return np.flatnonzero(hits >= needed)


def _needed(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of the rarest grams are looked at, and how many of them must be shared, for texts of these sizes."""
    shared = np.ceil(JACCARD * sizes - 1e-9).astype(np.int64)
    needed = np.maximum(1, sizes // 20)
    return np.minimum(sizes, sizes - shared + needed), needed


def _postings(rank: np.ndarray, owner: np.ndarray, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the owners of each gram start, and the owners."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(rank, minlength=vocabulary))])
    return starts, _sorted_pairs(rank, owner)[1].astype(np.int32)


def _sorted_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays in the order of a, then b; one sort of one number is many times faster than lexsort."""
    pairs = np.sort(a.astype(np.int64) << 32 | b)
    return pairs >> 32, pairs & 0xFFFFFFFF


_MULTIPLIERS = np.random.default_rng(0).integers(0, 2**63, GRAM, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _hashes(normal: str) -> np.ndarray:
    """64-bit hashes of a text's distinct grams, sorted."""
    code = np.frombuffer(normal.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    n = max(1, len(code) - GRAM + 1)
    total = np.zeros(n, np.uint64)
    for offset, multiplier in enumerate(_MULTIPLIERS[: min(GRAM, len(code))]):
        total += code[offset : offset + n] * multiplier
    return np.unique(total ^ (total >> np.uint64(29)))
