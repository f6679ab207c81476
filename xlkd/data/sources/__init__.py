# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads source strings, which `xlkd.spec.source` parses.

A source is one module of this folder. It has `TASKS`, the tasks it can serve, `OPTIONS`, the names of its options or
those of each task, and `rows(source, task, bad_rows)`, which returns a sequence of rows; it knows a file format and
nothing else. Where the text after the colon is not a path, it sets `NAMED = True`, and may have `check_exists(source)`,
which refuses missing data before anything is trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import pathlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from xlkd.data.sources import _sample
from xlkd.errors import UserError, escape_controls
from xlkd.rows import Pair
from xlkd.spec.reading import list_source_texts
from xlkd.spec.source import Source, Value, is_whole, list_sources, parse, quote, write_value
from xlkd.spec.stage import AnySettings

__all__ = ["BadRows", "Rows", "Source", "is_whole", "list_sources", "parse", "read"]

_UNREAD_SHOWN = 8  # names of files that are not read
_LONGEST_FAULT = 500  # characters of a reason, which may quote the file
_READ_AS = {"masked": "parallel"}  # the task whose rows serve another one too: a pair of texts is translation-LM


class BadRows:
    """Handles bad rows: the first one stops the run, or all are listed and left out.

    `setting` is the key of the config or the flag that a user sets to `skip`, for the error of a bad row; "" if the
    user has no such choice.
    """

    def __init__(self, policy: str = "stop", setting: str = "") -> None:
        if policy not in ("stop", "skip"):
            raise UserError(f"on_bad_row={policy} is not possible", remedy="choose stop or skip")
        self.policy = policy
        self._remedy = f"fix the row or set {setting}=skip" if setting else "fix the row"
        self.skipped: list[tuple[str, str]] = []
        self.left_out: list[tuple[str, str]] = []
        self.notes: dict[str, str] = {}  # by file or folder what is unusual but no fault

    def report(self, reason: str, where: str) -> None:
        """Reports a bad row: stops with one line, or adds the row to `skipped`."""
        if len(reason) > _LONGEST_FAULT:
            reason = f"{reason[:_LONGEST_FAULT]}…"
        if self.policy == "stop":
            raise UserError(reason, where, self._remedy)
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


def list_paths(text: str) -> list[pathlib.Path]:
    """Returns the files, folders and prefixes of file names in a source string."""
    parsed = (source for source in parse(text) if source.path and not getattr(_load_module(source), "NAMED", False))
    return [source.locate() for source in parsed]


def list_hub_sources(text: str) -> list[Source]:
    """Returns the sources of a source string that are data sets of the Hugging Face hub."""
    return [source for source in parse(text) if source.name == "hf"]


def check_options(settings: AnySettings) -> None:
    """Refuses a source of a stage that is unknown, or has an option that it does not know for any task."""
    for source in (source for text in list_source_texts(settings) for source in parse(text)):
        with _explain_quoting(source):
            source.allow(*dict.fromkeys(name for task in list_tasks(source) for name in _list_options(source, task)))


def check_sources_exist(text: str) -> None:
    """Refuses a source that is unknown, whose path does not exist, or whose data set is missing; nothing is read."""
    for path in list_paths(text):
        with contextlib.suppress(OSError):  # reading gives the better message
            if not (path.exists() or _is_prefix(path)):
                raise quote(UserError("no such file or folder", str(path), "check the path"), text)
    for source in parse(text):
        if check := getattr(_load_module(source), "check_exists", None):
            with contextlib.suppress(OSError), _explain_quoting(source):
                check(source)


def _is_prefix(prefix: pathlib.Path) -> bool:
    """Says whether names of files begin with this path, as for a parallel corpus with one file per language."""
    return prefix.parent.is_dir() and any(path.name.startswith(prefix.name) for path in prefix.parent.iterdir())


def read(value: Value, task: str, on_bad_row: str = "stop", setting: str = "") -> Rows:
    """Returns all rows of a source string, a dict or a list for a task: `qa`, `classify`, `parallel` or `masked`.

    `setting` is the key or flag by which the user chose `on_bad_row`, for the error of a bad row.
    """
    text, bad_rows = write_value(value, "source"), BadRows(on_bad_row, setting)
    parts = tuple(read_source(source, task, bad_rows) for source in parse(text))
    notes = tuple(f"{where}: {note}" for where, note in bad_rows.notes.items())
    rows = Rows(parts, (*bad_rows.skipped, *bad_rows.left_out), notes)
    if not len(rows):
        remedy = "every row was left out" if rows.dropped else "check the path and the options"
        raise quote(UserError("no rows", text, remedy), text)
    return rows


def read_source(source: Source, task: str, bad_rows: BadRows) -> Sequence[Any]:
    """Returns the rows of one source, which may be empty."""
    with _explain_quoting(source):
        if not serves(source, task):
            what, known = f"has no data for the task {task!r}", ", ".join(list_tasks(source))
            raise UserError(what, str(source), f"it has data for {known}")
        own_task = task if task in list_tasks(source) else _READ_AS[task]
        source.allow(*_list_options(source, own_task))
        try:
            rows = _load_module(source).rows
            if _sample.is_asked(source):
                return _sample.choose(source, rows(_sample.remove_options(source), own_task, bad_rows))
            return rows(source, own_task, bad_rows)
        except OSError as error:  # for example a name that is too long, or a folder without permission
            where = str(error.filename or source)
            raise UserError(f"cannot be read: {error.strerror}", where, "check the path") from error


@contextlib.contextmanager
def _explain_quoting(source: Source) -> Generator[None, None, None]:
    """Adds the quoted flag to a refusal of what the source string says: not to one of what a file contains."""
    try:
        yield
    except UserError as error:
        path = str(source.locate())
        is_absent = error.where == path and not os.path.exists(path)
        if error.where == str(source) or is_absent or (source.place and error.where.startswith(f"{source.place}.")):
            raise quote(error, source.text or str(source)) from error
        raise


def serves(source: Source, task: str) -> bool:
    """Returns whether a source has data for a task: rows made for it, or rows of the task that it is read as."""
    return not {task, _READ_AS.get(task)}.isdisjoint(list_tasks(source))


def list_tasks(source: Source) -> tuple[str, ...]:
    """Returns the tasks that the rows of a source are made for."""
    return _load_module(source).TASKS


def _list_options(source: Source, task: str) -> tuple[str, ...]:
    """Returns the names of a source's options for a task."""
    options = _load_module(source).OPTIONS
    options = options[task] if isinstance(options, Mapping) else options
    return (*options, *_sample.OPTIONS) if _sample.can_choose(options) else options


def _load_module(source: Source) -> ModuleType:
    """Imports the module of a source."""
    return importlib.import_module(f"{__name__}.{source.name}")
