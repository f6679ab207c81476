# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`squad:FILE`: questions in the layout of SQuAD (JSON), v1.1 or v2, which XQuAD, MLQA and TyDiQA share.

A question with an empty list of answers is unanswerable, whether or not `is_impossible` says so too;
`plausible_answers` are not read. A file in which no question has an answer has no labels, and its questions are bad
rows, unless it marks them with `is_impossible`. `languages=de` gives the language of the file (English by default),
`limit=N` takes its first N rows.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from xlkd.data.sources import BadRows, Source, _files
from xlkd.errors import UserError
from xlkd.files import find_repeated_key
from xlkd.rows import Answer, Question, make_key

TASKS = ("qa",)
OPTIONS = ("languages", "limit")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST = 1 << 30  # bytes of a file, which is read as a whole
NO_LABELS = "no gold answer (no question has one, and none is marked with is_impossible: the file has no labels)"


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Question, ...]:
    """Returns the questions of the file, or the first `limit` of them; each paragraph is a group."""
    languages = source.languages() or ("en",)
    if len(languages) > 1:
        raise UserError(
            "a squad: file is in one language, but several are named", str(source), "name the one it is written in"
        )
    path = source.locate()
    origin = QuestionOrigin("squad", path.name, languages[0], languages[0])
    return tuple(origin.make_question(record) for record in source.first(read(path, bad_rows)))


@dataclasses.dataclass(frozen=True)
class QuestionRecord:
    """A sound question of a file, and its place there."""

    number: int  # of the question in the file, bad rows counted
    paragraph: str  # article/paragraph
    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class QuestionOrigin:
    """A pair of languages in a data set; `scope` keeps paragraphs of two files apart."""

    set: str
    scope: str
    question_language: str
    context_language: str

    def make_question(self, record: QuestionRecord, question: str | None = None) -> Question:
        """Returns the example of a record; `question` is its text where it is asked in another language."""
        question = record.question if question is None else question
        content = (record.id, question, record.context, *(f"{a.start} {a.text}" for a in record.answers))
        return Question(
            id=record.id,
            key=make_key(*dataclasses.astuple(self), record.number, *content),
            group="/".join(part for part in (self.set, self.scope, record.paragraph) if part),
            set=self.set,
            question=question,
            context=record.context,
            answers=record.answers,
            question_language=self.question_language,
            context_language=self.context_language,
        )

    def join_questions(
        self, contexts: Iterable[QuestionRecord], questions: Iterable[QuestionRecord]
    ) -> Iterator[Question]:
        """Yields the questions of one language about the contexts of another, which have the same id in both."""
        texts = {record.id: record.question for record in questions}
        return (self.make_question(record, texts[record.id]) for record in contexts if record.id in texts)


def hash_text(text: str) -> str:
    """Names the rows that share a text, where the place in a file does not name them."""
    return make_key(text)[:16]


def read(path: pathlib.Path, bad_rows: BadRows, repeated_ids: bool = False) -> Iterator[QuestionRecord]:
    """Yields the sound questions of a file in order; all others are reported to `bad_rows`."""
    number, seen, articles = -1, set(), load_articles(path)
    labelled = _has_labels(articles)
    for where, paragraph, context, questions in _iterate_paragraphs(articles, path, bad_rows):
        for index, entry in enumerate(questions):
            number += 1
            id = format_id(entry.get("id")) if isinstance(entry, dict) else None
            at = f"{where}.qas[{index}]" + (f" (id {_shorten(id)})" if id is not None else "")
            fault = find_question_fault(entry, id, context, labelled)
            if fault := fault or ("duplicate id" if id in seen and not repeated_ids else ""):
                bad_rows.report(fault, at)
                continue
            seen.add(id)
            answers = tuple(Answer(a["text"], a["answer_start"]) for a in entry["answers"])
            yield QuestionRecord(number, paragraph, str(id), entry["question"], context, answers)


def load_articles(path: pathlib.Path) -> list[Any]:
    """Returns the articles of a file, after checking its outermost layout."""
    with _files.open_text(path) as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise UserError(f"more than {_LARGEST:,} bytes", str(path), "divide it into several files")
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=refuse_repeated_keys)
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", str(path), "save it as UTF-8") from None
    except ValueError as error:  # a number of thousands of digits too
        raise UserError(f"broken JSON: {error}", str(path), "fetch or write the file again") from None
    except RecursionError:
        raise UserError("broken JSON: nested too deeply", str(path), "fetch or write the file again") from None
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise UserError("not in SQuAD's layout: no list under 'data'", str(path), 'expected {"data": [...]}')
    return document["data"]


