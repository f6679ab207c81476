# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a run goes on: one live line on a terminal, plain lines in a pipe, and files."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from xlkd import files
from xlkd.compat import import_event_files
from xlkd.errors import escape_controls


class Log:
    """Lines for people: on the console and, with the time, at the end of `log.txt`; beside it events for programs.

    `check` is called before each write to a file: it raises where the work directory is no longer the run's.
    """

    def __init__(
        self,
        file: pathlib.Path | None = None,
        stream: TextIO | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._check = check
        self._file = file.open("a", encoding="utf-8") if file else None
        self._events = file.with_name("events.jsonl").open("a", encoding="utf-8") if file else None
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._width = 0

    def __call__(self, line: str) -> None:
        line = escape_controls(line)
        self._write("\r" + " " * self._width + "\r" if self._width else "", line + "\n")
        self._width = 0
        if self._file:
            self._check()
            self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
            self._file.flush()

    def event(self, kind: str, at: float | None = None, **more: Any) -> None:
        """From now on, or since `at` (seconds since 1970), this process does `kind`; `reports/goodput.py` reads it."""
        if self._events:
            self._check()
            self._events.write(json.dumps({"time": round(at or time.time(), 3), "kind": kind, **more}) + "\n")
            self._events.flush()

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
    """`metrics.jsonl` and TensorBoard events of a stage; on a restart the first is cut to the restored step.

    `check` is called before each write, as that of `Log`.
    """

    def __init__(self, folder: pathlib.Path, step: int, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        check()
        path = folder / "metrics.jsonl"
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= step]
        files.write_text(path, "".join(kept))
        self._file = path.open("a", encoding="utf-8")
        self._board = _Board(folder / "tensorboard", step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        self._check()
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self._board.write(step, values)

    def close(self) -> None:
        self._file.close()
        self._board.close()


class Unwritten:
    """In the place of `Metrics` where another process writes them."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class Clock:
    """Time spent training, apart from compiling, evaluating and saving; `tell` hears of each change."""

    def __init__(self, tell: Callable[..., None] = lambda kind, **more: None) -> None:
        self.spent: dict[str, float] = {}
        self._tell, self._kind, self._since = tell, "start", time.perf_counter()

    def to(self, kind: str, **more: Any) -> str:
        """From now on time counts as `kind`; the kind until now is returned."""
        former, self._kind = self._kind, kind
        self._add(former)
        self._tell(kind, **more)
        return former

    def of(self, kind: str) -> float:
        self._add(self._kind)
        return self.spent.get(kind, 0.0)

    def _add(self, kind: str) -> None:
        now = time.perf_counter()
        self.spent[kind] = self.spent.get(kind, 0.0) + now - self._since
        self._since = now


def timed(values: Iterable[Any], waited: list[float]) -> Iterator[Any]:
    """The values, and in `waited` the seconds that each took to come."""
    values = iter(values)
    while True:
        since = time.perf_counter()
        try:
            value = next(values)
        except StopIteration:
            return
        waited.append(time.perf_counter() - since)
        yield value


def process_began() -> float:
    """Seconds since 1970 at the start of this process, its imports included; now, where the system does not tell."""
    try:
        ticks = pathlib.Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        up = float(pathlib.Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return time.time() - (up - int(ticks) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return time.time()


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class _Board:
    """Events for TensorBoard, from a step on anew.

    tensorboardX's own writer has a thread; where a clock that jumps or a full disk ends it, the run waits for ever.
    """

    def __init__(self, folder: pathlib.Path, step: int) -> None:
        self._files = import_event_files()
        folder.mkdir(exist_ok=True)
        self._writer = self._files.writer(str(folder / "events"))
        log = self._files.events.SessionLog
        self._add(step, session_log=log(status=log.START))

    def write(self, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self._add(step, summary=self._files.scalar(name, value))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, **what: Any) -> None:
        self._writer.write_event(self._files.events.Event(step=step, wall_time=time.time(), **what))


def _lines(path: pathlib.Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [line for line in file if line.endswith("\n")]  # a kill may have cut the last one
