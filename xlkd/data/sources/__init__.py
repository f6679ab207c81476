# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parses and reads source strings: `NAME:PATH?languages=en,de&split=test&limit=100`, several joined with `+`.

A source is one module of this folder. It has `TASKS`, the tasks it can serve, and `rows(source, task, bad_rows)`, which
returns a sequence of rows; it knows a file format and nothing else. Where the text after the colon is not a path, it
sets `NAMED = True`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import itertools
import pathlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any, TypeVar

from xlkd import files
from xlkd.errors import UserError, escape_controls, suggest_name
from xlkd.languages import normalise_tag
from xlkd.rows import Pair

_T = TypeVar("_T")
_QUERY = re.compile(r"\?(?=(?:\w+=[^&]*)?(?:&(?:\w+=[^&]*)?)*\Z|[\w&=]*\Z)")  # a name of a file may contain ?
_UNREAD_SHOWN = 8  # names of files that are not read
_LONGEST_FAULT = 500  # characters of a reason, which may quote the file


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of a source string: its name, its path and its options."""

    name: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        options = "&".join(f"{k}={v}" for k, v in self.options)
        return self.name + (f":{self.path}" if self.path else "") + (f"?{options}" if options else "")

    def locate(self) -> pathlib.Path:
        """Returns the path, with `~` expanded."""
        return files.expand_path(self.path)

    def option(self, name: str, default: str = "") -> str:
        """Returns the value of an option."""
        return dict(self.options).get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """Returns an option as a whole number, 0 or more."""
        text = self.option(name, str(default))
        if not is_whole(text):
            raise UserError(f"{name}={text} is not a whole number", str(self))
        return int(text)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Returns an option as one of the choices, by default the first."""
        value = self.option(name, choices[0])
        if value not in choices:
            raise UserError(f"{name}={value} is not possible", str(self), f"choose one of {', '.join(choices)}")
        return value

    def first(self, rows: Iterable[_T]) -> Iterator[_T]:
        """Returns the first rows, as many as `limit` says, or all."""
        return itertools.islice(rows, self.number("limit") or None)

    def pairs(self, languages: Sequence[str]) -> list[tuple[str, str]]:
        """Returns each language paired with itself, or with every language."""
        all_pairs = self.choice("pairs", ("diagonal", "all")) == "all"
        return [(a, b) for a in languages for b in languages if all_pairs or a == b]

    def languages(self) -> tuple[str, ...]:
        """Returns the normalised tags of the option `languages`; empty means all."""
        tags = self.option("languages")
        return tuple(normalise_tag(tag, str(self)) for tag in tags.split(",")) if tags else ()

    def allow(self, *names: str) -> None:
        """Refuses options that this source does not know."""
        for name, _ in self.options:
            if name not in names:
                remedy = suggest_name(name, names, f"known here: {', '.join(names)}")
                raise UserError(f"unknown option {name!r}", str(self), remedy)


def is_whole(text: str) -> bool:
    """Says whether a text is digits alone, few enough for a plausible number."""
    return text.isdecimal() and len(text) < 19


class BadRows:
    """Handles bad rows: the first one stops the run, or all are listed and left out."""

    def __init__(self, policy: str = "stop") -> None:
        if policy not in ("stop", "skip"):
            raise UserError(f"on_bad_row={policy} is not possible", remedy="choose stop or skip")
        self.policy = policy
        self.skipped: list[tuple[str, str]] = []
        self.left_out: list[tuple[str, str]] = []
        self.notes: dict[str, str] = {}  # by file or folder what is unusual but no fault

    def report(self, reason: str, where: str) -> None:
        """Reports a bad row: stops with one line, or adds the row to `skipped`."""
        if len(reason) > _LONGEST_FAULT:
            reason = f"{reason[:_LONGEST_FAULT]}…"
        if self.policy == "stop":
            raise UserError(reason, where, "fix the row or set on_bad_row=skip")
        self.skipped.append((where, reason))

    def note_unread(self, place: pathlib.Path, unread: Iterable[str]) -> None:
        """Notes the names of the files of a folder that a source does not read, where there are any."""
        if names := list(map(escape_controls, unread)):
            shown = ", ".join(names[:_UNREAD_SHOWN])
            others = f" and {len(names) - _UNREAD_SHOWN:,} more" if len(names) > _UNREAD_SHOWN else ""
            count = "1 file is" if len(names) == 1 else f"{len(names):,} files are"
            self.notes[str(place)] = f"{count} not read: {shown}{others}"

    def leave_out(self, reason: str, where: str) -> None:
        """Records a row that is not bad, but that a rule of its source leaves out whatever the policy."""
        self.left_out.append((where, reason))


