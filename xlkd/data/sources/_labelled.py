# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What the sources of labelled texts share: finding the files of a layout, and making rows of their records.

Options of all: `languages`, `limit` (rows of each language), `rows=common` (only rows that are sound in every
language), `part=1/2` (the rows of some groups: parts share no premise, and are the same rows in every language).
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from xlkd.data import labels
from xlkd.data.sources import Bad, Spec, _folders, _table
from xlkd.data.sources.squad import text_fault, text_name
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.rows import Labelled, make_key

OPTIONS = ("languages", "limit", "rows", "part")
LABEL_PARTS = ("label", "from_0")  # of a row's values
MISSING = ("", "nan")  # a label cell that says this says nothing: writers of tables differ in how they leave one out
QUOTING = {"none": _table.TSV, "csv": _table.QUOTED}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A way in which files lie: `pattern` is of the path below the folder and names `language`, `split`, or neither."""

    pattern: str
    form: str
    columns: tuple[_table.Columns, ...]
    split: str = ""


class File(NamedTuple):
    path: pathlib.Path
    form: str
    columns: Sequence[_table.Columns]
    split: str
    language: str  # empty where a column says it


def label_of(values: _table.Values) -> str | None:
    """Returns the label of a row; None where there is none."""
    given = values.get("label")
    return None if given is None else labels.normalise_label(given)


def drop_missing_label(values: _table.Values) -> _table.Values:
    """Returns the values without a label cell that is empty or NaN: such a row is one without a label."""
    return {
        part: cell for part, cell in values.items() if part not in LABEL_PARTS or cell.strip().casefold() not in MISSING
    }


def texts_of(values: _table.Values) -> tuple[str, ...]:
    """One text, or two."""
    return tuple(values[part] for part in ("text", "second") if part in values)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is true of a data set in all its layouts."""

    set: str
    labels: tuple[str, ...] = ()  # all there are; empty where any name is one
    group: str = "text"  # what a group shares: `first` the first text in English, `id`, or its own `text`
    parallel: bool = True  # rows of one number or id are translations of each other
    label: Callable[[_table.Values], str | None] = label_of
    texts: Callable[[_table.Values], tuple[str, ...]] = texts_of
    leave: Callable[[Sequence[str]], str] = lambda texts: ""  # why a sound row is left out


def find(
    spec: Spec, families: Sequence[Sequence[Layout]], splits: Mapping[str, Sequence[str]], expected: str
) -> list[File]:
    """The files of the split asked for, of the first family that has any; `splits` are by our name all their names."""
    root = pathlib.Path(spec.path).expanduser()
    if not spec.path or not root.exists():
        raise UserError("no such file or folder", str(root) if spec.path else str(spec), "look at the path")
    asked = "" if root.is_file() and not spec.option("split") else spec.choice("split", tuple(splits))
    ours = {theirs: name for name, names in splits.items() for theirs in names}
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*.*") if path.is_file())
    seen = set()
    for family in families:
        found = [file for path in paths for layout in family if (file := _matched(path, root, layout, ours, spec))]
        seen |= {file.split for file in found}
        if wanted := [file for file in found if asked in ("", file.split)]:
            return _once(wanted)
    there = f"there is split={', '.join(sorted(seen))}" if seen else "look at the path"
    raise UserError(f"no file named {expected}" + (f" for split={asked}" if asked and seen else ""), str(root), there)


def _matched(path: pathlib.Path, root: pathlib.Path, layout: Layout, ours: Mapping[str, str], spec: Spec):
    """A file that lies in the layout below the folder; the folder's own name may be part of it."""
    base = root.parent if root.is_file() else root
    below = path.relative_to(base).as_posix()
    match = re.fullmatch(layout.pattern, below) or re.fullmatch(layout.pattern, f"{base.resolve().name}/{below}")
    if not match:
        return None
    named = match.groupdict()
    language = normalise_tag(named["language"], str(path)) if named.get("language") else ""
    form = QUOTING[spec.choice("quoting", tuple(QUOTING))] if spec.option("quoting") else layout.form
    return File(path, form, layout.columns, layout.split or ours[named["split"]], language)


def _once(files: list[File]) -> list[File]:
    seen: dict[str, pathlib.Path] = {}
    for file in files:
        if file.language in seen:
            both = f"the same split and language as {seen[file.language]}"
            raise UserError(both, str(file.path), "name one of the two, or keep one")
        seen[file.language] = file.path
    return files


class Found(NamedTuple):
    number: int  # in its language, bad ones counted
    where: str
    id: str
    texts: tuple[str, ...]
    label: str | None
    group: str

    @property
    def aligned(self) -> str:
        return self.id or str(self.number)


