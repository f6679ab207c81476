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
from xlkd.inputs.data import EvaluationSet
from xlkd.languages import has_language
from xlkd.rows import Cell, Labelled, Question
from xlkd.spec.stage import AnySettings
from xlkd.spec.tasks import Classify

RULES = ("last", "best", "english", "supervised")


class Rule(NamedTuple):
    """Chooses a checkpoint by its mean score on an evaluation set, over the cells in `languages`; None means all."""

    name: str
    evaluation_set: str
    languages: frozenset[str] | None

    def choose_step(self, folder: pathlib.Path) -> int | None:
        """Returns the evaluated step with the highest mean, the earliest of equals; None where none was evaluated."""
        means = {}
        for file in folder.glob(f"[0-9]*-{self.evaluation_set}.json"):
            record = json.loads(file.read_text(encoding="utf-8"))
            languages = {name: Cell.parse(name).languages for name in record["cells"]} | record.get("languages", {})
            counted = [name for name in record["cells"] if self.includes_languages(languages[name])]
            means[record["step"]] = float(np.mean([record["cells"][name][record["main"]] for name in counted]))
        return max(means, key=lambda step: (means[step], -step)) if means else None

    def includes_languages(self, languages: Iterable[str]) -> bool:
        """Returns whether a cell or an example in these languages counts."""
        return self.languages is None or all(has_language(self.languages, tag) for tag in languages)

    def select_examples(self, rows: Sequence[Any]) -> list[Any]:
        """Returns the examples whose labels decide which checkpoint is chosen; none for the last checkpoint."""
        return [row for row in rows if self.name != "last" and self.counts_example(row)]

    def counts_example(self, row: Any) -> bool:
        """Returns whether the labels of an example may choose anything."""
        return self.includes_languages(_list_languages(row))


def build_rule(settings: AnySettings, sets: Mapping[str, EvaluationSet], supervised: Iterable[str]) -> Rule:
    """Builds the rule `config.eval.keep` on `config.data.dev`, or on `config.data.eval` where there is no dev set.

    `supervised` has the languages whose labels are seen in training.
    """
    name, evaluation_set = settings.eval.keep, "dev" if "dev" in sets else "eval"
    languages = {"english": frozenset({"en"}), "supervised": frozenset(supervised)}.get(name)
    rule = Rule(name, evaluation_set, languages)
    if name == "last":
        return rule
    if evaluation_set not in sets:
        raise UserError(
            f"keep={name} has no examples to choose by", "config.data.dev", "name some, or set eval.keep=last"
        )
    examples = rule.select_examples(sets[evaluation_set].rows)
    if not examples:
        what = f"keep={name} has no examples in {', '.join(sorted(languages or ()))}"
        raise UserError(what, f"config.data.{evaluation_set}", "name a set that has some")
    supervised_tags = set(settings.task.supervised()) if isinstance(settings.task, Classify) else set()
    unseen = {tag for row in examples for tag in _list_languages(row) if not has_language(supervised_tags, tag)}
    if supervised_tags and unseen:
        what = f"keep={name} would choose by labels in {', '.join(sorted(unseen))}, which are called zero-shot"
        raise UserError(what, "config.eval.keep", "choose supervised, english or last")
    return rule


def _list_languages(row: Any) -> tuple[str, ...]:
    """Returns the languages of an example that has a label or an answer."""
    if isinstance(row, Question):
        return row.question_language, row.context_language
    return (row.language,) if isinstance(row, Labelled) else ()
