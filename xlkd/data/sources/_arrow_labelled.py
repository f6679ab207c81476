# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads labelled texts from parquet files and Arrow streams, also with all languages in a row, as XNLI has them."""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from xlkd.data.sources import BadRows, Source, _labelled, _layout, _table, nusax, pawsx, xnli
from xlkd.data.sources._arrow_columns import (
    Origin,
    Parts,
    check_columns,
    choose_columns,
    find_type,
    get_fields,
    is_list,
    is_text,
    is_text_or_number,
    resolve_language,
)
from xlkd.data.sources._arrow_files import iterate_rows, read_label_names, read_schema
from xlkd.errors import UserError
from xlkd.rows import Labelled

_PARTS = ("text", "second", "label", "language", "id", "group")
OPTIONS = (*_labelled.OPTIONS, *_PARTS, "ns")

_KINDS = {kind.set: kind for kind in (xnli.KIND, pawsx.KIND, nusax.KIND)}
_PAWSX_COLUMNS = {"id", "sentence1", "sentence2", "label"}
_TRANSLATIONS = ("language", "translation")  # fields of lists, where a struct has no field for each language
_SPLIT = "partition"  # a column of MASSIVE
_NO_LABEL = -1  # of class labels


def rows(source: Source, parts: Parts, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns labelled texts, language after language; those of a known data set with its labels and groups."""
    kinds, files = zip(*(_describe_part(source, paths, origin) for origin, paths in parts.items()), strict=True)
    return _labelled.rows(source, kinds[0], files, bad_rows)


def _describe_part(
    source: Source, files: Sequence[pathlib.Path], origin: Origin
) -> tuple[_labelled.Kind, _labelled.File]:
    """Returns the properties of a part, and its files as one."""
    schema = read_schema(files[0])
    columns = choose_columns(source, files[0], _PARTS, ("text",))
    is_parallel = bool(get_fields(find_type(files[0], schema, columns["text"])))
    if is_parallel:
        columns.pop("language", None)
    if _SPLIT in schema.names and "utt" in schema.names:
        columns[_SPLIT] = _SPLIT
    language = "" if is_parallel or "language" in columns else resolve_language(source, origin)
    kind = _choose_kind(source, origin, columns, schema.names, is_parallel)
    split = origin.split if origin.set in _KINDS and origin.split else origin.scope
    chosen = _layout.normalise_split(source.option("split"))
    read = functools.partial(_iterate_records, files, columns, is_parallel, chosen)
    return kind, _labelled.File(files[0], origin.scope, read, split, language)


def _choose_kind(
    source: Source, origin: Origin, columns: Mapping[str, str], names: Sequence[str], is_parallel: bool
) -> _labelled.Kind:
    """Returns the properties of a known data set, else those that the columns say."""
    group = "first" if is_parallel else "id" if "id" in columns else "text"
    kind = _KINDS.get(origin.set, _labelled.Kind(origin.set, group=group, parallel=is_parallel))
    if origin.set == pawsx.KIND.set or set(names) == _PAWSX_COLUMNS:
        return pawsx.leave_out_untranslated(kind) if source.choice("ns", ("drop", "keep")) == "drop" else kind
    if source.option("ns"):
        raise UserError("ns= is possible for PAWS-X alone", str(source), "leave it out")
    return kind


def _iterate_records(
    files: Sequence[pathlib.Path], columns: Mapping[str, str], is_parallel: bool, split: str, bad_rows: BadRows
) -> Iterator[_table.Record]:
    """Yields the rows whose cells are sound; a row with texts in several languages is a record in each."""
    number = itertools.count()
    rows = itertools.chain.from_iterable(_iterate_cells(path, columns) for path in files)
    for where, cells, fault in _select_split(rows, split):
        at = next(number)
        for place, own in _separate_languages(where, cells) if is_parallel else [(where, cells)]:
            formatted = {part: _table.format_cell(cell, part) for part, cell in own.items()}
            if reason := fault or next((fault for _, fault in formatted.values() if fault), ""):
                bad_rows.report(reason, place)
            else:
                yield _table.Record(at, place, {part: text or "" for part, (text, _) in formatted.items()})


def _iterate_cells(path: pathlib.Path, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yields place, cells by part, and fault of the rows of a file; class labels by their names."""
    schema = check_columns(path, columns, _is_possible)
    names = read_label_names(path, schema, columns["label"]) if "label" in columns else ()
    for where, values, fault in iterate_rows(path, [(name,) for name in columns.values()]):
        cells = dict(zip(columns, values, strict=True))
        if names and isinstance(label := cells["label"], int):
            fault = fault or _find_label_fault(label, names)
            cells["label"] = names[label] if 0 <= label < len(names) else None
        yield where, cells, fault


def _find_label_fault(label: int, names: Sequence[str]) -> str:
    """Returns the fault of a class label, or an empty string."""
    return "" if _NO_LABEL <= label < len(names) else f"label {label} has no name (there are {len(names)})"


def _select_split(
    rows: Iterator[tuple[str, dict[str, Any], str]], split: str
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yields the rows of a split where a column says theirs; without a split all rows must be of the same."""
    common = split
    for where, cells, fault in rows:
        own = _layout.normalise_split(str(cells.pop(_SPLIT, common)))
        common = common or own
        if own == common:
            yield where, cells, fault
        elif not split:
            raise UserError(f"rows of several splits: {common}, {own}", where, f"choose one: split={common}")


def _separate_languages(where: str, cells: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields place and cells of a row in each of its languages."""
    sides = {part: _get_translations(cells[part]) for part in ("text", "second") if part in cells}
    if not sides["text"]:
        yield where, {**cells, **dict.fromkeys(sides), "language": None}
    for tag in sides["text"]:
        texts = {part: translations.get(tag) for part, translations in sides.items()}
        yield f"{where} in {tag}", {**cells, **texts, "language": tag}


def _get_translations(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the texts of a struct by language."""
    if value is None or set(value) != set(_TRANSLATIONS):
        return dict(value or {})
    return dict(itertools.zip_longest(*(value[field] or () for field in _TRANSLATIONS)))


def _is_possible(part: str, kind: pa.DataType) -> bool:
    """Says whether a column can be a part of a labelled text."""
    if part not in ("text", "second") or not (fields := get_fields(kind)):
        return is_text_or_number(kind)
    is_listed = set(fields) == set(_TRANSLATIONS) and all(map(is_list, fields.values()))
    return all(is_text(field.value_type if is_listed else field) for field in fields.values())
