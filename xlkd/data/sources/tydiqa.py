# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tydiqa:DIR`, or one file of it: TyDiQA-GoldP as XTREME has it, `tydiqa.goldp.LANG.SPLIT.json`.

Ids repeat within a file, by nature: rows are told apart by `key`. A paragraph stands in several articles: a group is
what has the same text.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

from xlkd.data.sources import Bad, Spec, _folders, squad
from xlkd.rows import Question

TASKS = ("qa",)


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Question, ...]:
    """File after file; question and context are in one language."""
    spec.allow("languages", "split", "limit")
    split = _folders.split(spec, ("train", "dev"))
    pattern, name = rf"tydiqa\.goldp\.([\w-]+)\.(?:{split})\.json", f"tydiqa.goldp.LANG.{split}.json"
    paths = _folders.find(spec, pattern, name, ("", f"tydiqa-goldp-v1.1-{split}"))
    languages = _folders.choose(spec, {language for (language,) in paths})
    return tuple(row for language in languages for row in _cell(spec, language, paths[language,], bad))


def _cell(spec: Spec, language: str, path: pathlib.Path, bad: Bad) -> Iterator[Question]:
    origin = squad.QuestionOrigin("tydiqa", path.name, language, language)
    for found in spec.first(squad.read(path, bad, repeated_ids=True)):
        yield origin.row(dataclasses.replace(found, paragraph=squad.text_name(found.context)))