def refuse_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object as a dict; refuses a key that occurs twice, of which a dict loses one."""
    if (key := find_repeated_key(pairs)) is not None:
        raise ValueError(f"two keys {_shorten(key)}")
    return dict(pairs)


def _has_labels(articles: Sequence[Any]) -> bool:
    """Returns whether any question has an answer or is marked as impossible."""
    paragraphs = (paragraph for article in articles for paragraph in _list_items(article, "paragraphs"))
    questions = (entry for paragraph in paragraphs for entry in _list_items(paragraph, "qas"))
    return any(isinstance(entry, dict) and (entry.get("answers") or entry.get("is_impossible")) for entry in questions)


def _list_items(value: Any, key: str) -> list[Any]:
    """Returns the list under a key of an object; an empty one where there is none."""
    items = value.get(key) if isinstance(value, dict) else None
    return items if isinstance(items, list) else []


def _iterate_paragraphs(
    articles: Sequence[Any], path: pathlib.Path, bad_rows: BadRows
) -> Iterator[tuple[str, str, str, list[Any]]]:
    """Yields place, name, context and questions of each sound paragraph."""
    for a, article in enumerate(articles):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            bad_rows.report("no list under 'paragraphs'", f"{path}: data[{a}]")
            continue
        for p, paragraph in enumerate(paragraphs):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                bad_rows.report("no list under 'qas'", where)
            elif fault := find_text_fault(paragraph.get("context"), "context"):
                bad_rows.report(fault, where)
            else:
                yield where, f"{a}/{p}", paragraph["context"], paragraph["qas"]


def format_id(id: Any) -> Any:
    """Turns a number, which some files have as id, into the text by which predictions are keyed."""
    return str(id) if type(id) in (int, float) else id


def find_question_fault(entry: Any, id: Any, context: str, labelled: bool) -> str:
    """Returns the fault of a question, or an empty string; `labelled` says whether its file has labels."""
    if not isinstance(entry, dict):
        return "not an object"
    if id in (None, ""):
        return "no id"
    if not isinstance(id, str):
        return "id is neither a string nor a number"
    if fault := find_text_fault(id, "id"):
        return fault
    if fault := find_text_fault(entry.get("question"), "question"):
        return fault
    if not isinstance(entry.get("answers"), list):
        return "no list under 'answers'"
    if fault := find_impossible_fault(entry.get("is_impossible"), entry["answers"], labelled):
        return fault
    return next((fault for answer in entry["answers"] if (fault := _find_answer_entry_fault(answer, context))), "")


def find_impossible_fault(impossible: Any, answers: Sequence[Any], labelled: bool) -> str:
    """Returns the contradiction between a question's mark, None where it has none, and its answers; "" without one.

    Without answers there must be a mark, or labels elsewhere in the data.
    """
    if impossible is not None and not isinstance(impossible, bool):
        return f"is_impossible is {_shorten(impossible)}, not true or false"
    if impossible and answers:
        return "is_impossible is true, but there are answers"
    if impossible is False and not answers:
        return "no gold answer, but is_impossible is false"
    return "" if answers or labelled else NO_LABELS


def _find_answer_entry_fault(answer: Any, context: str) -> str:
    """Returns the fault of an entry of the list of answers, or an empty string."""
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
        return "an answer without 'text'"
    return find_answer_fault(answer["text"], answer.get("answer_start"), context)


def find_answer_fault(text: str, start: Any, context: str) -> str:
    """Returns the fault of a gold answer, or an empty string."""
    if not text.strip():
        return "no gold answer (its text is empty)"
    if not isinstance(start, int) or isinstance(start, bool):
        return f"answer_start is {start!r}, not a whole number"
    if start >= 0 and context.startswith(text, start):
        return ""
    places = [str(at) for at in _find_occurrences(text, context)]
    if not places:
        return f"answer not in the context: {_shorten(text)}"
    return f"wrong offset: answer {_shorten(text)} is not at character {start} but at {', '.join(places)}"


def find_text_fault(text: Any, name: str) -> str:
    """Returns the fault of a required text, or an empty string."""
    if not isinstance(text, str):
        return f"no {name}" if text is None else f"{name} is not a string"
    if not text.strip():
        return f"empty {name}"
    return find_surrogate_fault(text, name)


def find_surrogate_fault(text: str, name: str) -> str:
    """Returns the fault of a text that UTF-8 cannot encode, or an empty string."""
    return f"{name} contains half of a surrogate pair" if _SURROGATE.search(text) else ""


def _find_occurrences(text: str, context: str, limit: int = 3) -> list[int]:
    """Returns the first places of a text in its context."""
    places, at = [], context.find(text)
    while at >= 0 and len(places) < limit:
        places.append(at)
        at = context.find(text, at + 1)
    return places


def _shorten(value: Any, limit: int = 40) -> str:
    """Quotes a text, shortened where it is long, or another value."""
    return repr(value[: limit - 1] + "…" if isinstance(value, str) and len(value) > limit else value)
