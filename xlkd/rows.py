# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One example as a source yields it: plain values, the same on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import re


def key_of(*parts: object) -> str:
    """128 bits over the parts, in hexadecimal: the name of an example in caches and random draws."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A gold span: its text, and the character at which it starts in the context."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """Extractive question answering; `answers` is empty only where the file holds no labels."""

    id: str  # as in the file: not unique in TyDiQA nor over MLQA's cells
    key: str  # unique in a run
    group: str  # the paragraph: statistics cluster by it
    set: str  # the data set's name: it decides which official script scores
    question: str
    context: str
    answers: tuple[Answer, ...]
    question_language: str
    context_language: str


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """Text classification, one text or a pair; `label` is None where the file holds none."""

    id: str
    key: str
    group: str
    set: str
    text: str
    second: str | None
    label: str | None
    language: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that belong together: a sentence and its translation, or two texts in one language.

    `links` are word alignments (source word, target word), counted from 0; None where not known.
    """

    id: str
    key: str
    group: str
    set: str
    source: str
    target: str
    source_language: str
    target_language: str
    links: tuple[tuple[int, int], ...] | None = None


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Cell:
    """What is scored by itself: the examples of a data set in certain languages.

    `languages` are those of question and context, of source and target, or the one language. `set` is empty where
    scores go by language alone.
    """

    set: str
    languages: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the cell as people read it and as files name it: `mlqa en-de`, `xnli zh-Hant`."""
        return f"{self.set} {'-'.join(self.languages)}".lstrip()

    @classmethod
    def of(cls, example: Question | Labelled | Pair) -> Cell:
        """Returns the cell of an example."""
        if isinstance(example, Question):
            return cls(example.set, (example.question_language, example.context_language))
        if isinstance(example, Labelled):
            return cls(example.set, (example.language,))
        return cls(example.set, (example.source_language, example.target_language))

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Returns the cell that `str` wrote: a new language begins at two or three small letters after a hyphen."""
        set_name, _, languages = text.rpartition(" ")
        return cls(set_name, tuple(re.split(r"-(?=[a-z]{2,3}(?:-|$))", languages)))
