# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tfds:NAME[/CONFIG]?data_dir=DIR&split=SPLIT`: data sets that TensorFlow Datasets prepared, without TensorFlow.

The configs of XQuAD, MLQA and PAWS-X are languages: `tfds:xquad?languages=en,de`, all of them where none is named; a
row of XNLI has all languages. TFDS removes quoting from PAWS-X where there is none, and so lost a few quotation marks:
texts are as it has them. Rows of PAWS-X have no id there: languages cannot be aligned, and groups are by language.

Data must be prepared as array_record; the network is never used, and the error for missing data names the command that
prepares it. Order is that of the preparation, not of the file.
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
from xlkd.data.sources import BadRows, Source, _folders, _labelled, mlqa, pawsx, squad, xnli
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.rows import Answer, Labelled, Question

TASKS = ("qa", "classify")
_COMMON = ("data_dir", "split", "languages", "limit")
OPTIONS = {"qa": _COMMON, "classify": (*_COMMON, "ns")}
NAMED = True  # the text after the colon names a data set, not a path


@dataclasses.dataclass(frozen=True)
class _QuestionSet:
    """A data set of questions in TFDS: its name in xlkd, its default split, and its configs."""

    name: str
    split: str
    config: str = ""  # the only usable config; empty where configs are languages
    language: str = ""  # empty where rows or configs give it
    repeated_ids: bool = False


@dataclasses.dataclass(frozen=True)
class _LabelledSet:
    """A data set of labelled pairs in TFDS: the names of the two texts, and the place of the language."""

    kind: _labelled.Kind
    texts: tuple[str, str]
    names: tuple[str, ...]  # of the labels 0, 1, …
    language: str = ""  # of all rows; empty where configs give it, or rows have all languages
    split: str = "train"


_NLI = ("premise", "hypothesis")
_LABELLED_SETS = {
    "xnli": _LabelledSet(xnli.KIND, _NLI, labels.NLI, split="validation"),
    "xtreme_xnli": _LabelledSet(xnli.KIND, _NLI, labels.NLI),
    "multi_nli": _LabelledSet(dataclasses.replace(xnli.KIND, set="multi_nli"), _NLI, labels.NLI, language="en"),
    "paws_x_wiki": _LabelledSet(pawsx.KIND, ("sentence1", "sentence2"), labels.PARAPHRASE),
    "xtreme_pawsx": _LabelledSet(pawsx.KIND, ("sentence1", "sentence2"), labels.PARAPHRASE),
}
_QUESTION_SETS = {
    "squad": _QuestionSet("squad", "train", config="v1.1", language="en"),
    "xquad": _QuestionSet("xquad", "test"),
    "mlqa": _QuestionSet("mlqa", "validation"),
    "tydi_qa": _QuestionSet("tydiqa", "train", config="goldp", repeated_ids=True),
}


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Question, ...] | tuple[Labelled, ...]:
    """Returns the rows config after config; paragraphs of parallel sets that share a question are one group."""
    name, _, config = source.path.partition("/")
    datasets = _QUESTION_SETS if task == "qa" else _LABELLED_SETS
    if name not in datasets:
        raise UserError(
            f"no reader for the TFDS data set {name!r}", str(source), f"for {task} there are {', '.join(datasets)}"
        )
    if task == "classify":
        return _read_labelled(source, name, config, bad_rows)
    dataset = _QUESTION_SETS[name]
    configs = [config or dataset.config] if config or dataset.config else list(source.languages())
    builders = open_prepared(name, configs, source.option("data_dir"))
    questions = []
    for config, builder in builders.items():
        questions += source.first(_read_questions(source, f"{name}/{config}", builder, dataset, bad_rows))
    return tuple(questions if dataset.config else mlqa.assign_groups(questions))


def _read_questions(
    source: Source, name: str, builder: Any, dataset: _QuestionSet, bad_rows: BadRows
) -> Iterator[Question]:
    """Yields the sound questions of a config."""
    split, languages, seen = source.option("split", dataset.split), source.languages(), set()
    for number, example in enumerate(open_split(builder, split, f"tfds:{name}")):
        id, question, context = (_decode_text(example[part]) for part in ("id", "question", "context"))
        where = f"tfds:{name} {split}[{number}] (id {id!r})"
        language = dataset.language or _parse_language(name, split, id, where)
        if languages and language not in languages:
            continue
        gold_answers = zip(
            map(_decode_text, example["answers"]["text"]), map(int, example["answers"]["answer_start"]), strict=True
        )
        answers = tuple(Answer(text, start) for text, start in gold_answers)
        if fault := _find_fault(question, context, answers) or ("duplicate id" if id in seen else ""):
            bad_rows.report(fault, where)
            continue
        if not dataset.repeated_ids:
            seen.add(id)
        origin = squad.QuestionOrigin(dataset.name, f"tfds/{name}/{split}", language, language)
        yield origin.make_question(
            squad.QuestionRecord(number, squad.hash_text(context), id, question, context, answers)
        )


