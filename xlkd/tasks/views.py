# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""English and its translation as a student in training reads them, and the English as its teacher does."""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data.draw import draw_uniform, truncate_keys
from xlkd.errors import UserError
from xlkd.rows import Pair
from xlkd.spec.tasks import Views as ViewsSettings
from xlkd.tasks import Draw, Features, Progress, Scores, pieces, silent
from xlkd.tasks.masked import found_again, hidden
from xlkd.tasks.text import Sequenced, Template, counts, padded, ragged, take

ROWS = "parallel"  # the kind of rows that sources give
LABELS = ("masked", "attended", "all")
SPECIAL, TEXT = -1, 0  # positions of the pair that belong to no word; from 1 the words that may be drawn


@dataclasses.dataclass(frozen=True)
class Views:
    """Four views of a pair: student `e x` with masked tokens, `e x` with masked words of e, `x`; teacher `e`.

    Words are those of the text, found in both tokenizers by characters; one that either side lacks is left out.
    """

    student: Template
    teacher: Template
    max_length: int
    share: float
    tlm_labels: str = "masked"
    word_truncate: bool = True
    name: str = "views"

    def identity(self) -> str:
        return f"views 1 {self.student.identity} {self.teacher.identity} {self.max_length} {self.word_truncate}"

    def features(self, rows: Sequence[Pair], progress: Progress = silent) -> Features:
        sides = [_sides(row) for row in rows]
        texts = [english for english, _ in sides]
        ours = pieces.encode(self.student.tokenizer, texts, progress)
        theirs = pieces.encode(self.teacher.tokenizer, texts)
        foreign = pieces.encode(self.student.tokenizer, [other for _, other in sides])
        unknown = self.student.tokenizer.unk_token_id
        unknown = -1 if unknown is None else unknown
        found = [
            self._row(text, _text(ours, i), _text(theirs, i), _text(foreign, i)[0], unknown)
            for i, text in enumerate(texts)
        ]
        named = [row.target_language if row.source_language == "en" else row.source_language for row in rows]
        cells = sorted(set(named))
        arrays = [ragged(name, [row[name] for row in found], dtype) for name, dtype in self._arrays()]
        return {
            **{name: values for array in arrays for name, values in array.items()},
            "lost": np.array([f["lost"] for f in found], np.int32),
            "keys": truncate_keys([row.key for row in rows]),
            "cell": np.array([cells.index(name) for name in named], np.int32),
            "cells": np.array(cells),
        }

    def _arrays(self) -> list[tuple[str, Any]]:
        views = ["token", "sentence", "teacher"] + ([] if self.word_truncate else ["word"])
        ids = [(f"{view}_ids", np.int32) for view in views] + [(f"{view}_types", np.int8) for view in views]
        return [*ids, ("token_words", np.int16), ("words", np.int16), ("first", np.int16), ("teacher_first", np.int16)]

    def _row(self, text: str, ours, theirs, foreign: np.ndarray, unknown: int) -> dict[str, Any]:
        token = self.student.pair(ours[0], foreign, self.max_length)
        word = token if self.word_truncate else self.student.pair(ours[0], foreign, len(ours[0]) + len(foreign) + 8)
        sentence = self.student.single(foreign, self.max_length)
        teacher = self.teacher.single(theirs[0], self.max_length)
        cut = _words_of(text)
        mine, its = _numbered(cut, text, ours, word), _numbered(cut, text, theirs, teacher)
        shared = np.intersect1d(mine[mine > 0], its[its > 0])
        known = np.setdiff1d(shared, mine[word.ids == unknown])
        number = np.zeros(len(cut) + 1, np.int16)
        number[known] = 1 + np.searchsorted(shared, known)  # 0, the first of a row's words, is the special before it
        row = {
            "words": np.where(mine > 0, number[np.maximum(mine, 0)], mine),
            "token_words": _inside(token),
            "first": _starts(mine, shared, word),
            "teacher_first": _starts(its, shared, teacher),
            "lost": len(cut) - len(shared),
        }
        for name, of in (("token", token), ("sentence", sentence), ("teacher", teacher), ("word", word)):
            row |= {f"{name}_ids": of.ids, f"{name}_types": of.types}
        return row

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        """Beside the four views the words of a sentence, its special ones included."""
        views = {"token": "token_ids", "word": "word_ids", "sentence": "sentence_ids", "teacher": "teacher_ids"}
        views["words"] = "first"
        kept = {view: name for view, name in views.items() if name in features}
        return {view: np.diff(features[f"{name}_at"]).astype(np.int32) for view, name in kept.items()}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> dict[str, Any]:
        keys = np.where(index >= 0, features["keys"][np.maximum(index, 0)], 0).astype(np.uint64)
        present = (index >= 0).astype(np.float32)
        words = lengths["words"]
        listed = np.arange(words) < (counts(features, "first", index) * (index >= 0))[:, None]
        teacher = padded(features, index, lengths["teacher"], self.teacher.pad, "teacher_")
        teacher["first"] = take(features, "teacher_first", index, words, 0).astype(np.int32)
        return {
            **self._token(features, index, lengths["token"], draw, keys),
            "word": self._word(features, index, lengths.get("word", lengths["token"]), words, draw, keys),
            "sentence": padded(features, index, lengths["sentence"], self.student.pad, "sentence_"),
            "teacher": teacher,
            "exists": listed,
            "mask": present,
        }

    def _token(self, features: Features, index: np.ndarray, length: int, draw: Draw, keys) -> dict[str, Any]:
        """Each token is drawn by itself; what a row has beyond its budget stays visible."""
        text = padded(features, index, length, self.student.pad, "token_")
        free = take(features, "token_words", index, length, SPECIAL) != SPECIAL
        wanted = free & (draw_uniform(draw.seed, draw.purpose + " token", draw.step, keys, length) < self.share)
        own = counts(features, "token_ids", index)
        wanted &= np.cumsum(wanted, 1) <= self.budget(own)[:, None]
        original = text["ids"]
        text["ids"] = hidden(self.student, original, wanted, draw._replace(purpose=draw.purpose + " token"), keys)
        if self.tlm_labels == "masked":
            positions = np.argsort(~wanted, axis=1, kind="stable")[:, : int(self.budget(length))].astype(np.int32)
            counted = np.take_along_axis(wanted, positions, 1)
        else:
            positions = np.broadcast_to(np.arange(length, dtype=np.int32), original.shape)
            counted = text["mask"].astype(bool) if self.tlm_labels == "attended" else np.ones(original.shape, bool)
        return {
            "token": text,
            "positions": positions,
            "labels": np.take_along_axis(original, positions, 1),
            "counted": counted & (index >= 0)[:, None],
        }

    def _word(self, features: Features, index: np.ndarray, length: int, words: int, draw: Draw, keys) -> dict[str, Any]:
        """Of n words min(⌊n/4⌋, max(1, round(share·n))) are drawn; each piece of them is hidden by itself."""
        text = padded(features, index, length, self.student.pad, "token_" if self.word_truncate else "word_")
        numbers = np.maximum(take(features, "words", index, length, SPECIAL), 0).astype(np.int64)
        there = np.zeros((len(index), words + 1), bool)
        np.put_along_axis(there, numbers, True, 1)
        there[:, 0] = False
        order = np.where(there, draw_uniform(draw.seed, draw.purpose + " words", draw.step, keys, words + 1), 2.0)
        rank = order.argsort(1, kind="stable").argsort(1, kind="stable")
        wanted = np.take_along_axis(there & (rank < drawn_words(there.sum(1), self.share)[:, None]), numbers, 1)
        text["ids"] = hidden(self.student, text["ids"], wanted, draw._replace(purpose=draw.purpose + " word"), keys)
        first = take(features, "first", index, words, 0).astype(np.int32)
        return text | {"drawn": wanted, "first": first}

    def budget(self, length: int | np.ndarray) -> np.ndarray:
        """Positions whose masked tokens are scored, four deviations above the mean: a number fixed by the length."""
        n = np.asarray(length)
        most = self.share * n + 4 * np.sqrt(self.share * (1 - self.share) * n)
        return np.minimum(4 * np.ceil(most / 4), n).astype(np.int64)

    def score(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> Scores:
        """How many masked tokens are found again, by the language of the translation."""
        return found_again(outputs, features)

    def records(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> list[dict[str, Any]]:
        return []  # words that were found again tell nothing one by one

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Any]:
        lengths = self.lengths(features)
        full = int((lengths["token"] >= self.max_length).sum())
        lost, words = int(features["lost"].sum()), int((lengths["words"] - 2).sum())
        total = f"{lost} of {lost + words} English words were cut or have no piece of their own"
        return {"shown": f"{full} pairs fill all {self.max_length} tokens; {total}", "full": full, "lost_words": lost}


def build(settings: ViewsSettings, tokenizer: Any, teacher_tokenizer: Any = None) -> Views:
    if teacher_tokenizer is None:
        raise UserError("no teacher", "config.teacher.path", "name an English encoder")
    templates = Template(tokenizer), Template(teacher_tokenizer)
    return Views(*templates, settings.max_length, settings.share, settings.tlm_labels, settings.word_truncate)


def drawn_words(words: np.ndarray, share: float) -> np.ndarray:
    """How many of so many words are hidden."""
    return np.minimum(words // 4, np.maximum(1, np.rint(share * words))).astype(np.int64)


def _sides(row: Pair) -> tuple[str, str]:
    """English first."""
    if row.source_language == "en":
        return row.source, row.target
    if row.target_language == "en":
        return row.target, row.source
    what = f"a pair in {row.source_language}-{row.target_language} has no English side"
    raise UserError(what, f"row {row.id} of {row.set}", "the teacher reads English")


def _text(of: pieces.Pieces, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pieces of one text, and the characters where each begins and ends."""
    at = slice(of.splits[number], of.splits[number + 1])
    return of.ids[at], of.begin[at], of.end[at]


def _words_of(text: str) -> list[tuple[int, int]]:
    """Words of a text by characters: what stands between blanks, each mark of punctuation by itself."""
    return [match.span() for match in _cutter().finditer(text)]


@functools.cache
def _cutter() -> re.Pattern[str]:
    marks = (chr(c) for c in range(0x20000) if unicodedata.category(chr(c))[0] == "P" or chr(c) in "$+<=>^`|~")
    marks = "".join(map(re.escape, marks))
    return re.compile(rf"[{marks}]|[^\s{marks}]+")


def _numbered(cut: list[tuple[int, int]], text: str, of, row: Sequenced) -> np.ndarray:
    """For each position of a row, the number from 1 of the word that its piece begins in; all else as in `_inside`."""
    word = np.zeros(len(text) + 1, np.int16)
    for number, (begin, end) in enumerate(cut, 1):
        word[begin:end] = number
    _, begin, end = of
    start, stop = row.spans[0]
    numbers = _inside(row)
    numbers[start:stop] = np.where(end > begin, word[begin], TEXT)[: stop - start]
    return numbers


def _inside(row: Sequenced) -> np.ndarray:
    found = np.full(len(row.ids), SPECIAL, np.int16)
    for start, stop in row.spans:
        found[start:stop] = TEXT
    return found


def _starts(numbers: np.ndarray, shared: np.ndarray, row: Sequenced) -> np.ndarray:
    """Where each shared word begins; before them the first special of the row, after them the one behind the text."""
    found, at = np.unique(numbers, return_index=True)
    return np.concatenate([[0], at[np.searchsorted(found, shared)], [row.spans[0][1]]]).astype(np.int16)
