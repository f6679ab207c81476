# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a command: prepares the process, calls one function, turns what went wrong into one line and an exit code."""

from __future__ import annotations

import ctypes
import difflib
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence

from xlkd import files
from xlkd.errors import DONE, INTERRUPTED, NOT_FINITE, STOPPED, USER_INPUT, NotFinite, Stopped, UserError


def run(function: Callable[[list[str]], int | None]) -> int:
    """The exit code of `function(arguments)`; where help is asked for, its module's docstring is printed instead."""
    keep_memory()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    arguments = sys.argv[1:]
    try:
        if set(arguments) & {"-h", "--help"}:
            print((sys.modules[function.__module__].__doc__ or "").strip())
            code = DONE
        else:
            code = function(arguments) or DONE
        sys.stdout.flush()
        return code
    except UserError as error:
        return _say(f"error: {error}", USER_INPUT)
    except NotFinite as error:
        return _say(f"stopped: {error}", NOT_FINITE)
    except Stopped as error:
        return _say(f"stopped: {error}", STOPPED)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)


def flags(arguments: Sequence[str], names: Sequence[str], switches: Sequence[str] = ()) -> dict[str, str]:
    """`--name=value` or `--name value` for each of the names, `--name` alone for each of the switches; no others."""
    found, others = split(arguments, names, switches)
    if others:
        near = difflib.get_close_matches(others[0].partition("=")[0].removeprefix("--"), (*names, *switches, "help"), 1)
        hint = f"did you mean --{near[0]}?" if near else "--help lists the flags"
        raise UserError(f"unknown flag {others[0]!r}", "command line", hint)
    return found


def split(
    arguments: Sequence[str], names: Sequence[str], switches: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """The flags with these names, and what else was given."""
    found, others, rest = {}, [], list(arguments)
    while rest:
        flag = rest.pop(0)
        name, equals, value = flag.removeprefix("--").partition("=")
        if not flag.startswith("--") or name not in (*names, *switches) or (equals and name in switches):
            others.append(flag)
            continue
        if not equals and name in names:
            if not rest:
                raise UserError(f"--{name} needs a value", "command line")
            value = rest.pop(0)
        found[name] = value
    return found, others


def whole(given: dict[str, str], name: str, default: int) -> int:
    """A flag's value as a whole number, 1 or more."""
    text = given.get(name, str(default))
    if not text.isdecimal() or not int(text):
        raise UserError(f"--{name}={text} is not a whole number above 0", "command line", f"for example {default}")
    return int(text)


def resolve_output(given: dict[str, str], name: str, inputs: Iterable[pathlib.Path] = ()) -> files.OutputFile | None:
    """Returns the file that a flag names as an output, checked before the work is done; it is none of `inputs`."""
    if not given.get(name):
        return None
    path = pathlib.Path(given[name]).expanduser()
    files.check_file(path)
    files.check_inputs(path, inputs)
    return files.OutputFile(path)


def keep_memory() -> None:
    """Let glibc keep what JAX frees: by default each step pays anew for its page faults. Before jax is imported."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    # What a step frees above 2 GiB, the most that can be named, is paid anew in each; kept, it grows by fragments
    trim = -1 if memory() > 20 * 2**30 else 2**31 - 1
    for parameter, value in ((-4, 0), (-1, trim), (-8, 1)):  # no mmap, trim, one arena
        mallopt(parameter, value)


def memory(cgroup: str = "/sys/fs/cgroup") -> int:
    """Bytes that this process may use: what the machine has, or its container's limit (cgroups 2 and 1)."""
    least = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in (pathlib.Path(cgroup, limit) for limit in ("memory.max", "memory/memory.limit_in_bytes")):
        try:
            least = min(least, int(file.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return least


def _say(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
