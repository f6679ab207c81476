# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Single questions with what each system answered: the data of the page's explorer, within a number of bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xlkd.languages import RIGHT_TO_LEFT
from xlkd.reports import files
from xlkd.reports.files import Record
from xlkd.reports.results import QA, RETRIEVAL, DataSet


def data(record: Record, held: Mapping[str, DataSet], runs: Sequence[files.Run], budget: int) -> Record:
    """Questions, contexts once, answers by system; `left` says how many stand in the sample and in all."""
    texts: dict[str, dict[str, Record]] = {}
    for run in runs:
        for where, rows in run.texts().items():
            texts.setdefault(where, {}).update({row["key"]: row for row in rows})
    explored = {title: one for title, one in held.items() if one.task != RETRIEVAL}
    sets = []
    for title, one in explored.items():
        rows = [row for row in texts.get(one.where, {}).values() if (row.get("set") or one.where) == one.name]
        shown = _set(title, one, rows, budget // len(explored))
        sets.append(shown | {"first": _first(one, record["sets"][title])})
    return {"rtl": sorted(RIGHT_TO_LEFT), "sets": sets}


def embedded(value: Any) -> str:
    """JSON that no page can take for markup: `</script>` and `<!--` cannot occur in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")


def _first(one: DataSet, told: Record) -> list[int]:
    """What is shown at first: the last system that is compared, and the one that it started from."""
    names = list(one.entries)
    pair = next(reversed(told["comparisons"].values()), {"a": names[-1], "b": names[0]})
    system = one.entries[pair["a"]].system
    start = next(
        (name for name, entry in one.entries.items()
         if entry.system.config == system.config and entry.system.stage == system.results.get("start")),
        pair["b"],
    )  # fmt: skip
    return [names.index(pair["a"]), names.index(start)]


def _set(title: str, one: DataSet, rows: Iterable[Record], budget: int) -> Record:
    names = list(one.entries)
    answers = [{row["key"]: row for row in entry.rows} for entry in one.entries.values()]
    total = max((len(of) for of in answers), default=0)
    contexts: dict[str, int] = {}
    shown, size, sampled = [], 0, 0
    for row in rows:
        found = [of.get(row["key"]) for of in answers]
        if not any(found):
            continue
        sampled += 1
        entry = _question(row, found, contexts) if one.task == QA else _labelled(row, found)
        new = row.get("context") if one.task == QA and row["context"] not in contexts else None
        cost = len(embedded(entry).encode()) + (len(embedded(new).encode()) if new is not None else 0)
        if size + cost > budget:
            continue
        if new is not None:
            contexts[new] = len(contexts)
        size += cost
        shown.append(entry)
    left = {"shown": len(shown), "sampled": sampled, "all": total}
    return {"name": title, "task": one.task, "systems": names, "contexts": list(contexts), "rows": shown, "left": left}


def _question(row: Record, found: Sequence[Record | None], contexts: Mapping[str, int]) -> Record:
    return {
        "i": row["id"],
        "q": row["question"],
        "c": contexts.get(row["context"], len(contexts)),
        "l": [row["question_language"], row["context_language"]],
        "g": [[answer["start"], answer["text"]] for answer in row["answers"]],
        "a": [
            [round(of["f1"], 1), round(of["em"], 1), of["prediction"], of.get("start"), of.get("end")] if of else None
            for of in found
        ],
    }


def _labelled(row: Record, found: Sequence[Record | None]) -> Record:
    return {
        "i": row["id"],
        "t": row["text"],
        "s": row.get("second"),
        "l": [row["language"]],
        "g": row.get("label"),
        "a": [[of.get("accuracy"), of.get("prediction")] if of else None for of in found],
    }
