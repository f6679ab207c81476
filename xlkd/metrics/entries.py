# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The entry of a metric in the list of its task: all that scoring, intervals, tables and pages need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a task. Functions return values from 0 to 1; files and tables show percent.

    score: the function. Its arguments are those of its task, see the lists in `xlkd/tasks/metrics.py`.
    over: `example`, a function of one example, whose mean is the score of a cell; or `cell`, a function of all
    examples of a cell together.
    """

    name: str  # the key in files
    label: str  # the heading of its tables
    score: Callable[..., Any]
    over: Literal["example", "cell"] = "example"
    higher_is_better: bool = True

    def describe(self) -> dict[str, str | bool]:
        """Returns the record of the metric in a run, by which a report shows it."""
        return {"label": self.label, "over": self.over, "higher_is_better": self.higher_is_better}