def rows(spec: Spec, kind: Kind, files: Sequence[File], bad: Bad) -> tuple[Labelled, ...]:
    """The rows of all files, language after language."""
    found = _by_language(spec, kind, files, bad)
    if spec.choice("rows", ("own", "common")) == "common":
        found = _common(found, bad)
    reference = _reference(kind, files, next(iter(found), ""))
    part, parts = _part(spec)
    made = []
    for language, those in found.items():
        of = (_row(one, kind, files[0], language, reference) for one in those)
        mine = (row for row in of if int(make_key("part", row.group), 16) % parts == part)
        made += spec.first(mine)
    return tuple(made)


def _by_language(spec: Spec, kind: Kind, files: Sequence[File], bad: Bad) -> dict[str, Iterable[Found]]:
    """The sound rows of each language asked for."""
    if files[0].language:
        of = {file.language: file for file in files}
        return {one: (found for _, found in _sound(of[one], kind, bad)) for one in _folders.choose(spec, set(of))}
    held = collections.defaultdict(list)
    for file in files:
        for language, found in _sound(file, kind, bad, spec.languages()):
            held[language].append(found)
    return {language: held[language] for language in _folders.choose(spec, set(held))} if held else {}


def _sound(file: File, kind: Kind, bad: Bad, asked: Sequence[str] = ()) -> Iterator[tuple[str, Found]]:
    """The rows of a file that are neither bad nor left out, with their languages."""
    numbers: collections.Counter[str] = collections.Counter()
    seen: set[tuple[str, str]] = set()
    for at, where, cells in _table.read(file.path, file.form, file.columns, bad):
        values = drop_missing_label(cells)
        try:
            language = file.language or normalise_tag(values["language"], where)
        except UserError as error:
            bad(error.what, where)
            continue
        if asked and language not in asked:
            continue
        number = at if file.language else numbers[language]
        numbers[language] += 1
        texts = kind.texts(values)
        if reason := kind.leave(texts):
            bad.leave_out(reason, where)
        elif reason := fault(kind, kind.label(values), texts) or _id_fault(values, language, seen):
            bad(reason, where)
        else:
            id, group = values.get("id", ""), values.get("group", "")
            yield language, Found(number, where, id, texts, kind.label(values), group)


def fault(kind: Kind, label: str | None, texts: Sequence[str]) -> str:
    """What is wrong with the texts or the label of a row, or nothing."""
    for text, name in zip(texts, ("text", "second text"), strict=False):
        if found := text_fault(text, name):
            return found
    if label is not None and kind.labels and label not in kind.labels:
        return f"unknown label {label!r} (known: {', '.join(kind.labels)})"
    return ""


def _id_fault(values: _table.Values, language: str, seen: set[tuple[str, str]]) -> str:
    if "id" not in values:
        return ""
    if not values["id"]:
        return "no id"
    repeated = (language, values["id"]) in seen
    seen.add((language, values["id"]))
    return f"duplicate id {values['id']!r}" if repeated else ""


def _common(found: Mapping[str, Iterable[Found]], bad: Bad) -> dict[str, Iterable[Found]]:
    held = {language: list(those) for language, those in found.items()}
    common = set.intersection(*({one.aligned for one in those} for those in held.values())) if held else set()
    for one in itertools.chain.from_iterable(held.values()):
        if one.aligned not in common:
            bad.leave_out("not there in every language", one.where)
    return {language: [one for one in those if one.aligned in common] for language, those in held.items()}


def _reference(kind: Kind, files: Sequence[File], first: str) -> dict[str, str]:
    """The first text of each row in English where there is any, else in the first language."""
    if kind.group != "first":
        return {}
    of = {file.language: file for file in files}
    for language in dict.fromkeys(("en", first)):
        chosen = [of[language]] if language in of else [] if files[0].language else files
        pairs = [found for file in chosen for _, found in _sound(file, kind, Bad("skip"), (language,))]
        if pairs:
            return {found.aligned: found.texts[0] for found in pairs}
    return {}


def _row(found: Found, kind: Kind, file: File, language: str, reference: Mapping[str, str]) -> Labelled:
    own = f"{file.split}:{language}:{found.number}" if kind.parallel else f"{file.path.name}:{found.number}"
    shared = found.aligned if kind.group == "id" else text_name(reference.get(found.aligned, found.texts[0]))
    return labelled(kind, found, id=found.id or own, split=file.split, language=language, group=found.group or shared)


def labelled(kind: Kind, found: Found, *, id: str, split: str, language: str, group: str) -> Labelled:
    text, second = (*found.texts, None)[:2]
    return Labelled(
        id=id,
        key=make_key(kind.set, split, language, found.number, found.id, found.label, *found.texts),
        group=f"{kind.set}/{group}",
        set=kind.set,
        text=text,
        second=second,
        label=found.label,
        language=language,
    )


def _part(spec: Spec) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", spec.option("part", "1/1"))
    if not match or int(match[1]) > int(match[2]):
        raise UserError(f"part={spec.option('part')} is not possible", str(spec), "write part=1/2 and part=2/2")
    return int(match[1]) - 1, int(match[2])
