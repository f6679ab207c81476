# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every door does: prepare the process, call one function, turn what went wrong into one line and an exit code."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

from xlkd.errors import DONE, NOT_FINITE, STOPPED, USER_INPUT, NotFinite, Stopped, UserError


def run(function: Callable[[list[str]], int | None]) -> int:
    """The exit code of `function(arguments)`."""
    keep_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return function(sys.argv[1:]) or DONE
    except UserError as error:
        return _say(f"error: {error}", USER_INPUT)
    except NotFinite as error:
        return _say(f"stopped: {error}", NOT_FINITE)
    except Stopped as error:
        return _say(f"stopped: {error}", STOPPED)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def keep_memory() -> None:
    """Let glibc keep what JAX frees: by default each step pays anew for its page faults. Before jax is imported."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-8, 1)):  # no mmap, no trim, one arena
        mallopt(parameter, value)


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
