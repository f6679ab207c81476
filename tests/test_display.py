# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The live display on pseudo-terminals: what is on the screen, and that no line is lost."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest
from test_loop import ROOT, TINY

from xlkd.runtime import display
from xlkd.runtime.log import Log

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A pseudo-terminal and what was written to it."""

    def __init__(self, columns=60, lines=20):
        try:
            self.master, self.slave = os.openpty()
        except OSError:
            pytest.skip("this machine has no pseudo-terminals")
        self.resize(columns, lines)
        self.stream, self._parts = open(self.slave, "w", encoding="utf-8"), []  # noqa: SIM115
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def resize(self, columns, lines=20):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self):
        try:
            while data := os.read(self.master, 65536):
                self._parts.append(data)
        except OSError:  # closed by all that write
            pass

    @property
    def text(self):
        return b"".join(self._parts).decode(errors="replace")

    def finish(self):
        """Closes this end of the terminal, and returns all that was written."""
        self.stream.close()
        self._thread.join(10)
        return self.text


def draw(text: str) -> list[str]:
    """Returns the lines of a screen after a text: with what a terminal does for the codes that are used."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", COLOURS.sub("", text)):
        if token == "\r":
            column = 0
        elif token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token.endswith("A"):
            row -= int(token[2:-1])
            assert row >= 0, "above the first line"
        else:
            assert not token.startswith("\x1b"), token
            lines[row] = lines[row].ljust(column)[:column] + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_the_view_is_below_the_lines_and_replaces_itself(terminal):
    log = Log(stream=terminal.stream)
    log("start")
    log.show(stages=("english", "gxlt", "ce"), finished=("english",), stage="gxlt")
    log.event("compile")
    log("compiled")
    log.show(step=3, steps=12, eta="0:09", values="loss 1.5", speed="9 examples/s")
    log.show(scores=("eval: f1 50.0 (xquad de 50.0)",))
    log.event("train")
    log("step 3")
    log.close()
    screen = draw(terminal.finish())
    assert screen[:4] == ["start", "compiled", "step 3", "stages: english done, gxlt training, ce to come"]
    assert re.fullmatch(r"gxlt ━+.? *3/12  25%  ETA 0:09", screen[4].replace("╸", "━").replace("╺", " ")), screen[4]
    assert screen[5:] == ["loss 1.5", "9 examples/s", "eval: f1 50.0 (xquad de 50.0)", ""]


def test_a_live_line_is_replaced_and_never_wraps(terminal):
    log = Log(stream=terminal.stream)
    log.live("step 1 of a run")
    log.live("step 2")
    log.live("x" * 100)
    log("evaluated")
    log.live("\x1b[31m安" * 50)
    log.close()
    screen = draw(terminal.finish())
    assert screen[0] == "evaluated"
    assert screen[1].startswith("\\u001b[31m安")
    assert len(screen) == 3


def test_a_terminal_of_another_width_loses_no_line(terminal):
    log = Log(stream=terminal.stream)
    log.show(stages=("one",), stage="one", step=1, steps=4)
    log("before")
    for columns in (30, 9, 120):
        terminal.resize(columns)
        log.show(step=columns)
        log(f"columns {columns}")
    log.close()
    screen = draw(terminal.finish())
    assert [line for line in screen if line.startswith(("before", "columns"))] == [
        "before",
        "columns 30",
        "columns 9",
        "columns 120",
    ]


def test_steps_alone_are_drawn_at_most_four_times_a_second(terminal, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    log = Log(stream=terminal.stream)
    log.show(stages=("one",), stage="one", step=0, steps=1000)
    for step in range(1, 1001):
        now[0] += 0.01
        log.show(step=step)
    log.close()
    assert 30 < terminal.finish().count("stages:") < 50


@pytest.mark.parametrize(("name", "value", "codes"), [("NO_COLOR", "1", False), ("COLORTERM", "truecolor", True)])
def test_no_color_is_respected(terminal, monkeypatch, name, value, codes):
    monkeypatch.setenv(name, value)
    log = Log(stream=terminal.stream)
    log.show(stages=("one", "two"), finished=("one",), step=1, steps=4)
    log.close()
    assert bool(re.search(r"\x1b\[(3|4)[0-9;]*m", terminal.finish())) == codes


@pytest.mark.parametrize("kind", ["dumb", "", "unknown"])
def test_a_dumb_terminal_gets_the_lines_of_a_pipe(terminal, monkeypatch, kind):
    monkeypatch.setenv("TERM", kind)
    log = Log(stream=terminal.stream)
    log.show(stages=("one",), stage="one", step=1, steps=4)
    log("a line")
    log.live("step 1")
    log.close()
    assert terminal.finish() == "a line\r\n"


def test_a_terminal_without_a_size_has_eighty_columns(terminal):
    terminal.resize(0, 0)
    log = Log(stream=terminal.stream)
    log.live("step 1")
    log.close()
    assert draw(terminal.finish()) == ["step 1", ""]


def test_no_thread_draws_and_no_cursor_is_hidden(terminal):
    threads = threading.active_count()
    log = Log(stream=terminal.stream)
    log.show(stages=("one",), stage="one", step=1, steps=4)
    log("a line")
    assert threading.active_count() == threads
    log.close()
    assert "\x1b[?25l" not in terminal.finish(), "a killed process could not show it again"


@pytest.mark.long
def test_a_run_on_a_terminal_shows_its_progress_and_ends_cleanly_at_a_signal(terminal, tmp_path):
    terminal.resize(100, 30)
    environment = os.environ | {"XLKD_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "xlkd.main", *TINY, f"--workdir={tmp_path / 'run'}", "--config.budget.steps=4000"]
    streams = {"stdin": terminal.slave, "stdout": terminal.slave, "stderr": terminal.slave}
    process = subprocess.Popen(command, env=environment, cwd=ROOT, **streams)
    try:
        while process.poll() is None and not re.search(r"\b1[0-9]/4000", terminal.text):
            terminal._thread.join(0.1)
        terminal.resize(50, 30)
        while process.poll() is None and not re.search(r"\b2[0-9]/4000", terminal.text):
            terminal._thread.join(0.1)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    screen = draw(terminal.finish())
    assert code == 75, screen
    last = [line for line in screen if line][-6:]
    assert last[0].startswith("stages: all"), last
    assert re.match(r"all .*/4000 +[0-9]% +ETA ", last[1]), last
    assert re.match(r"accuracy .*  loss ", last[2]), last
    assert "tokens/s" in last[3]
    assert re.match(r"eval: accuracy [0-9.]+ \(de [0-9.]+  en [0-9.]+\)", last[4]), last
    assert last[5].startswith("stopped: SIGTERM: saved at step"), last
    logged = [line.split(" ", 1)[1] for line in (tmp_path / "run" / "log.txt").read_text().splitlines()]
    shown = "\n".join(draw(terminal.text))
    assert all(line in shown for line in logged), "no line of the log is lost"
