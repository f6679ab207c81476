# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run left in its work directory, read as it stands: finished, unfinished or just begun."""

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
    """One stage's folder; `results` is what it wrote at its end, nothing before that."""

    name: str
    folder: pathlib.Path | None
    state: str
    results: Record
    steps_planned: int = 0

    def rows(self, set: str) -> list[Record]:
        """Scores by question of the step that was kept."""
        return _lines(self.folder / "rows" / f"{set}.jsonl") if self.folder else []

    def sets(self) -> list[str]:
        """The evaluation sets that have rows."""
        return [path.stem for path in _found(self.folder, "rows/*.jsonl")]

    def evaluations(self) -> list[Record]:
        """Every evaluation in the order of steps, with `in`, the name of its set."""
        found = []
        for path in _found(self.folder, "evaluation/*.json"):
            if named := re.fullmatch(r"(\d+)-(.+)", path.stem):
                found.append(_json(path) | {"in": named[2], "step": int(named[1])})
        return sorted(found, key=lambda of: of["step"])

    def metrics(self) -> list[Record]:
        return _lines(self.folder / "metrics.jsonl") if self.folder else []

    def pictures(self) -> list[Record]:
        """Returns the pictures that the method added."""
        return [_json(path) for path in _found(self.folder, "report/*.json")]

    def progress(self) -> Record:
        """How far an unfinished stage has come, by its files."""
        if self.state != UNFINISHED:
            return {}
        saved = [path for path in _found(self.folder, "checkpoints/*") if path.name.isdecimal()]
        last = max(saved, key=lambda path: int(path.name), default=None)
        metrics = self.metrics()
        found: Record = {"step": metrics[-1]["step"] if metrics else 0, "of": self.steps_planned or None}
        if last:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.stat().st_mtime))
            found |= {"checkpoint": int(last.name), "saved": when}
        return found


@dataclasses.dataclass(frozen=True)
class Run:
    """A work directory."""

    folder: pathlib.Path
    config: Record
    environment: Record
    stages: tuple[Stage, ...]

    @property
    def seed(self) -> int:
        return int(self.config.get("seed", 0))

    @property
    def state(self) -> str:
        return DONE if all(stage.state == DONE for stage in self.stages) else UNFINISHED

    def identity(self) -> str:
        """The same for two runs that differ in their seed only."""
        return json.dumps({k: v for k, v in self.config.items() if k not in (*reading.NEUTRAL, "seed")}, sort_keys=True)

    def digest(self) -> str:
        """The eight characters that name the config."""
        return reading.compute_digest(self.config)

    def texts(self) -> dict[str, list[Record]]:
        """By set the sampled questions with their texts."""
        return {path.stem: _lines(path) for path in _found(self.folder, "texts/*.jsonl")}


def read(folder: pathlib.Path) -> Run:
    """The run of a work directory."""
    if not folder.is_dir():
        raise UserError("no such folder", str(folder), "give a work directory")
    if not (folder / "config.json").is_file():
        raise UserError("holds no run (no config.json)", str(folder), "give a work directory")
    config = _json(folder / "config.json")
    if not isinstance(config.get("stages"), list):
        raise UserError("is no config of a run", str(folder / "config.json"), "give a work directory")
    environment = _json(folder / "environment.json") if (folder / "environment.json").is_file() else {}
    folders = {}
    for path in _found(folder, "stages/*"):
        if named := re.fullmatch(r"\d+-(.+)", path.name):
            folders[named[1]] = path
    wanted = reading.list_wanted_stages(config)
    stages = [_stage(n, folders.get(n), config) for n in config["stages"] if n in wanted or n in folders]
    return Run(folder, config, environment, tuple(stages))


def find_stage_record(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns what a stage wrote of itself at its end; version 0.1 called it as the run's own results."""
    return next(filter(pathlib.Path.exists, (folder / name for name in (STAGE_RECORD, "results.json"))), None)


def _stage(name: str, folder: pathlib.Path | None, config: Record) -> Stage:
    shared, own = config.get("budget") or {}, (config.get(name) or {}).get("budget") or {}
    steps = int((shared | own).get("steps") or 0)
    if folder is None:
        return Stage(name, None, TO_COME, {}, steps)
    if (folder / "done").exists() and (record := find_stage_record(folder)):
        return Stage(name, folder, DONE, _json(record), steps)
    return Stage(name, folder, UNFINISHED, {}, steps)


def _found(folder: pathlib.Path | None, pattern: str) -> list[pathlib.Path]:
    return sorted(path for path in folder.glob(pattern) if path.name[0] != ".") if folder else []


def _json(path: pathlib.Path) -> Record:
    found = _parsed(_text(path), str(path))
    if not isinstance(found, dict):
        raise UserError("holds no JSON object", str(path), "delete it and start the run again")
    return found


def _lines(path: pathlib.Path) -> list[Record]:
    """A JSON object a line; a last line without its end is being written."""
    if not path.is_file():
        return []
    lines = _text(path).split("\n")[:-1]
    return [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", str(path), "look at what wrote it") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"broken JSON: {error}", where, "delete it and start the run again") from None
