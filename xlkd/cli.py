# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a command: prepares the process, calls one function, and turns errors into one line and an exit code."""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import difflib
import io
import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TextIO

from xlkd import files
from xlkd.compat import find_environment_fault
from xlkd.errors import DONE, INTERRUPTED, NOT_FINITE, STOPPED, USER_INPUT, NotFinite, Stopped, UserError

COMMANDS = {  # by name the module of xlkd that runs it
    "train": "main",
    "evaluate": "evaluate",
    "predict": "predict",
    "plan": "plan",
    "report": "report",
    "check": "check",
    "sweep": "sweep",
    "trim": "trim",
    "push": "push",
    "parity": "parity",
    "caches": "caches",
}
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}  # of sizes, by their prefix
_MODULE = re.compile(rf"\bpython -m xlkd\.({'|'.join(COMMANDS.values())})\b")


def run(function: Callable[[list[str]], int | None], arguments: Sequence[str] | None = None) -> int:
    """Runs `function(arguments)` and returns the exit code; --help prints the docstring of its module instead.

    Without `arguments` they are those of the process. Help and messages name commands in the form that was typed.
    """
    configure_malloc()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    prepare_streams()
    arguments, code = list(sys.argv[1:] if arguments is None else arguments), DONE
    try:
        if sys.stdout is None:
            raise UserError("standard output is closed", "", "redirect it to a file, or to /dev/null")
        if set(arguments) & {"-h", "--help"}:
            print(name_as_typed((sys.modules[function.__module__].__doc__ or "").strip()))
        else:
            code = function(arguments) or DONE
        sys.stdout.flush()
        return code
    except UserError as error:
        return _print_error(f"error: {error}", USER_INPUT)
    except NotFinite as error:
        return _print_error(f"stopped: {error}", NOT_FINITE)
    except Stopped as error:
        return _print_error(f"stopped: {error}", STOPPED)
    except BrokenPipeError:  # the reader of the output closed it
        return code
    except KeyboardInterrupt:
        return _print_error("interrupted", INTERRUPTED)
    except (AssertionError, MemoryError, RuntimeError, ValueError) as error:
        fault = find_environment_fault(error)
        if not fault:
            raise
        remedy = "take a smaller batch or max_length" if "memory" in fault else "correct the variable"
        return _print_error(f"error: {UserError(fault, remedy=remedy)}", USER_INPUT)
    finally:
        _discard_rest()


def name_command(module: str) -> list[str]:
    """Returns the words that start the command of a module, in the form that started this process.

    The forms are `xlkd train`, `python -m xlkd train` and `python -m xlkd.main`, which is also that of other programs.
    """
    program, names = pathlib.Path(sys.argv[0]), {file: name for name, file in COMMANDS.items()}
    if program.name == "xlkd":
        return ["xlkd", names[module]]
    if program.parts[-2:] == ("xlkd", "__main__.py"):
        return ["python", "-m", "xlkd", names[module]]
    return ["python", "-m", f"xlkd.{module}"]


def name_as_typed(text: str) -> str:
    """Returns a text with each `python -m xlkd.MODULE` in the form that started this process."""
    return _MODULE.sub(lambda match: " ".join(name_command(match[1])), text)


class StandardOutput(io.TextIOWrapper):
    """Writes to standard output: a failure is one line, a closed pipe stays a BrokenPipeError."""

    def write(self, text: str) -> int:
        """Writes the text, or raises a UserError."""
        with _explain_failure():
            return super().write(text)

    def flush(self) -> None:
        """Writes what is buffered, or raises a UserError."""
        with _explain_failure():
            super().flush()


class StandardError(io.TextIOWrapper):
    """Writes to standard error; a message that cannot be written is lost, because no other place is left for it."""

    def write(self, text: str) -> int:
        """Writes the text if possible."""
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered if possible."""
        with contextlib.suppress(OSError):
            super().flush()


def prepare_streams() -> None:
    """Replaces the standard streams of the interpreter by those above, and opens /dev/null for closed ones.

    A file that the command opens would otherwise get the number of a closed stream, and what libraries print.
    """
    for _ in range(3):
        if (descriptor := os.open(os.devnull, os.O_RDWR)) > 2:
            os.close(descriptor)
            break
    codecs.register_error("escape", _escape_characters)
    if type(sys.stdout) is io.TextIOWrapper:
        options = {"line_buffering": sys.stdout.line_buffering, "write_through": sys.stdout.write_through}
        encoding = sys.stdout.encoding
        sys.stdout = StandardOutput(sys.stdout.detach(), encoding, "escape", **options)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif type(sys.stderr) is io.TextIOWrapper:
        encoding = sys.stderr.encoding
        sys.stderr = StandardError(sys.stderr.detach(), encoding, "backslashreplace", line_buffering=True)


def _escape_characters(error: UnicodeError) -> tuple[str, int]:
    """Replaces characters that an encoding lacks by escapes of JSON, so that JSON stays JSON on any terminal."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


