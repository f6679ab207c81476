# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads one table of any origin: labelled texts or sentence pairs, by the names or the numbers of their columns.

Options name the columns: of labelled texts `text`, `second`, `label`, `language`, `id`, `group`; of pairs `source`,
`target`, `id`, `group`. Without them the header is searched for usual names. Numbers count from 0 and mean that there
is no header. Without a column of languages, `languages=de` gives the language of the texts, and `languages=en,de` those
of the two sides of pairs.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from xlkd.data.sources import BadRows, Source, _labelled, _table, is_whole
from xlkd.data.sources.squad import find_text_fault
from xlkd.errors import UserError
from xlkd.rows import Labelled, Pair, make_key

TASKS = ("classify", "parallel")

USUAL_NAMES = {
    "text": ("text", "sentence", "premise", "sentence1", "text_a"),
    "second": ("text2", "hypothesis", "hypo", "sentence2", "text_b"),
    "label": ("label", "gold_label"),
    "language": ("lang", "language"),
    "id": ("id",),
    "source": ("source", "src"),
    "target": ("target", "tgt"),
}
_CLASSIFY = ("text", "second", "label", "language", "id", "group")
_PARALLEL = ("source", "target", "id", "group")
OPTIONS = {"classify": (*_labelled.OPTIONS, *_CLASSIFY), "parallel": ("languages", "limit", *_PARALLEL)}
QUOTED_OPTIONS = {task: (*names, "quoting") for task, names in OPTIONS.items()}


def rows(source: Source, task: str, bad_rows: BadRows, form: str) -> tuple[Labelled, ...] | tuple[Pair, ...]:
    """Returns the rows of a file; their set is named after the file."""
    path = source.locate()
    if task == "parallel":
        return tuple(source.first(_read_pairs(source, path, form, bad_rows)))
    return _read_labelled(source, path, form, bad_rows)


def _read_labelled(source: Source, path: pathlib.Path, form: str, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns labelled texts; `languages` selects from a column of languages, or names the only language."""
    columns = _choose_columns(source, path, form, _CLASSIFY, ("text",))
    languages = source.languages()
    if "language" not in columns.needed and len(languages) != 1:
        raise UserError("no column says the language", str(source), "add languages=de, or language=COLUMN")
    language = "" if "language" in columns.needed else languages[0]
    kind = _labelled.Kind(path.stem, group="id" if "id" in columns.needed else "text", parallel=False)
    file = _labelled.make_table_file(path, form, [columns], path.stem, language)
    return _labelled.rows(source, kind, [file], bad_rows)


def _read_pairs(source: Source, path: pathlib.Path, form: str, bad_rows: BadRows) -> Iterator[Pair]:
    """Yields sentence pairs of the two languages of the option `languages`."""
    if len(source.languages()) != 2:
        raise UserError("two languages are needed", str(source), "add languages=en,de: of the source and of the target")
    source_language, target_language = source.languages()
    columns = _choose_columns(source, path, form, _PARALLEL, ("source", "target"))
    for number, where, values in _table.read(path, form, [columns], bad_rows):
        source_text, target_text, own_id = values["source"], values["target"], values.get("id", "")
        if fault := find_text_fault(source_text, "source") or find_text_fault(target_text, "target"):
            bad_rows.report(fault, where)
            continue
        id = own_id or f"{path.name}:{number}"
        yield Pair(
            id=id,
            key=make_key(path.stem, number, own_id, source_language, source_text, target_language, target_text),
            group=f"{path.stem}/{values.get('group') or id}",
            set=path.stem,
            source=source_text,
            target=target_text,
            source_language=source_language,
            target_language=target_language,
        )


def _choose_columns(
    source: Source, path: pathlib.Path, form: str, parts: tuple[str, ...], needed: tuple[str, ...]
) -> _table.Columns:
    """Returns the column of each part that an option names, or whose usual name the file has."""
    given_names = {part: source.option(part) for part in parts if source.option(part)}
    numbers = [form != _table.JSONL and is_whole(name) for name in given_names.values()]
    if any(numbers) and not all(numbers):
        raise UserError(
            "columns are named both by name and by number",
            str(source),
            "use one of them; numbers mean that the file has no header",
        )
    columns: dict[str, _table.Column]
    if any(numbers):
        columns = {part: int(name) for part, name in given_names.items()}
    else:
        present = _table.read_column_names(path, form)
        usual = {part: tuple(name for name in USUAL_NAMES.get(part, ()) if name in present)[:1] for part in parts}
        columns = {part: (given_names[part],) if part in given_names else usual[part] for part in parts}
        columns = {part: column for part, column in columns.items() if column}
    if missing := [part for part in needed if part not in columns]:
        remedy = f"name it: {missing[0]}=COLUMN, or {missing[0]}=0 where there is no header"
        raise UserError(f"no column is known to be the {missing[0]}", str(path), remedy)
    # JSON objects may lack a label
    optional = {"label": columns.pop("label")} if form == _table.JSONL and "label" in columns else {}
    return _table.Columns(columns, optional)
