# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the null odds above which a question gets no answer: on the dev set, never on another evaluation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xlkd.evaluation.selection import Rule
from xlkd.inputs.data import EvaluationSet
from xlkd.rows import Cell, Question
from xlkd.tasks import Records
from xlkd.tasks.nulls import CHOSEN, INHERITED, UNCHOSEN, Threshold, choose_threshold
from xlkd.tasks.scores import find_unanswerable_cells

DEV = "dev"


class ThresholdRule(NamedTuple):
    """Chooses a threshold from the scores of the dev set; without dev examples it is `fixed`.

    `positions` are the places of the dev examples that choose it: those in cells with unanswerable questions whose
    languages count for the choice of the checkpoint. Without a threshold every question gets its best span.
    """

    positions: tuple[int, ...]
    fixed: Threshold | None

    def choose(self, records: Records, rows: Sequence[Question]) -> Threshold:
        """Returns the threshold for the dev set's records, as they are before any threshold is applied."""
        used = [(records[i], rows[i]) for i in self.positions]
        return Threshold(choose_threshold(*map(list, zip(*used, strict=True))), CHOSEN)

    def select_examples(self, rows: Sequence[Any]) -> list[Any]:
        """Returns the dev examples whose labels choose the threshold."""
        return [rows[i] for i in self.positions]


def build_rule(
    sets: Mapping[str, EvaluationSet], selection: Rule, training: Sequence[Any], before: Threshold | None
) -> ThresholdRule:
    """Builds the rule of a stage from its sets, its training examples, and the threshold of the training before it.

    The fixed threshold is that of the earlier training; without one it is 0 if unanswerable questions are trained on.
    """
    fixed = before._replace(origin=INHERITED) if before else None
    if not fixed and any(isinstance(row, Question) and not row.answers for row in training):
        fixed = Threshold(0.0, UNCHOSEN)
    rows = sets[DEV].rows if DEV in sets else ()
    questions = [(i, row) for i, row in enumerate(rows) if isinstance(row, Question)]
    cells = find_unanswerable_cells(row for _, row in questions)
    positions = tuple(i for i, row in questions if selection.counts_example(row) and Cell.from_example(row) in cells)
    return ThresholdRule(positions, fixed)