@contextlib.contextmanager
def _explain_failure() -> Generator[None, None, None]:
    """Turns a failure to write to standard output into one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = "free disk space, or redirect it to another place"
        raise UserError(f"cannot be written: {error.strerror}", "standard output", remedy) from error


def _discard_rest() -> None:
    """Sends what standard output still buffers to /dev/null if it cannot be written, and what follows."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (UserError, OSError):
        discard_output(sys.stdout)


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines of which the reader of a pipe may have seen enough; the command then ends with its own exit code."""
    with contextlib.suppress(BrokenPipeError):
        for line in lines:
            print(line)


def discard_output(stream: TextIO) -> None:
    """Sends everything that a stream writes from now on to /dev/null."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def parse_flags(arguments: Sequence[str], names: Sequence[str], switches: Sequence[str] = ()) -> dict[str, str]:
    """Parses `--name=value`, `--name value` and, for switches, `--name`; any other argument is an error."""
    values, others = split_flags(arguments, names, switches)
    if others:
        similar = difflib.get_close_matches(
            others[0].partition("=")[0].removeprefix("--"), (*names, *switches, "help"), 1
        )
        hint = f"did you mean --{similar[0]}?" if similar else "--help lists the flags"
        raise UserError(f"unknown flag {others[0]!r}", "command line", hint)
    return values


def split_flags(
    arguments: Sequence[str], names: Sequence[str], switches: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Returns the flags with these names by name, and the remaining arguments."""
    values, others, remaining = {}, [], list(arguments)
    while remaining:
        flag = remaining.pop(0)
        name, equals, value = flag.removeprefix("--").partition("=")
        if not flag.startswith("--") or name not in (*names, *switches) or (equals and name in switches):
            others.append(flag)
            continue
        if not equals and name in names:
            if not remaining:
                raise UserError(f"--{name} needs a value", "command line")
            value = remaining.pop(0)
        if not value and name in names:
            raise UserError(f"--{name} is empty", "command line", "give it a value, or leave it out")
        values[name] = value
    return values, others


def parse_count(flags: Mapping[str, str], name: str, default: int, at_most: int) -> int:
    """Returns a flag's value as a whole number from 1 to `at_most`."""
    text = flags.get(name, str(default))
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise UserError(f"--{name}={text} is not a whole number above 0", "command line", f"for example {default}")
    if len(text) > 20 or int(text) > at_most:
        raise UserError(f"--{name} is more than {at_most}", "command line", "give a smaller number")
    return int(text)


def resolve_output(flags: dict[str, str], name: str, inputs: Iterable[pathlib.Path] = ()) -> files.OutputFile | None:
    """Returns the file that a flag names as an output, after checking that it can be written and is no input."""
    if not flags.get(name):
        return None
    path = parse_output(flags[name])
    files.check_file(path)
    files.check_inputs(path, inputs)
    return files.OutputFile(path)


def parse_output(text: str) -> pathlib.Path:
    """Returns the path of an output file; `-` is standard output."""
    if text.endswith("/"):
        raise UserError("a folder, not a file", text, "name a file")
    return files.expand_path("/dev/stdout" if text == "-" else text)


def format_size(number: int) -> str:
    """Formats a number of bytes with a unit."""
    unit = max((prefix for prefix in UNITS if UNITS[prefix] <= max(number, 1)), key=UNITS.__getitem__)
    return f"{number / UNITS[unit]:.{1 if unit else 0}f} {unit}B"


def configure_malloc() -> None:
    """Makes glibc keep the memory that JAX frees, so that steps do not pay for page faults again.

    It must run before jax is imported.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    # With the largest threshold, 2 GiB, a step pays for what it frees above it; without one, fragments accumulate
    trim = -1 if available_memory_bytes() > 20 * 2**30 else 2**31 - 1
    for parameter, value in ((-4, 0), (-1, trim), (-8, 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX
        mallopt(parameter, value)


def available_memory_bytes(cgroup: str = "/sys/fs/cgroup") -> int:
    """Returns the memory that this process may use: the machine's, or its container's limit (cgroups 2 and 1)."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in (pathlib.Path(cgroup, limit) for limit in ("memory.max", "memory/memory.limit_in_bytes")):
        try:
            size = min(size, int(file.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return size


def _print_error(line: str, code: int) -> int:
    """Prints a line on standard error and returns the exit code."""
    print(name_as_typed(line), file=sys.stderr)
    return code
