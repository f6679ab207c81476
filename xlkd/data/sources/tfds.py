# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tfds:NAME[/CONFIG]?data_dir=DIR&split=SPLIT`: data sets that TensorFlow Datasets prepared, without TensorFlow.

`squad` is SQuAD v1.1, `squad/v2.0` the set with unanswerable questions.
The configs of XQuAD, MLQA and PAWS-X are languages: `tfds:xquad?languages=en,de`, all of them where none is named; a
row of XNLI has all languages. `tfds:mlqa?pairs=all` joins questions and contexts of two configs by their ids, which
gives the cells that the files of MLQA have. TFDS removes quoting from PAWS-X where there is none, and so lost a few
quotation marks: texts are as it has them. Rows of PAWS-X have no id there: languages cannot be aligned, and groups are
by language.

Parallel text is cleaned, limited and read from an index, as `moses:` does: `tfds:para_crawl?languages=en,de,fr` is the
first language with each of the others, and one language alone is paired with English. Sets for retrieval, where no
pair may be missing, are not cleaned.

Data must be prepared as array_record; the network is never used, and the error for missing data names the command that
prepares it. Order is that of the preparation, not of the file.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xlkd.data import labels
from xlkd.data.composition import JoinedRows
from xlkd.data.corpus import Corpus, CorpusOrigin, CorruptLine, RawRow, strip_text
from xlkd.data.sources import BadRows, Source, _folders, _labelled, mlqa, moses, pawsx, squad, xnli
from xlkd.errors import UserError
from xlkd.languages import find_tag, is_english, normalise_tag
from xlkd.rows import Answer, Labelled, Pair, Question

TASKS = ("qa", "classify", "parallel")
_COMMON = ("data_dir", "split", "languages", "limit")
OPTIONS = {
    "qa": (*_COMMON, "pairs"),
    "classify": (*_COMMON, "ns"),
    "parallel": ("data_dir", "split", *moses.OPTIONS),
}
_READ = 512  # rows of parallel text that are read together
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


@dataclasses.dataclass(frozen=True)
class _ParallelSet:
    """A data set of parallel text in TFDS: its default split, and whether it is for retrieval.

    A row has a text under each language, or `source_sentence` with its translation into English, `target_sentence`, or
    `translations` into any of many languages.
    """

    split: str = "train"
    for_retrieval: bool = False


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
_PARALLEL_SETS = {
    "bucc": _ParallelSet("test", for_retrieval=True),
    "flores": _ParallelSet("validation", for_retrieval=True),
    "opus": _ParallelSet(),
    "para_crawl": _ParallelSet(),
    "tatoeba": _ParallelSet(for_retrieval=True),
    "ted_multi_translate": _ParallelSet(),
    **{f"wmt{year}_translate": _ParallelSet() for year in range(13, 20)},
}


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Question] | Sequence[Labelled] | Sequence[Pair]:
    """Returns the rows config after config."""
    name, _, config = source.path.partition("/")
    readers: dict[str, tuple[Mapping[str, Any], Any]] = {
        "qa": (_QUESTION_SETS, _read_questions),
        "classify": (_LABELLED_SETS, _read_labelled),
        "parallel": (_PARALLEL_SETS, _read_pairs),
    }
    datasets, read = readers[task]
    if name not in datasets:
        raise UserError(
            f"no reader for the TFDS data set {name!r}", str(source), f"for {task} there are {', '.join(datasets)}"
        )
    return read(source, name, config, bad_rows)


def check_exists(source: Source) -> None:
    """Refuses a data set that is not prepared; nothing of it is read."""
    name, _, config = source.path.partition("/")
    if name in _PARALLEL_SETS:
        configs = _list_named_configs(_choose_pairs(source, name, config))
    elif name in _QUESTION_SETS or name in _LABELLED_SETS:
        configs = _choose_configs(source, name, config)
    else:
        return  # reading says for which task
    open_prepared(name, configs, source.option("data_dir"))


def _choose_configs(source: Source, name: str, config: str) -> list[str]:
    """Returns the configs of a data set of questions or labelled pairs to read; none where all are."""
    if own := config or (_QUESTION_SETS[name].config if name in _QUESTION_SETS else ""):
        return [own]
    has_languages = name in _QUESTION_SETS or _LABELLED_SETS[name].kind.set == "pawsx"
    return list(source.languages()) if has_languages else []


