# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads rows of tables: TSV, TSV in CSV quoting, CSV, JSON lines; columns by name or number.

A quoted field may contain line ends. A stray quotation mark makes one too, of all rows up to the next mark: a field
whose lines could each be a row is a fault, and reading resumes at its second line."""

from __future__ import annotations

import collections
import csv
import dataclasses
import functools
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xlkd.data.sources import BadRows, _files
from xlkd.data.sources.squad import find_surrogate_fault, refuse_repeated_keys
from xlkd.errors import UserError

TSV, QUOTED, EITHER = "tsv", "tsv in CSV quoting", "tsv of either kind"
CSV, PLAIN_CSV, JSONL = "csv", "csv without quoting", "jsonl"

_LONGEST = 1 << 24  # bytes of a line, and of a row that spans several
_MOST_LINES = 500  # of a quoted field: a text that long is cut by every encoder
_ENOUGH_LINES = 8  # that all have the columns of a row by chance, as two lines of prose with commas often have
_MOST_VALUES = 1000  # of a column of labels or languages
csv.field_size_limit(_LONGEST)

_CSV_FIELD = re.compile(r'"(?:[^"]|"")*"')

_CLOSED = ("label", "from_0", "language")  # parts with few values, by which a row is told from a line of prose

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
    header = form != JSONL and not choices[0].numbered
    first = _read_first(path, form, any_line=not header)
    if first.fault and header:
        raise UserError(first.fault, f"{path}: line {first.line}", "fix the first line: it names the columns")
    places: dict[str, int] = {}
    pick: _Pick = lambda fields: (None, first.fault)  # noqa: E731 (no row is sound)
    if form == JSONL and not first.fault:
        pick = _pick_by_key(first, choices, path)
    elif not first.fault:
        places, pick = _pick_by_place(first, choices, path)
    rows = _READERS[form](path, tuple(places[part] for part in _CLOSED if part in places), bad_rows)
    for number, row in enumerate(_drop_trailing_empty(itertools.islice(rows, 1 if header else 0, None))):
        values, fault = (None, row.fault) if row.fault else pick(row.fields)
        where = f"{path}: line {row.line}"
        if values is None:
            bad_rows.report(fault, where)
        else:
            yield Record(number, where, values)


def read_column_names(path: pathlib.Path, form: str) -> tuple[str, ...]:
    """Returns the names of the columns in the header, or of the keys of the first object."""
    first = _read_first(path, form, any_line=form == JSONL)
    if first.fault:
        remedy = "fix the line; no other is sound" if form == JSONL else "fix the first line: it names the columns"
        raise UserError(first.fault, f"{path}: line {first.line}", remedy)
    return tuple(first.fields) if form == JSONL else tuple(name.strip().casefold() for name in first.fields)


def _read_first(path: pathlib.Path, form: str, any_line: bool) -> _RawRow:
    """Returns the first row, or with `any_line` the first sound one; refuses an empty file."""
    rows = _READERS[form](path)
    first = next(rows, None)
    if first is None:
        raise UserError("an empty file", str(path), "check the path")
    sound = (row for row in itertools.chain([first], rows) if row.fields is not None and not row.fault)
    first = next(sound, first) if any_line else first
    return first if first.fields is not None or first.fault else first._replace(fault="an empty line")


class _RawRow(NamedTuple):
    """A line of a table, split into fields."""

    line: int
    fields: Any  # a list of strings, a JSON object, or None for an empty line
    fault: str = ""


def _read_unquoted(
    path: pathlib.Path, closed: Sequence[int] = (), bad_rows: BadRows | None = None, delimiter: str = "\t"
) -> Iterator[_RawRow]:
    """Yields rows of a table without quoting."""
    for number, line in enumerate(_read_lines(path), 1):
        text = line.rstrip("\r\n")
        fault = "a carriage return without a line feed" if "\r" in text else _find_zero_byte_fault(text)
        yield _RawRow(number, text.split(delimiter) if text else None, fault)


def _read_quoted(
    path: pathlib.Path, closed: Sequence[int] = (), bad_rows: BadRows | None = None, delimiter: str = "\t"
) -> Iterator[_RawRow]:
    """Yields rows with quoting removed; a row may span several lines, unless a stray quotation mark joined them.

    `closed` are the places of labels and languages, which have few values.
    """
    lines = _LineFeed(path)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    width = multiline = longest = longest_start = 0
    values: dict[int, set[str]] | None = None
    while True:
        lines.taken.clear()
        start, fault, fields = lines.number + 1, "", []
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            reason = str(error).partition(" - ")[0].replace("new-line character", "carriage return")
            fault = f"broken quoting ({reason})"
        fault = fault or _find_zero_byte_fault("".join(lines.taken))
        width = width or len(fields) or lines.taken[0].count(delimiter) + 1
        if (count := len(lines.taken)) > 1:
            values = _collect_values(path, delimiter, width, closed) if values is None else values
            stray = _are_rows(lines.taken[:_MOST_LINES], fields, delimiter, width, values)
            if stray:
                lines.push_back()
                fault = f"a stray quotation mark: the field would span {count:,} lines that could each be a row"
            elif fault or count > _MOST_LINES:
                fault = f"{fault or 'a quoted field is too long'}, over {count:,} lines (at most {_MOST_LINES})"
            else:
                multiline += 1
                if count > longest:
                    longest, longest_start = count, start
        yield _RawRow(start, fields or None, fault)
    if multiline and bad_rows:
        where = f"the longest in lines {longest_start:,} to {longest_start + longest - 1:,}"
        bad_rows.notes[str(path)] = f"{multiline:,} rows with line ends in a quoted field, {where}"


def _are_rows(
    lines: Sequence[str], fields: Sequence[str], delimiter: str, width: int, values: Mapping[int, set[str]]
) -> bool:
    """Says whether the lines of a row could each be a row, so that a stray quotation mark joined them.

    Prose seldom has the same number of delimiters in many lines, or tabs, or known labels and languages in their
    places. Broken quoting (no `fields`) and a field that is too long are faults already.
    """
    is_fault = not fields or len(lines) == _MOST_LINES
    if (width == 1 and not is_fault) or 10 * sum(line.count(delimiter) >= width - 1 for line in lines) < 9 * len(lines):
        return False
    cells = [_split_line(line, delimiter) for line in lines]
    if 10 * sum(len(line) == width for line in cells) < 9 * len(cells):
        return False
    if is_fault:
        return True
    known = all(
        len(line) == width and line[at].strip() in known_values | {fields[at].strip()}
        for line in cells
        for at, known_values in values.items()
    )
    return delimiter == "\t" or len(cells) >= _ENOUGH_LINES or (bool(values) and known)


class _LineFeed(Iterator[str]):
    """The lines of a file; `taken` are those since it was cleared, which can be read again but for the first."""

    def __init__(self, path: pathlib.Path) -> None:
        self._lines = _read_lines(path)
        self._again: collections.deque[str] = collections.deque()
        self.taken: list[str] = []
        self.number = self._size = 0

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._size = len(line) + (self._size if self.taken else 0)
        self.taken.append(line)
        self.number += 1
        if self._size > _LONGEST:
            raise csv.Error(f"more than {_LONGEST:,} characters")
        return line

    def push_back(self) -> None:
        """Lets all lines in `taken` but the first be read again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1


