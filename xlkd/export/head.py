# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the YAML head of a model card, which the hub reads: licence, languages, base model, data sets, task, scores.

Text from data, paths and labels is escaped, and written as YAML strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xlkd.data import sources
from xlkd.errors import escape_controls
from xlkd.files import Json
from xlkd.languages import UNKNOWN, get_base_language, has_language
from xlkd.methods import Export
from xlkd.reports import badges
from xlkd.rows import Cell
from xlkd.spec.stage import AnySettings
from xlkd.tasks import metrics

# Licences by the names that the hub gives them; it refuses any other
LICENCES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd",
    "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5",
    "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-1.0", "epl-2.0",
    "etalab-2.0", "eupl-1.1", "eupl-1.2", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1",
    "lgpl-3.0", "lgpl-lr", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail",
    "openrail++", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
})  # fmt: skip
_TITLES = {"mit license": "mit", "the unlicense": "unlicense"}  # first lines of licence files that name one licence
_PAWS_X, _TYDI_QA = "google-research-datasets/paws-x", "google-research-datasets/tydiqa"
# Data sets of the hub by the source that reads their published files, and by their name in TensorFlow Datasets
_PUBLISHED = {
    "xquad": "google/xquad",
    "mlqa": "facebook/mlqa",
    "tydiqa": _TYDI_QA,
    "xnli": "facebook/xnli",
    "pawsx": _PAWS_X,
    "nusax": "indonlp/NusaX-senti",
}
_PREPARED = {
    "squad": "rajpurkar/squad",
    "squad/v2.0": "rajpurkar/squad_v2",
    "xquad": "google/xquad",
    "mlqa": "facebook/mlqa",
    "tydi_qa": _TYDI_QA,
    "xnli": "facebook/xnli",
    "multi_nli": "nyu-mll/multi_nli",
    "paws_x_wiki": _PAWS_X,
    **{f"wmt{year}_translate": f"wmt/wmt{year}" for year in range(14, 20)},
}
_SETS = {"tydi_qa": "tydiqa", "paws_x_wiki": "pawsx", "squad/v2.0": "squad"}  # what rows call these sets
_TASKS = {"qa": "question-answering", "classify": "text-classification", "masked": "fill-mask"}
_HEADS = {"span": "question-answering", "classifier": "text-classification", "masked_lm": "fill-mask"}
_RETRIEVAL = "sentence-similarity"
_METRICS = {"em": "exact_match", "macro_f1": "f1"}  # the hub's names, where they are others
_LABELLED = ("qa", "classify")  # tasks whose scores depend on labels in a language
_INHERITED = ("license", "language", "datasets", "pipeline_tag")  # keys that hold for a smaller model too
_ORDER = ("library_name", "license", "language", "base_model", "base_model_relation", "datasets", "pipeline_tag")
_ORDER += ("tags", "model-index")

Head = dict[str, Any]  # the YAML by its keys


def describe_export(
    settings: AnySettings,
    scores: Mapping[str, Json],
    seen: Mapping[str, Sequence[str]],
    exported: Export,
    contamination: Mapping[str, Json],
) -> Head:
    """Returns the keys of the head that a stage and its scores give, those about the base model excepted."""
    head: Head = {"library_name": _name_library(exported), "pipeline_tag": _name_pipeline(settings, exported)}
    head |= {"tags": ["xlkd", settings.method.name]}
    head |= {"language": list_languages((*seen.get("training", ()), *seen.get("parallel", ())))}
    head |= {"datasets": sorted({name for name, _ in list_data_sets(settings.data.train)})}
    results = [
        result
        for name, record in scores.items()
        for result in _list_results(settings, name, record, seen, exported, contamination.get(name))
    ]
    return head | ({"model-index": [{"name": name_model(settings), "results": results}]} if results else {})


def describe_base(name: str, licence: str, *, is_trained: bool) -> Head:
    """Returns the keys of the head that a base model gives; its name is empty where it is not a model of the hub."""
    head: Head = {"license": known} if (known := find_licence_id(licence)) else {}
    head |= {"base_model": name} if name else {}
    return head | ({"base_model_relation": "finetune"} if name and is_trained else {})


def describe_smaller(full: Head, library: str) -> Head:
    """Returns the keys of the head of a smaller model: those of the full one, without its scores."""
    inherited = {key: full[key] for key in _INHERITED if key in full}
    tag = {"pipeline_tag": _RETRIEVAL} if library == "sentence-transformers" else {}
    return {"library_name": library, "tags": ["xlkd"]} | tag | inherited


def format_head(head: Head) -> list[str]:
    """Returns the lines of the head, without keys that have no value."""
    import yaml  # pyrefly: ignore[untyped-import]

    filled = {key: _escape(head[key]) for key in _ORDER if head.get(key)}
    text = yaml.safe_dump(filled, sort_keys=False, allow_unicode=True, width=1 << 20)
    return ["---", *text.splitlines(), "---"]


