# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines what a user did wrong as one line, and the exit codes of every command."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

DONE = 0
BUG = 1
USER_INPUT = 2
NOT_FINITE = 3
STOPPED = 75  # a signal came and everything was saved: start the same command again
INTERRUPTED = 130  # a second Ctrl-C: ended at once


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and what to do about it."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        line = f"{line}; {self.remedy}" if self.remedy else line
        return visible(" ".join(line.split()))


# Controls of terminals, of lines and of the direction of writing, and halves of surrogate pairs
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def visible(text: str) -> str:
    """Text of data on one line of a terminal or a page: what would act there instead of being read is spelt out."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """The remedy for an unknown name: the known one that is most like it, or what there is to say without one."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


class NotFinite(Exception):
    """A loss or a gradient that is not finite: the step, and the examples it was computed on."""

    def __init__(self, step: int, keys: list[str]) -> None:
        self.step, self.keys = step, keys
        shown = ", ".join(keys[:64]) + (f" and {len(keys) - 64} more" if len(keys) > 64 else "")
        super().__init__(f"loss or gradient not finite at step {step}; nothing was updated; examples: {shown}")


class Stopped(Exception):
    """A signal asked the run to end; its state is on disk."""
