# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`squad:FILE`: questions in the layout of SQuAD v1.1 (JSON), which XQuAD, MLQA and TyDiQA share.

`languages=de` says what the file is written in (English where nothing is said), `limit=N` takes its first N rows.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from xlkd.data.sources import Bad, Spec
from xlkd.errors import UserError
from xlkd.rows import Answer, Question, make_key

TASKS = ("qa",)
_HALF = re.compile("[\ud800-\udfff]")
NO_ANSWER = "no gold answer (a question without one can be neither trained on nor scored)"


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Question, ...]:
    """All questions of the file, each paragraph a group."""
    spec.allow("languages", "limit")
    languages = spec.languages() or ("en",)
    if len(languages) > 1:
        raise UserError("one file has one language", str(spec), "name the one it is written in")
    path = pathlib.Path(spec.path).expanduser()
    origin = QuestionOrigin("squad", path.name, languages[0], languages[0])
    return tuple(origin.row(found) for found in spec.first(read(path, bad)))


@dataclasses.dataclass(frozen=True)
class Found:
    """A sound question of a file and where it stands there."""

    number: int  # of the question in the file, bad ones counted
    paragraph: str  # article/paragraph
    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class QuestionOrigin:
    """One pair of languages of one data set; `scope` is what keeps paragraphs of two files apart."""

    set: str
    scope: str
    question_language: str
    context_language: str

    def row(self, found: Found, question: str | None = None) -> Question:
        """The row of a question; `question` is its text where it is asked in another language."""
        question = found.question if question is None else question
        content = (found.id, question, found.context, *(f"{a.start} {a.text}" for a in found.answers))
        return Question(
            id=found.id,
            key=make_key(*dataclasses.astuple(self), found.number, *content),
            group="/".join(part for part in (self.set, self.scope, found.paragraph) if part),
            set=self.set,
            question=question,
            context=found.context,
            answers=found.answers,
            question_language=self.question_language,
            context_language=self.context_language,
        )


def text_name(text: str) -> str:
    """The name of what shares a text, where its place in a file says nothing."""
    return make_key(text)[:16]


def read(path: pathlib.Path, bad: Bad, repeated_ids: bool = False) -> Iterator[Found]:
    """The sound questions of a file in order; each other one goes to `bad`."""
    number, seen = -1, set()
    for where, paragraph, context, questions in _paragraphs(path, bad):
        for index, entry in enumerate(questions):
            number += 1
            id = _id_text(entry.get("id")) if isinstance(entry, dict) else None
            at = f"{where}.qas[{index}]" + (f" (id {id!r})" if id is not None else "")
            fault = _fault(entry, id, context) or ("duplicate id" if id in seen and not repeated_ids else "")
            if fault:
                bad(fault, at)
                continue
            seen.add(id)
            answers = tuple(Answer(a["text"], a["answer_start"]) for a in entry["answers"])
            yield Found(number, paragraph, id, entry["question"], context, answers)


def load(path: pathlib.Path) -> list[Any]:
    """The articles of a file, whose outermost shape is known to be right."""
    if not path.is_file():
        raise UserError("a folder, not a file" if path.is_dir() else "no such file", str(path), "look at the path")
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", str(path), "save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path)) from None
    except ValueError as error:  # a number of thousands of digits too
        raise UserError(f"broken JSON: {error}", str(path), "fetch or write the file again") from None
    except RecursionError:
        raise UserError("broken JSON: nested too deeply", str(path), "fetch or write the file again") from None
    if not isinstance(document, dict) or not isinstance(document.get("data"), list):
        raise UserError("not in SQuAD's layout: no list under 'data'", str(path), 'expected {"data": [...]}')
    return document["data"]


def _paragraphs(path: pathlib.Path, bad: Bad) -> Iterator[tuple[str, str, str, list[Any]]]:
    for a, article in enumerate(load(path)):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            bad("no list under 'paragraphs'", f"{path}: data[{a}]")
            continue
        for p, paragraph in enumerate(paragraphs):
            where = f"{path}: data[{a}].paragraphs[{p}]"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                bad("no list under 'qas'", where)
            elif fault := text_fault(paragraph.get("context"), "context"):
                bad(fault, where)
            else:
                yield where, f"{a}/{p}", paragraph["context"], paragraph["qas"]


def _id_text(id: Any) -> Any:
    """Turns a number, which some files have as ids, into the text that predictions are keyed by."""
    return str(id) if type(id) in (int, float) else id


def _fault(entry: Any, id: Any, context: str) -> str:
    """Returns what is wrong with a question, or nothing."""
    if not isinstance(entry, dict):
        return "not an object"
    if id in (None, ""):
        return "no id"
    if not isinstance(id, str):
        return "id is neither a string nor a number"
    if fault := text_fault(id, "id"):
        return fault
    if fault := text_fault(entry.get("question"), "question"):
        return fault
    if not isinstance(entry.get("answers"), list):
        return "no list under 'answers'"
    if entry.get("is_impossible") is True or not entry["answers"]:
        return NO_ANSWER
    return next((fault for answer in entry["answers"] if (fault := _answer_fault(answer, context))), "")


def _answer_fault(answer: Any, context: str) -> str:
    if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
        return "an answer without 'text'"
    return answer_fault(answer["text"], answer.get("answer_start"), context)


def answer_fault(text: str, start: Any, context: str) -> str:
    """What is wrong with a gold answer, or nothing."""
    if not text.strip():
        return "no gold answer (its text is empty)"
    if not isinstance(start, int) or isinstance(start, bool):
        return f"answer_start is {start!r}, not a whole number"
    if start >= 0 and context.startswith(text, start):
        return ""
    places = [str(at) for at in _occurrences(text, context)]
    if not places:
        return f"answer not in the context: {_short(text)}"
    return f"wrong offset: answer {_short(text)} is not at character {start} but at {', '.join(places)}"


def text_fault(text: Any, name: str) -> str:
    """What is wrong with a text that must be there, or nothing."""
    if not isinstance(text, str):
        return f"no {name}" if text is None else f"{name} is not a string"
    if not text.strip():
        return f"empty {name}"
    return surrogate_fault(text, name)


def surrogate_fault(text: str, name: str) -> str:
    """What no file can hold."""
    return f"{name} holds half of a surrogate pair" if _HALF.search(text) else ""


def _occurrences(text: str, context: str, most: int = 3) -> list[int]:
    found, at = [], context.find(text)
    while at >= 0 and len(found) < most:
        found.append(at)
        at = context.find(text, at + 1)
    return found


def _short(text: str, most: int = 40) -> str:
    return repr(text if len(text) <= most else text[: most - 1] + "…")