def parse_head(text: str) -> Head:
    """Returns the head of a card; empty where there is none, or none that can be read."""
    import yaml  # pyrefly: ignore[untyped-import]

    match = re.match(r"---\s*\n(.*?)\n---", text, re.S)
    try:
        head = yaml.safe_load(match[1]) if match else {}
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def name_model(settings: AnySettings) -> str:
    """Returns the name of the model of a stage: its method and its stage."""
    return " ".join(dict.fromkeys((settings.method.name, settings.name)))


def find_licence_id(text: str) -> str:
    """Returns the name that the hub gives a licence; "" where it knows none."""
    plain = text.strip().lower()
    return plain if plain in LICENCES else _TITLES.get(plain, "")


def list_languages(tags: Iterable[str]) -> list[str]:
    """Returns the codes of languages without scripts and regions, in alphabetical order."""
    return sorted({get_base_language(tag) for tag in tags} - {UNKNOWN, "mul"})


def list_data_sets(source: str) -> list[tuple[str, str]]:
    """Returns the data sets of the hub in a source string, each with the name that rows give it."""
    names = []
    for part in sources.parse(source) if source else ():
        if part.name == "hf":
            names.append((part.path, part.path.rpartition("/")[2]))
        elif part.name == "tfds":
            path = part.path if part.path in _PREPARED else part.path.partition("/")[0]
            names += [(_PREPARED[path], _SETS.get(path, path))] if path in _PREPARED else []
        elif part.name in _PUBLISHED:
            names.append((_PUBLISHED[part.name], part.name))
    return names


def _name_library(exported: Export) -> str:
    if "branches" in exported.encoder:
        return "xlkd"
    return "sentence-transformers" if exported.pooling else "transformers"


def _name_pipeline(settings: AnySettings, exported: Export) -> str:
    """Returns what the hub's page offers to do with the model."""
    if exported.pooling:
        return _RETRIEVAL
    tags = [tag for name, tag in _HEADS.items() if name in exported.heads]
    return tags[0] if tags else _TASKS.get(settings.task.name, "feature-extraction")


def _list_results(
    settings: AnySettings,
    name: str,
    record: Mapping[str, Json],
    seen: Mapping[str, Sequence[str]],
    exported: Export,
    contamination: Json,
) -> list[Head]:
    """Returns the scores of an evaluation set: a result for each cell, with its metrics."""
    source, task = getattr(settings.data, name, ""), record.get("task", settings.task.name)
    identifiers = {data_set: identifier for identifier, data_set in list_data_sets(source)}
    splits = [dict(part.options).get("split", "") for part in sources.parse(source)] if source else []
    split = {"split": splits[0]} if len(splits) == 1 and splits[0] else {}
    chosen = (f"accuracy_via_{exported.route}",) if exported.route else tuple(record.get("metrics", (record["main"],)))
    results = []
    for text, values in record["cells"].items():
        cell = Cell.parse(text)
        data_set = cell.set or name
        identifier = identifiers.get(data_set, data_set)
        word = _classify(cell, seen, contamination) if task in _LABELLED else ""
        numbers = [_describe_metric(metric, values[metric], word) for metric in chosen if metric in values]
        config = _name_config(identifier, cell)
        data = {"name": f"{data_set} {config}" if not cell.set else text, "type": identifier, "config": config} | split
        if numbers:
            results.append({"task": {"type": _TASKS.get(task, _RETRIEVAL)}, "dataset": data, "metrics": numbers})
    return results


def _name_config(identifier: str, cell: Cell) -> str:
    """Returns the hub's name of the config with the examples of a cell, or else the languages of the cell."""
    languages = list(dict.fromkeys(cell.languages))
    if identifier == "google/xquad" and len(languages) == 1:
        return f"xquad.{languages[0]}"
    if identifier == "facebook/mlqa" and len(cell.languages) == 2:
        return f"mlqa.{cell.languages[1]}.{cell.languages[0]}"  # context and question
    return "-".join(languages)


def _classify(cell: Cell, seen: Mapping[str, Sequence[str]], contamination: Json) -> str:
    """Returns whether a cell is supervised, zero-shot or transferred, as reports say it."""
    flagged = contamination["by_language"] if contamination else {}
    contaminated = any(has_language(flagged, tag) for tag in cell.languages) if contamination else None
    return badges.classify_cell(seen, cell.languages, contaminated)


def _describe_metric(name: str, value: float, word: str) -> Head:
    """Returns a score with the hub's name of its metric; `word` says which labels the model saw."""
    plain = "accuracy" if name.startswith("accuracy_via_") else name
    label = metrics.ALL[plain].label if plain in metrics.ALL else plain
    shown = f"{label}, {word}" if word else label
    return {"type": _METRICS.get(plain, plain), "value": round(float(value), 2), "name": shown}


def _escape(value: Any) -> Any:
    """Returns a value of YAML whose texts have no characters that act on a terminal or a page."""
    if isinstance(value, Mapping):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return escape_controls(value) if isinstance(value, str) else value
