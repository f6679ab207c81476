# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the error that a user can fix, printed as one line, and the exit codes of every command."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

DONE = 0
BUG = 1
USER_INPUT = 2
NOT_FINITE = 3
STOPPED = 75  # a signal came and everything was saved: the same command resumes
INTERRUPTED = 130  # a second Ctrl-C ended the command at once


class UserError(Exception):
    """Reports something that the user can fix: what is wrong, where, and what to do about it."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.remedy}" if self.remedy else line
        return escape_controls(" ".join(line.split()))


# Control characters of terminals, line ends, marks of writing direction, and halves of surrogate pairs
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def escape_controls(text: str) -> str:
    """Returns text for one line of a terminal or a page: control characters are written as escapes."""
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def suggest_name(name: str, known: Iterable[str], otherwise: str) -> str:
    """Returns the remedy for an unknown name: the known name most like it, or `otherwise` where none is similar."""
    similar = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {similar[0]!r}?" if similar else otherwise


class NotFinite(Exception):
    """Reports a loss or a gradient that is not finite, with the step and the examples it was computed on."""

    def __init__(self, step: int, keys: list[str]) -> None:
        self.step, self.keys = step, keys
        names = ", ".join(keys[:64]) + (f" and {len(keys) - 64} more" if len(keys) > 64 else "")
        super().__init__(f"loss or gradient not finite at step {step}; nothing was updated; examples: {names}")


class Stopped(Exception):
    """Reports that a signal ended the run after its state was saved."""
