# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a run goes on: one live line on a terminal, plain lines in a pipe, and files."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO


class Log:
    """Lines for people: on the console and, with the time, at the end of `log.txt`."""

    def __init__(self, file: pathlib.Path | None = None, stream: TextIO | None = None) -> None:
        self._file = file.open("a", encoding="utf-8") if file else None
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._width = 0

    def __call__(self, line: str) -> None:
        self._write("\r" + " " * self._width + "\r" if self._width else "", line + "\n")
        self._width = 0
        if self._file:
            self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
            self._file.flush()

    def live(self, line: str, *, keep: bool = False) -> None:
        """A line that the next one replaces; in a pipe only those to `keep` are written."""
        if keep or not self._live:
            if keep:
                self(line)
            return
        line = line[: os.get_terminal_size().columns - 1]
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def _write(self, *parts: str) -> None:
        try:
            self._stream.write("".join(parts))
            self._stream.flush()
        except BrokenPipeError:  # the reader went away; the run and its files go on
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._live = False


class Metrics:
    """`metrics.jsonl` and TensorBoard events of a stage; on a restart the first is cut to the restored step."""

    def __init__(self, folder: pathlib.Path, step: int) -> None:
        path = folder / "metrics.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        _replace(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")
        self._board = _summary_writer()(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


class Clock:
    """Time spent training, apart from compiling, evaluating and saving."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._kind, self._since = "start", time.perf_counter()

    def to(self, kind: str) -> str:
        """From now on time counts as `kind`; the kind until now is returned."""
        now = time.perf_counter()
        self.spent[self._kind] = self.spent.get(self._kind, 0.0) + now - self._since
        former, self._kind, self._since = self._kind, kind, now
        return former

    def of(self, kind: str) -> float:
        self.to(self._kind)
        return self.spent.get(kind, 0.0)


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Whole or not at all."""
    _replace(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: pathlib.Path, values: Iterable[Any]) -> None:
    """A line of JSON a value; whole or not at all."""
    _replace(path, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


def _summary_writer():
    """tensorboardX imports PyTorch where it is installed, two seconds for nothing: for so long it is hidden."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # pyrefly: ignore
    try:
        from tensorboardX import SummaryWriter

        return SummaryWriter
    finally:
        if hidden:
            del sys.modules["torch"]


def _replace(path: pathlib.Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _lines(path: pathlib.Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [line for line in file if line.endswith("\n")]  # a kill may have cut the last one
