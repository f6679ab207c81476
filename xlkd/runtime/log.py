# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Output while a run trains: one live line on a terminal, plain lines in a pipe, and the log files."""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from xlkd import cli, files
from xlkd.compat import import_event_files
from xlkd.errors import UserError, escape_controls


class Log:
    """Writes lines to the console and, with the time, to `log.txt`, and events for programs to `events.jsonl`.

    `check` is called before each write to a file; it raises where the work directory no longer belongs to the run.
    `describe_paths` replaces paths in a line by names that the user knows.
    """

    def __init__(
        self,
        file: pathlib.Path | None = None,
        stream: TextIO | None = None,
        check: Callable[[], None] = lambda: None,
        describe_paths: Callable[[str], str] = lambda line: line,
    ) -> None:
        self._check, self._describe_paths = check, describe_paths
        self._file = _open_to_append(file) if file else None
        self._events = _open_to_append(file.with_name("events.jsonl")) if file else None
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._width = 0

    def __call__(self, line: str) -> None:
        line = escape_controls(self._describe_paths(line))
        self._write("\r" + " " * self._width + "\r" if self._width else "", line + "\n")
        self._width = 0
        if self._file:
            self._check()
            self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
            self._file.flush()

    def event(self, kind: str, at: float | None = None, **more: Any) -> None:
        """Records for the goodput report that this process does `kind`, from now or from `at` (seconds since 1970)."""
        if self._events:
            self._check()
            self._events.write(json.dumps({"time": round(at or time.time(), 3), "kind": kind, **more}) + "\n")
            self._events.flush()

    def live(self, line: str, *, keep: bool = False) -> None:
        """Writes a line that the next one replaces; in a pipe only lines with `keep` are written."""
        if keep or not self._live:
            if keep:
                self(line)
            return
        columns = os.get_terminal_size(self._stream.fileno()).columns or 80
        line = line[: columns - 1]
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def _write(self, *parts: str) -> None:
        try:
            self._stream.write("".join(parts))
            self._stream.flush()
        except (BrokenPipeError, UserError) as error:  # the run continues without its console
            cli.discard_output(self._stream)
            self._live = False
            if isinstance(error, UserError):
                print(f"warning: {error.where}: {error.what}; the run continues and writes log.txt", file=sys.stderr)


class Metrics:
    """Writes `metrics.jsonl` and TensorBoard events of a stage; on a restart the first is cut to the restored step.

    `check` is called before each write, as in `Log`. `every` is the number of steps between two lines.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        step: int,
        check: Callable[[], None] = lambda: None,
        log: Callable[[str], object] = lambda line: None,
        every: int = 0,
    ) -> None:
        self._check = check
        check()
        path = folder / "metrics.jsonl"
        lines, steps = _read_lines(path)
        if damaged := steps.count(None):
            log(f"{path}: {damaged} damaged lines are left out")
        lines = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
        if every and step >= every and not lines and not damaged:
            log(f"{path}: the lines before step {step} are lost")
        files.write_text(path, "".join(lines))
        self._file = path.open("a", encoding="utf-8")
        self._board = _Board(folder / "tensorboard", step + 1)

    def write(self, step: int, values: dict[str, Any]) -> None:
        self._check()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._file.flush()
        self._board.write(step, values)

    def flush(self) -> None:
        """Flushes the lines to the disk, before a checkpoint is saved from which they will not be written again."""
        files.flush_file(self._file)

    def close(self) -> None:
        self.flush()
        self._file.close()
        self._board.close()


class NoMetrics:
    """Takes the place of `Metrics` where another process writes them."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Clock:
    """Measures the time spent training, compiling, evaluating and saving; `tell` is called at each change."""

    def __init__(self, tell: Callable[..., None] = lambda kind, **more: None) -> None:
        self.spent: dict[str, float] = {}
        self._tell, self._kind, self._since = tell, "start", time.perf_counter()

    def switch_to(self, kind: str, **more: Any) -> str:
        """Counts the time from now on as `kind`; returns the kind until now."""
        former, self._kind = self._kind, kind
        self._add(former)
        self._tell(kind, **more)
        return former

    def seconds(self, kind: str) -> float:
        """Returns the seconds spent on `kind` until now."""
        self._add(self._kind)
        return self.spent.get(kind, 0.0)

    def _add(self, kind: str) -> None:
        now = time.perf_counter()
        self.spent[kind] = self.spent.get(kind, 0.0) + now - self._since
        self._since = now


def time_values(values: Iterable[Any], waited: list[float]) -> Iterator[Any]:
    """Yields the values, and appends to `waited` the seconds that each took to arrive."""
    values = iter(values)
    while True:
        since = time.perf_counter()
        try:
            value = next(values)
        except StopIteration:
            return
        waited.append(time.perf_counter() - since)
        yield value


def process_start_time() -> float:
    """Returns when this process started, in seconds since 1970; the present time where the system does not tell."""
    try:
        ticks = pathlib.Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
        up = float(pathlib.Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        return time.time() - (up - int(ticks) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return time.time()


def format_duration(seconds: float) -> str:
    """Writes seconds as 1:02:03, or 2:03 below an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class _Board:
    """Writes events for TensorBoard; events of an earlier start are replaced from this step on.

    tensorboardX's own writer has a thread; when a clock jump or a full disk ends it, the run would wait forever.
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


def _read_lines(path: pathlib.Path) -> tuple[list[str], list[int | None]]:
    """Returns the lines of `metrics.jsonl` with their steps; None where a line is damaged.

    A last line without its end is left out: a kill may have cut it.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
    lines = [line for line in lines if line.endswith("\n") or "\0" in line]
    return lines, [_read_step(line) for line in lines]


def _read_step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _open_to_append(path: pathlib.Path) -> TextIO:
    """Opens a file to append lines, after a line end where a crash cut its last line."""
    file = path.open("a+", encoding="utf-8")
    size = file.seek(0, os.SEEK_END)
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        file.write("\n")
    return file
