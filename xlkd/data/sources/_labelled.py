# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared code of the sources of labelled texts: finds the files of a layout, and makes rows of their records.

Options of all: `languages`, `limit` (rows per language), `rows=common` (only rows that are sound in every language),
`part=1/2` (the rows of some groups: parts share no premise, and are the same rows in every language).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from xlkd.data.sources import BadRows, Source, _files, _folders, _table
from xlkd.data.sources.squad import find_text_fault, hash_text
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.rows import Labelled, make_key

OPTIONS = ("languages", "limit", "rows", "part")
LABEL_PARTS = ("label", "from_0")  # parts that can be a label
MISSING = ("", "nan")  # label cells that mean no label
QUOTING = {"none": _table.TSV, "csv": _table.QUOTED}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout of files: `pattern` matches the path below the folder and names `language`, `split`, or neither."""

    pattern: str
    form: str
    columns: tuple[_table.Columns, ...]
    split: str = ""


class File(NamedTuple):
    """A file of a split, or several that are read as one, and the function that reads it."""

    path: pathlib.Path  # of several the first
    name: str  # in ids of rows that have none
    read: Callable[[BadRows], Iterator[_table.Record]]
    split: str
    language: str  # empty where a column gives it


def make_table_file(
    path: pathlib.Path, form: str, columns: Sequence[_table.Columns], split: str, language: str
) -> File:
    """Returns a file that is a table."""
    return File(path, path.name, functools.partial(_table.read, path, form, columns), split, language)


def get_label(values: _table.Values) -> str | None:
    """Returns the label of a row as it stands in the file; None where there is none."""
    return values.get("label")


def drop_missing_label(values: _table.Values) -> _table.Values:
    """Returns the values without a label cell that is empty or NaN, since such a row has no label."""
    return {
        part: cell for part, cell in values.items() if part not in LABEL_PARTS or cell.strip().casefold() not in MISSING
    }


def get_texts(values: _table.Values) -> tuple[str, ...]:
    """Returns the text of a row, and its second text where it has one."""
    return tuple(values[part] for part in ("text", "second") if part in values)


@dataclasses.dataclass(frozen=True)
class Kind:
    """The properties of a data set in all its layouts."""

    set: str
    labels: tuple[str, ...] = ()  # all labels, in lower case; empty where any name is allowed
    spellings: Mapping[str, str] = dataclasses.field(default_factory=dict)  # other names that its files use
    group: str = "text"  # rows of a group have in common: `first` (their first text in English), `id`, or `text`
    parallel: bool = True  # rows with the same number or id are translations of each other
    label: Callable[[_table.Values], str | None] = get_label
    texts: Callable[[_table.Values], tuple[str, ...]] = get_texts
    leave_reason: Callable[[Sequence[str]], str] = lambda texts: ""  # why a sound row is left out

    def read_label(self, values: _table.Values) -> str | None:
        """Returns the label of a row; only where all labels are known is another case or spelling of them replaced."""
        label = self.label(values)
        if label is None or not self.labels:
            return label
        folded = label.strip().casefold()
        return self.spellings.get(folded, folded)


def find_files(
    source: Source,
    families: Sequence[Sequence[Layout]],
    splits: Mapping[str, Sequence[str]],
    expected: str,
    bad_rows: BadRows,
) -> list[File]:
    """Returns the files of the option `split`, of the first family of layouts that has any.

    `splits` maps our name of a split to all names that files use. Files that are not of that family are noted.
    """
    root = source.locate()
    if not source.path or not root.exists():
        raise UserError("no such file or folder", str(root) if source.path else str(source), "check the path")
    split = "" if root.is_file() and not source.option("split") else source.choice("split", tuple(splits))
    our_names = {theirs: name for name, names in splits.items() for theirs in names}
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*.*") if path.is_file())
    splits_found = set()
    for family in families:
        files = [file for path in paths for layout in family if (file := _match(path, root, layout, our_names, source))]
        splits_found |= {file.split for file in files}
        if wanted := [file for file in files if split in ("", file.split)]:
            if root.is_dir():
                bad_rows.note_unread(root, _files.list_unread(root, {file.path for file in files}))
            return _check_unique_languages(wanted)
    remedy = f"there is split={', '.join(sorted(splits_found))}" if splits_found else "check the path"
    raise UserError(
        f"no file named {expected}" + (f" for split={split}" if split and splits_found else ""), str(root), remedy
    )


def _match(
    path: pathlib.Path, root: pathlib.Path, layout: Layout, our_names: Mapping[str, str], source: Source
) -> File | None:
    """Returns the file where it matches the layout below the folder; the folder's own name may be part of it."""
    base = root.parent if root.is_file() else root
    below = path.relative_to(base).as_posix()
    match = re.fullmatch(layout.pattern, below) or re.fullmatch(layout.pattern, f"{base.resolve().name}/{below}")
    if not match:
        return None
    groups = match.groupdict()
    language = normalise_tag(groups["language"], str(path)) if groups.get("language") else ""
    form = QUOTING[source.choice("quoting", tuple(QUOTING))] if source.option("quoting") else layout.form
    return make_table_file(path, form, layout.columns, layout.split or our_names[groups["split"]], language)


