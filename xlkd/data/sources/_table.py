# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads rows of tables: TSV, TSV in CSV quoting, CSV, JSON lines; columns by name or number."""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xlkd.data.sources import BadRows
from xlkd.data.sources.squad import find_surrogate_fault
from xlkd.errors import UserError

TSV, QUOTED, EITHER, CSV, JSONL = "tsv", "tsv in CSV quoting", "tsv of either kind", "csv", "jsonl"

_CSV_FIELD = re.compile(r'"(?:[^"]|"")*"')

Column = tuple[str, ...] | int  # possible names in the header, or the number where there is no header
Values = dict[str, str]  # by part; optional parts only where the row has them
_Pick = Callable[[Any], tuple[Values | None, str]]  # from the fields of a row to its values, or to a fault


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of the parts of a row: all by name, or all by number from 0."""

    needed: Mapping[str, Column]
    optional: Mapping[str, Column] = dataclasses.field(default_factory=dict)

    @property
    def numbered(self) -> bool:
        """Says whether columns are given by number."""
        return isinstance(next(iter(self.needed.values())), int)


class Record(NamedTuple):
    """A row: its number from 0 (bad rows counted, the header not), its place in the file, and its values."""

    number: int
    where: str
    values: Values


def read(path: pathlib.Path, form: str, choices: Sequence[Columns], bad_rows: BadRows) -> Iterator[Record]:
    """Yields the rows of a file, by the first of `choices` whose columns its header, or its first object, has."""
    rows = _READERS[form](path)
    first = next(rows, None)
    if first is None:
        return
    if first.fault:
        raise UserError(first.fault, f"{path}: line {first.line}", "fix the first line: it names the columns")
    header = form != JSONL and not choices[0].numbered
    pick = _pick_by_key(first, choices, path) if form == JSONL else _pick_by_place(first, choices, path)
    for number, row in enumerate(_drop_trailing_empty(rows if header else itertools.chain([first], rows))):
        values, fault = (None, row.fault) if row.fault else pick(row.fields)
        where = f"{path}: line {row.line}"
        if values is None:
            bad_rows.report(fault, where)
        else:
            yield Record(number, where, values)


def read_column_names(path: pathlib.Path, form: str) -> tuple[str, ...]:
    """Returns the names of the columns in the header, or of the keys of the first object."""
    first = next(_READERS[form](path), None)
    if form == JSONL:
        return tuple(first.fields or ()) if first else ()
    return tuple(name.strip().casefold() for name in first.fields or ()) if first else ()


class _RawRow(NamedTuple):
    """A line of a table, split into fields."""

    line: int
    fields: Any  # a list of strings, a JSON object, or None for an empty line
    fault: str = ""


def _read_unquoted(path: pathlib.Path) -> Iterator[_RawRow]:
    """Yields rows of a table with tabs and without quoting."""
    for number, line in enumerate(_read_lines(path), 1):
        text = line.removesuffix("\n").removesuffix("\r")
        yield _RawRow(number, text.split("\t") if text else None)


def _read_quoted(path: pathlib.Path, delimiter: str = "\t") -> Iterator[_RawRow]:
    """Yields rows with quoting removed; a row may span several lines."""
    reader = csv.reader(_read_lines(path), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield _RawRow(line, next(reader) or None)
        except StopIteration:
            return
        except csv.Error as error:
            yield _RawRow(line, [], f"broken quoting ({error})")


def _read_either(path: pathlib.Path) -> Iterator[_RawRow]:
    """Reads with quoting if every field that has a quotation mark is valid CSV: copies of a data set differ."""
    marked = (line.rstrip("\r\n").split("\t") for line in _read_lines(path) if '"' in line)
    fields = (field for line in marked for field in line if '"' in field)
    return _read_quoted(path) if all(map(_CSV_FIELD.fullmatch, fields)) else _read_unquoted(path)


def _read_objects(path: pathlib.Path) -> Iterator[_RawRow]:
    """Yields one JSON object per line."""
    for number, line in enumerate(_read_lines(path), 1):
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            yield _RawRow(number, {}, f"broken JSON: {error}")
            continue
        yield _RawRow(number, value, "" if value is None or isinstance(value, dict) else "not a JSON object")


_READERS: dict[str, Callable[[pathlib.Path], Iterator[_RawRow]]] = {
    TSV: _read_unquoted,
    QUOTED: _read_quoted,
    EITHER: _read_either,
    CSV: functools.partial(_read_quoted, delimiter=","),
    JSONL: _read_objects,
}


def _read_lines(path: pathlib.Path) -> Iterator[str]:
    """Yields lines, which end at LF alone, not at the other characters where `str.splitlines` cuts."""
    if not path.is_file():
        raise UserError("a folder, not a file" if path.is_dir() else "no such file", str(path), "check the path")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "check its permissions") from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                where = f"{path}: line {number}"
                raise UserError(f"not UTF-8 at byte {error.start}", where, "save it as UTF-8") from None


def _drop_trailing_empty(rows: Iterator[_RawRow]) -> Iterator[_RawRow]:
    """Drops empty lines at the end; an empty line elsewhere is a bad row."""
    pending: list[_RawRow] = []
    for row in rows:
        if row.fields is None and not row.fault:
            pending.append(row._replace(fault="an empty line"))
            continue
        yield from pending
        pending.clear()
        yield row


def _pick_by_place(first: _RawRow, choices: Sequence[Columns], path: pathlib.Path) -> _Pick:
    """Returns the function that picks the parts of a row of columns."""
    width = len(first.fields or ())
    names = [name.strip().casefold() for name in first.fields or ()]

    def place(column: Column) -> int | None:
        """Returns the place of a column; None where the table does not have it."""
        if isinstance(column, int):
            return column if column < width else None
        return next((names.index(name.casefold()) for name in column if name.casefold() in names), None)

    columns = _choose_columns(choices, lambda column: place(column) is not None, path, first.fields or ())
    parts = {**columns.needed, **columns.optional}
    places = {part: at for part, column in parts.items() if (at := place(column)) is not None}

    def pick(fields: list[str]) -> tuple[Values | None, str]:
        """Returns the values of a row, or None and its fault."""
        if len(fields) != width:
            return None, f"{len(fields)} columns instead of {width}"
        return {part: fields[at] for part, at in places.items()}, ""

    return pick


def _pick_by_key(first: _RawRow, choices: Sequence[Columns], path: pathlib.Path) -> _Pick:
    """Returns the function that picks the parts of a JSON object; numbers become text, null and NaN are missing."""
    keys = first.fields or {}
    columns = _choose_columns(
        choices, lambda column: not isinstance(column, int) and any(n in keys for n in column), path, keys
    )
    parts = {part: names for part, names in {**columns.needed, **columns.optional}.items() if isinstance(names, tuple)}

    def pick(fields: dict[str, Any]) -> tuple[Values | None, str]:
        """Returns the values of an object, or None and its fault."""
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
            if fault := find_surrogate_fault(value, part):
                return None, fault
            values[part] = value
        return values, ""

    return pick


def _choose_columns(
    choices: Sequence[Columns], is_present: Callable[[Column], bool], path: pathlib.Path, names_present: Collection[str]
) -> Columns:
    """Returns the first choice whose needed columns are all present."""
    for columns in choices:
        if all(map(is_present, columns.needed.values())):
            return columns
    column = next(column for column in choices[0].needed.values() if not is_present(column))
    if isinstance(column, int):
        raise UserError(
            f"no column {column}, counted from 0: the first row has {len(names_present)}",
            str(path),
            "check the quoting",
        )
    names = ", ".join(name[:40] for name in names_present)
    raise UserError(f"no column named {' or '.join(column)}", str(path), f"there are: {names}")