@dataclasses.dataclass(frozen=True)
class Rows(Sequence[Any]):
    """The rows of a source string in order, the rows that were left out with their reasons, and what is unusual."""

    parts: tuple[Sequence[Any], ...]
    dropped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    def identity(self) -> Iterator[str]:
        """Yields the strings that identify these rows in a cache: their keys, or the identity of a generated part."""
        for part in self.parts:
            identity = getattr(part, "identity", None)
            yield from [identity] if identity else (row.key for row in part)

    def compute_hash(self) -> str:
        """Returns the SHA-256 of the rows in their order: of their texts, labels and languages, and word alignments."""
        digest = hashlib.sha256()
        for key in self.identity():
            digest.update(f"{key}\n".encode())
        for part in self.parts:
            if isinstance(part, tuple | list) and part and isinstance(part[0], Pair):
                digest.update(repr([row.links for row in part]).encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part


def list_sources() -> list[str]:
    """Returns the names of all sources: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def parse(text: str) -> list[Source]:
    """Returns the sources of a source string."""
    if "\0" in text or text != text.encode(errors="ignore").decode():
        raise UserError("contains a zero byte or is not UTF-8", text, "rename the file or its folder")
    parsed = []
    for part in _compile_join().split(text):
        head, query = (*_QUERY.split(part, maxsplit=1), "")[:2]
        name, _, path = head.partition(":")
        if name not in list_sources():
            remedy = suggest_name(name, list_sources(), f"known sources: {', '.join(list_sources())}")
            raise UserError(f"unknown source {name!r}", part, remedy)
        files.expand_path(path)
        pairs = [item.partition("=") for item in query.split("&") if item]
        options = [option for option, _, _ in pairs]
        if repeated := [option for option in options if options.count(option) > 1]:
            raise UserError(f"two options {repeated[0]!r}", part, "keep one of them")
        parsed.append(Source(name, path, tuple((option, value) for option, _, value in pairs)))
    return parsed


@functools.cache
def _compile_join() -> re.Pattern[str]:
    """Compiles the pattern of a + that joins two sources, not one in the name of a file."""
    return re.compile(rf"\+(?=[a-z_]+:|(?:{'|'.join(list_sources())}|)(?:[?+]|\Z))")


def list_paths(text: str) -> list[pathlib.Path]:
    """Returns the files, folders and prefixes of file names in a source string."""
    parsed = (source for source in parse(text) if source.path and not getattr(_load_module(source), "NAMED", False))
    return [source.locate() for source in parsed]


def check_sources_exist(text: str) -> None:
    """Refuses a source that is unknown or whose path does not exist; nothing is read."""
    for path in list_paths(text):
        with contextlib.suppress(OSError):  # reading gives the better message
            if not (path.exists() or _is_prefix(path)):
                raise UserError("no such file or folder", str(path), "check the path")


def _is_prefix(prefix: pathlib.Path) -> bool:
    """Says whether names of files begin with this path, as for a parallel corpus with one file per language."""
    return prefix.parent.is_dir() and any(path.name.startswith(prefix.name) for path in prefix.parent.iterdir())


def read(text: str, task: str, on_bad_row: str = "stop") -> Rows:
    """Returns all rows of a source string for a task: `qa`, `classify`, `parallel` or `masked`."""
    bad_rows = BadRows(on_bad_row)
    parts = tuple(read_source(source, task, bad_rows) for source in parse(text))
    notes = tuple(f"{where}: {note}" for where, note in bad_rows.notes.items())
    rows = Rows(parts, (*bad_rows.skipped, *bad_rows.left_out), notes)
    if not len(rows):
        remedy = "every row was left out" if rows.dropped else "check the path and the options"
        raise UserError("no rows", text, remedy)
    return rows


def read_source(source: Source, task: str, bad_rows: BadRows) -> Sequence[Any]:
    """Returns the rows of one source, which may be empty."""
    if task not in list_tasks(source):
        raise UserError(
            f"has no data for the task {task!r}", str(source), f"it has data for {', '.join(list_tasks(source))}"
        )
    try:
        return _load_module(source).rows(source, task, bad_rows)
    except OSError as error:  # for example a name that is too long, or a folder without permission
        raise UserError(f"cannot be read: {error.strerror}", str(error.filename or source), "check the path") from error


def list_tasks(source: Source) -> tuple[str, ...]:
    """Returns the tasks that a source can serve."""
    return _load_module(source).TASKS


def _load_module(source: Source) -> ModuleType:
    """Imports the module of a source."""
    return importlib.import_module(f"{__name__}.{source.name}")
