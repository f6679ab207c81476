# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tfds:NAME[/CONFIG]?data_dir=DIR&split=SPLIT`: data sets that TensorFlow Datasets prepared, without TensorFlow.

The configs of XQuAD, MLQA and PAWS-X are languages: `tfds:xquad?languages=en,de`, all of them where none is named; a
row of XNLI holds all languages. TFDS undoes quoting in PAWS-X where there is none, and so lost a few quotation marks:
texts are as it has them. Rows of PAWS-X have no id there: languages cannot be aligned, and groups are by language.

Reads what lies prepared as array_record and never goes to the network; what is missing is named with the command
that prepares it. Order is that of the preparation, not of the file.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from xlkd.data import labels
from xlkd.data.sources import Bad, Spec, _folders, _labelled, mlqa, pawsx, squad, xnli
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.rows import Answer, Labelled, Question

TASKS = ("qa", "classify")
NAMED = True  # of a dataset, not a path


@dataclasses.dataclass(frozen=True)
class _Set:
    """How a data set lies in TFDS: its name here, the split taken unless told, what its configs are."""

    name: str
    split: str
    config: str = ""  # the only one of use; empty where the configs are languages
    language: str = ""  # empty where rows or configs name it
    repeated_ids: bool = False


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """How labelled pairs lie in TFDS: the names of the two texts, and where the language stands."""

    kind: _labelled.Kind
    texts: tuple[str, str]
    names: tuple[str, ...]  # of the labels 0, 1, …
    language: str = ""  # of all rows; empty where configs name it, or rows hold all
    split: str = "train"


_NLI = ("premise", "hypothesis")
_LABELLED = {
    "xnli": _Labelled(xnli.KIND, _NLI, labels.NLI, split="validation"),
    "xtreme_xnli": _Labelled(xnli.KIND, _NLI, labels.NLI),
    "multi_nli": _Labelled(dataclasses.replace(xnli.KIND, set="multi_nli"), _NLI, labels.NLI, language="en"),
    "paws_x_wiki": _Labelled(pawsx.KIND, ("sentence1", "sentence2"), labels.PARAPHRASE),
    "xtreme_pawsx": _Labelled(pawsx.KIND, ("sentence1", "sentence2"), labels.PARAPHRASE),
}
_SETS = {
    "squad": _Set("squad", "train", config="v1.1", language="en"),
    "xquad": _Set("xquad", "test"),
    "mlqa": _Set("mlqa", "validation"),
    "tydi_qa": _Set("tydiqa", "train", config="goldp", repeated_ids=True),
}


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Question, ...] | tuple[Labelled, ...]:
    """Config after config; paragraphs of parallel sets that share a question are one group."""
    name, _, config = spec.path.partition("/")
    known = _SETS if task == "qa" else _LABELLED
    if name not in known:
        raise UserError(
            f"no reader for the TFDS data set {name!r}", str(spec), f"for {task} there are {', '.join(known)}"
        )
    if task == "classify":
        return _labelled_rows(spec, name, config, bad)
    spec.allow("data_dir", "split", "languages", "limit")
    one = _SETS[name]
    configs = [config or one.config] if config or one.config else list(spec.languages())
    builders = prepared(name, configs, spec.option("data_dir"))
    found = []
    for config, builder in builders.items():
        found += spec.first(_rows(spec, f"{name}/{config}", builder, one, bad))
    return tuple(found if one.config else mlqa.grouped(found))


def _rows(spec: Spec, name: str, builder: Any, one: _Set, bad: Bad) -> Iterator[Question]:
    split, asked, seen = spec.option("split", one.split), spec.languages(), set()
    for number, example in enumerate(examples(builder, split, f"tfds:{name}")):
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
        origin = squad.QuestionOrigin(one.name, f"tfds/{name}/{split}", language, language)
        yield origin.row(squad.Found(number, squad.text_name(context), id, question, context, answers))


def _labelled_rows(spec: Spec, name: str, config: str, bad: Bad) -> tuple[Labelled, ...]:
    """Language after language; the hypotheses under one premise are a group."""
    ns = ("ns",) if _LABELLED[name].kind.set == "pawsx" else ()
    spec.allow("data_dir", "split", "languages", "limit", *ns)
    one = _LABELLED[name]
    if ns and spec.choice("ns", ("drop", "keep")) == "drop":
        one = dataclasses.replace(one, kind=pawsx.dropping(one.kind))
    configs = [config] if config else list(spec.languages()) if ns else []
    found = collections.defaultdict(list)
    for config, builder in prepared(name, configs, spec.option("data_dir")).items():
        for row in _labelled_examples(spec, name, config, builder, one, bad):
            found[row.language].append(row)
    chosen = _folders.choose(spec, set(found)) if found else []
    return tuple(row for language in chosen for row in spec.first(found[language]))


