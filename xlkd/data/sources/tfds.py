# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tfds:NAME[/CONFIG]?data_dir=DIR&split=SPLIT`: data sets that TensorFlow Datasets prepared, without TensorFlow.

Reads what lies prepared as array_record and never goes to the network; what is missing is named with the command
that prepares it. Order is that of the preparation, not of the file.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterator
from typing import Any

from xlkd.data.sources import Bad, Spec, mlqa, squad
from xlkd.errors import UserError
from xlkd.languages import normalise
from xlkd.rows import Answer, Question

TASKS = ("qa",)


@dataclasses.dataclass(frozen=True)
class _Set:
    """How a data set lies in TFDS: its name here, the split taken unless told, what its configs are."""

    name: str
    split: str
    config: str = ""  # the only one of use; empty where the configs are languages
    language: str = ""  # empty where rows or configs name it
    repeated_ids: bool = False


_SETS = {
    "squad": _Set("squad", "train", config="v1.1", language="en"),
    "xquad": _Set("xquad", "test"),
    "mlqa": _Set("mlqa", "validation"),
    "tydi_qa": _Set("tydiqa", "train", config="goldp", repeated_ids=True),
}


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Question, ...]:
    """Config after config; paragraphs of parallel sets that share a question are one group."""
    spec.allow("data_dir", "split", "languages", "limit")
    name, _, config = spec.path.partition("/")
    if name not in _SETS:
        raise UserError(f"no reader for the TFDS data set {name!r}", str(spec), f"there are {', '.join(_SETS)}")
    one = _SETS[name]
    configs = [config or one.config] if config or one.config else list(spec.languages())
    if not configs:
        remedy = f"write {spec.name}:{name}/en, or {spec.name}:{name}?languages=en,de"
        raise UserError(f"the configs of {name!r} are languages and none is named", str(spec), remedy)
    found = [row for config in configs for row in _rows(spec, f"{name}/{config}", one, bad)]
    return tuple(found if one.config else mlqa.grouped(found))


def _rows(spec: Spec, name: str, one: _Set, bad: Bad) -> Iterator[Question]:
    split, asked, seen = spec.option("split", one.split), spec.languages(), set()
    limit, count = spec.number("limit"), 0
    source = open_source(name, split, spec.option("data_dir"))
    for number, example in enumerate(source):
        id, question, context = (_text(example[part]) for part in ("id", "question", "context"))
        where = f"tfds:{name} {split}[{number}] (id {id!r})"
        language = one.language or _language(name, split, id, where)
        if asked and language not in asked:
            continue
        golds = zip(map(_text, example["answers"]["text"]), map(int, example["answers"]["answer_start"]), strict=True)
        answers = tuple(Answer(text, start) for text, start in golds)
        if fault := _fault(question, context, answers) or ("duplicate id" if id in seen else ""):
            bad(fault, where)
            continue
        if not one.repeated_ids:
            seen.add(id)
        cell = squad.Cell(one.name, f"tfds/{name}/{split}", language, language)
        yield cell.row(squad.Found(number, squad.context_name(context), id, question, context, answers))
        count += 1
        if count == limit:
            return


def _fault(question: str, context: str, answers: tuple[Answer, ...]) -> str:
    if fault := squad.text_fault(question, "question") or squad.text_fault(context, "context"):
        return fault
    if not answers:
        return squad.NO_ANSWER
    return next((fault for a in answers if (fault := squad.answer_fault(a.text, a.start, context))), "")


def _language(name: str, split: str, id: str, where: str) -> str:
    """Of a row: the config, or for TyDiQA the split's ending (validation-sw) or the id's beginning (swahili-…)."""
    if not name.startswith("tydi_qa/"):
        return normalise(name.partition("/")[2], where)
    named = re.match(r"(?:validation|translate-train)-([a-z]{2})\b", split)
    return normalise(named.group(1) if named else id.split("-")[0], where)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def open_source(name: str, split: str, data_dir: str = "") -> Any:
    """A prepared data set by index; one line with the command that prepares it where it is not there."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.question_answering  # registers what is defined as single modules

    where = f"tfds:{name}"
    data_dir = os.path.expanduser(data_dir)
    configs = tfds.builder_cls(name.partition("/")[0]).builder_configs
    if name.partition("/")[2] not in configs:
        raise UserError("no such config", where, f"there are {', '.join(configs)}")
    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of each folder that is not prepared
    builder = tfds.builder(name, data_dir=data_dir or None)
    if not builder.is_prepared():
        raise UserError(f"not prepared under {builder.data_path}", where, prepare_with(name, data_dir))
    try:
        return builder.as_data_source(split)
    except NotImplementedError:
        what = f"prepared as {builder.info.file_format.value} under {builder.data_path}, which only TensorFlow reads"
        raise UserError(what, where, f"move it away and {prepare_with(name, data_dir)}") from None
    except ValueError as error:
        raise UserError(str(error).splitlines()[0], where, "choose another split") from None


def prepare_with(name: str, data_dir: str = "") -> str:
    """The command that downloads a data set and prepares it in the format read here."""
    folder = f"data_dir={data_dir!r}, " if data_dir else ""
    code = f"tfds.builder({name!r}, {folder}file_format='array_record').download_and_prepare()"
    imports = "import tensorflow_datasets as tfds, tensorflow_datasets.question_answering"
    return f'on a machine with a network run: python -c "{imports}; {code}"'
