# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of the tasks, one dataclass for each task."""

from __future__ import annotations

import dataclasses
from typing import Literal

from xlkd.errors import UserError, suggest_name
from xlkd.languages import normalise_tag
from xlkd.spec import setting


@dataclasses.dataclass(frozen=True)
class Task:
    """Settings of every task."""

    name: str = setting("", "The task: a module of xlkd/tasks.")
    max_length: int = setting(128, "Longest input in tokens; longer ones are cut, or divided into windows.", at_least=4)


@dataclasses.dataclass(frozen=True)
class QuestionAnswering(Task):
    """Extractive question answering."""

    name: str = setting("qa", "The task: a module of xlkd/tasks.")
    max_length: int = setting(384, "Longest window in tokens.", at_least=4)
    max_query_length: int = setting(64, "Longest question in tokens; 0 does not cut it.", at_least=0)
    doc_stride: int = setting(128, "Distance or overlap of neighbouring windows in tokens.", at_least=1)
    doc_stride_means: Literal["step", "overlap"] = setting(
        "step", "Whether doc_stride is between the starts of windows or their overlap."
    )
    no_answer: Literal["first_token", "drop"] = setting(
        "first_token", "Label of a window without the whole answer; drop gives it no loss."
    )
    n_best: int = setting(20, "Starts and ends that are combined to answers.", at_least=1)
    max_answer_tokens: int = setting(30, "Longest answer in tokens.", at_least=1)
    max_context: bool = setting(True, "Answer from the window with the most context around a token alone.")
    candidates: Literal["all", "context"] = setting("all", "Positions among which the best starts and ends are taken.")
    published_empty: bool = setting(False, "Score an empty prediction as the authors' script does.")
    mlqa_fallback: bool = setting(False, "Normalise answers in unknown languages as MLQA's script does.")

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

    def supervised(self) -> tuple[str, ...]:
        """Returns the languages as tags."""
        return tuple(normalise_tag(tag, "config.task.languages") for tag in self.languages)


@dataclasses.dataclass(frozen=True)
class Masked(Task):
    """Masked and translation language modelling."""

    name: str = setting("masked", "The task: a module of xlkd/tasks.")
    share: float = setting(0.15, "Share of the words that is masked.", above=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class Views(Task):
    """Parallel text in the views of several levels."""

    name: str = setting("views", "The task: a module of xlkd/tasks.")
    share: float = setting(0.15, "Share of the tokens, and of the English words, that is masked.", above=0, at_most=1)
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


TASKS = {cls().name: cls for cls in (QuestionAnswering, Classify, Masked, Views, Parallel, Alignment)}


def find_task_class(name: str) -> type[Task]:
    """Returns the dataclass of a task's settings."""
    if name not in TASKS:
        known = f"known: {', '.join(sorted(TASKS))}"
        raise UserError(f"no task {name!r}", "config.task.name", suggest_name(name, TASKS, known))
    return TASKS[name]
