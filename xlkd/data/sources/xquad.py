# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`xquad:DIR`: the files `xquad.LANG.json`; `pairs=all` asks every question in every language about every context."""

from __future__ import annotations

from xlkd.data.sources import BadRows, Source, _folders, squad
from xlkd.rows import Question

TASKS = ("qa",)
OPTIONS = ("languages", "pairs", "limit")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Question, ...]:
    """Returns the questions cell after cell; a paragraph is the same group in all languages, by its place."""
    paths = _folders.find_files(source, r"xquad\.([\w-]+)\.json", "xquad.LANG.json", bad_rows)
    languages = _folders.choose_languages(source, {language for (language,) in paths})
    records = {language: list(squad.read(paths[language,], bad_rows)) for language in languages}
    questions: list[Question] = []
    for question, context in source.pairs(languages):
        origin = squad.QuestionOrigin("xquad", "", question, context)
        questions += source.first(origin.join_questions(records[context], records[question]))
    return tuple(questions)
