# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a task is: rows to arrays, outputs to answers to scores, whoever trains it.

A task is one file in this folder with `build(config, tokenizer) -> Task`, found by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from xlkd.rows import Cell

Features = dict[str, np.ndarray]  # flat arrays of fixed dtype: saved, mapped and shared as they are


Progress = Callable[[int, int], None]


def silent(done: int, of: int) -> None:
    """Progress that nobody looks at."""


class Draw(NamedTuple):
    """Names the random draws that belong to the data: masks, whole words."""

    seed: int
    step: int
    purpose: str = "train"


class Scores(NamedTuple):
    """`cells`: {cell: {metric: value}}; `main`: the metric that tables show first."""

    cells: dict[Cell, dict[str, float]]
    main: str

    def mean(self) -> float:
        """Unweighted over cells."""
        return float(np.mean([cell[self.main] for cell in self.cells.values()]))


class Task(Protocol):
    @property
    def name(self) -> str: ...

    def identity(self) -> str:
        """What features depend on besides rows: settings and tokenizer."""

    def features(self, rows: Sequence[Any], progress: Progress = silent) -> Features:
        """`progress(done, of)` is told how many texts are tokenized."""

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        """Tokens of each feature row by view, the dearest view first."""

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> dict[str, Any]:
        """One batch in numpy; an index below 0 is a row that is not there."""

    def score(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Any]) -> Scores: ...

    def records(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """What is kept of each row beside the scores: how it was answered, and how well; plain values."""

    def report(self, features: Features, rows: Sequence[Any]) -> dict[str, Any]:
        """What the data report says beyond counts of rows and tokens; `shown` is its line for the console."""
