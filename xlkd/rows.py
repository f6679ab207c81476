# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Examples as sources yield them: frozen values that are the same on every machine."""

from __future__ import annotations

import dataclasses
import hashlib
import re


def make_key(*parts: object) -> str:
    """Returns 128 bits hashed from the parts, in hexadecimal: the key of an example in caches and random draws."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A gold answer: its text, and the character at which it starts in the context."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """An example of extractive question answering; `answers` is empty where the context has none.

    They are empty too in a question that is asked without being scored.
    """

    id: str  # as in the file; not unique in TyDiQA nor across MLQA's cells
    key: str  # unique in a run
    group: str  # the paragraph, by which statistics cluster
    set: str  # the data set, which decides the official scoring script
    question: str
    context: str
    answers: tuple[Answer, ...]
    question_language: str
    context_language: str


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """An example of text classification, one text or a pair; `label` is None where the file has none."""

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
    """A pair of texts: a sentence and its translation, or two texts in one language.

    `links` are word alignments (source word, target word), counted from 0; None where they are not known.
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


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A text without a label and without a translation: a line of a file, or a part of a long line."""

    id: str
    key: str
    group: str  # the line
    set: str
    text: str
    language: str


def list_texts(row: Question | Labelled | Pair | Text) -> tuple[str, ...]:
    """Returns the texts of an example that an encoder reads."""
    if isinstance(row, Question):
        return row.question, row.context
    if isinstance(row, Pair):
        return row.source, row.target
    if isinstance(row, Text) or row.second is None:
        return (row.text,)
    return row.text, row.second


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Cell:
    """The unit of scoring: the examples of a data set in certain languages.

    `languages` are those of question and context, those of source and target, or a single language. `set` is empty
    where scores are grouped by language alone.
    """

    set: str
    languages: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the cell as it is displayed and as files name it: `mlqa en-de`, `xnli zh-Hant`."""
        return f"{self.set} {'-'.join(self.languages)}".lstrip()

    @classmethod
    def from_example(cls, example: Question | Labelled | Pair | Text) -> Cell:
        """Returns the cell that an example belongs to."""
        if isinstance(example, Question):
            return cls(example.set, (example.question_language, example.context_language))
        if isinstance(example, Labelled | Text):
            return cls(example.set, (example.language,))
        return cls(example.set, (example.source_language, example.target_language))

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Parses the output of `str`; a new language begins at two or three lower-case letters after a hyphen."""
        set_name, _, languages = text.rpartition(" ")
        return cls(set_name, tuple(re.split(r"-(?=[a-z]{2,3}(?:-|$))", languages)))
