# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One table of any origin: labelled texts or sentence pairs, by the names or the numbers of their columns.

Options name the columns: of labelled texts `text`, `second`, `label`, `language`, `id`, `group`; of pairs `source`,
`target`, `id`, `group`. Without them the header is searched for usual names. Numbers count from 0 and mean that there
is no header. Without a column of languages `languages=de` says what the texts are in, and `languages=en,de` what the
two sides of pairs are in.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from xlkd.data.sources import Bad, Spec, _labelled, _table, is_whole
from xlkd.data.sources.squad import text_fault
from xlkd.errors import UserError
from xlkd.rows import Labelled, Pair, make_key

TASKS = ("classify", "parallel")

_NAMES = {
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


def rows(spec: Spec, task: str, bad: Bad, form: str, *options: str) -> tuple[Labelled, ...] | tuple[Pair, ...]:
    """The rows of a file; their set is called as the file is."""
    path = pathlib.Path(spec.path).expanduser()
    if task == "parallel":
        spec.allow("languages", "limit", *_PARALLEL, *options)
        return tuple(spec.first(_pairs(spec, path, form, bad)))
    spec.allow(*_labelled.OPTIONS, *_CLASSIFY, *options)
    return _labels(spec, path, form, bad)


def _labels(spec: Spec, path: pathlib.Path, form: str, bad: Bad) -> tuple[Labelled, ...]:
    """Where a column says the language, `languages` chooses among them; else it names the one."""
    columns = _columns(spec, path, form, _CLASSIFY, ("text",))
    asked = spec.languages()
    if "language" not in columns.needed and len(asked) != 1:
        raise UserError("no column says the language", str(spec), "add languages=de, or language=COLUMN")
    only = "" if "language" in columns.needed else asked[0]
    kind = _labelled.Kind(path.stem, group="id" if "id" in columns.needed else "text", parallel=False)
    file = _labelled.File(path, form, [columns], path.stem, only)
    return _labelled.rows(spec, kind, [file], bad)


def _pairs(spec: Spec, path: pathlib.Path, form: str, bad: Bad) -> Iterator[Pair]:
    if len(spec.languages()) != 2:
        raise UserError("two languages are needed", str(spec), "add languages=en,de: of the source and of the target")
    source_language, target_language = spec.languages()
    columns = _columns(spec, path, form, _PARALLEL, ("source", "target"))
    for number, where, values in _table.read(path, form, [columns], bad):
        source, target, own = values["source"], values["target"], values.get("id", "")
        if fault := text_fault(source, "source") or text_fault(target, "target"):
            bad(fault, where)
            continue
        id = own or f"{path.name}:{number}"
        yield Pair(
            id=id,
            key=make_key(path.stem, number, own, source_language, source, target_language, target),
            group=f"{path.stem}/{values.get('group') or id}",
            set=path.stem,
            source=source,
            target=target,
            source_language=source_language,
            target_language=target_language,
        )


def _columns(spec: Spec, path: pathlib.Path, form: str, parts: tuple[str, ...], needed: tuple[str, ...]):
    """The column of each part that was named, or whose usual name the file has; objects may lack a label."""
    given = {part: spec.option(part) for part in parts if spec.option(part)}
    numbers = [is_whole(name) for name in given.values()]
    if any(numbers) and not all(numbers):
        raise UserError("columns by name and by number", str(spec), "numbers mean that there is no header: use one way")
    columns: dict[str, _table.Column]
    if any(numbers):
        columns = {part: int(name) for part, name in given.items()}
    else:
        there = _table.names(path, form)
        usual = {part: tuple(name for name in _NAMES.get(part, ()) if name in there)[:1] for part in parts}
        columns = {part: (given[part],) if part in given else usual[part] for part in parts}
        columns = {part: column for part, column in columns.items() if column}
    if missing := [part for part in needed if part not in columns]:
        remedy = f"name it: {missing[0]}=COLUMN, or {missing[0]}=0 where there is no header"
        raise UserError(f"no column is known to be the {missing[0]}", str(path), remedy)
    optional = {"label": columns.pop("label")} if form == _table.JSONL and "label" in columns else {}
    return _table.Columns(columns, optional)
