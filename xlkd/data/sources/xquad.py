# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`xquad:DIR`: the files `xquad.LANG.json`; `pairs=all` asks every question in every language of every context."""

from __future__ import annotations

from xlkd.data.sources import Bad, Spec, _folders, squad
from xlkd.rows import Question

TASKS = ("qa",)


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Question, ...]:
    """Cell after cell; a paragraph is the same group in all languages, as it stands at the same place."""
    spec.allow("languages", "pairs", "limit")
    paths = _folders.find(spec, r"xquad\.([\w-]+)\.json", "xquad.LANG.json")
    languages = _folders.choose(spec, {language for (language,) in paths})
    found = {language: list(squad.read(paths[language,], bad)) for language in languages}
    return tuple(row for question, context in spec.pairs(languages) for row in _cell(spec, question, context, found))


def _cell(spec: Spec, asked: str, language: str, found: dict[str, list[squad.Found]]) -> list[Question]:
    """The questions that exist in both languages, over the contexts of one."""
    origin = squad.QuestionOrigin("xquad", "", asked, language)
    texts = {one.id: one.question for one in found[asked]}
    both = (one for one in found[language] if one.id in texts)
    return [origin.row(one, texts[one.id]) for one in spec.first(both)]
