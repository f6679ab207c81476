# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the checkpoint that is exported: the last one, or the best by a named rule."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlkd.errors import UserError
from xlkd.rows import Cell, Labelled, Question
from xlkd.spec.stage import AnySettings
from xlkd.spec.tasks import Classify

RULES = ("last", "best", "english", "supervised")


class Rule(NamedTuple):
    """Which scores choose: those of a set, of its cells those in these languages alone, where any are named."""

    name: str
    set: str
    languages: frozenset[str] | None

    def best(self, folder: pathlib.Path) -> int | None:
        """Returns the evaluated step with the highest mean, the earlier of equals."""
        means = {}
        for file in folder.glob(f"[0-9]*-{self.set}.json"):
            record = json.loads(file.read_text(encoding="utf-8"))
            languages = {name: Cell.parse(name).languages for name in record["cells"]} | record.get("languages", {})
            counted = [name for name in record["cells"] if self.counts(languages[name])]
            means[record["step"]] = float(np.mean([record["cells"][name][record["main"]] for name in counted]))
        return max(means, key=lambda step: (means[step], -step)) if means else None

    def counts(self, languages: Iterable[str]) -> bool:
        return self.languages is None or set(languages) <= self.languages

    def looked_at(self, rows: Sequence[Any]) -> list[Any]:
        """Returns the examples whose labels choose."""
        return [row for row in rows if self.name != "last" and self.counts(_of(row))]


def rule(settings: AnySettings, sets: Mapping[str, Any], supervised: Iterable[str]) -> Rule:
    """Returns the rule `config.eval.keep` on `config.data.dev`, or on `config.data.eval` where there is no dev set."""
    name, chosen = settings.eval.keep, "dev" if "dev" in sets else "eval"
    languages = {"english": frozenset({"en"}), "supervised": frozenset(supervised)}.get(name)
    found = Rule(name, chosen, languages)
    if name == "last":
        return found
    if chosen not in sets:
        raise UserError(f"keep={name} has no rows to go by", "config.data.dev", "name some, or set eval.keep=last")
    looked_at = found.looked_at(sets[chosen].rows)
    if not looked_at:
        what = f"keep={name} finds no rows in {', '.join(sorted(languages or ()))}"
        raise UserError(what, f"config.data.{chosen}", "name a set that has some")
    named = set(settings.task.languages) if isinstance(settings.task, Classify) else set()
    unseen = {tag for row in looked_at for tag in _of(row)} - named
    if named and unseen:
        what = f"keep={name} would choose by labels in {', '.join(sorted(unseen))}, which are called zero-shot"
        raise UserError(what, "config.eval.keep", "choose supervised, english or last")
    return found


def _of(row: Any) -> tuple[str, ...]:
    """Returns the languages of an example that has a label or an answer."""
    if isinstance(row, Question):
        return row.question_language, row.context_language
    return (row.language,) if isinstance(row, Labelled) else ()
