# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines what a task is: examples to arrays, outputs to answers to scores, whatever method trains on it.

A task is one file in this folder with `build(settings, *tokenizers) -> Task` and `ROWS`, found by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from xlkd.data.share import Share
from xlkd.files import Json
from xlkd.metrics.entries import Metric
from xlkd.rows import Cell

Features = dict[str, np.ndarray]  # flat arrays of fixed dtype: saved, mapped and shared as they are
Outputs = dict[str, np.ndarray]  # {name: [feature rows, …]}
Batch = dict[str, Any]  # {view: {name: [rows, length]}} and arrays per row; `mask` is the row mask

Records = list[dict[str, Json]]

Progress = Callable[[int, int], None]


def report_nothing(done: int, total: int) -> None:
    """Reports no progress."""


class Draw(NamedTuple):
    """Says what a batch is built for, which also names its random draws: masks, whole words."""

    seed: int
    step: int
    purpose: str = "train"  # or evaluation

    @property
    def for_training(self) -> bool:
        """Returns whether the batch is trained on, so that rows which teach nothing are masked out or refused."""
        return self.purpose == "train"


class Scores(NamedTuple):
    """Scores by cell, {cell: {metric: value}}, the metric that tables show first, and all that a report shows."""

    cells: dict[Cell, dict[str, float]]
    main: str
    metrics: Sequence[Metric] = ()

    def mean(self) -> float:
        """Returns the main metric's mean over cells, unweighted."""
        return float(np.mean([cell[self.main] for cell in self.cells.values()]))


class Task(Protocol):
    """A task, built for its settings and tokenizers.

    A feature row is what a batch is made of: a window, a pair, a sentence. An example can have several.
    """

    @property
    def name(self) -> str: ...

    @property
    def teacher_views(self) -> tuple[str, ...]:
        """Returns the views that a teacher reads, cut by the teacher's tokenizer."""

    @property
    def uncut_views(self) -> tuple[str, ...]:
        """Returns the views that are never cut to `max_length`."""

    def identity(self) -> str:
        """Returns a string of all that features depend on besides the examples: settings and tokenizer."""

    def features(
        self, rows: Sequence[Any], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        """Tokenizes examples; `progress(done, total)` counts texts.

        With a share this process tokenizes only a part of the texts, and all processes return the same features.
        """

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        """Returns the tokens of each feature row by view, the most expensive view first."""

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        """Returns a batch in numpy, each view padded to its length; an index of -1 is a padded row with mask 0."""

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Any], records: Records | None = None
    ) -> Scores:
        """Scores the outputs of all feature rows; `records` are those of the same outputs, if they are known."""

    def records(self, outputs: Outputs, features: Features, rows: Sequence[Any], share: Share | None = None) -> Records:
        """Returns for each example its prediction and its own scores, as `rows/SET.jsonl` stores them.

        With a share this process may decode only a part of the examples; all processes return all records.
        """

    def report(self, features: Features, rows: Sequence[Any]) -> dict[str, Json]:
        """Returns the task's part of the data report; `shown` is its line for the console."""
