# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the sets of a stage, and writes the scores to files named by step and set."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Mapping

from jax.sharding import Mesh

from xlkd import files
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.evaluation import tags
from xlkd.evaluation.evaluator import Evaluator
from xlkd.evaluation.selection import Rule
from xlkd.evaluation.thresholds import DEV, ThresholdRule
from xlkd.files import Json
from xlkd.inputs.data import EvaluationSet
from xlkd.methods import Method, Variables
from xlkd.metrics.picture import read_axes
from xlkd.runtime import distributed
from xlkd.runtime.log import Log
from xlkd.runtime.workdir import WorkDirectory, read_object
from xlkd.spec.stage import AnyStage
from xlkd.tasks import Outputs, Records, Scores
from xlkd.tasks.nulls import Threshold, apply_threshold, read_threshold
from xlkd.tasks.parallel import Parallel
from xlkd.tasks.qa import QA


class SetEvaluator:
    """Evaluates the sets of a stage at a step; a set whose scores are on disk already is not evaluated again."""

    def __init__(
        self,
        workdir: WorkDirectory,
        folder: pathlib.Path,
        sets: dict[str, EvaluationSet],
        rule: Rule,
        threshold_rule: ThresholdRule,
        method: Method,
        mesh: Mesh,
        spec: AnyStage,
        log: Log,
        track: Callable[[str, int, Mapping[str, float]], None] = lambda group, step, values: None,
    ) -> None:
        self._workdir, self._track = workdir, track
        self._shown: dict[str, str] = {}  # by set the line of its last scores
        # The dev set comes first where it chooses the threshold of the others
        order = sorted(sets, key=lambda name: bool(threshold_rule.positions) and name != DEV)
        self._folder, self._sets, self._rule, self._log = folder / "evaluation", sets, rule, log
        self._order, self._threshold_rule = order, threshold_rule
        self._evaluators = {}
        for name, task in {each.task.name: each.task for each in sets.values()}.items():
            if name not in method.outputs:
                what = f"the method {spec.method.name} has no outputs for the task {task.name!r}"
                raise UserError(what, f"config.data of stage {spec.name}", "leave that set out")
            outputs = method.outputs[name]
            self._evaluators[name] = Evaluator(outputs, mesh, batch=spec.eval.batch, buckets=spec.data.buckets)
        for name, (task, _, features) in sets.items():
            if line := self._evaluators[task.name].describe_batch(len(next(iter(task.lengths(features).values())))):
                log(f"{name}: {line}")

    def evaluate(self, step: int, variables: Variables, stop: Callable[[], None]) -> None:
        """Evaluates every set whose scores at this step are not on disk; `stop` is called before each batch."""
        self._workdir.make_folder(self._folder)
        for name in self._order:
            (task, rows, features), file = self._sets[name], self._scores_file(step, name)
            if not distributed.broadcast_from_primary(
                f"{file.name} exists", functools.partial(self._has_scores, step, name)
            ):
                outputs = self._evaluators[task.name].compute_outputs(variables, task, features, stop)
                records = task.records(outputs, features, rows, distributed.open_share(f"records of {name}"))
                write = functools.partial(self._score_set, step, name, outputs, records)
                distributed.broadcast_from_primary(f"{file.name} written", write)

    def is_evaluated(self, step: int) -> bool:
        """Returns whether the scores of every set at a step are on disk."""
        return distributed.broadcast_from_primary(
            f"evaluated at {step}", lambda: all(self._has_scores(step, name) for name in self._sets)
        )

    def set_aside_damaged(self) -> None:
        """Moves files of scores that cannot be read to the folder `damaged`.

        They are computed again where the state of their step can still be restored.
        """
        for file in sorted(self._folder.glob("[0-9]*-*.json")):
            if not _is_record(file):
                self._workdir.check()
                damaged = self._folder.with_name("damaged")
                damaged.mkdir(exist_ok=True)
                file.replace(damaged / file.name)
                self._log(
                    f"the scores in {file} are damaged: moved to {damaged}, and computed again if their step was saved"
                )

    def _has_scores(self, step: int, name: str) -> bool:
        """Returns whether the scores of a set at a step are on disk, with those by example that they were made of."""
        file = self._scores_file(step, name)
        if not file.exists():
            return False
        if isinstance(self._sets[name].task, Parallel) and _read_picture(self._picture_file(step, name)) is None:
            return False
        expected = json.loads(file.read_text(encoding="utf-8")).get("rows_sha256")
        places = (self._rows_file(step, name), self._folder.with_name("rows") / f"{name}.jsonl")
        return not expected or any(path.exists() and files.compute_sha256(path) == expected for path in places)

    def _score_set(self, step: int, name: str, outputs: Outputs, records: Records) -> None:
        """Scores a set, writes the scores by example, then those by cell, and logs the mean."""
        task, rows, features = self._sets[name]
        threshold = None
        if isinstance(task, QA) and any("null_odds" in row for row in records):
            chooses = name == DEV and self._threshold_rule.positions
            threshold = self._threshold_rule.choose(records, rows) if chooses else self.find_threshold(step)
            records = apply_threshold(records, rows, threshold.value if threshold else None, task.mlqa_fallback)
        scores = task.score(outputs, features, rows, records)
        self._workdir.write_lines(self._rows_file(step, name), records)
        if isinstance(task, Parallel):
            self._write_picture(step, name, task, outputs, rows)
        record: dict[str, Json] = {"step": step, "task": task.name, "main": scores.main, "mean": scores.mean()}
        record["cells"] = {str(cell): values for cell, values in scores.cells.items()}
        record["languages"] = {str(cell): list(cell.languages) for cell in scores.cells}
        record["metrics"] = {metric.name: metric.describe() for metric in scores.metrics}
        record |= {"null_threshold": threshold._asdict()} if threshold else {}
        record["rows_sha256"] = files.compute_sha256(self._rows_file(step, name))
        # Written last: its presence says that the files above are complete
        self._workdir.write_json(self._scores_file(step, name), record)
        line = f"{name}: {scores.main} {scores.mean():.1f} ({_format_cells(scores)})"
        self._log(f"step {step}, {line}")
        self._shown[name] = line
        self._log.show(scores=tuple(self._shown.values()))
        self._track(name, step, tags.list_values(name, scores))

    def find_threshold(self, step: int) -> Threshold | None:
        """Returns the threshold of the null odds at a step: the one that the dev set chose, or the fixed one."""
        if not self._threshold_rule.positions:
            return self._threshold_rule.fixed
        file = self._scores_file(step, DEV)
        return read_threshold(json.loads(file.read_text(encoding="utf-8")), str(file))

    def _write_picture(self, step: int, name: str, task: Parallel, outputs: Outputs, rows: sources.Rows) -> None:
        """Writes a picture of the sentence vectors; the one after training has the axes of the one before it."""
        later = (file.name.partition("-") for file in self._folder.glob(f"[0-9]*-{name}.json"))
        if step and any(end == f"{name}.json" and int(number) > step for number, _, end in later):
            return  # an earlier step that is evaluated again
        before = _read_picture(self._picture_file(0, name)) if step else None
        file = self._picture_file(step, name)
        self._workdir.make_folder(file.parent)
        title = f"sentence vectors after {step} steps" if step else "sentence vectors before"
        self._workdir.write_json(file, task.picture(outputs, rows, title, read_axes(before) if before else None))

    def choose_step(self) -> int | None:
        """Returns the step that the rule chooses; None where none was evaluated."""
        return distributed.broadcast_from_primary("best", lambda: self._rule.choose_step(self._folder))

    def move_rows(self, step: int, folder: pathlib.Path) -> None:
        """Moves the scores by example at the exported step to the folder, and deletes those of other steps."""
        self._workdir.make_folder(folder)
        for name in self._sets:
            if self._rows_file(step, name).exists():
                self._rows_file(step, name).replace(folder / f"{name}.jsonl")
            for file in self._folder.glob(f"[0-9]*-{name}.jsonl"):
                if file.name.removesuffix(f"-{name}.jsonl").isdecimal():
                    file.unlink()

    def read_scores(self, step: int) -> dict[str, Json]:
        """Returns the record of scores that was written for each set at a step."""
        return {name: json.loads(self._scores_file(step, name).read_text(encoding="utf-8")) for name in self._sets}

    def describe_changes(self, step: int) -> list[str]:
        """Returns a line for each set that was also evaluated before the first step: its scores before and after."""
        lines = []
        for name, after in self.read_scores(step).items():
            file = self._scores_file(0, name)
            if step and file.exists():
                before = json.loads(file.read_text(encoding="utf-8"))
                lines.append(f"{name}, before and after: {after['main']} {before['mean']:.1f} → {after['mean']:.1f}")
        return lines

    def _scores_file(self, step: int, name: str) -> pathlib.Path:
        return self._folder / f"{step}-{name}.json"

    def _rows_file(self, step: int, name: str) -> pathlib.Path:
        return self._folder / f"{step}-{name}.jsonl"

    def _picture_file(self, step: int, name: str) -> pathlib.Path:
        return self._folder.with_name("report") / f"{name}-{'after' if step else 'before'}.json"


def _is_record(file: pathlib.Path) -> bool:
    """Returns whether a file has the scores of an evaluation."""
    try:
        record = read_object(file) or {}
        main, cells = record["main"], record["cells"].values()
        return all(isinstance(value, float | int) for value in (record["step"], *(cell[main] for cell in cells)))
    except (TypeError, KeyError, AttributeError):
        return False


def _read_picture(file: pathlib.Path) -> dict[str, Json] | None:
    """Returns a picture of sentence vectors; None where the file is missing or damaged."""
    picture = read_object(file)
    try:
        read_axes(picture or {})
    except (ValueError, TypeError, KeyError):
        return None
    return picture


def _format_cells(scores: Scores, most: int = 16) -> str:
    """Returns the score of each cell in one line; where there are more than `most`, the lowest and the highest."""
    values = {str(cell): numbers[scores.main] for cell, numbers in scores.cells.items()}
    if len(values) <= most:
        return "  ".join(f"{name} {value:.1f}" for name, value in values.items())
    lowest, highest = min(values, key=lambda name: values[name]), max(values, key=lambda name: values[name])
    return f"{len(values)} cells, {lowest} {values[lowest]:.1f} to {highest} {values[highest]:.1f}"
