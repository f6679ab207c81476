# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`mlqa:DIR`, or one of its files: cells `SPLIT-context-C-question-Q.json`; `pairs=all` includes those with C ≠ Q."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from xlkd.data.sources import BadRows, Source, _folders, squad
from xlkd.rows import Question

TASKS = ("qa",)
OPTIONS = ("languages", "pairs", "split", "limit")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Question, ...]:
    """Returns the questions cell after cell; paragraphs that share a question, in any language, are one group."""
    questions = []
    for (context, question), path in _find_cells(source, bad_rows).items():
        origin = squad.QuestionOrigin("mlqa", "", question, context)
        questions += [origin.make_question(record) for record in source.first(squad.read(path, bad_rows))]
    return tuple(assign_groups(questions))


def _find_cells(source: Source, bad_rows: BadRows) -> dict[tuple[str, ...], pathlib.Path]:
    """Returns the files that the options give, by context and question language."""
    split = _folders.choose_split(source, ("dev", "test"))
    pattern, name = rf"(?:{split})-context-([\w-]+)-question-([\w-]+)\.json", f"{split}-context-C-question-Q.json"
    others = r"(?:dev|test)-context-[\w-]+-question-[\w-]+\.json"
    paths = _folders.find_files(source, pattern, name, bad_rows, ("", split), others)
    if source.path.endswith(".json"):
        return paths
    languages = _folders.choose_languages(source, {language for pair in paths for language in pair})
    return {pair: paths[pair] for pair in source.pairs(languages) if pair in paths}


def assign_groups(questions: Sequence[Question]) -> list[Question]:
    """Returns the questions with groups: the connected components of paragraphs that share a question id.

    A group is named by its smallest id, so that the name does not depend on the order of files.
    """
    parents: dict[object, object] = {}

    def find_root(node: object) -> object:
        """Returns the representative of a component, shortening the path to it."""
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for row in questions:
        by_id, by_context = find_root(("id", row.id)), find_root((row.context_language, row.context))
        parents[by_id] = by_context
    names: dict[object, str] = {}
    for row in questions:
        top = find_root(("id", row.id))
        names[top] = min(names.get(top, row.id), row.id)
    return [dataclasses.replace(row, group=f"{row.set}/{names[find_root(('id', row.id))]}") for row in questions]
