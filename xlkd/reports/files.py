# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the files in a work directory, whether the run is finished, unfinished or has just begun."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from xlkd.errors import UserError
from xlkd.reports import shapes
from xlkd.spec import reading

DONE, UNFINISHED, TO_COME = "done", "unfinished", "to come"
STAGE_RECORD = "stage.json"
VERSION = 1  # of the record of a stage
QA, CLASSIFY, RETRIEVAL = "qa", "classify", "retrieval"
MOST_LEVELS = 32  # of nested values in a config
_TASKS = {"qa": QA, "classify": CLASSIFY, "parallel": RETRIEVAL}  # by the name of the task that was evaluated

Record = dict[str, Any]
_DRAWN = re.compile(r'(?<="seed": )\d+|(?<=[?&](?:seed|draw)=)\d+|(?<=/start)-[0-9a-f]{8}(?=/)')
_Value = TypeVar("_Value")


@dataclasses.dataclass(frozen=True)
class Stage:
    """The folder of a stage; `results` is the record written at its end, empty before that.

    `evaluations` are in the order of steps, each with `in`, the name of its set. `metrics` has a record for each line
    that was logged in training: `step`, the loss and its terms. `pictures` are the projections of sentence vectors that
    evaluations wrote, as `metrics/picture.py` makes them.
    """

    name: str
    folder: pathlib.Path | None
    state: str
    results: Record
    steps_planned: int = 0
    evaluations: Sequence[Record] = ()
    metrics: Sequence[Record] = ()
    pictures: Sequence[Record] = ()

    def rows(self, evaluation_set: str) -> list[Record]:
        """Returns the scores of each example at the exported step, as the task's `records` made them."""
        if not self.folder:
            return []
        path = self.folder / "rows" / f"{evaluation_set}.jsonl"
        record = (self.results.get("sets") or {}).get(evaluation_set) or {}
        try:
            lines = _read_lines(path, shapes.ROWS[""]) if os.path.lexists(path) else []
            task = find_task(record, lines[0] if lines else {})
            rows = [_select_row(row, task, number) for number, row in enumerate(lines, 1)]
            _check_count(rows, record, task)
            return rows
        except shapes.Mismatch as error:
            raise UserError(str(error), str(path), _retrain(self.folder)) from None

    def sets(self) -> list[str]:
        """Returns the evaluation sets that have rows."""
        return [path.stem for path in _glob(self.folder, "rows/*.jsonl")]

    def progress(self) -> Record:
        """Returns the `step` that an unfinished stage has reached `of` all, and its last `checkpoint`."""
        if self.state != UNFINISHED:
            return {}
        saved = [path for path in _glob(self.folder, "checkpoints/*") if path.name.isdecimal()]
        last = max(saved, key=lambda path: int(path.name), default=None)
        step = self.metrics[-1]["step"] if self.metrics else 0
        progress: Record = {"step": step, "of": self.steps_planned or None}
        if last:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.stat().st_mtime))
            progress |= {"checkpoint": int(last.name), "saved": when}
        return progress


@dataclasses.dataclass(frozen=True)
class Run:
    """A work directory with its stages; `texts` are the sampled examples of each evaluation set.

    `damaged` names the files that a report can do without and that could not be read.
    """

    folder: pathlib.Path
    config: Record
    environment: Record
    stages: tuple[Stage, ...]
    texts: dict[str, list[Record]]
    damaged: tuple[str, ...]

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

    def study(self) -> str:
        """Returns a string that is equal for two draws of one study.

        These differ in their seeds, in the draw or seed in the addresses of their data, and in the start of a sweep.
        """
        return _DRAWN.sub("", self.identity())

    def digest(self) -> str:
        """Returns the eight characters that name the config."""
        return reading.compute_digest(self.config)


