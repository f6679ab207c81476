# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Records the languages whose labels a model has seen, and the evaluation examples that its training data contain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from xlkd.files import Json
from xlkd.inputs.data import EvaluationSet
from xlkd.languages import normalise_tag
from xlkd.metrics import contamination
from xlkd.rows import Labelled, Pair, Question, make_key
from xlkd.spec.stage import AnyStage

KINDS = {
    contamination.PARALLEL_ID: "parallel id",
    contamination.PARAGRAPH: "same paragraph",
    contamination.NEAR_DUPLICATE: "near-duplicate",
}
EXAMPLES_SHOWN = 5  # of each kind
GROUPS_SHOWN = 60

Seen = dict[str, list[str]]  # languages by kind: training, selection, teacher, parallel


def collect_seen_languages(
    spec: AnyStage,
    training_examples: Sequence[Any],
    selection_examples: Sequence[Any],
    before: Mapping[str, list[str]],
    has_teacher: bool,
) -> Seen:
    """Returns the languages whose labels were seen by training, by the choice of the checkpoint and by teachers.

    `before` has the languages of earlier stages, which are added. The languages of parallel text, which needs no
    labels, are returned as `parallel`. A stage without steps has seen none of its training examples.
    """
    trained = training_examples if spec.horizon.steps else ()
    training = find_labelled_languages(trained) | set(before.get("training", ()))
    teacher = {normalise_tag(tag, "config.teachers") for tag, names in spec.teachers.items() if names}
    if has_teacher and not spec.teacher.path:  # the teacher comes from the student's own training
        teacher |= training
    by_kind = {
        "training": training,
        "selection": find_labelled_languages(selection_examples),
        "teacher": teacher,
        "parallel": find_parallel_languages(trained),
    }
    return {kind: sorted(languages | set(before.get(kind, ()))) for kind, languages in by_kind.items()}


def find_labelled_languages(rows: Sequence[Any]) -> set[str]:
    """Returns the languages of examples with labels; an answer, or that there is none, belongs to its context's."""
    questions = {row.context_language for row in rows if isinstance(row, Question)}
    return questions | {row.language for row in rows if isinstance(row, Labelled) and row.label is not None}


def find_parallel_languages(rows: Sequence[Any]) -> set[str]:
    """Returns the languages of both sides of translated pairs."""
    pairs = {(row.source_language, row.target_language) for row in rows if isinstance(row, Pair)}
    return {language for pair in pairs if pair[0] != pair[1] for language in pair}


def describe_contamination(
    training_examples: Sequence[Any], sets: Mapping[str, EvaluationSet], before: Mapping[str, Json]
) -> dict[str, Json]:
    """Returns for each evaluation set the examples that training data contain, by kind of match.

    `before` is the same record of the earlier training, whose matches are added.
    """
    record = {}
    for name, (_, rows, _) in sets.items():
        if not rows or not isinstance(rows[0], Question | Labelled):
            continue
        test = [contamination.make_item(row) for row in rows]
        result = contamination.find_contamination([contamination.make_item(row) for row in training_examples], test)
        earlier_keys = before.get(name, {}).get("keys", {})
        keys = [row.key for row in rows]
        keys_of = {
            kind: {keys[i] for i in result.test[level]} | set(earlier_keys.get(kind, ()))
            for level, kind in KINDS.items()
        }
        flagged = set().union(*keys_of.values())
        languages = (item.language for item, key in zip(test, keys, strict=True) if key in flagged)
        record[name] = {
            "rows": len(keys),
            "flagged": len(flagged),
            "kinds": {kind: len(matches) for kind, matches in keys_of.items()},
            "by_language": dict(Counter(languages)),
            "examples": [
                {"kind": kind, "id": test[i].id, "language": test[i].language, "text": test[i].text[:200]}
                for level, kind in KINDS.items()
                for i in sorted(result.test[level])[:EXAMPLES_SHOWN]
            ],
            "keys": {kind: sorted(matches) for kind, matches in keys_of.items()},
        }
    return record


def sample_texts(sets: Mapping[str, EvaluationSet], groups: int = GROUPS_SHOWN) -> dict[str, list[dict[str, Json]]]:
    """Returns for each evaluation set all examples of a few groups, the same in every stage, for the report."""
    samples = {}
    for name, (_, rows, _) in sets.items():
        in_order = sorted({row.group for row in rows}, key=lambda group: make_key("explorer", group))
        chosen = set(in_order[:groups])
        examples = [row for row in rows if row.group in chosen and isinstance(row, Question | Labelled)]
        if examples:
            samples[name] = [_describe_example(row) for row in examples]
    return samples


def _describe_example(row: Question | Labelled) -> dict[str, Json]:
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
