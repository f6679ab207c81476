# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Output while a run trains: lines, a live display below them on a terminal, and the log files."""

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
from xlkd.errors import UserError, escape_controls
from xlkd.runtime.display import Display


class Log:
    """Writes lines to the console and, with the time, to `log.txt`, and events for programs to `events.jsonl`.

    A terminal shows below the lines what the run does now.

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
        self._file = files.open_to_append(file) if file else None
        self._events = files.open_to_append(file.with_name("events.jsonl")) if file else None
        self._stream = stream or sys.stdout
        is_dumb = os.environ.get("TERM", "") in ("", "dumb", "unknown")
        self._display = Display(self._write, self._measure) if self._stream.isatty() and not is_dumb else None

    def __call__(self, line: str) -> None:
        line = escape_controls(self._describe_paths(line))
        if self._display:
            self._display.print(line)
        else:
            self._write(line + "\n")
        if self._file:
            self._check()
            self._file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
            self._file.flush()

    def event(self, kind: str, at: float | None = None, **more: Any) -> None:
        """Records for the goodput report that this process does `kind`, from now or from `at` (seconds since 1970)."""
        self.show(activity=kind, note="")
        if self._events:
            self._check()
            self._events.write(json.dumps({"time": round(at or time.time(), 3), "kind": kind, **more}) + "\n")
            self._events.flush()

    def live(self, line: str) -> None:
        """Shows a line on a terminal, which the next one replaces."""
        self.show(note=line)

    def show(self, **values: Any) -> None:
        """Changes what a terminal shows below the lines: fields of `View`. A pipe gets nothing."""
        if self._display:
            self._display.show(**values)

    def close(self) -> None:
        """Ends what a terminal shows below the lines."""
        if self._display:
            self._display.close()

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, UserError) as error:  # the run continues without its console
            cli.discard_output(self._stream)
            self._display = None
            if isinstance(error, UserError):
                print(f"warning: {error.where}: {error.what}; the run continues and writes log.txt", file=sys.stderr)

    def _measure(self) -> tuple[int, int]:
        """Returns the columns and lines of the terminal; one that does not know its size has 0."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except OSError:  # closed meanwhile
            return 80, 24
        return size.columns or 80, size.lines or 24


class Metrics:
    """Writes `metrics.jsonl` of a stage; on a restart it is cut to the restored step.

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

    def write(self, step: int, values: dict[str, Any]) -> None:
        self._check()
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **finite}, allow_nan=False) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """Flushes the lines to the disk, before a checkpoint is saved from which they will not be written again."""
        files.flush_file(self._file)

    def close(self) -> None:
        self.flush()
        self._file.close()


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