def _split_line(line: str, delimiter: str) -> list[str]:
    """Returns the cells of a line by itself; marks without a partner are text."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return line.rstrip("\r\n").split(delimiter)


def _collect_values(path: pathlib.Path, delimiter: str, width: int, places: Sequence[int]) -> dict[int, set[str]]:
    """Returns the values of columns in the rows of one line each."""
    values: dict[int, set[str]] = {at: set() for at in places}
    if not places:
        return values
    lines = _LineFeed(path)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.taken.clear()
        try:
            row = next(reader)
        except StopIteration:
            return values
        except csv.Error:
            continue
        if len(lines.taken) == 1 and len(row) == width and lines.number > 1:
            for at, own in values.items():
                if len(own) < _MOST_VALUES:
                    own.add(row[at].strip())


def _read_either(path: pathlib.Path, closed: Sequence[int] = (), bad_rows: BadRows | None = None) -> Iterator[_RawRow]:
    """Reads with quoting if every field that has a quotation mark is valid CSV: copies of a data set differ."""
    marked = (line.rstrip("\r\n").split("\t") for line in _read_lines(path) if '"' in line)
    fields = (field for line in marked for field in line if '"' in field)
    reader = _read_quoted if all(map(_CSV_FIELD.fullmatch, fields)) else _read_unquoted
    return reader(path, closed, bad_rows)


def _read_objects(path: pathlib.Path, closed: Sequence[int] = (), bad_rows: BadRows | None = None) -> Iterator[_RawRow]:
    """Yields one JSON object per line."""
    for number, line in enumerate(_read_lines(path), 1):
        try:
            value = json.loads(line) if line.strip() else None
            if isinstance(value, dict) and line.count(":") > len(value):  # a key may be repeated
                json.loads(line, object_pairs_hook=refuse_repeated_keys)
        except RecursionError:
            yield _RawRow(number, {}, "broken JSON: nested too deeply")
        except ValueError as error:
            yield _RawRow(number, {}, f"broken JSON: {error}")
        else:
            yield _RawRow(number, value, "" if not line.strip() or isinstance(value, dict) else "not a JSON object")


_READERS: dict[str, Callable[..., Iterator[_RawRow]]] = {
    TSV: _read_unquoted,
    QUOTED: _read_quoted,
    EITHER: _read_either,
    CSV: functools.partial(_read_quoted, delimiter=","),
    PLAIN_CSV: functools.partial(_read_unquoted, delimiter=","),
    JSONL: _read_objects,
}


def _read_lines(path: pathlib.Path) -> Iterator[str]:
    """Yields lines, which end at LF alone, not at the other characters where `str.splitlines` cuts."""
    with _files.open_text(path) as file:
        for number, (_, line, size) in enumerate(_files.iterate_lines(file, _LONGEST), 1):
            where = f"{path}: line {number}"
            if size > _LONGEST:
                raise UserError(f"more than {_LONGEST:,} bytes without a line end", where, "divide it into lines")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"not UTF-8 at byte {error.start}", where, "save it as UTF-8") from None
            yield text.lstrip("\ufeff") if number == 1 else text


def _find_zero_byte_fault(text: str) -> str:
    """Returns the fault of a text that a damaged file has zero bytes in, or an empty string."""
    return "contains a zero byte" if "\0" in text else ""


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


def _pick_by_place(first: _RawRow, choices: Sequence[Columns], path: pathlib.Path) -> tuple[dict[str, int], _Pick]:
    """Returns the places of the parts, and the function that picks them from the fields of a row."""
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
    if not columns.numbered and (repeated := [at for at in places.values() if names.count(names[at]) > 1]):
        raise UserError(f"two columns {names[repeated[0]]!r}", str(path), "rename one of them")

    def pick(fields: list[str]) -> tuple[Values | None, str]:
        """Returns the values of a row, or None and its fault."""
        if len(fields) != width:
            return None, f"{len(fields)} columns instead of {width}"
        return {part: fields[at] for part, at in places.items()}, ""

    return places, pick


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
            text, fault = format_cell(next((fields[name] for name in names if name in fields), None), part)
            if fault:
                return None, fault
            if text is not None or part not in columns.optional:
                values[part] = text or ""
        return values, ""

    return pick


def format_cell(value: Any, part: str) -> tuple[str | None, str]:
    """Returns a value of JSON or Arrow as text, None where it is missing; or its fault.

    NaN is missing, and a whole number may be a float: pandas writes these.
    """
    if value is None or value != value:
        return None, ""
    if type(value) is int or (type(value) is float and value.is_integer() and abs(value) < 1 << 53):
        value = str(int(value))
    if not isinstance(value, str):
        return None, f"{part} is neither text nor a whole number"
    return value, find_surrogate_fault(value, part)


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