def _labelled_examples(
    spec: Spec, name: str, config: str, builder: Any, one: _Labelled, bad: Bad
) -> Iterator[Labelled]:
    split, asked = spec.option("split", one.split), spec.languages()
    for number, example in enumerate(examples(builder, split, f"tfds:{name}")):
        where = f"tfds:{spec.path} {split}[{number}]"
        label = one.names[int(example["label"])] if example["label"] >= 0 else None
        sides = _sides(example, one, config)
        first = sides.get("en", next(iter(sides.values())))[0]
        for language, texts in sides.items():
            if asked and language not in asked:
                continue
            if reason := one.kind.leave(texts):
                bad.leave_out(reason, where)
            elif fault := _labelled.fault(one.kind, label, texts):
                bad(fault, f"{where} in {language}")
            else:
                found = _labelled.Found(number, where, "", texts, label, "")
                id = f"{split}:{language}:{number}" if len(sides) > 1 else f"{name}/{config or split}/{number}"
                group = squad.text_name(first)
                yield _labelled.labelled(one.kind, found, id=id, split=split, language=language, group=group)


def _sides(example: dict[str, Any], one: _Labelled, config: str) -> dict[str, tuple[str, str]]:
    """The two texts by language."""
    first, second = (example[part] for part in one.texts)
    if not isinstance(first, dict):
        return {one.language or normalise_tag(config): (_text(first), _text(second))}
    there = zip(map(_text, second["language"]), map(_text, second["translation"]), strict=True)
    return {normalise_tag(tag): (_text(first[tag]), text) for tag, text in there if tag in first}


def _fault(question: str, context: str, answers: tuple[Answer, ...]) -> str:
    if fault := squad.text_fault(question, "question") or squad.text_fault(context, "context"):
        return fault
    if not answers:
        return squad.NO_ANSWER
    return next((fault for a in answers if (fault := squad.answer_fault(a.text, a.start, context))), "")


def _language(name: str, split: str, id: str, where: str) -> str:
    """Of a row: the config, or for TyDiQA the split's ending (validation-sw) or the id's beginning (swahili-…)."""
    if not name.startswith("tydi_qa/"):
        return normalise_tag(name.partition("/")[2], where)
    named = re.match(r"(?:validation|translate-train)-([a-z]{2})\b", split)
    return normalise_tag(named.group(1) if named else id.split("-")[0], where)


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def prepared(name: str, configs: Sequence[str], data_dir: str = "") -> dict[str, Any]:
    """The builders of a data set's configs, all where none is named; one line where some are not prepared."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.question_answering  # registers what is defined as single modules
    import tensorflow_datasets.text

    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of each folder that is not prepared
    known = list(tfds.builder_cls(name).builder_configs)
    if unknown := [config for config in configs if config not in known]:
        raise UserError(f"no config {', '.join(unknown)}", f"tfds:{name}", f"there are {', '.join(known)}")
    folder = os.path.expanduser(data_dir)
    builders = {c: tfds.builder(_called(name, c), data_dir=folder or None) for c in configs or known or [""]}
    if missing := [config for config, builder in builders.items() if not builder.is_prepared()]:
        where = f"tfds:{_called(name, ','.join(missing))}"
        raise UserError(f"not prepared under {builders[missing[0]].data_path}", where, command(name, missing, folder))
    for config, builder in builders.items():
        if (kind := builder.info.file_format.value) == "tfrecord":
            what = f"prepared as {kind} under {builder.data_path}, which only TensorFlow reads"
            raise UserError(
                what, f"tfds:{_called(name, config)}", f"move it away and {command(name, [config], folder)}"
            )
    return builders


def examples(builder: Any, split: str, where: str) -> Any:
    """The rows of a split by index."""
    try:
        return builder.as_data_source(split)
    except (ValueError, NotImplementedError) as error:
        raise UserError(str(error).splitlines()[0], where, "choose another split") from None


def command(name: str, configs: Sequence[str], data_dir: str = "") -> str:
    """What downloads a data set and prepares it in the format read here."""
    folder = f"data_dir={data_dir!r}, " if data_dir else ""
    room = "question_answering" if name in _SETS else "text"
    imports = f"import tensorflow_datasets as tfds, tensorflow_datasets.{room}"
    made = "tfds.builder({}, " + folder + "file_format='array_record').download_and_prepare()"
    code = made.format(repr(_called(name, configs[0])))
    if len(configs) > 1:
        code = f"[{made.format(repr(name + '/') + ' + c')} for c in {' '.join(configs)!r}.split()]"
    return f'on a machine with a network run: python -c "{imports}; {code}"'


def _called(name: str, config: str) -> str:
    return f"{name}/{config}" if config else name
