# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws what a run does below its lines on a terminal: stages, a bar, the last values and scores.

Nothing is drawn by a thread: each change draws, and the number of a step alone at most four times a second.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xlkd.errors import escape_controls

PAUSE = 0.25  # seconds between two drawings of a step alone
ACTIVITIES = {  # by kind of event
    "start": "starting",
    "prepare": "reading data",
    "begin": "starting",
    "compile": "compiling",
    "teacher": "teacher forward pass",
    "train": "training",
    "evaluate": "evaluating",
    "save": "saving",
    "finish": "exporting",
    "report": "writing the report",
}


@dataclasses.dataclass(frozen=True)
class View:
    """Holds the parts of the display; those that are empty are not drawn."""

    stages: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    stage: str = ""
    activity: str = ""  # a kind of event
    step: int = 0
    steps: int = 0
    eta: str = ""
    values: str = ""
    speed: str = ""
    scores: tuple[str, ...] = ()  # a line for each evaluation set
    note: str = ""


class Display:
    """Draws a view below the lines that are printed; `write` gets the text, `measure` returns columns and lines."""

    def __init__(self, write: Callable[[str], None], measure: Callable[[], tuple[int, int]]) -> None:
        self._write, self._measure = write, measure
        self._view, self._drawn_at = View(), 0.0
        self._buffer, self._size = io.StringIO(), (0, 0)
        self._live: Live | None = None

    def show(self, **values: Any) -> None:
        """Changes fields of the view and draws it."""
        view = dataclasses.replace(self._view, **values)
        is_early = values.keys() == {"step"} and time.monotonic() - self._drawn_at < PAUSE
        if view != self._view:
            self._view = view
            if not is_early:
                self._draw()

    def print(self, line: str) -> None:
        """Prints a line above the view, and removes the note."""
        self._view = dataclasses.replace(self._view, note="")
        if self._live is None:
            self._write(line + "\n")
            return
        self._adapt()
        self._live.update(self._render())
        self._live.console.print(Text(line), soft_wrap=True)
        self._send()

    def close(self) -> None:
        """Leaves the view as it is, and the cursor below it."""
        if self._live is not None:
            self._draw()
            self._write("\n")
            self._live = None
        self._view = View()

    def _draw(self) -> None:
        if self._live is None and not list(_list_rows(self._view)):
            return
        self._drawn_at = time.monotonic()
        self._adapt().update(self._render(), refresh=True)
        self._send()

    def _adapt(self) -> Live:
        """Returns the live region; in a terminal of another size a new one begins below what is there."""
        size = self._measure()
        if self._live is None or size != self._size:
            if self._live is not None:
                self._write("\n")
            self._buffer, self._size = io.StringIO(), size
            console = Console(file=self._buffer, force_terminal=True, width=size[0], height=size[1], highlight=False)
            options = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
            self._live = Live(console=console, vertical_overflow="crop", **options)
            self._live.start()
            self._buffer.truncate(0)  # it hid the cursor, which a killed process would leave so
            self._buffer.seek(0)
        return self._live

    def _render(self) -> RenderableType:
        return Group(*_list_rows(self._view))

    def _send(self) -> None:
        """Writes what was drawn in one piece, so that nothing flickers."""
        text = self._buffer.getvalue()
        self._buffer.truncate(0)
        self._buffer.seek(0)
        self._write(text)


def _list_rows(view: View) -> Iterator[RenderableType]:
    """Yields the rows of a view that are not empty."""
    if view.stages:
        yield _draw_stages(view)
    if view.steps:
        yield _draw_bar(view)
    for line in (view.values, view.speed, *view.scores, view.note):
        if line:
            yield _make_text(line)


def _draw_stages(view: View) -> Text:
    text = _make_text("stages: ")
    for number, name in enumerate(view.stages):
        text.append(", " if number else "")
        if name in view.finished:
            text.append(f"{name} done", "green")
        elif name == view.stage:
            text.append(f"{name} {ACTIVITIES.get(view.activity, view.activity)}", "bold")
        else:
            text.append(f"{name} to come", "dim")
    return text


def _draw_bar(view: View) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    numbers = f"{view.step}/{view.steps} {view.step / view.steps:4.0%}" + (f"  ETA {view.eta}" if view.eta else "")
    table.add_row(view.stage, ProgressBar(view.steps, view.step), numbers)
    return table


def _make_text(line: str) -> Text:
    return Text(escape_controls(line), no_wrap=True, overflow="crop")
