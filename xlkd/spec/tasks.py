# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of the tasks, one dataclass for each task."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from xlkd.errors import UserError, suggest_name
from xlkd.languages import normalise_tag
from xlkd.spec import setting


@dataclasses.dataclass(frozen=True)
class Task:
    """Settings of every task."""

    name: str = setting("", "The task: a module of xlkd/tasks.")
    max_length: int = setting(
        128, "Longest input in tokens; longer ones are cut, or divided into windows.", at_least=4, at_most=65_536
    )

    def check(self, place: str = "config.task.") -> None:
        """Refuses settings that are impossible together; `place` stands before a key in messages."""


@dataclasses.dataclass(frozen=True)
class QuestionAnswering(Task):
    """Extractive question answering."""

    name: str = setting("qa", "The task: a module of xlkd/tasks.")
    max_length: int = setting(384, "Longest window in tokens.", at_least=4, at_most=65_536)
    max_query_length: int = setting(64, "Longest question in tokens; 0 does not cut it.", at_least=0, at_most=65_536)
    doc_stride: int = setting(128, "Distance or overlap of neighbouring windows in tokens.", at_least=1, at_most=65_536)
    doc_stride_means: Literal["step", "overlap"] = setting(
        "step", "Whether doc_stride is between the starts of windows or their overlap."
    )
    no_answer: Literal["first_token", "drop"] = setting(
        "first_token", "Label of a window without the whole answer; drop gives it no loss, unless there is no answer."
    )
    n_best: int = setting(20, "Starts and ends that are combined to answers.", at_least=1, at_most=200)
    max_answer_tokens: int = setting(30, "Longest answer in tokens.", at_least=1, at_most=65_536)
    max_context: bool = setting(True, "Answer from the window with the most context around a token alone.")
    candidates: Literal["all", "context"] = setting("all", "Positions among which the best starts and ends are taken.")
    published_empty: bool = setting(False, "Score an empty prediction as the authors' script does.")
    mlqa_fallback: bool = setting(False, "Normalise answers in unknown languages as MLQA's script does.")

    def check(self, place: str = "config.task.") -> None:
        if self.doc_stride_means == "overlap" and self.doc_stride >= self.max_length:
            what = f"an overlap of doc_stride={self.doc_stride} is not below max_length={self.max_length}"
            raise UserError(what, f"{place}doc_stride", "lower it, or raise max_length")

    def windowing(self) -> dict[str, object]:
        """Returns the settings that features depend on: the part that belongs in the key of the cache."""
        names = ("max_length", "max_query_length", "doc_stride", "doc_stride_means")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Classify(Task):
    """Classification of texts and pairs of texts."""

    name: str = setting("classify", "The task: a module of xlkd/tasks.")
    labels: tuple[str, ...] = setting((), "Labels in the order of the logits; empty takes those of training.")
    languages: tuple[str, ...] = setting((), "Languages with labels in training.")
    ordered: bool = setting(False, "Labels are numbers on a scale.")
    unlabelled: Literal["refuse", "keep"] = setting(
        "refuse", "Training examples without a label: refuse them, or keep them for distillation."
    )

    def check(self, place: str = "config.task.") -> None:
        if len(set(self.supervised())) < len(self.languages):
            raise UserError("names a language twice", f"{place}languages", "name each once")
        if len(self.labels) == 1:
            raise UserError(f"{self.labels[0]} is the only label", f"{place}labels", "name all of them")
        if self.ordered and (words := [label for label in self.labels if not _is_number(label)]):
            raise UserError(f"the label {words[0]} is not a number", f"{place}ordered", "set it to False")

    def supervised(self) -> tuple[str, ...]:
        """Returns the languages as tags."""
        return tuple(normalise_tag(tag, "config.task.languages") for tag in self.languages)


@dataclasses.dataclass(frozen=True)
class Masked(Task):
    """Masked and translation language modelling."""

    name: str = setting("masked", "The task: a module of xlkd/tasks.")
    share: float = setting(0.15, "Share of the words that is masked.", at_least=0.001, at_most=1)


@dataclasses.dataclass(frozen=True)
class Views(Task):
    """Parallel text in the views of several levels."""

    name: str = setting("views", "The task: a module of xlkd/tasks.")
    share: float = setting(
        0.15, "Share of the tokens, and of the English words, that is masked.", at_least=0.001, at_most=1
    )
    tlm_labels: Literal["masked", "attended", "all"] = setting("masked", "Positions that the token level counts.")
    word_truncate: bool = setting(True, "Cut the word level's input at max_length.")


@dataclasses.dataclass(frozen=True)
class Parallel(Task):
    """Sentence vectors of parallel text."""

    name: str = setting("parallel", "The task: a module of xlkd/tasks.")


@dataclasses.dataclass(frozen=True)
class Alignment(Task):
    """Word links in parallel text."""

    name: str = setting("alignment", "The task: a module of xlkd/tasks.")


def _is_number(label: str) -> bool:
    """Returns whether a label is a finite number."""
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


TASKS = {cls().name: cls for cls in (QuestionAnswering, Classify, Masked, Views, Parallel, Alignment)}


def find_task_class(name: str) -> type[Task]:
    """Returns the dataclass of a task's settings."""
    if name not in TASKS:
        known = f"known: {', '.join(sorted(TASKS))}"
        raise UserError(f"no task {name!r}", "config.task.name", suggest_name(name, TASKS, known))
    return TASKS[name]
