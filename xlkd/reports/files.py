# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the files in a work directory, whether the run is finished, unfinished or has just begun."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import time
from typing import Any

from xlkd.errors import UserError
from xlkd.spec import reading

DONE, UNFINISHED, TO_COME = "done", "unfinished", "to come"
STAGE_RECORD = "stage.json"

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """The folder of a stage; `results` is the record written at its end, empty before that."""

    name: str
    folder: pathlib.Path | None
    state: str
    results: Record
    steps_planned: int = 0

    def rows(self, evaluation_set: str) -> list[Record]:
        """Returns the scores of each example at the exported step, as the task's `records` made them."""
        return _read_lines(self.folder / "rows" / f"{evaluation_set}.jsonl") if self.folder else []

    def sets(self) -> list[str]:
        """Returns the evaluation sets that have rows."""
        return [path.stem for path in _glob(self.folder, "rows/*.jsonl")]

    def evaluations(self) -> list[Record]:
        """Returns every evaluation in the order of steps, with `in`, the name of its set."""
        evaluations = []
        for path in _glob(self.folder, "evaluation/*.json"):
            if named := re.fullmatch(r"(\d+)-(.+)", path.stem):
                evaluations.append(_read_json(path) | {"in": named[2], "step": int(named[1])})
        return sorted(evaluations, key=lambda evaluation: evaluation["step"])

    def metrics(self) -> list[Record]:
        """Returns a record for each line that was logged in training: `step`, the loss and its terms."""
        return _read_lines(self.folder / "metrics.jsonl") if self.folder else []

    def pictures(self) -> list[Record]:
        """Returns the projections of sentence vectors that evaluations wrote, as `metrics/picture.py` makes them."""
        return [_read_json(path) for path in _glob(self.folder, "report/*.json")]

    def progress(self) -> Record:
        """Returns the `step` that an unfinished stage has reached `of` all, and its last `checkpoint`."""
        if self.state != UNFINISHED:
            return {}
        saved = [path for path in _glob(self.folder, "checkpoints/*") if path.name.isdecimal()]
        last = max(saved, key=lambda path: int(path.name), default=None)
        metrics = self.metrics()
        progress: Record = {"step": metrics[-1]["step"] if metrics else 0, "of": self.steps_planned or None}
        if last:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.stat().st_mtime))
            progress |= {"checkpoint": int(last.name), "saved": when}
        return progress


@dataclasses.dataclass(frozen=True)
class Run:
    """A work directory with its stages."""

    folder: pathlib.Path
    config: Record
    environment: Record
    stages: tuple[Stage, ...]

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.config.get("seed", 0))

    @property
    def state(self) -> str:
        """`DONE` once all stages are done, `UNFINISHED` before that."""
        return DONE if all(stage.state == DONE for stage in self.stages) else UNFINISHED

    def identity(self) -> str:
        """Returns a string that is equal for two runs that differ in their seed only."""
        return json.dumps({k: v for k, v in self.config.items() if k not in (*reading.NEUTRAL, "seed")}, sort_keys=True)

    def digest(self) -> str:
        """Returns the eight characters that name the config."""
        return reading.compute_digest(self.config)

    def texts(self) -> dict[str, list[Record]]:
        """Returns the sampled examples of each evaluation set with their texts."""
        return {path.stem: _read_lines(path) for path in _glob(self.folder, "texts/*.jsonl")}


def read_run(folder: pathlib.Path) -> Run:
    """Reads the run of a work directory."""
    if not folder.is_dir():
        raise UserError("no such folder", str(folder), "give a work directory")
    if not (folder / "config.json").is_file():
        raise UserError("contains no run (no config.json)", str(folder), "give a work directory")
    config = _read_json(folder / "config.json")
    if not isinstance(config.get("stages"), list):
        raise UserError("is not the config of a run", str(folder / "config.json"), "give a work directory")
    environment = _read_json(folder / "environment.json") if (folder / "environment.json").is_file() else {}
    folders = {}
    for path in _glob(folder, "stages/*"):
        if named := re.fullmatch(r"\d+-(.+)", path.name):
            folders[named[1]] = path
    wanted = reading.list_wanted_stages(config)
    stages = [_read_stage(n, folders.get(n), config) for n in config["stages"] if n in wanted or n in folders]
    return Run(folder, config, environment, tuple(stages))


def find_stage_record(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the record that a stage wrote at its end; version 0.1 named it results.json."""
    return next(filter(pathlib.Path.exists, (folder / name for name in (STAGE_RECORD, "results.json"))), None)


def _read_stage(name: str, folder: pathlib.Path | None, config: Record) -> Stage:
    shared, own = config.get("budget") or {}, (config.get(name) or {}).get("budget") or {}
    steps = int((shared | own).get("steps") or 0)
    if folder is None:
        return Stage(name, None, TO_COME, {}, steps)
    if (folder / "done").exists() and (record := find_stage_record(folder)):
        return Stage(name, folder, DONE, _read_json(record), steps)
    return Stage(name, folder, UNFINISHED, {}, steps)


def _glob(folder: pathlib.Path | None, pattern: str) -> list[pathlib.Path]:
    return sorted(path for path in folder.glob(pattern) if path.name[0] != ".") if folder else []


def _read_json(path: pathlib.Path) -> Record:
    value = _parse(_read_text(path), str(path))
    if not isinstance(value, dict):
        raise UserError("contains no JSON object", str(path), "delete it and start the run again")
    return value


def _read_lines(path: pathlib.Path) -> list[Record]:
    """Reads a JSON object from each line; a last line without its end is still being written."""
    if not path.is_file():
        return []
    lines = _read_text(path).split("\n")[:-1]
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", str(path), "restore the file") from None


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"broken JSON: {error}", where, "delete it and start the run again") from None
