# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads parallel text from parquet files and Arrow streams, a few rows at a time."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from xlkd.data.composition import JoinedRows
from xlkd.data.corpus import Corpus, CorpusOrigin, CorruptLine, RawRow, strip_text
from xlkd.data.sources import BadRows, Source, moses
from xlkd.data.sources._arrow_columns import Parts, check_columns, choose_columns, get_fields, is_text
from xlkd.data.sources._arrow_files import Column, iterate_rows, read_schema
from xlkd.errors import UserError
from xlkd.languages import find_tag, is_english, normalise_tag
from xlkd.rows import Pair

_PARTS = ("source", "target")
OPTIONS = ("languages", *moses.OPTIONS, *_PARTS)
_STRUCT = "translation"  # a column with a field for each language


def rows(source: Source, parts: Parts, bad_rows: BadRows) -> Sequence[Pair]:
    """Returns the pairs that cleaning keeps, of the first language with each of the others; read when they are used."""
    if len(parts) > 1:
        raise UserError("pairs cannot be read from several parts of a data set", str(source), "name one of them")
    ((origin, files),) = parts.items()
    columns = _choose_columns(source, files[0])
    languages = source.languages() or tuple(columns)
    if len(languages) < 2 or (not source.languages() and len(languages) > 2):
        remedy = f"set languages=A,B,…, the first with each other; there are {', '.join(sorted(columns))}"
        raise UserError("no language pair given", str(source), remedy)
    if missing := [language for language in languages if language not in columns]:
        remedy = f"there are {', '.join(sorted(columns))}"
        raise UserError(f"no texts in {', '.join(missing)}", str(files[0]), remedy)
    corpora = []
    for other in languages[1:]:
        sides = columns[languages[0]], columns[other]
        corpus_origin = CorpusOrigin(
            set=origin.set,
            name=origin.scope,
            languages=(languages[0], other),
            files=tuple(files),
            read=functools.partial(_iterate_pairs, files, sides),
            selection=" ".join(".".join(side) for side in sides),
            unit="row",
        )
        corpora.append(moses.cap_rows(Corpus(corpus_origin, moses.parse_rules(source), bad_rows), source))
    return corpora[0] if len(corpora) == 1 else JoinedRows(corpora)


def _choose_columns(source: Source, path: pathlib.Path) -> dict[str, Column]:
    """Returns the columns of texts by language, English first.

    They are fields of `translation`, columns that are named by the two languages, or those of source and target.
    """
    schema, is_named = read_schema(path), any(map(source.option, _PARTS))
    fields = get_fields(schema.field(_STRUCT).type) if schema.names.count(_STRUCT) == 1 and not is_named else {}
    if fields:
        columns = {normalise_tag(name, f"{path}: {_STRUCT}"): (_STRUCT, name) for name in fields}
        if len(columns) < len(fields):
            raise UserError(f"two fields of {_STRUCT} are in the same language", str(path), "rename one of them")
        return dict(sorted(columns.items(), key=lambda column: not is_english(column[0])))
    languages = source.languages()
    if len(languages) != 2:
        raise UserError("two languages are needed", str(source), "add languages=en,de: of the source and of the target")
    by_tag = {find_tag(name): name for name in reversed(schema.names)}
    if set(languages) <= set(by_tag) and not is_named:
        return {language: (by_tag[language],) for language in languages}
    columns = choose_columns(source, path, _PARTS, _PARTS)
    return {language: (columns[part],) for language, part in zip(languages, _PARTS, strict=True)}


def _iterate_pairs(files: Sequence[pathlib.Path], sides: tuple[Column, Column]) -> Iterator[RawRow | CorruptLine]:
    """Yields the pairs of all files in order; a missing text is empty."""
    count = 0
    columns = {part: side[0] for part, side in zip(_PARTS, sides, strict=True)}
    is_possible = functools.partial(_has_texts, sides)
    for index, path in enumerate(files):
        check_columns(path, columns, is_possible, "name two columns of text: source=COLUMN and target=COLUMN")
        for number, (_, texts, fault) in enumerate(iterate_rows(path, sides), start=1):
            count += 1
            if fault or any(text and "\0" in text for text in texts):
                yield CorruptLine(index, number, fault or "contains a zero byte")
            else:
                first, second = (strip_text(text or "") for text in texts)
                yield RawRow(count, (first, second))


def _has_texts(sides: Sequence[Column], part: str, kind: pa.DataType) -> bool:
    """Says whether a column is text, or a struct with all fields of text that are read."""
    names = {side[1] for side in sides if len(side) > 1}
    fields = get_fields(kind)
    return all(name in fields and is_text(fields[name]) for name in names) if names else is_text(kind)
