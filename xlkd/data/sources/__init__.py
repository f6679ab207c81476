# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Source strings: `NAME:PATH?languages=en,de&split=test&limit=100`, several joined with `+`.

A source is one module of this folder. It has `TASKS`, the tasks it can serve, and
`rows(spec, task, bad)`, which returns a sequence of rows; it knows a file format and nothing else.
Where what stands after the colon is no path, it says `NAMED = True`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import pathlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from xlkd.errors import UserError, suggest_name
from xlkd.languages import normalise_tag

_T = TypeVar("_T")
_JOIN = re.compile(r"\+(?=[a-z_]+(?:[:?+]|$))")


@dataclasses.dataclass(frozen=True)
class Spec:
    """One source of a source string."""

    name: str
    path: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        options = "&".join(f"{k}={v}" for k, v in self.options)
        return self.name + (f":{self.path}" if self.path else "") + (f"?{options}" if options else "")

    def option(self, name: str, default: str = "") -> str:
        return dict(self.options).get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """A whole number, 0 or more."""
        given = self.option(name, str(default))
        if not is_whole(given):
            raise UserError(f"{name}={given} is not a whole number", str(self))
        return int(given)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of the choices; the first where nothing was said."""
        given = self.option(name, choices[0])
        if given not in choices:
            raise UserError(f"{name}={given} is not possible", str(self), f"choose one of {', '.join(choices)}")
        return given

    def first(self, rows: Iterable[_T]) -> Iterator[_T]:
        """As many as `limit` says, or all."""
        return itertools.islice(rows, self.number("limit") or None)

    def pairs(self, languages: Sequence[str]) -> list[tuple[str, str]]:
        """Each language with itself, or with every one."""
        every = self.choice("pairs", ("diagonal", "all")) == "all"
        return [(a, b) for a in languages for b in languages if every or a == b]

    def languages(self) -> tuple[str, ...]:
        """The languages asked for, normalised; empty where all are meant."""
        asked = self.option("languages")
        return tuple(normalise_tag(tag, str(self)) for tag in asked.split(",")) if asked else ()

    def allow(self, *names: str) -> None:
        """Refuse options that this source does not know."""
        for name, _ in self.options:
            if name not in names:
                remedy = suggest_name(name, names, f"known here: {', '.join(names)}")
                raise UserError(f"unknown option {name!r}", str(self), remedy)


def is_whole(text: str) -> bool:
    """Digits alone, of a number that anybody could mean."""
    return text.isdecimal() and len(text) < 19


class Bad:
    """What happens to a bad row: the first one stops the run, or all are listed and left out."""

    def __init__(self, policy: str = "stop") -> None:
        if policy not in ("stop", "skip"):
            raise UserError(f"on_bad_row={policy} is not possible", remedy="choose stop or skip")
        self.policy = policy
        self.seen: list[tuple[str, str]] = []
        self.left_out: list[tuple[str, str]] = []

    def __call__(self, reason: str, where: str) -> None:
        if self.policy == "stop":
            raise UserError(reason, where, "fix the row or set on_bad_row=skip")
        self.seen.append((where, reason))

    def leave_out(self, reason: str, where: str) -> None:
        """A row that is not bad but that a rule of its source leaves out, whatever the policy."""
        self.left_out.append((where, reason))


@dataclasses.dataclass(frozen=True)
class Rows(Sequence):
    """The rows of a source string in order, and what was left out on the way."""

    parts: tuple[Sequence[Any], ...]
    dropped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index):
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
        """What names these rows in a cache: their keys, or what a part that is made from a seed says of itself."""
        for part in self.parts:
            made = getattr(part, "identity", None)
            yield from [made] if made else (row.key for row in part)

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part


def names() -> list[str]:
    """Every source there is: the modules of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def parse(text: str) -> list[Spec]:
    """The sources of a source string."""
    specs = []
    for piece in _JOIN.split(text):
        head, _, query = piece.partition("?")
        name, _, path = head.partition(":")
        if name not in names():
            remedy = suggest_name(name, names(), f"known sources: {', '.join(names())}")
            raise UserError(f"unknown source {name!r}", piece, remedy)
        options = tuple(tuple(item.partition("=")[::2]) for item in query.split("&") if item)
        specs.append(Spec(name, path, options))
    return specs


def list_paths(text: str) -> list[pathlib.Path]:
    """Returns the files, folders and prefixes of names that a source string points at."""
    specs = (spec for spec in parse(text) if spec.path and not getattr(_module(spec), "NAMED", False))
    return [pathlib.Path(spec.path).expanduser() for spec in specs]


def present(text: str) -> None:
    """Refuse a source that is unknown, or whose path leads nowhere; nothing of it is read."""
    for path in list_paths(text):
        with contextlib.suppress(OSError):  # a reader says what of it cannot be read
            if not (path.exists() or _begun(path)):
                raise UserError("no such file or folder", str(path), "look at the path")


def _begun(prefix: pathlib.Path) -> bool:
    """Whether names begin so, as those of a parallel corpus in a file a language do."""
    return prefix.parent.is_dir() and any(one.name.startswith(prefix.name) for one in prefix.parent.iterdir())


def read(text: str, task: str, on_bad_row: str = "stop") -> Rows:
    """All rows of a source string for a task: `qa`, `classify`, `parallel` or `masked`."""
    bad = Bad(on_bad_row)
    rows = Rows(tuple(one(spec, task, bad) for spec in parse(text)), (*bad.seen, *bad.left_out))
    if not len(rows):
        remedy = "every row was left out" if rows.dropped else "look at the path and the options"
        raise UserError("no rows", text, remedy)
    return rows


def one(spec: Spec, task: str, bad: Bad) -> Sequence[Any]:
    """The rows of one source, which may be none."""
    if task not in tasks(spec):
        raise UserError(f"holds no data for the task {task!r}", str(spec), f"it serves {', '.join(tasks(spec))}")
    try:
        return _module(spec).rows(spec, task, bad)
    except OSError as error:  # a name too long, a folder that may not be read
        raise UserError(f"cannot be read: {error.strerror}", str(error.filename or spec), "look at the path") from error


def tasks(spec: Spec) -> tuple[str, ...]:
    """What a source can serve."""
    return _module(spec).TASKS


def _module(spec: Spec):
    return importlib.import_module(f"{__name__}.{spec.name}")
