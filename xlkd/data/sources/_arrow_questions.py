# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads questions from parquet files and Arrow streams in SQuAD's columns."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from xlkd.data.sources import BadRows, Source, _folders, mlqa, squad
from xlkd.data.sources._arrow_columns import (
    Origin,
    Parts,
    check_columns,
    choose_columns,
    get_fields,
    is_list,
    is_text_or_number,
    resolve_language,
)
from xlkd.data.sources._arrow_files import iterate_rows, read_schema
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.rows import Answer, Question, make_key

_ANSWER = ("answer_text", "answer_start")  # columns of the only answer
_IMPOSSIBLE = "is_impossible"  # a column that marks unanswerable questions, as SQuAD 2 does
_PARTS = ("id", "question", "context", "answers", *_ANSWER, "language")
_FIELDS = ("text", "answer_start")  # of an entry of the column of answers
OPTIONS = ("languages", "pairs", "limit", *_PARTS)
_Cell = tuple[str, str]  # the languages of questions and contexts


def rows(source: Source, parts: Parts, bad_rows: BadRows) -> tuple[Question, ...]:
    """Returns questions, language after language; paragraphs that share an id, as translations do, are a group."""
    cells: dict[_Cell, list[Question]] = {}
    for origin, files in parts.items():
        for row in _read_part(source, files, origin, bad_rows):
            cells.setdefault((row.question_language, row.context_language), []).append(row)
    if source.choice("pairs", ("diagonal", "all")) == "all":
        cells = _cross_languages(cells)
    questions = [row for own in cells.values() for row in source.first(own)]
    return tuple(questions if any(map(_has_repeated_ids, parts)) else mlqa.assign_groups(questions))


def _cross_languages(cells: Mapping[_Cell, list[Question]]) -> dict[_Cell, list[Question]]:
    """Returns the questions of each language about the contexts of each, by the ids that both have."""
    texts = {asked: {row.id: row.question for row in own} for (asked, _), own in cells.items()}
    return {
        (asked, language): own
        if asked == language
        else [
            dataclasses.replace(
                row,
                key=make_key(row.key, asked, texts[asked][row.id]),
                question=texts[asked][row.id],
                question_language=asked,
            )
            for row in own
            if row.id in texts[asked]
        ]
        for asked in texts
        for (_, language), own in cells.items()
    }


def _read_part(source: Source, files: Sequence[pathlib.Path], origin: Origin, bad_rows: BadRows) -> Iterator[Question]:
    """Yields the questions of a part, language after language where a column has several."""
    columns = choose_columns(source, files[0], _PARTS, ("question", "context"))
    if any(map(source.option, _ANSWER)):
        columns.pop("answers", None)
    if "answers" not in columns and not set(_ANSWER) <= set(columns):
        remedy = "name it: answers=COLUMN, or answer_text=COLUMN and answer_start=COLUMN"
        raise UserError("no column is known to be the answers", str(files[0]), remedy)
    if _IMPOSSIBLE in read_schema(files[0]).names:
        columns[_IMPOSSIBLE] = _IMPOSSIBLE
    by_row = "language" in columns or (_has_repeated_ids(origin) and not origin.language)
    language = "" if by_row else resolve_language(source, origin)
    questions: dict[str, list[Question]] = {}
    for row in _iterate_questions(files, columns, language, origin, bad_rows):
        questions.setdefault(row.context_language, []).append(row)
    chosen = [language] if language else _folders.choose_languages(source, set(questions)) if questions else []
    for each in chosen:
        yield from questions.get(each, ())


def _has_repeated_ids(origin: Origin) -> bool:
    """Says whether the data set is TyDiQA, whose ids begin with the language and repeat."""
    return origin.set == "tydiqa"


def _iterate_questions(
    files: Sequence[pathlib.Path], columns: Mapping[str, str], language: str, origin: Origin, bad_rows: BadRows
) -> Iterator[Question]:
    """Yields the sound questions."""
    seen: set[tuple[str, str]] = set()
    labelled = _has_labels(files, columns)
    asked_in = normalise_tag(origin.question_language) if origin.question_language else ""
    for number, (where, cells, fault) in enumerate(_iterate_cells(files, columns)):
        own, language_fault = (language, "") if language else _parse_language(cells)
        entry, context = _make_entry(cells, f"{origin.scope}:{number}"), cells["context"]
        id = squad.format_id(entry["id"])
        fault = fault or squad.find_text_fault(context, "context")
        fault = fault or squad.find_question_fault(entry, id, context, labelled)
        repeated = (own, id) in seen and not _has_repeated_ids(origin)
        if fault := fault or language_fault or ("duplicate id" if repeated else ""):
            bad_rows.report(fault, where)
            continue
        seen.add((own, id))
        answers = tuple(Answer(answer["text"], answer["answer_start"]) for answer in entry["answers"])
        record = squad.QuestionRecord(number, squad.hash_text(context), id, entry["question"], context, answers)
        yield squad.QuestionOrigin(origin.set, origin.scope, asked_in or own, own).make_question(record)


def _iterate_cells(
    files: Sequence[pathlib.Path], columns: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yields place, cells by part, and fault of the rows of all files."""
    for path in files:
        check_columns(path, columns, _is_possible)
        for row in iterate_rows(path, [(name,) for name in columns.values()]):
            yield row.where, dict(zip(columns, row.values, strict=True)), row.fault


def _parse_language(cells: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the canonical tag of a row by its cell, else by its id (swahili-…), or its fault."""
    tag = cells["language"] if "language" in cells else str(cells.get("id")).partition("-")[0]
    try:
        return normalise_tag(str(tag or "")), ""
    except UserError as error:
        return "", error.what


def _make_entry(cells: Mapping[str, Any], default_id: str) -> dict[str, Any]:
    """Returns a row as an entry of a file in SQuAD's layout."""
    answers = _get_answers(cells)
    entry = {"id": cells.get("id", default_id), "question": cells["question"], "answers": _list_answers(answers)}
    return entry | {_IMPOSSIBLE: cells.get(_IMPOSSIBLE)}


def _has_labels(files: Sequence[pathlib.Path], columns: Mapping[str, str]) -> bool:
    """Says whether some question has an answer, without which a set without marks has no labels at all."""
    answers = {part: name for part, name in columns.items() if part in ("answers", *_ANSWER)}
    return any(_list_answers(_get_answers(cells)) for _, cells, fault in _iterate_cells(files, answers) if not fault)


def _get_answers(cells: Mapping[str, Any]) -> Any:
    """Returns the cell of the answers, made of two cells where they have a column each."""
    if "answers" in cells:
        return cells["answers"]
    return {field: cells[part] for field, part in zip(_FIELDS, _ANSWER, strict=True)}


def _list_answers(answers: Any) -> list[Any] | None:
    """Returns a list of answers as it is, and makes one of a struct of lists, as `datasets` stores it."""
    if not isinstance(answers, dict):
        return answers
    lists = [values if isinstance(values := answers[field], list) else [values] for field in _FIELDS]
    return [dict(zip(_FIELDS, values, strict=True)) for values in itertools.zip_longest(*lists)]


def _is_possible(part: str, kind: pa.DataType) -> bool:
    """Says whether a column can be a part of a question."""
    if part == "answers":
        return set(_FIELDS) <= set(get_fields(kind.value_type if is_list(kind) else kind))
    if part == _IMPOSSIBLE:
        return pa.types.is_boolean(kind)
    if part in _ANSWER and is_list(kind):
        kind = kind.value_type
    return is_text_or_number(kind)
