# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Views of a sentence pair: both texts as a student in training reads them, and the English as its teacher does."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from xlkd.data.draw import draw_uniform, truncate_keys
from xlkd.data.share import Share
from xlkd.data.vectors import hash_texts
from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.languages import is_english
from xlkd.rows import Pair
from xlkd.spec.tasks import Views as ViewsSettings
from xlkd.tasks import Batch, Draw, Features, Outputs, Progress, Records, Scores, report_nothing
from xlkd.tasks.masked import mask_tokens, score_masked
from xlkd.tasks.ragged import pack, pad_rows, pad_texts, row_lengths
from xlkd.tasks.tokenization import JoinedTexts, TextTokenizer, TextTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = "parallel"  # the kind of rows that sources give
LABELS = ("masked", "attended", "all")
SPECIAL, TEXT = -1, 0  # positions of the pair that belong to no word; from 1 the words that may be drawn


@dataclasses.dataclass(frozen=True)
class Views:
    """Four views of a pair e, x: student `e x` with masked tokens, `e x` with masked words of e, `x`; teacher `e`.

    Words are cut from the text and found in both tokenizers by characters; a word that either side lacks is left out.
    Without a teacher encoder `hashes_english` adds the hashes by which the vectors of a teacher are found, and the
    student's tokenizer stands in for the teacher's.
    """

    student: TextTokenizer
    teacher: TextTokenizer
    max_length: int
    share: float
    tlm_labels: str = "masked"
    word_truncate: bool = True
    hashes_english: bool = False
    name: str = "views"
    teacher_views: tuple[str, ...] = ("teacher",)

    @property
    def uncut_views(self) -> tuple[str, ...]:
        return () if self.word_truncate else ("word",)

    def identity(self) -> str:
        hashes = " english" if self.hashes_english else ""
        return f"views 1 {self.student.identity} {self.teacher.identity} {self.max_length} {self.word_truncate}{hashes}"

    def features(
        self, rows: Sequence[Pair], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        sides = [put_english_first(row) for row in rows]
        texts = [english for english, _ in sides]
        english = self.student.encode(texts, progress, share)
        theirs = english if self.hashes_english else self.teacher.encode(texts, share=share)
        foreign = self.student.encode([other for _, other in sides], share=share)
        pairs = [self._make_pair_arrays(*row) for row in zip(texts, english, theirs, foreign, strict=True)]
        names = [row.target_language if is_english(row.source_language) else row.source_language for row in rows]
        cells = sorted(set(names))
        packed = [pack(name, [pair[name] for pair in pairs], dtype) for name, dtype in self._list_dtypes()]
        return {
            **{name: values for arrays in packed for name, values in arrays.items()},
            **({"english": hash_texts(texts)} if self.hashes_english else {}),
            "lost": np.array([pair["lost"] for pair in pairs], np.int32),
            "keys": truncate_keys([row.key for row in rows]),
            "cell": np.array([cells.index(name) for name in names], np.int32),
            "cells": np.array(cells),
        }

    def _list_dtypes(self) -> list[tuple[str, DTypeLike]]:
        """Returns the names of the ragged features and their types."""
        views = ["token", "sentence", "teacher"] + ([] if self.word_truncate else ["word"])
        ids: list[tuple[str, DTypeLike]] = [(f"{view}_ids", np.int32) for view in views]
        types: list[tuple[str, DTypeLike]] = [(f"{view}_types", np.int8) for view in views]
        words = ("token_words", "words", "first", "teacher_first")
        return [*ids, *types, *((name, np.int16) for name in words)]

    def _make_pair_arrays(
        self, text: str, english: TextTokens, theirs: TextTokens, foreign: TextTokens
    ) -> dict[str, np.ndarray | int]:
        """Returns the features of one pair; `english` are the student's tokens of the text, `theirs` the teacher's."""
        token = self.student.join_pair(english.ids, foreign.ids, self.max_length)
        full_length = len(english.ids) + len(foreign.ids) + self.student.pair.specials_count
        word = token if self.word_truncate else self.student.join_pair(english.ids, foreign.ids, full_length)
        sentence = self.student.join(foreign.ids, self.max_length)
        teacher = self.teacher.join(theirs.ids, self.max_length)
        spans = _cut_words(text)
        student_words, teacher_words = (
            _number_positions(spans, text, tokens, joined) for tokens, joined in ((english, word), (theirs, teacher))
        )
        shared = np.intersect1d(student_words[student_words > 0], teacher_words[teacher_words > 0])
        known_words = np.setdiff1d(shared, student_words[word.ids == self.student.unknown_id])
        number = np.zeros(len(spans) + 1, np.int16)
        # Word 0 of a row is the special token before the text
        number[known_words] = 1 + np.searchsorted(shared, known_words)
        arrays: dict[str, np.ndarray | int] = {
            "words": np.where(student_words > 0, number[np.maximum(student_words, 0)], student_words),
            "token_words": _mark_texts(token),
            "first": _find_word_starts(student_words, shared, word),
            "teacher_first": _find_word_starts(teacher_words, shared, teacher),
            "lost": len(spans) - len(shared),
        }
        for name, joined in (("token", token), ("sentence", sentence), ("teacher", teacher), ("word", word)):
            arrays |= {f"{name}_ids": joined.ids, f"{name}_types": joined.types}
        return arrays

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        """Returns the lengths of the views, and the number of words of a sentence with its special ones."""
        ids = {"token": "token_ids"} | {view: f"{view}_ids" for view in (*self.uncut_views, "sentence", "teacher")}
        arrays = ids | {"words": "first"}
        return {view: np.diff(features[f"{name}_at"]).astype(np.int32) for view, name in arrays.items()}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        keys = np.where(index >= 0, features["keys"][np.maximum(index, 0)], 0).astype(np.uint64)
        present = (index >= 0).astype(np.float32)
        words = lengths["words"]
        is_word = np.arange(words) < (row_lengths(features, "first", index) * (index >= 0))[:, None]
        teacher = pad_texts(features, index, lengths["teacher"], self.teacher.pad_id, "teacher_")
        teacher["first"] = pad_rows(features, "teacher_first", index, words, 0).astype(np.int32)
        word = lengths["token" if self.word_truncate else "word"]
        return {
            **self._make_token_view(features, index, lengths["token"], draw, keys),
            "word": self._make_word_view(features, index, word, words, draw, keys),
            "sentence": pad_texts(features, index, lengths["sentence"], self.student.pad_id, "sentence_"),
            "teacher": teacher,
            "exists": is_word,
            "mask": present,
        }

    def _make_token_view(
        self, features: Features, index: np.ndarray, length: int, draw: Draw, keys: np.ndarray
    ) -> Batch:
        """Returns the view in which a share of single tokens is masked; tokens beyond a row's budget stay visible."""
        text = pad_texts(features, index, length, self.student.pad_id, "token_")
        free = pad_rows(features, "token_words", index, length, SPECIAL) != SPECIAL
        chosen = free & (draw_uniform(draw.seed, draw.purpose + " token", draw.step, keys, length) < self.share)
        own = row_lengths(features, "token_ids", index)
        chosen &= np.cumsum(chosen, 1) <= self.max_masked(own)[:, None]
        original = text["ids"]
        text["ids"] = mask_tokens(self.student, original, chosen, draw._replace(purpose=draw.purpose + " token"), keys)
        if self.tlm_labels == "masked":
            positions = np.argsort(~chosen, axis=1, kind="stable")[:, : int(self.max_masked(length))].astype(np.int32)
            counted = np.take_along_axis(chosen, positions, 1)
        else:
            positions = np.broadcast_to(np.arange(length, dtype=np.int32), original.shape)
            counted = text["mask"].astype(bool) if self.tlm_labels == "attended" else np.ones(original.shape, bool)
        return {
            "token": text,
            "positions": positions,
            "labels": np.take_along_axis(original, positions, 1),
            "counted": counted & (index >= 0)[:, None],
        }

    def _make_word_view(
        self, features: Features, index: np.ndarray, length: int, words: int, draw: Draw, keys: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Returns the view in which tokens of min(⌊n/4⌋, max(1, round(share·n))) of the n words are masked."""
        text = pad_texts(features, index, length, self.student.pad_id, "token_" if self.word_truncate else "word_")
        numbers = np.maximum(pad_rows(features, "words", index, length, SPECIAL), 0).astype(np.int64)
        possible = np.zeros((len(index), words + 1), bool)
        np.put_along_axis(possible, numbers, True, 1)
        possible[:, 0] = False
        draws = draw_uniform(draw.seed, draw.purpose + " words", draw.step, keys, words + 1)
        rank = np.where(possible, draws, 2.0).argsort(1, kind="stable").argsort(1, kind="stable")
        masked_words = possible & (rank < count_drawn_words(possible.sum(1), self.share)[:, None])
        chosen = np.take_along_axis(masked_words, numbers, 1)
        text["ids"] = mask_tokens(
            self.student, text["ids"], chosen, draw._replace(purpose=draw.purpose + " word"), keys
        )
        first = pad_rows(features, "first", index, words, 0).astype(np.int32)
        return text | {"drawn": chosen, "first": first}

    def max_masked(self, length: int | np.ndarray) -> np.ndarray:
        """Returns the largest number of masked tokens that are scored in a row of this length.

        It is the mean plus four standard deviations, rounded up to a multiple of 4, and depends on the length alone, so
        that the shapes of arrays are fixed.
        """
        n = np.asarray(length)
        most = self.share * n + 4 * np.sqrt(self.share * (1 - self.share) * n)
        return np.minimum(4 * np.ceil(most / 4), n).astype(np.int64)

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], records: Records | None = None
    ) -> Scores:
        """Returns the share of masked tokens that are predicted, by the language of the translation."""
        return score_masked(outputs, features)

    def records(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], share: Share | None = None
    ) -> Records:
        return []  # single predicted tokens tell nothing

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Json]:
        lengths = self.lengths(features)
        full = int((lengths["token"] >= self.max_length).sum())
        lost, words = int(features["lost"].sum()), int((lengths["words"] - 2).sum())
        total = f"{lost} of {lost + words} English words were cut or have no token of their own"
        return {"shown": f"{full} pairs fill all {self.max_length} tokens; {total}", "full": full, "lost_words": lost}


def build(
    settings: ViewsSettings,
    tokenizer: PreTrainedTokenizerFast,
    teacher_tokenizer: PreTrainedTokenizerFast | None = None,
) -> Views:
    tokenizers = TextTokenizer(tokenizer), TextTokenizer(teacher_tokenizer or tokenizer)
    return Views(
        *tokenizers,
        settings.max_length,
        settings.share,
        settings.tlm_labels,
        settings.word_truncate,
        hashes_english=teacher_tokenizer is None,
    )


def count_drawn_words(words: np.ndarray, share: float) -> np.ndarray:
    """Returns how many words are masked in texts of these numbers of words."""
    return np.minimum(words // 4, np.maximum(1, np.rint(share * words))).astype(np.int64)


def put_english_first(row: Pair) -> tuple[str, str]:
    """Returns both texts, the English one first."""
    if is_english(row.source_language):
        return row.source, row.target
    if is_english(row.target_language):
        return row.target, row.source
    what = f"a pair in {row.source_language}-{row.target_language} has no English side"
    raise UserError(what, f"row {row.id} of {row.set}", "the teacher reads English")


def _cut_words(text: str) -> list[tuple[int, int]]:
    """Returns the words of a text by characters, cut at white space; each mark of punctuation is a word."""
    return [match.span() for match in _compile_word_pattern().finditer(text)]


@functools.cache
def _compile_word_pattern() -> re.Pattern[str]:
    marks = (chr(c) for c in range(0x20000) if unicodedata.category(chr(c))[0] == "P" or chr(c) in "$+<=>^`|~")
    escaped = "".join(map(re.escape, marks))
    return re.compile(rf"[{escaped}]|[^\s{escaped}]+")


def _number_positions(
    spans: Sequence[tuple[int, int]], text: str, tokens: TextTokens, joined: JoinedTexts
) -> np.ndarray:
    """Returns the number of the word, from 1, in which each token begins; elsewhere the marks of `_mark_texts`."""
    start, stop = joined.spans[0]
    numbers = _mark_texts(joined)
    numbers[start:stop] = tokens.number_by_spans(text, spans)[: stop - start] + 1
    return numbers


def _mark_texts(joined: JoinedTexts) -> np.ndarray:
    """Returns TEXT for each position of a text and SPECIAL for each special token."""
    marks = np.full(len(joined.ids), SPECIAL, np.int16)
    for start, stop in joined.spans:
        marks[start:stop] = TEXT
    return marks


def _find_word_starts(numbers: np.ndarray, shared: np.ndarray, joined: JoinedTexts) -> np.ndarray:
    """Returns where each shared word begins; before them position 0, and after them the end of the text."""
    words, at = np.unique(numbers, return_index=True)
    return np.concatenate([[0], at[np.searchsorted(words, shared)], [joined.spans[0][1]]]).astype(np.int16)
