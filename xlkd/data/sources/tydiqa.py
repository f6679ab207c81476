# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tydiqa:DIR`, or one of its files: TyDiQA-GoldP as XTREME distributes it, `tydiqa.goldp.LANG.SPLIT.json`.

Ids repeat within a file: rows are told apart by `key`. A paragraph occurs in several articles: paragraphs with the same
text are a group.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

from xlkd.data.sources import BadRows, Source, _folders, squad
from xlkd.rows import Question

TASKS = ("qa",)
OPTIONS = ("languages", "split", "limit")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Question, ...]:
    """Returns the questions file after file; question and context are in the same language."""
    split = _folders.choose_split(source, ("train", "dev"))
    pattern, name = rf"tydiqa\.goldp\.([\w-]+)\.(?:{split})\.json", f"tydiqa.goldp.LANG.{split}.json"
    folders, others = ("", f"tydiqa-goldp-v1.1-{split}"), r"tydiqa\.goldp\.[\w-]+\.(?:train|dev)\.json"
    paths = _folders.find_files(source, pattern, name, bad_rows, folders, others)
    languages = _folders.choose_languages(source, {language for (language,) in paths})
    return tuple(row for language in languages for row in _read_questions(source, language, paths[language,], bad_rows))


def _read_questions(source: Source, language: str, path: pathlib.Path, bad_rows: BadRows) -> Iterator[Question]:
    """Yields the questions of a language."""
    origin = squad.QuestionOrigin("tydiqa", path.name, language, language)
    for record in source.first(squad.read(path, bad_rows, repeated_ids=True)):
        yield origin.make_question(dataclasses.replace(record, paragraph=squad.hash_text(record.context)))