def _read_questions(source: Source, name: str, config: str, bad_rows: BadRows) -> tuple[Question, ...]:
    """Returns the questions of a data set, cell after cell where its configs are languages."""
    dataset = _QUESTION_SETS[name]
    if dataset.config:
        source.allow(*_COMMON)
    split = source.option("split", dataset.split)
    configs = _choose_configs(source, name, config)
    records = {
        f"tfds/{name}/{config}/{split}": _iterate_records(source, f"{name}/{config}", builder, dataset, bad_rows)
        for config, builder in open_prepared(name, configs, source.option("data_dir")).items()
    }
    if not dataset.config:
        return _cross_languages(source, dataset.name, {scope: list(records[scope]) for scope in records})
    ((scope, own_records),) = records.items()
    return tuple(
        squad.QuestionOrigin(dataset.name, scope, language, language).make_question(record)
        for language, record in source.first(own_records)
    )


def _cross_languages(
    source: Source, name: str, records_by_scope: Mapping[str, Sequence[tuple[str, squad.QuestionRecord]]]
) -> tuple[Question, ...]:
    """Returns the questions cell after cell; paragraphs that share a question, in any language, are one group."""
    scopes = {records[0][0]: scope for scope, records in records_by_scope.items() if records}
    records = {language: [record for _, record in records_by_scope[scope]] for language, scope in scopes.items()}
    questions: list[Question] = []
    for question, context in source.pairs(tuple(records)):
        origin = squad.QuestionOrigin(name, scopes[context], question, context)
        questions += source.first(origin.join_questions(records[context], records[question]))
    return tuple(mlqa.assign_groups(questions))


def _iterate_records(
    source: Source, name: str, builder: Any, dataset: _QuestionSet, bad_rows: BadRows
) -> Iterator[tuple[str, squad.QuestionRecord]]:
    """Yields the sound questions of a config with their languages."""
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
        impossible = bool(example["is_impossible"]) if "is_impossible" in example else None
        fault = _find_fault(question, context, answers, impossible) or ("duplicate id" if id in seen else "")
        if fault:
            bad_rows.report(fault, where)
            continue
        if not dataset.repeated_ids:
            seen.add(id)
        yield language, squad.QuestionRecord(number, squad.hash_text(context), id, question, context, answers)


