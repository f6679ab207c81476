# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records where a stage's knowledge comes from: languages whose labels it saw, evaluation examples it met before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlkd.inputs.data import EvaluationSet
from xlkd.metrics import contamination
from xlkd.rows import Labelled, Pair, Question, make_key
from xlkd.spec.stage import AnyStage

KINDS = {
    contamination.PARALLEL_ID: "parallel id",
    contamination.PARAGRAPH: "same paragraph",
    contamination.NEAR_DUPLICATE: "near-duplicate",
}
SHOWN = 5  # examples of each kind

Seen = dict[str, list[str]]


def seen(
    spec: AnyStage,
    rows: Sequence[Any],
    chosen_by: Sequence[Any],
    before: Mapping[str, list[str]],
    teaches: bool,
) -> Seen:
    """Returns the languages whose labels were seen in training, selection and by a teacher, now and before.

    `parallel`: those of parallel text, which needs no labels.
    """
    trained = rows if spec.horizon.steps else ()
    training = labelled_languages(trained) | set(before.get("training", ()))
    teacher = {tag for tag, named in spec.teachers.items() if named} | (
        training if teaches and not spec.teacher.path else set()
    )
    by_kind = {
        "training": training,
        "selection": labelled_languages(chosen_by),
        "teacher": teacher,
        "parallel": parallel_languages(trained),
    }
    return {kind: sorted(languages | set(before.get(kind, ()))) for kind, languages in by_kind.items()}


def labelled_languages(rows: Sequence[Any]) -> set[str]:
    """Returns the languages of examples with labels; an answer belongs to the language of its context."""
    questions = {row.context_language for row in rows if isinstance(row, Question) and row.answers}
    return questions | {row.language for row in rows if isinstance(row, Labelled) and row.label is not None}


def parallel_languages(rows: Sequence[Any]) -> set[str]:
    """Returns the languages of translations, both sides."""
    pairs = {(row.source_language, row.target_language) for row in rows if isinstance(row, Pair)}
    return {language for pair in pairs if pair[0] != pair[1] for language in pair}


def met(rows: Sequence[Any], sets: Mapping[str, EvaluationSet], before: Mapping[str, Any]) -> dict[str, Any]:
    """Returns by set the examples that training touched, here or in an earlier stage, by kind."""
    found = {}
    for name, ready in sets.items():
        if not ready.rows or not isinstance(ready.rows[0], Question | Labelled):
            continue
        test = [contamination.make_item(row) for row in ready.rows]
        result = contamination.find_contamination([contamination.make_item(row) for row in rows], test)
        former = before.get(name, {})
        keys = [row.key for row in ready.rows]
        touched = {kind: {keys[i] for i in result.test[level]} for level, kind in KINDS.items()}
        touched = {kind: own | set(former.get("keys", {}).get(kind, ())) for kind, own in touched.items()}
        every = set().union(*touched.values())
        found[name] = {
            "rows": len(keys),
            "flagged": len(every),
            "kinds": {kind: len(those) for kind, those in touched.items()},
            "by_language": dict(Counter(one.language for one, key in zip(test, keys, strict=True) if key in every)),
            "examples": [
                {"kind": kind, "id": test[i].id, "language": test[i].language, "text": test[i].text[:200]}
                for level, kind in KINDS.items()
                for i in sorted(result.test[level])[:SHOWN]
            ],
            "keys": {kind: sorted(those) for kind, those in touched.items()},
        }
    return found


def texts(sets: Mapping[str, EvaluationSet], groups: int = 60) -> dict[str, list[dict[str, Any]]]:
    """Returns by set all examples of some groups, for a report; the same whatever the stage."""
    found = {}
    for name, ready in sets.items():
        named = {row.group for row in ready.rows}
        chosen = set(sorted(named, key=lambda group: make_key("explorer", group))[:groups])
        found[name] = [_text(row) for row in ready.rows if row.group in chosen and isinstance(row, Question | Labelled)]
    return {name: rows for name, rows in found.items() if rows}


def _text(row: Question | Labelled) -> dict[str, Any]:
    common = {"key": row.key, "id": row.id, "group": row.group, "set": row.set}
    if isinstance(row, Labelled):
        return common | {"text": row.text, "second": row.second, "label": row.label, "language": row.language}
    return common | {
        "question": row.question,
        "context": row.context,
        "answers": [{"text": answer.text, "start": answer.start} for answer in row.answers],
        "question_language": row.question_language,
        "context_language": row.context_language,
    }