def _check_unique_languages(files: list[File]) -> list[File]:
    """Refuses two files of the same language."""
    seen: dict[str, pathlib.Path] = {}
    for file in files:
        if file.language in seen:
            what = f"the same split and language as {seen[file.language]}"
            raise UserError(what, str(file.path), "name one of the two, or keep one")
        seen[file.language] = file.path
    return files


class Record(NamedTuple):
    """A sound row of a file before it becomes an example."""

    number: int  # within its language, bad rows counted
    where: str
    id: str
    texts: tuple[str, ...]
    label: str | None
    group: str

    @property
    def alignment_id(self) -> str:
        """Identifies the row across languages: its id, else its number."""
        return self.id or str(self.number)


def rows(source: Source, kind: Kind, files: Sequence[File], bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns the examples of all files that the options `rows`, `part` and `limit` select, language after language."""
    records = _group_by_language(source, kind, files, bad_rows)
    if source.choice("rows", ("own", "common")) == "common":
        records = _keep_common(records, bad_rows)
    reference = _read_reference_texts(kind, files, next(iter(records), ""))
    part, parts = _parse_part(source)
    examples = []
    for language, own in records.items():
        candidates = (_make_row(record, kind, files[0], language, reference) for record in own)
        members = (row for row in candidates if int(make_key("part", row.group), 16) % parts == part)
        examples += source.first(members)
    return tuple(examples)


def _group_by_language(
    source: Source, kind: Kind, files: Sequence[File], bad_rows: BadRows
) -> dict[str, Iterable[Record]]:
    """Returns the rows of each language of the option `languages`, without bad rows and rows left out."""
    if files[0].language:
        file_of = {file.language: file for file in files}
        return {
            language: (record for _, record in _iterate_sound(file_of[language], kind, bad_rows))
            for language in _folders.choose_languages(source, set(file_of))
        }
    records = collections.defaultdict(list)
    for file in files:
        for language, record in _iterate_sound(file, kind, bad_rows, source.languages()):
            records[language].append(record)
    return (
        {language: records[language] for language in _folders.choose_languages(source, set(records))} if records else {}
    )


def _iterate_sound(
    file: File, kind: Kind, bad_rows: BadRows, languages: Sequence[str] = ()
) -> Iterator[tuple[str, Record]]:
    """Yields language and record of the rows of a file that are neither bad nor left out."""
    numbers: collections.Counter[str] = collections.Counter()
    seen: set[tuple[str, str]] = set()
    for at, where, cells in file.read(bad_rows):
        values = drop_missing_label(cells)
        try:
            language = file.language or normalise_tag(values["language"], where)
        except UserError as error:
            bad_rows.report(error.what, where)
            continue
        if languages and language not in languages:
            continue
        number = at if file.language else numbers[language]
        numbers[language] += 1
        texts = kind.texts(values)
        if reason := kind.leave_reason(texts):
            bad_rows.leave_out(reason, where)
        elif reason := find_fault(kind, kind.read_label(values), texts) or _find_id_fault(values, language, seen):
            bad_rows.report(reason, where)
        else:
            id, group = values.get("id", ""), values.get("group", "")
            yield language, Record(number, where, id, texts, kind.read_label(values), group)


def find_fault(kind: Kind, label: str | None, texts: Sequence[str]) -> str:
    """Returns the fault of the texts or the label of a row, or an empty string."""
    for text, name in zip(texts, ("text", "second text"), strict=False):
        if text_error := find_text_fault(text, name):
            return text_error
    if label is not None and kind.labels and label not in kind.labels:
        return f"unknown label {label!r} (known: {', '.join(kind.labels)})"
    return "" if label is None else find_text_fault(label, "label")


def _find_id_fault(values: _table.Values, language: str, seen: set[tuple[str, str]]) -> str:
    """Returns the fault of a row's id, or an empty string."""
    if "id" not in values:
        return ""
    if not values["id"]:
        return "no id"
    repeated = (language, values["id"]) in seen
    seen.add((language, values["id"]))
    return f"duplicate id {values['id']!r}" if repeated else ""


def _keep_common(records: Mapping[str, Iterable[Record]], bad_rows: BadRows) -> dict[str, Iterable[Record]]:
    """Keeps the rows that exist in every language."""
    lists = {language: list(own) for language, own in records.items()}
    common = set.intersection(*({record.alignment_id for record in own} for own in lists.values())) if lists else set()
    for record in itertools.chain.from_iterable(lists.values()):
        if record.alignment_id not in common:
            bad_rows.leave_out("missing in some language", record.where)
    return {language: [record for record in own if record.alignment_id in common] for language, own in lists.items()}


def _read_reference_texts(kind: Kind, files: Sequence[File], first: str) -> dict[str, str]:
    """Returns the first text of each row, in English where there is any, else in the first language."""
    if kind.group != "first":
        return {}
    file_of = {file.language: file for file in files}
    for language in dict.fromkeys(("en", first)):
        sources = [file_of[language]] if language in file_of else [] if files[0].language else files
        records = [record for file in sources for _, record in _iterate_sound(file, kind, BadRows("skip"), (language,))]
        if records:
            return {record.alignment_id: record.texts[0] for record in records}
    return {}


def _make_row(record: Record, kind: Kind, file: File, language: str, reference: Mapping[str, str]) -> Labelled:
    """Returns the example of a record, with its id and group."""
    default_id = f"{file.split}:{language}:{record.number}" if kind.parallel else f"{file.name}:{record.number}"
    shared_group = (
        record.alignment_id if kind.group == "id" else hash_text(reference.get(record.alignment_id, record.texts[0]))
    )
    return make_example(
        kind,
        record,
        id=record.id or default_id,
        split=file.split,
        language=language,
        group=record.group or shared_group,
    )


def make_example(kind: Kind, record: Record, *, id: str, split: str, language: str, group: str) -> Labelled:
    """Returns the example of a record."""
    text, second = (*record.texts, None)[:2]
    return Labelled(
        id=id,
        key=make_key(kind.set, split, language, record.number, record.id, record.label, *record.texts),
        group=f"{kind.set}/{group}",
        set=kind.set,
        text=text,
        second=second,
        label=record.label,
        language=language,
    )


def _parse_part(source: Source) -> tuple[int, int]:
    """Returns the option `part`: its number, from 0, and the number of parts."""
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", source.option("part", "1/1"))
    if not match or int(match[1]) > int(match[2]):
        raise UserError(f"part={source.option('part')} is not possible", str(source), "write part=1/2 and part=2/2")
    return int(match[1]) - 1, int(match[2])
