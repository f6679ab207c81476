# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens parquet files and Arrow streams, and yields their rows as plain values, a few at a time.

An Arrow stream is what `save_to_disk` of the package `datasets` writes; that package is not needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from xlkd.data.sources import _files
from xlkd.errors import UserError

_PARQUET, _STREAM = b"PAR1", b"\xff\xff\xff\xff"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_ROWS = 256  # rows that are in memory at once
_BUFFER = 1 << 18  # bytes of each column that are read at once
_LARGEST_INFO = 1 << 24  # bytes of a file of settings
_LONGEST_REASON = 200  # characters of what pyarrow says of a damaged file

Column = tuple[str, ...]  # the name of a column, or also that of a field of it


class RawRow(NamedTuple):
    """A row of a file: its place, its values in the order of the columns, or its fault."""

    where: str
    values: tuple[Any, ...]
    fault: str = ""


def read_schema(path: pathlib.Path) -> pa.Schema:
    """Returns the names and the types of the columns of a file."""
    with _open(path) as reader:
        schema = reader.schema_arrow if isinstance(reader, pq.ParquetFile) else reader.schema
        _list_names(pa.struct(schema))  # decodes them, so that a damaged one is an error of the file
        return schema


def iterate_rows(path: pathlib.Path, columns: Sequence[Column]) -> Iterator[RawRow]:
    """Yields the rows of a file in order with the values of some columns; places count from 1."""
    number = 0
    with _open(path) as reader:
        for batch in _iterate_batches(reader, columns):
            faults: dict[int, str] = {}
            values = [_convert_column(_get_column(batch, column), column[-1], faults) for column in columns]
            for index, row in enumerate(zip(*values, strict=True)):
                number += 1
                yield RawRow(f"{path}: row {number}", row, faults.get(index, ""))


def _list_names(kind: pa.DataType) -> list[str]:
    """Returns the names of the fields of a type, and those of their types."""
    if pa.types.is_struct(kind):
        return [name for field in kind for name in (field.name, *_list_names(field.type))]
    return _list_names(kind.value_type) if hasattr(kind, "value_type") else []


def read_label_names(path: pathlib.Path, schema: pa.Schema, column: str) -> tuple[str, ...]:
    """Returns the names of the labels 0, 1, … of a column of class labels; none where the column is no such one.

    They are in the schema's own metadata, or in the file `dataset_info.json` of a folder that `save_to_disk` wrote.
    """
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is not None:
        info = _parse_json(stored, path)
        features = _get(_get(info, "info"), "features")
    else:
        beside = path.with_name("dataset_info.json")
        features = _get(read_json(beside), "features") if beside.is_file() else None
    feature = _get(features, column)
    names = _get(feature, "names") if _get(feature, "_type") == "ClassLabel" else None
    if not isinstance(names, list):
        return ()
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"the labels of column {column!r} have names that are not text", str(path), "write it again")
    return tuple(names)


def read_json(path: pathlib.Path) -> Any:
    """Returns the value of a JSON file of settings."""
    with _files.open_text(path) as file:
        data = file.read(_LARGEST_INFO + 1)
    if len(data) > _LARGEST_INFO:
        raise UserError(f"more than {_LARGEST_INFO:,} bytes", str(path), "write it again")
    return _parse_json(data, path)


def _parse_json(data: bytes, path: pathlib.Path) -> Any:
    """Parses JSON of settings."""
    try:
        return json.loads(data)
    except RecursionError:
        raise UserError("broken JSON: nested too deeply", str(path), "fetch or write the file again") from None
    except ValueError as error:
        raise UserError(f"broken JSON: {error}", str(path), "fetch or write the file again") from None


def _get(value: Any, key: str) -> Any:
    """Returns the value of a key of an object; None where it is none or lacks the key."""
    return value.get(key) if isinstance(value, dict) else None


@contextlib.contextmanager
def _open(path: pathlib.Path) -> Generator[pq.ParquetFile | pa.RecordBatchStreamReader]:
    """Opens a file by its first bytes; an error of pyarrow, now or while it is read, becomes one line."""
    is_parquet = _find_form(path) == _PARQUET
    try:
        if is_parquet:
            # Otherwise all columns of the file would be read ahead, and stay in memory
            with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as reader:
                yield reader
        else:
            with pa.OSFile(str(path)) as data, pa.ipc.open_stream(data) as reader:
                yield reader
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise UserError(f"damaged: {reason}", str(path), "fetch or write the file again") from None


def _find_form(path: pathlib.Path) -> bytes:
    """Returns the bytes with which a file of either form begins; refuses any other file, and one that is cut off."""
    _files.check_regular(path)
    with path.open("rb") as file:
        head = file.read(len(_PARQUET))
        file.seek(-min(len(_END_OF_STREAM), path.stat().st_size), os.SEEK_END)
        end = file.read()
    if not head:
        raise UserError("an empty file", str(path), "fetch or write the file again")
    if head not in (_PARQUET, _STREAM):
        raise UserError("neither a parquet file nor an Arrow stream", str(path), "check the path")
    if not end.endswith(_PARQUET if head == _PARQUET else _END_OF_STREAM):
        raise UserError("cut off: the end of the file is missing", str(path), "fetch or write the file again")
    return head


def _iterate_batches(
    reader: pq.ParquetFile | pa.RecordBatchStreamReader, columns: Sequence[Column]
) -> Iterator[pa.RecordBatch]:
    """Yields batches of a few rows."""
    if isinstance(reader, pq.ParquetFile):
        yield from reader.iter_batches(_ROWS, columns=[".".join(column) for column in columns], use_threads=False)
        return
    for batch in reader:
        batch.validate(full=True)  # unlike those of parquet, nothing has checked these bytes
        for start in range(0, len(batch), _ROWS):
            yield batch.slice(start, _ROWS)


def _get_column(batch: pa.RecordBatch, column: Column) -> pa.Array:
    """Returns a column, or a field of it, which is missing where the struct is."""
    values = batch.column(column[0])
    for name in column[1:]:
        values = values.flatten()[values.type.get_field_index(name)]
    return values


def _convert_column(column: pa.Array, name: str, faults: dict[int, str]) -> list[Any]:
    """Returns the values of a column; a text that is not UTF-8 becomes None and a fault of its row."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        pass
    values: list[Any] = []
    for index, cell in enumerate(column):
        try:
            values.append(cell.as_py())
        except UnicodeDecodeError as error:
            values.append(None)
            faults.setdefault(index, f"{name} is not UTF-8 at byte {error.start}")
    return values