def _read_labelled(source: Source, name: str, config: str, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns labelled pairs language after language; the hypotheses of one premise are a group."""
    ns = ("ns",) if _LABELLED_SETS[name].kind.set == "pawsx" else ()
    source.allow(*_COMMON, *ns)
    dataset = _LABELLED_SETS[name]
    if ns and source.choice("ns", ("drop", "keep")) == "drop":
        dataset = dataclasses.replace(dataset, kind=pawsx.leave_out_untranslated(dataset.kind))
    configs = _choose_configs(source, name, config)
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


def _read_pairs(source: Source, name: str, config: str, bad_rows: BadRows) -> Sequence[Pair]:
    """Returns the pairs of one language pair after the other, those of all configs that have both languages."""
    dataset = _PARALLEL_SETS[name]
    chosen, split = _choose_pairs(source, name, config), source.option("split", dataset.split)
    builders = open_prepared(name, _list_named_configs(chosen), source.option("data_dir"))
    origins = [_make_origin(_join_name(name, c), builders[c], languages, split) for c, languages in chosen]
    rules = moses.parse_rules(source, ("empty", "all") if dataset.for_retrieval else ("all", "empty"))
    parts = [moses.cap_rows(Corpus(origin, rules, bad_rows), source) for origin in origins]
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def _choose_pairs(source: Source, name: str, config: str) -> list[tuple[str, tuple[str, str]]]:
    """Returns the configs to read, each with the pair of languages to read from it."""
    available = _list_languages(name)
    if config and config not in available:
        raise UserError(f"no config {config}", f"tfds:{name}", f"there are {', '.join(available)}")
    available = {config: available[config]} if config else available
    languages = source.languages()
    if not languages and all(len(pair) == 2 for pair in available.values()):
        ordered = {c: sorted(pair, key=lambda tag: (not is_english(tag), tag)) for c, pair in available.items()}
        return [(config, (a, b)) for config, (a, b) in ordered.items()]
    if len(languages) == 1 and not is_english(languages[0]):
        languages = ("en", *languages)
    if len(languages) < 2 or len(set(languages)) < len(languages):
        raise UserError("no language pair given", str(source), "set languages=A,B,…, the first with each other")
    pairs = [(languages[0], other) for other in languages[1:]]
    chosen = [(c, pair) for pair in pairs for c, tags in available.items() if set(pair) <= set(tags)]
    if missing := ["-".join(pair) for pair in pairs if pair not in [pair for _, pair in chosen]]:
        known = ", ".join(sorted({tag for tags in available.values() for tag in tags}))
        raise UserError(f"no config with {', '.join(missing)}", str(source), f"languages there: {known}")
    return chosen


def _list_named_configs(chosen: Sequence[tuple[str, tuple[str, str]]]) -> list[str]:
    """Returns the configs that `_choose_pairs` chose, each once; none where the data set has no configs."""
    return list(dict.fromkeys(config for config, _ in chosen if config))


def _list_languages(name: str) -> dict[str, tuple[str, ...]]:
    """Returns the languages of each config of a data set of parallel text; those of "" where it has no configs."""
    builder_class = find_builder_class(name)
    tags = {config.name: _get_config_tags(config) for config in builder_class.builder_configs.values()}
    tags = tags or {"": builder_class().info.features["translations"].languages}
    return {config: tuple(filter(None, map(_parse_tag, own_tags))) for config, own_tags in tags.items()}


def _get_config_tags(config: Any) -> Sequence[str]:
    """Returns the tags of a config of parallel text, which data sets keep under different names."""
    if pair := getattr(config, "language_pair", None):
        return pair
    return ("en", getattr(config, "target_language", None) or config.language)


def _make_origin(name: str, builder: Any, languages: tuple[str, str], split: str) -> CorpusOrigin:
    """Returns the corpus of a config in a pair of languages."""
    rows, folder = open_split(builder, split, f"tfds:{name}"), pathlib.Path(builder.data_path)
    if not folder.is_dir():
        raise UserError("no such folder", str(builder.data_path), "copy the data set to a disk of this machine")
    return CorpusOrigin(
        set=name.partition("/")[0],
        name=f"tfds/{name}/{split}",
        languages=languages,
        files=tuple(sorted(folder.glob("*.array_record*"))),
        read=functools.partial(_iterate_pairs, rows, languages),
        selection=split,
    )


def _iterate_pairs(rows: Any, languages: tuple[str, str]) -> Iterator[RawRow | CorruptLine]:
    """Yields the pairs in the order of the preparation; a row that lacks one of the languages is an empty pair."""
    for start in range(0, len(rows), _READ):
        numbers = range(start, min(start + _READ, len(rows)))
        for number, example in zip(numbers, rows.__getitems__(list(numbers)), strict=True):
            texts = _get_translations(example, languages)
            try:
                source, target = (strip_text(_decode_text(texts.get(language, b""))) for language in languages)
            except UnicodeDecodeError as error:
                yield CorruptLine(0, number, f"not UTF-8 at byte {error.start} of the row of this number")
            else:
                yield RawRow(number, (source, target))


def _get_translations(example: Mapping[str, Any], languages: tuple[str, str]) -> dict[str, Any]:
    """Returns the texts of a row of parallel text by language."""
    if "source_sentence" in example:
        other, english = sorted(languages, key=is_english)
        return {other: example["source_sentence"], english: example["target_sentence"]}
    if "translations" in example:
        texts = example["translations"]
        example = dict(zip(map(_decode_text, texts["language"]), texts["translation"], strict=True))
    return {_parse_tag(tag): text for tag, text in example.items()}


@functools.lru_cache(1024)
def _parse_tag(tag: str) -> str:
    """Returns the language of a tag, or an empty string."""
    return find_tag(tag)


def _find_fault(question: str, context: str, answers: tuple[Answer, ...], impossible: bool | None) -> str:
    """Returns the fault of a question, or an empty string."""
    if fault := squad.find_text_fault(question, "question") or squad.find_text_fault(context, "context"):
        return fault
    if fault := squad.find_impossible_fault(impossible, answers, labelled=bool(impossible)):
        return fault
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

    all_configs = list(find_builder_class(name).builder_configs)
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


def find_builder_class(name: str) -> Any:
    """Returns the class of TFDS that prepares a data set, which knows its configs."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.question_answering  # registers data sets that are single modules
    import tensorflow_datasets.text
    import tensorflow_datasets.translate

    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns about each folder that is not prepared
    return tfds.builder_cls(name)


def open_split(builder: Any, split: str, where: str) -> Any:
    """Returns the rows of a split by index."""
    try:
        return builder.as_data_source(split)
    except (ValueError, NotImplementedError) as error:
        raise UserError(str(error).splitlines()[0], where, "choose another split") from None


def make_command(name: str, configs: Sequence[str], data_dir: str = "") -> str:
    """Returns the command that downloads a data set and prepares it in the format that is read here."""
    folder = f"data_dir={data_dir!r}, " if data_dir else ""
    module = "question_answering" if name in _QUESTION_SETS else "translate" if name in _PARALLEL_SETS else "text"
    imports = f"import tensorflow_datasets as tfds, tensorflow_datasets.{module}"
    template = "tfds.builder({}, " + folder + "file_format='array_record').download_and_prepare()"
    code = template.format(repr(_join_name(name, configs[0])))
    if len(configs) > 1:
        code = f"[{template.format(repr(name + '/') + ' + c')} for c in {' '.join(configs)!r}.split()]"
    return f'on a machine with a network run: python -c "{imports}; {code}"'


def _join_name(name: str, config: str) -> str:
    """Returns the name that TFDS gives to a config."""
    return f"{name}/{config}" if config else name