def read_run(folder: pathlib.Path) -> Run:
    """Reads the run of a work directory."""
    if not os.path.isdir(folder):
        raise UserError("no such folder", str(folder), "give a work directory")
    if not os.path.lexists(folder / "config.json"):
        raise UserError("contains no run (no config.json)", str(folder), "give a work directory")
    config = _read_config(folder / "config.json")
    damaged: list[str] = []
    environment, texts = {}, {}
    if os.path.lexists(path := folder / "environment.json"):
        environment = _read_if_intact(path, lambda: _read_json(path, shapes.ENVIRONMENT), damaged) or {}
    for path in _glob(folder, "texts/*.jsonl"):
        texts[path.stem] = _read_if_intact(path, lambda path=path: _read_texts(path), damaged) or []
    folders = {}
    for path in _glob(folder, "stages/*"):
        if named := re.fullmatch(r"\d+-(.+)", path.name):
            folders[named[1]] = path
    wanted = reading.list_wanted_stages(config)
    names = [name for name in config["stages"] if name in wanted or name in folders]
    stages = [_read_stage(name, folders.get(name), config, damaged) for name in names]
    return Run(folder, config, environment, tuple(stages), texts, tuple(damaged))


def find_stage_record(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the record that a stage wrote at its end; version 0.1 named it results.json."""
    return next(filter(pathlib.Path.exists, (folder / name for name in (STAGE_RECORD, "results.json"))), None)


def find_task(record: Record, row: Record) -> str:
    """Returns the task that the record of an evaluation set names; "" for a task without a table.

    Version 0.1 recorded none: there, the keys of a row tell.
    """
    if "task" in record:
        return _TASKS.get(record["task"], "")
    keys = (("f1", QA), ("to_source", RETRIEVAL), ("language", CLASSIFY))
    return next((task for key, task in keys if key in row), "")


def _read_config(path: pathlib.Path) -> Record:
    """Reads the config of a run, which a report cannot do without."""
    try:
        config = _read_json(path, {str: shapes.ANY})
        if not isinstance(config.get("stages"), list):
            raise UserError("is not the config of a run", str(path), "give a work directory")
        config = shapes.select(config, shapes.CONFIG)
        stages = {name: shapes.STAGE_BLOCKS for name in config["stages"] if config.get(name) is not None}
        shapes.select(config, stages)
    except shapes.Mismatch as error:
        remedy = "restore it from a copy, or start the run in a new work directory"
        raise UserError(str(error), str(path), remedy) from None
    return config


def _read_stage(name: str, folder: pathlib.Path | None, config: Record, damaged: list[str]) -> Stage:
    """Reads the files of a stage, the rows excepted; appends to `damaged` those that a report can do without."""
    shared, own = config.get("budget") or {}, (config.get(name) or {}).get("budget") or {}
    steps = int((shared | own).get("steps") or 0)
    if folder is None:
        return Stage(name, None, TO_COME, {}, steps)
    state, record = UNFINISHED, {}
    if (folder / "done").exists():
        state, record = DONE, _read_record(folder)
    evaluations = []
    for path in _glob(folder, "evaluation/*.json"):
        named = re.fullmatch(r"(\d+)-(.+)", path.stem)
        if named and (scores := _read_if_intact(path, lambda path=path: _read_json(path, shapes.SCORES), damaged)):
            evaluations.append(scores | {"in": named[2], "step": int(named[1])})
    metrics, path = [], folder / "metrics.jsonl"
    if os.path.lexists(path):
        metrics = _read_if_intact(path, lambda: _read_lines(path, shapes.STEP), damaged) or []
    pictures = [
        picture
        for file in _glob(folder, "report/*.json")
        if (picture := _read_if_intact(file, lambda file=file: _read_json(file, shapes.PICTURE), damaged))
    ]
    evaluations.sort(key=lambda evaluation: evaluation["step"])
    return Stage(name, folder, state, record, steps, evaluations, metrics, pictures)


def _read_record(folder: pathlib.Path) -> Record:
    """Reads the record of a finished stage, which a report cannot do without."""
    path = find_stage_record(folder) or folder / STAGE_RECORD
    try:
        record = _read_json(path, shapes.STAGE)
    except shapes.Mismatch as error:
        raise UserError(str(error), str(path), _retrain(folder)) from None
    if record.get("version", VERSION) != VERSION:
        what = f"a record of version {record['version']}; this release reads version {VERSION}"
        raise UserError(what, str(path), "use the release of xlkd that wrote it")
    return record


def _retrain(folder: pathlib.Path) -> str:
    """Returns the remedy for a damaged file of a finished stage."""
    return f"start the run again, which writes it again; without checkpoints delete {folder} first, to train it again"


def _read_if_intact(path: pathlib.Path, read: Callable[[], _Value], damaged: list[str]) -> _Value | None:
    """Returns what `read` returns; None where the file is damaged, which is appended to `damaged`."""
    try:
        return read()
    except shapes.Mismatch as error:
        damaged.append(f"{path}: left out: {error}")
        return None


def _glob(folder: pathlib.Path | None, pattern: str) -> list[pathlib.Path]:
    return sorted(path for path in folder.glob(pattern) if path.name[0] != ".") if folder else []


def _read_json(path: pathlib.Path, shape: shapes.Shape) -> Record:
    """Reads a JSON object of this shape; raises `shapes.Mismatch` where the file is damaged."""
    value = _parse(_read_text(path))
    level, levels = [value], 0
    while level := [item for part in level for item in _list_items(part)]:
        levels += 1
        if levels > MOST_LEVELS:
            raise shapes.Mismatch(f"nested deeper than {MOST_LEVELS} levels")
    return shapes.select(value, shape)


def _list_items(value: Any) -> Sequence[Any]:
    """Returns the values inside a list or an object; nothing for other values."""
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()


def _read_lines(path: pathlib.Path, shape: shapes.Shape) -> list[Record]:
    """Reads a JSON object of this shape from each line; a last line without its end is still being written."""
    values = []
    for number, line in enumerate(_read_text(path).split("\n")[:-1], 1):
        try:
            values.append(shapes.select(_parse(line), shape))
        except shapes.Mismatch as error:
            raise shapes.Mismatch(f"line {number}: {error}") from None
    return values


def _read_texts(path: pathlib.Path) -> list[Record]:
    """Reads sampled examples: questions, or texts with labels."""
    lines = _read_lines(path, {str: shapes.ANY})
    return [shapes.select(line, shapes.QUESTION if "question" in line else shapes.LABELLED) for line in lines]


def _select_row(row: Record, task: str, line: int) -> Record:
    """Returns the scores of an example, after checking that it has what the tables of its task need."""
    kind = "unlabelled" if task == CLASSIFY and row.get("accuracy") is None else task
    try:
        return shapes.select(row, shapes.ROWS[kind])
    except shapes.Mismatch as error:
        raise shapes.Mismatch(f"line {line}: {error}") from None


def _check_count(rows: Sequence[Record], record: Record, task: str) -> None:
    """Checks that there are as many scored rows as the stage counted, so that a lost part of the file is noticed."""
    counts = [cell.get("n") for cell in record.get("cells", {}).values()]
    scored = sum(task != CLASSIFY or "accuracy" in row for row in rows)
    if task and counts and None not in counts and scored != sum(counts):
        raise shapes.Mismatch(f"has {scored} rows, but the stage scored {sum(counts):g}")


def _read_text(path: pathlib.Path) -> str:
    """Reads a regular file; a pipe, which could wait for ever, is refused."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise shapes.Mismatch("not a regular file")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise shapes.Mismatch(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise shapes.Mismatch(f"not UTF-8 at byte {error.start}") from None
    if "\0" in text:
        raise shapes.Mismatch("contains zero bytes, as a file does that a power failure left")
    return text


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise shapes.Mismatch(f"broken JSON: {error}") from None
