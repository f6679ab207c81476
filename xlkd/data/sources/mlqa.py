# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`mlqa:DIR`, or one file of it: the cells `SPLIT-context-C-question-Q.json`; `pairs=all` also takes C ≠ Q."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from xlkd.data.sources import Bad, Spec, _folders, squad
from xlkd.rows import Question

TASKS = ("qa",)


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Question, ...]:
    """Cell after cell; paragraphs that share a question, in any language, are one group."""
    spec.allow("languages", "pairs", "split", "limit")
    found = []
    for (context, question), path in _cells(spec).items():
        origin = squad.QuestionOrigin("mlqa", "", question, context)
        found += [origin.row(one) for one in spec.first(squad.read(path, bad))]
    return tuple(grouped(found))


def _cells(spec: Spec) -> dict[tuple[str, ...], pathlib.Path]:
    """The files asked for, by context and question language."""
    split = _folders.split(spec, ("dev", "test"))
    pattern, name = rf"(?:{split})-context-([\w-]+)-question-([\w-]+)\.json", f"{split}-context-C-question-Q.json"
    paths = _folders.find(spec, pattern, name, ("", split))
    if spec.path.endswith(".json"):
        return paths
    languages = _folders.choose(spec, {language for pair in paths for language in pair})
    return {pair: paths[pair] for pair in spec.pairs(languages) if pair in paths}


def grouped(found: Sequence[Question]) -> list[Question]:
    """The rows with groups: the connected components of paragraphs that share a question id.

    A group is named by its smallest id, so that the name does not depend on the order of files.
    """
    parents: dict[object, object] = {}

    def root(node: object) -> object:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for row in found:
        a, b = root(("id", row.id)), root((row.context_language, row.context))
        parents[a] = b
    names: dict[object, str] = {}
    for row in found:
        top = root(("id", row.id))
        names[top] = min(names.get(top, row.id), row.id)
    return [dataclasses.replace(row, group=f"{row.set}/{names[root(('id', row.id))]}") for row in found]