def _read_labelled(source: Source, name: str, config: str, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns labelled pairs language after language; the hypotheses of one premise are a group."""
    ns = ("ns",) if _LABELLED_SETS[name].kind.set == "pawsx" else ()
    source.allow(*_COMMON, *ns)
    dataset = _LABELLED_SETS[name]
    if ns and source.choice("ns", ("drop", "keep")) == "drop":
        dataset = dataclasses.replace(dataset, kind=pawsx.leave_out_untranslated(dataset.kind))
    configs = [config] if config else list(source.languages()) if ns else []
    examples = collections.defaultdict(list)
    for config, builder in open_prepared(name, configs, source.option("data_dir")).items():
        for row in _iterate_labelled(source, name, config, builder, dataset, bad_rows):
            examples[row.language].append(row)
    languages = _folders.choose_languages(source, set(examples)) if examples else []
    return tuple(row for language in languages for row in source.first(examples[language]))


def _iterate_labelled(
    source: Source, name: str, config: str, builder: Any, dataset: _LabelledSet, bad_rows: BadRows
) -> Iterator[Labelled]:
    """Yields the sound pairs of a config."""
    split, languages = source.option("split", dataset.split), source.languages()
    for number, example in enumerate(open_split(builder, split, f"tfds:{name}")):
        where = f"tfds:{source.path} {split}[{number}]"
        label = dataset.names[int(example["label"])] if example["label"] >= 0 else None
        sides = _get_sides(example, dataset, config)
        first = sides.get("en", next(iter(sides.values())))[0]
        for language, texts in sides.items():
            if languages and language not in languages:
                continue
            if reason := dataset.kind.leave_reason(texts):
                bad_rows.leave_out(reason, where)
            elif fault := _labelled.find_fault(dataset.kind, label, texts):
                bad_rows.report(fault, f"{where} in {language}")
            else:
                record = _labelled.Record(number, where, "", texts, label, "")
                id = f"{split}:{language}:{number}" if len(sides) > 1 else f"{name}/{config or split}/{number}"
                group = squad.hash_text(first)
                yield _labelled.make_example(dataset.kind, record, id=id, split=split, language=language, group=group)


def _get_sides(example: dict[str, Any], dataset: _LabelledSet, config: str) -> dict[str, tuple[str, str]]:
    """Returns the two texts by language."""
    first, second = (example[part] for part in dataset.texts)
    if not isinstance(first, dict):
        return {dataset.language or normalise_tag(config): (_decode_text(first), _decode_text(second))}
    translations = zip(map(_decode_text, second["language"]), map(_decode_text, second["translation"]), strict=True)
    return {normalise_tag(tag): (_decode_text(first[tag]), text) for tag, text in translations if tag in first}


def _find_fault(question: str, context: str, answers: tuple[Answer, ...]) -> str:
    """Returns the fault of a question, or an empty string."""
    if fault := squad.find_text_fault(question, "question") or squad.find_text_fault(context, "context"):
        return fault
    if not answers:
        return squad.NO_ANSWER
    return next((fault for a in answers if (fault := squad.find_answer_fault(a.text, a.start, context))), "")


def _parse_language(name: str, split: str, id: str, where: str) -> str:
    """Returns a row's language: the config, or for TyDiQA from the split (validation-sw) or the id (swahili-…)."""
    if not name.startswith("tydi_qa/"):
        return normalise_tag(name.partition("/")[2], where)
    match = re.match(r"(?:validation|translate-train)-([a-z]{2})\b", split)
    return normalise_tag(match.group(1) if match else id.split("-")[0], where)


def _decode_text(value: Any) -> str:
    """Returns a value as text."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def open_prepared(name: str, configs: Sequence[str], data_dir: str = "") -> dict[str, Any]:
    """Returns the builders of a data set's configs, all where none is named; refuses configs that are not prepared."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.question_answering  # registers data sets that are single modules
    import tensorflow_datasets.text

    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns about each folder that is not prepared
    all_configs = list(tfds.builder_cls(name).builder_configs)
    if unknown := [config for config in configs if config not in all_configs]:
        raise UserError(f"no config {', '.join(unknown)}", f"tfds:{name}", f"there are {', '.join(all_configs)}")
    folder = os.path.expanduser(data_dir)
    builders = {c: tfds.builder(_join_name(name, c), data_dir=folder or None) for c in configs or all_configs or [""]}
    if missing := [config for config, builder in builders.items() if not builder.is_prepared()]:
        place = f"tfds:{_join_name(name, ','.join(missing))}"
        raise UserError(
            f"not prepared under {builders[missing[0]].data_path}", place, make_command(name, missing, folder)
        )
    for config, builder in builders.items():
        if (file_format := builder.info.file_format.value) == "tfrecord":
            what = f"prepared as {file_format} under {builder.data_path}, which only TensorFlow reads"
            raise UserError(
                what, f"tfds:{_join_name(name, config)}", f"move it away and {make_command(name, [config], folder)}"
            )
    return builders


def open_split(builder: Any, split: str, where: str) -> Any:
    """Returns the rows of a split by index."""
    try:
        return builder.as_data_source(split)
    except (ValueError, NotImplementedError) as error:
        raise UserError(str(error).splitlines()[0], where, "choose another split") from None


def make_command(name: str, configs: Sequence[str], data_dir: str = "") -> str:
    """Returns the command that downloads a data set and prepares it in the format that is read here."""
    folder = f"data_dir={data_dir!r}, " if data_dir else ""
    module = "question_answering" if name in _QUESTION_SETS else "text"
    imports = f"import tensorflow_datasets as tfds, tensorflow_datasets.{module}"
    template = "tfds.builder({}, " + folder + "file_format='array_record').download_and_prepare()"
    code = template.format(repr(_join_name(name, configs[0])))
    if len(configs) > 1:
        code = f"[{template.format(repr(name + '/') + ' + c')} for c in {' '.join(configs)!r}.split()]"
    return f'on a machine with a network run: python -c "{imports}; {code}"'


def _join_name(name: str, config: str) -> str:
    """Returns the name that TFDS gives to a config."""
    return f"{name}/{config}" if config else name
