# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the sets of a stage; scores stand in files named by step and set."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.evaluation.evaluator import Evaluator
from xlkd.evaluation.selection import Rule
from xlkd.inputs.data import EvaluationSet
from xlkd.methods import Method, Variables
from xlkd.metrics.picture import read_axes
from xlkd.runtime import distributed
from xlkd.runtime.log import Log
from xlkd.runtime.workdir import WorkDirectory
from xlkd.spec.stage import AnyStage
from xlkd.tasks import Scores
from xlkd.tasks.parallel import Parallel


class Sets:
    """Evaluates what of a step is not on disk yet."""

    def __init__(
        self,
        workdir: WorkDirectory,
        folder: pathlib.Path,
        ready: dict[str, EvaluationSet],
        rule: Rule,
        method: Method,
        mesh,
        spec: AnyStage,
        log: Log,
    ) -> None:
        self._workdir = workdir
        self._folder, self._ready, self._rule, self._log = folder / "evaluation", ready, rule, log
        self._evaluators = {}
        for name, task in {of.task.name: of.task for of in ready.values()}.items():
            if name not in method.outputs:
                what = f"the method {spec.method.name} has no outputs for the task {task.name!r}"
                raise UserError(what, f"config.data of stage {spec.name}", "leave that set out")
            outputs = method.outputs[name]
            self._evaluators[name] = Evaluator(outputs, mesh, batch=spec.eval.batch, buckets=spec.data.buckets)

    def evaluate(self, step: int, variables: Variables, stop: Callable[[], None]) -> None:
        self._workdir.make_folder(self._folder)
        for name, (task, _, features) in self._ready.items():
            file = self._folder / f"{step}-{name}.json"
            if not distributed.broadcast_from_primary(f"{file} there", file.exists):
                outputs = self._evaluators[task.name].outputs(variables, task, features, stop)
                distributed.broadcast_from_primary(
                    f"{file} written", functools.partial(self._write, step, name, outputs)
                )

    def _write(self, step: int, name: str, outputs: Any) -> None:
        task, rows, features = self._ready[name]
        scores = task.score(outputs, features, rows)
        self._workdir.write_lines(self._rows(step, name), task.records(outputs, features, rows))
        file = self._folder / f"{step}-{name}.json"
        record = {"step": step, "main": scores.main, "mean": scores.mean()}
        record["cells"] = {str(cell): values for cell, values in scores.cells.items()}
        record["languages"] = {str(cell): list(cell.languages) for cell in scores.cells}
        record["metrics"] = {metric.name: metric.describe() for metric in scores.metrics}
        self._workdir.write_json(file, record)
        if isinstance(task, Parallel):
            self._draw(step, name, task, outputs, rows)
        self._log(f"step {step}, {name}: {scores.main} {scores.mean():.1f} ({_by_cell(scores)})")

    def _draw(self, step: int, name: str, task: Parallel, outputs: Any, rows: sources.Rows) -> None:
        """Draws sentence vectors before the first step, and after the last one on the same axes."""
        before = self._folder.parent / "report" / f"{name}-before.json"
        within = read_axes(json.loads(before.read_text(encoding="utf-8"))) if step and before.exists() else None
        self._workdir.make_folder(before.parent)
        title = f"sentence vectors after {step} steps" if step else "sentence vectors before"
        file = before.with_name(f"{name}-after.json") if step else before
        self._workdir.write_json(file, task.picture(outputs, rows, title, within))

    def best(self) -> int | None:
        """Returns the step that the rule chooses."""
        return distributed.broadcast_from_primary("best", lambda: self._rule.best(self._folder))

    def keep(self, step: int, folder: pathlib.Path) -> None:
        """Keeps the records of the step that is exported, and deletes those of other steps."""
        self._workdir.make_folder(folder)
        for name in self._ready:
            if self._rows(step, name).exists():
                self._rows(step, name).replace(folder / f"{name}.jsonl")
            for file in self._folder.glob(f"[0-9]*-{name}.jsonl"):
                if file.name.removesuffix(f"-{name}.jsonl").isdecimal():
                    file.unlink()

    def _rows(self, step: int, name: str) -> pathlib.Path:
        return self._folder / f"{step}-{name}.jsonl"

    def of(self, step: int) -> dict[str, Any]:
        """Returns what was written for a step, by set."""
        return {
            name: json.loads((self._folder / f"{step}-{name}.json").read_text(encoding="utf-8")) for name in self._ready
        }

    def changes(self, step: int) -> list[str]:
        """Returns a line for each set that was also evaluated before the first step."""
        lines = []
        for name, after in self.of(step).items():
            before = self._folder / f"0-{name}.json"
            if step and before.exists():
                was = json.loads(before.read_text(encoding="utf-8"))
                lines.append(f"{name}, before and after: {after['main']} {was['mean']:.1f} → {after['mean']:.1f}")
        return lines


def _by_cell(scores: Scores, most: int = 16) -> str:
    """Lists each cell's score; of a large grid its lowest and highest."""
    values = {str(cell): numbers[scores.main] for cell, numbers in scores.cells.items()}
    shown, before = list(values), ""
    if len(values) > most:
        shown, before = [min(values, key=values.get), max(values, key=values.get)], f"{len(values)} cells, "
    return before + (" to " if before else "  ").join(f"{name} {values[name]:.1f}" for name in shown)
