# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of tables as users have them: TSV, TSV that a CSV writer made, CSV, JSON lines; columns by name or number."""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xlkd.data.sources import Bad
from xlkd.data.sources.squad import surrogate_fault
from xlkd.errors import UserError

TSV, QUOTED, EITHER, CSV, JSONL = "tsv", "tsv in CSV quoting", "tsv of either kind", "csv", "jsonl"

_WRITTEN = re.compile(r'"(?:[^"]|"")*"')

Column = tuple[str, ...] | int  # names that a header may use, or the number where there is no header
Values = dict[str, str]  # by part; optional ones only where there


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where the parts of a row stand: all of them by name, or all by number from 0."""

    needed: Mapping[str, Column]
    optional: Mapping[str, Column] = dataclasses.field(default_factory=dict)

    @property
    def numbered(self) -> bool:
        return isinstance(next(iter(self.needed.values())), int)


class Record(NamedTuple):
    """A row: its number from 0 (bad ones counted, the header not), where it stands, its parts."""

    number: int
    where: str
    values: Values


def read(path: pathlib.Path, form: str, choices: Sequence[Columns], bad: Bad) -> Iterator[Record]:
    """The rows of a file, by the first of `choices` whose columns its header, or its first object, has."""
    rows = _RAW[form](path)
    first = next(rows, None)
    if first is None:
        return
    if first.fault:
        raise UserError(first.fault, f"{path}: line {first.line}", "fix the first line: it names the columns")
    header = form != JSONL and not choices[0].numbered
    pick = _by_key(first, choices, path) if form == JSONL else _by_place(first, choices, path)
    for number, row in enumerate(_ended(rows if header else itertools.chain([first], rows))):
        values, fault = (None, row.fault) if row.fault else pick(row.fields)
        where = f"{path}: line {row.line}"
        if values is None:
            bad(fault, where)
        else:
            yield Record(number, where, values)


def names(path: pathlib.Path, form: str) -> tuple[str, ...]:
    """What the header, or the first object, calls its columns."""
    first = next(_RAW[form](path), None)
    if form == JSONL:
        return tuple(first.fields or ()) if first else ()
    return tuple(name.strip().casefold() for name in first.fields or ()) if first else ()


class _Raw(NamedTuple):
    line: int
    fields: Any  # a list of strings, an object of JSON, or None for an empty line
    fault: str = ""


def _split(path: pathlib.Path) -> Iterator[_Raw]:
    for number, line in enumerate(_lines(path), 1):
        text = line.removesuffix("\n").removesuffix("\r")
        yield _Raw(number, text.split("\t") if text else None)


def _quoted(path: pathlib.Path, delimiter: str = "\t") -> Iterator[_Raw]:
    """Quotes undone; a row may go over several lines."""
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield _Raw(line, next(reader) or None)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Raw(line, [], f"broken quoting ({error})")


def _either(path: pathlib.Path) -> Iterator[_Raw]:
    """In quoting if every field that has a quotation mark is as a CSV writer leaves it: copies of a set differ."""
    marked = (line.rstrip("\r\n").split("\t") for line in _lines(path) if '"' in line)
    fields = (field for line in marked for field in line if '"' in field)
    return _quoted(path) if all(map(_WRITTEN.fullmatch, fields)) else _split(path)


def _objects(path: pathlib.Path) -> Iterator[_Raw]:
    for number, line in enumerate(_lines(path), 1):
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            yield _Raw(number, {}, f"broken JSON: {error}")
            continue
        yield _Raw(number, value, "" if value is None or isinstance(value, dict) else "not a JSON object")


_RAW: dict[str, Callable[[pathlib.Path], Iterator[_Raw]]] = {
    TSV: _split,
    QUOTED: _quoted,
    EITHER: _either,
    CSV: functools.partial(_quoted, delimiter=","),
    JSONL: _objects,
}


def _lines(path: pathlib.Path) -> Iterator[str]:
    """Lines end at LF alone, not at the other characters at which `str.splitlines` cuts."""
    if not path.is_file():
        raise UserError("a folder, not a file" if path.is_dir() else "no such file", str(path), "look at the path")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path)) from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                where = f"{path}: line {number}"
                raise UserError(f"not UTF-8 at byte {error.start}", where, "save it as UTF-8") from None


def _ended(rows: Iterator[_Raw]) -> Iterator[_Raw]:
    """Empty lines at the end are no rows; elsewhere each is a bad one."""
    held: list[_Raw] = []
    for row in rows:
        if row.fields is None and not row.fault:
            held.append(row._replace(fault="an empty line"))
            continue
        yield from held
        held.clear()
        yield row


def _by_place(first: _Raw, choices: Sequence[Columns], path: pathlib.Path):
    """Parts of a row of columns."""
    width = len(first.fields or ())
    names = [name.strip().casefold() for name in first.fields or ()]

    def place(column: Column) -> int | None:
        if isinstance(column, int):
            return column if column < width else None
        return next((names.index(name.casefold()) for name in column if name.casefold() in names), None)

    columns = _chosen(choices, lambda column: place(column) is not None, path, first.fields or ())
    parts = {**columns.needed, **columns.optional}
    places = {part: at for part, column in parts.items() if (at := place(column)) is not None}

    def pick(fields: list[str]) -> tuple[Values | None, str]:
        if len(fields) != width:
            return None, f"{len(fields)} columns instead of {width}"
        return {part: fields[at] for part, at in places.items()}, ""

    return pick


def _by_key(first: _Raw, choices: Sequence[Columns], path: pathlib.Path):
    """Parts of a JSON object; numbers become text, null and NaN are what is not there."""
    found = first.fields or {}
    columns = _chosen(
        choices, lambda column: not isinstance(column, int) and any(n in found for n in column), path, found
    )
    parts = {part: names for part, names in {**columns.needed, **columns.optional}.items() if isinstance(names, tuple)}

    def pick(fields: dict[str, Any]) -> tuple[Values | None, str]:
        values: Values = {}
        for part, names in parts.items():
            value = next((fields[name] for name in names if name in fields), None)
            if value != value:  # NaN, which pandas writes for an empty cell
                value = None
            if value is None and part in columns.optional:
                continue
            if type(value) is int or (type(value) is float and value.is_integer()):  # pandas, where a cell is empty
                value = str(int(value))
            value = "" if value is None else value
            if not isinstance(value, str):
                return None, f"{part} is neither text nor a whole number"
            if fault := surrogate_fault(value, part):
                return None, fault
            values[part] = value
        return values, ""

    return pick


def _chosen(choices: Sequence[Columns], there: Callable[[Column], bool], path: pathlib.Path, has) -> Columns:
    for columns in choices:
        if all(map(there, columns.needed.values())):
            return columns
    column = next(column for column in choices[0].needed.values() if not there(column))
    if isinstance(column, int):
        raise UserError(
            f"no column {column}, counted from 0: the first row has {len(has)}", str(path), "look at quoting"
        )
    names = ", ".join(str(name)[:40] for name in has)
    raise UserError(f"no column named {' or '.join(column)}", str(path), f"there are: {names}")
