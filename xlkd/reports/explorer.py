# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The data of the page's explorer: single questions with the answer of each system, within a number of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xlkd.files import encode_text
from xlkd.languages import is_right_to_left
from xlkd.reports import files
from xlkd.reports.files import Record
from xlkd.reports.results import QA, RETRIEVAL, DataSet


def make_data(record: Record, data_sets: Mapping[str, DataSet], runs: Sequence[files.Run], budget: int) -> Record:
    """Returns questions, contexts without repetition, and answers by system; `left` counts the sample and all."""
    texts: dict[str, dict[str, Record]] = {}
    for run in runs:
        for where, rows in run.texts.items():
            texts.setdefault(where, {}).update({row["key"]: row for row in rows})
    explored = {title: data for title, data in data_sets.items() if data.task != RETRIEVAL}
    sets = []
    for title, data in explored.items():
        rows = [
            row
            for row in texts.get(data.evaluation_set, {}).values()
            if (row.get("set") or data.evaluation_set) == data.name and ("question" in row) == (data.task == QA)
        ]
        shown = _make_set(title, data, rows, budget // len(explored))
        sets.append(shown | {"first": _choose_first(data, record["sets"][title])})
    languages = {language for shown in sets for row in shown["rows"] for language in row["l"]}
    return {"rtl": sorted(filter(is_right_to_left, languages)), "sets": sets}


def embed_json(value: Any) -> str:
    """Returns JSON that is safe inside a page: `</script>` and `<!--` cannot occur in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return encode_text(text).decode("utf-8")


def _choose_first(data: DataSet, numbers: Record) -> list[int]:
    """Returns the two systems shown at first: those of the first primary difference.

    Without one these are the last system that is compared, and the one that it started from.
    """
    names = list(data.entries)
    if numbers["primary"]:
        pair = numbers["comparisons"][numbers["primary"][0]]
        return [names.index(pair[side]) for side in "ab"]
    pair = next(reversed(numbers["comparisons"].values()), {"a": names[-1], "b": names[0]})
    system = data.entries[pair["a"]].system
    start = next(
        (name for name, entry in data.entries.items()
         if entry.system.config == system.config and entry.system.stage == system.results.get("start")),
        pair["b"],
    )  # fmt: skip
    return [names.index(pair["a"]), names.index(start)]


def _make_set(title: str, data: DataSet, rows: Iterable[Record], budget: int) -> Record:
    """Returns the questions of one data set that fit the budget, in bytes."""
    names = list(data.entries)
    answers_by_key = [{row["key"]: row for row in entry.rows} for entry in data.entries.values()]
    total = max((len(answers) for answers in answers_by_key), default=0)
    contexts: dict[str, int] = {}
    examples, size, sampled = [], 0, 0
    for row in rows:
        answers = [by_key.get(row["key"]) for by_key in answers_by_key]
        if not any(answers):
            continue
        sampled += 1
        entry = _describe_question(row, answers, contexts) if data.task == QA else _describe_labelled(row, answers)
        new = row.get("context") if data.task == QA and row["context"] not in contexts else None
        cost = len(embed_json(entry).encode()) + (len(embed_json(new).encode()) if new is not None else 0)
        if size + cost > budget:
            continue
        if new is not None:
            contexts[new] = len(contexts)
        size += cost
        examples.append(entry)
    counts = {"shown": len(examples), "sampled": sampled, "all": total}
    return {
        "name": title,
        "task": data.task,
        "systems": names,
        "contexts": list(contexts),
        "rows": examples,
        "left": counts,
    }


def _describe_question(row: Record, answers: Sequence[Record | None], contexts: Mapping[str, int]) -> Record:
    return {
        "i": row["id"],
        "q": row["question"],
        "c": contexts.get(row["context"], len(contexts)),
        "l": [row["question_language"], row["context_language"]],
        "g": [[answer["start"], answer["text"]] for answer in row["answers"]],
        "a": [
            [round(a["f1"], 1), round(a["em"], 1), a["prediction"], a.get("start"), a.get("end")] if a else None
            for a in answers
        ],
    }


def _describe_labelled(row: Record, answers: Sequence[Record | None]) -> Record:
    return {
        "i": row["id"],
        "t": row["text"],
        "s": row.get("second"),
        "l": [row["language"]],
        "g": row.get("label"),
        "a": [[a.get("accuracy"), a.get("prediction")] if a else None for a in answers],
    }
