# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The metrics of each task. An entry here gives a metric its scores, intervals, verdicts, badges, tables and pages.

The first metric of a list is the main one: tables show it first, and the console shows it alone.
"""

from __future__ import annotations

from xlkd.metrics import labels, retrieval, squad
from xlkd.metrics.entries import Metric

# Functions of one answer and its gold answers, all normalised by the rules of the data set.
QA = (
    Metric("f1", "F1", squad.best_f1),
    Metric("em", "EM", squad.best_em),
)

# Over an example: functions of the gold and the predicted label. Over a cell: of confusion matrices, one or a batch.
CLASSIFICATION = (
    Metric("accuracy", "accuracy", labels.is_same_label),
    Metric("macro_f1", "macro-F1", labels.macro_f1_from_counts, over="cell"),
)

# Functions of the `Retrieval` in a cell, with a value for each sentence.
RETRIEVAL = (
    Metric("retrieval", "retrieval, both directions", retrieval.both_directions),
    Metric("to_source", "retrieval, to the source", retrieval.to_english),
    Metric("to_target", "retrieval, to the target", retrieval.from_english),
)

# Functions of the `AlignmentCounts` of a cell.
ALIGNMENT = (
    Metric("aer", "alignment error rate", retrieval.alignment_error_rate, over="cell", higher_is_better=False),
    Metric("precision", "precision", retrieval.alignment_precision, over="cell"),
    Metric("recall", "recall", retrieval.alignment_recall, over="cell"),
)

ALL = {metric.name: metric for metric in (*QA, *CLASSIFICATION, *RETRIEVAL, *ALIGNMENT)}
