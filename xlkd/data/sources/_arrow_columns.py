# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the columns of parquet files and Arrow streams by options and usual names, and checks their types."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from xlkd.data.sources import Source, _generic
from xlkd.data.sources._arrow_files import read_schema
from xlkd.errors import UserError
from xlkd.languages import normalise_tag

# Names that are not those of tables: of MASSIVE, SIB-200 and SQuAD
_OTHER_NAMES = {
    "text": ("utt",),
    "label": ("intent", "category"),
    "language": ("locale",),
    "id": ("index_id",),
    **{part: (part,) for part in ("question", "context", "answers", "answer_text", "answer_start")},
}
_LONGEST_TYPE = 80


@dataclasses.dataclass(frozen=True)
class Origin:
    """Identifies the data set of files and the languages of its texts, alike on every machine."""

    set: str  # the name of the data set in keys, groups and badges
    scope: str  # what tells its rows apart from those of other files of the set, as a file's name or a config
    split: str = ""
    language: str = ""  # of its texts where nothing else says it, by the name of the config or the file
    question_language: str = ""  # of its questions where that is not the language of the contexts


Parts = Mapping[Origin, Sequence[pathlib.Path]]  # the files of a split in order, or of a split in each language


def choose_columns(source: Source, path: pathlib.Path, parts: Sequence[str], needed: Sequence[str]) -> dict[str, str]:
    """Returns the column of each part that an option names, or whose usual name the file has."""
    schema = read_schema(path)
    folded = {name.strip().casefold(): name for name in reversed(schema.names)}
    columns = {}
    for part in parts:
        usual = (*_generic.USUAL_NAMES.get(part, ()), *_OTHER_NAMES.get(part, ()))
        if name := source.option(part) or next((folded[name] for name in usual if name in folded), ""):
            find_type(path, schema, name)
            columns[part] = name
    if missing := [part for part in needed if part not in columns]:
        remedy = f"name it: {missing[0]}=COLUMN; {_list_columns(schema)}"
        raise UserError(f"no column is known to be the {missing[0]}", str(path), remedy)
    return columns


def check_columns(
    path: pathlib.Path, columns: Mapping[str, str], is_possible: Callable[[str, pa.DataType], bool], remedy: str = ""
) -> pa.Schema:
    """Returns the schema of a file after checking that it has the columns of all parts with possible types."""
    schema = read_schema(path)
    for part, name in columns.items():
        kind = find_type(path, schema, name)
        if not is_possible(part, kind):
            text = str(kind)
            text = text if len(text) <= _LONGEST_TYPE else f"{text[:_LONGEST_TYPE]}…"
            what = f"column {name} cannot be the {part}: its type is {text}"
            raise UserError(what, str(path), remedy or f"name another column: {part}=COLUMN")
    return schema


def find_type(path: pathlib.Path, schema: pa.Schema, name: str) -> pa.DataType:
    """Returns the type of a column; refuses a name that no column has, or that several have."""
    if count := schema.names.count(name):
        if count > 1:
            raise UserError(f"two columns {name!r}", str(path), "rename one of them")
        return schema.field(name).type
    raise UserError(f"no column named {name}", str(path), _list_columns(schema))


def _list_columns(schema: pa.Schema) -> str:
    """Returns the names of the columns, for the end of a message."""
    return f"there are: {', '.join(name[:40] for name in schema.names)}"


def resolve_language(source: Source, origin: Origin) -> str:
    """Returns the language of files without a column of languages."""
    languages = source.languages()
    if len(languages) == 1 and not origin.question_language:
        return languages[0]
    if not origin.language:
        raise UserError("no column says the language", str(source), "add languages=de, or language=COLUMN")
    language = normalise_tag(origin.language, str(source))
    if languages and language not in languages:
        raise UserError(f"no texts in {', '.join(languages)}", str(source), f"there are {language}")
    return language


def is_text(kind: pa.DataType) -> bool:
    """Says whether the values of a type are text, or all missing."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return is_string or pa.types.is_null(kind)


def is_text_or_number(kind: pa.DataType) -> bool:
    """Says whether the values of a type are text or numbers, which may be whole ones."""
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def is_list(kind: pa.DataType) -> bool:
    """Says whether the values of a type are lists."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def get_fields(kind: pa.DataType) -> dict[str, pa.DataType]:
    """Returns the types of the fields of a struct; of any other type none."""
    return {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
