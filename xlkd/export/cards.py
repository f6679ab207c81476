# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the model card of an exported model from the run's own files: origins, labels seen, scores and settings.

Text from data, paths and labels is escaped, so that it can be neither markup nor a key of the card's YAML head.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from xlkd import spec
from xlkd.data import sources
from xlkd.errors import escape_controls
from xlkd.export import head as heads
from xlkd.files import Json
from xlkd.methods import Export
from xlkd.models import hf, hub, sentences
from xlkd.models.pooling import DESCRIBED
from xlkd.reports import files, results
from xlkd.spec.stage import AnySettings, list_starts
from xlkd.tasks.nulls import Threshold

SETTINGS = ("seed", "encoder", "task", "data", "method", "teacher", "teachers", "optim", "budget", "eval")
DATA_TITLES = {
    "train": "training",
    "eval": "evaluation",
    "dev": "selection",
    "retrieval": "retrieval",
    "alignment": "alignment",
}
UNSTATED = "not stated where it was taken from"
UNLICENSED = "The head of this card names no licence, because none of the hub's licences is stated for the base model."
LICENCE_CHARACTERS = 1 << 16  # of the head of a file in which a licence is looked for
_PLAIN = re.compile(r"[\w→ ,:%+-]+")  # text that has no markup
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Origin(NamedTuple):
    """The name of a model, with its revision and licence where they are known."""

    name: str
    revision: str | None = None
    licence: str = ""

    def __str__(self) -> str:
        revision = f", revision {format_code(self.revision)}" if self.revision else ""
        licence = format_word(self.licence) if self.licence else UNSTATED
        return f"{format_code(self.name)}{revision}; licence: {licence}"


class Place(NamedTuple):
    """The stage's folder and the work directory that an export belongs to; None outside a work directory."""

    stage: pathlib.Path | None
    workdir: pathlib.Path | None

    @classmethod
    def find(cls, export: pathlib.Path) -> Place:
        """Finds the stage's folder among the parents of an export."""
        for folder in export.absolute().parents:
            if folder.parent.name == "stages":
                return cls(folder, folder.parent.parent)
        return cls(None, None)

    def read_environment(self) -> dict[str, Json]:
        """Reads the run's record of its command, revision and packages; empty where there is none."""
        path = self.workdir / "environment.json" if self.workdir else None
        return hf.read_json(path) if path and path.exists() else {}

    def find_export(self, stage: str) -> pathlib.Path | None:
        """Returns the export of another stage of the same run; None where the run has no such stage."""
        folders = self.stage.parent.iterdir() if self.stage else ()
        return next((path / "export" for path in folders if re.fullmatch(rf"\d+-{re.escape(stage)}", path.name)), None)


def write_card(
    settings: AnySettings,
    scores: Mapping[str, Json],
    seen: Mapping[str, Sequence[str]],
    exported: Export,
    place: Place,
    teacher: str = "",
    threshold: Threshold | None = None,
    contamination: Mapping[str, Json] = MappingProxyType({}),
) -> str:
    """Returns the text of the model card.

    `scores` has the stage's scores by evaluation set, `seen` the languages whose labels were seen by kind, and
    `teacher` names the teacher where the settings do not. `threshold` is that of the null odds, if there is one.
    `contamination` has by evaluation set the examples that occur in the training data.
    """
    base = find_base(settings, place)
    values = heads.describe_export(settings, scores, seen, exported, contamination)
    values["datasets"] = sorted({*values["datasets"], *_list_earlier_data_sets(settings, place)})
    values |= heads.describe_base(_name_on_hub(base), base.licence, is_trained=True)
    parts = [
        heads.format_head(values),
        _describe_model(settings, exported, threshold),
        _list_origins(settings, base, place, teacher),
        *([] if "license" in values else [[UNLICENSED]]),
        _list_languages(seen),
        *_tabulate_scores(scores, exported, place),
        _format_settings(settings),
        _describe_command(place.read_environment()),
    ]
    return "\n".join(line for part in parts for line in (*part, ""))


def write_trimmed_card(folder: pathlib.Path, full: Origin, parts_left: Sequence[str], command: Sequence[str]) -> str:
    """Returns the card of a model that `xlkd.trim` made smaller, followed by the card of the full model in `folder`.

    `parts_left` says what is left of the full model, such as "12 of 24 layers"; `command` is what was typed.
    """
    base = trace_base(Origin(str(folder), licence=full.licence)) if (folder / hf.RECORD).is_file() else full
    library = "sentence-transformers" if (folder / sentences.MODULES).is_file() else "transformers"
    text = _read_start(folder / hf.CARD)
    full_card = re.sub(r"\A---\s*\n.*?\n---[ \t]*\n", "", text, flags=re.S).strip()
    values = heads.describe_smaller(heads.parse_head(text), library)
    values |= heads.describe_base(_name_on_hub(base), base.licence, is_trained=base != full)
    lines = [*heads.format_head(values), "", "# A smaller model", ""]
    lines += [f"This model has {' and '.join(parts_left)} of {full}.", ""]
    lines += [f"The training of the full model started from {base}.", ""] if base != full else []
    lines += ["Command:", "", *format_block(shlex.join(command), "sh"), "", f"xlkd {read_version()}.", ""]
    if full_card:
        lines += ["Below is the card of the full model. Its scores are not those of this model.", "", full_card]
    return "\n".join(lines) + "\n"


def find_base(settings: AnySettings, place: Place) -> Origin:
    """Returns the model that training started from, in this stage or in one before it."""
    if settings.start == "encoder":
        if settings.encoder.path == "new":
            return Origin("new")
        return trace_base(find_origin(settings.encoder.path, settings.encoder.revision))
    start = list_starts(settings.start)[0]
    folder = place.find_export(start)
    return trace_base(find_origin(str(folder)) if folder else find_origin(start, settings.start_revision))


def _list_earlier_data_sets(settings: AnySettings, place: Place) -> list[str]:
    """Returns the data sets of the hub that earlier stages were trained on, as their cards name them."""
    names = []
    for start in list_starts(settings.start):
        folder = place.find_export(start) or pathlib.Path(start)
        if (folder / hf.RECORD).is_file():
            listed = heads.parse_head(_read_start(folder / hf.CARD)).get("datasets")
            names += [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return names


def _name_on_hub(model: Origin) -> str:
    """Returns the name of a model of the hub; "" for any other model."""
    return model.name if _HUB.fullmatch(model.name) and not pathlib.Path(model.name).exists() else ""


def find_origin(name: str, revision: str = "") -> Origin:
    """Returns the revision and licence of a model from its local folder, without a request to the hub."""
    if name.startswith("package:"):
        return Origin(name, None, "apache-2.0")
    folder, commit = hub.find_resolved(name, revision or None)
    return Origin(name, commit, find_licence(folder) if folder else "")


def trace_base(model: Origin) -> Origin:
    """Returns the model that the training of an xlkd export started from; any other model is returned as it is."""
    path = pathlib.Path(model.name) / hf.RECORD
    base = hf.read_json(path).get("base") if path.is_file() else None
    if not isinstance(base, dict) or not isinstance(base.get("name"), str):
        return model
    name, revision, licence = (str(base[key]) if base.get(key) else "" for key in Origin._fields)
    return Origin(name, revision, licence)


def find_licence(folder: pathlib.Path) -> str:
    """Returns the licence in the head of the model card, or else the first line of a licence file; "" without both."""
    head = re.match(r"---\s*\n(.*?)\n---", _read_start(folder / hf.CARD), re.S)
    stated = re.search(r"^license:[ \t]*(?:\n\s*-[ \t]*)?(\S.*)$", head[1], re.M) if head else None
    if stated:
        return stated[1].strip(" \t\r\"'[]")[:100]
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"):
        if line := next((line.strip() for line in _read_start(folder / name).splitlines() if line.strip()), ""):
            return line[:100]
    return ""


def format_code(text: object) -> str:
    """Returns a value as inline code, in which no character acts as markup, also inside a table."""
    plain = escape_controls(str(text)).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", plain)), default=0)
    blank = " " if longest else ""
    return f"{'`' * (longest + 1)}{blank}{plain or ' '}{blank}{'`' * (longest + 1)}"


def format_word(text: str) -> str:
    """Returns text without markup unchanged, and any other text as inline code."""
    return text if _PLAIN.fullmatch(text) else format_code(text)


def format_block(text: str, language: str = "") -> list[str]:
    """Returns the lines of a code block, whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [fence + language, *map(escape_controls, text.split("\n")), fence]


def read_version() -> str:
    """Returns the installed version of xlkd."""
    try:
        return importlib.metadata.version("xlkd")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _describe_model(settings: AnySettings, exported: Export, threshold: Threshold | None) -> list[str]:
    lines = [f"# {format_word(heads.name_model(settings))}", ""]
    lines += [f"Trained by xlkd: method `{settings.method.name}`, config {settings.run}, seed {settings.seed}."]
    if exported.pooling:
        what = f"The vector of a text is {DESCRIBED[exported.pooling]} of the last layer, not normalised."
        lines += [f"{what} The folder opens in transformers and in sentence-transformers."]
    if exported.route:
        lines += [
            f"This is one branch ({format_word(exported.route)}) of a student of several, as an ordinary classifier."
        ]
    if exported.labels:
        lines += [f"Labels, in the order of the logits: {', '.join(map(format_word, exported.labels))}."]
    if threshold:
        what = "A question has no answer where the score of the first token, lowest of all windows, exceeds that of the"
        lines += [f"{what} best span by more than {threshold.value:.6g} ({threshold.origin})."]
    return lines


def _list_origins(settings: AnySettings, base: Origin, place: Place, teacher: str) -> list[str]:
    """Returns a table of the models and data that went into the model, with their licences."""
    rows = [
        ("base model", "none: a new encoder" if base.name == "new" else str(base)),
        ("start", format_code(settings.weights_from)),
    ]
    if settings.teacher.path:
        rows += [("teacher", str(trace_base(find_origin(settings.teacher.path, settings.teacher.revision))))]
    if settings.teacher.vectors:
        rows += [("teacher", f"the vectors of {format_code(settings.teacher.vectors)}")]
    rows += [("teacher", teacher)] if teacher else []
    for tag, names in sorted(settings.teachers.items()):
        for name in filter(None, names.split("+")):
            rows += [(f"teacher of {format_word(tag)}", _describe_classifier(name.strip(), place))]
    for name, title in DATA_TITLES.items():
        if source := getattr(settings.data, name):
            rows += [(f"{title} data", _describe_source(each)) for each in sources.parse(source)]
    return ["## Where it comes from", "", *_format_table(("", "name, and licence as stated there"), rows)]


def _describe_classifier(name: str, place: Place) -> str:
    """Describes a classifier of `config.teachers`, which may be an earlier stage of the run."""
    folder = place.find_export(name)
    if not folder:
        return str(find_origin(name))
    return f"stage {format_code(name)}, which began with {trace_base(find_origin(str(folder)))}"


def _describe_source(source: sources.Source) -> str:
    """Describes a data source: its string, the commit of a data set of the hub, and the licence as stated there."""
    if source.name == "hf":
        from xlkd.data.sources.hf import find_resolved  # imports pyarrow

        folder, commit = find_resolved(source)
        return str(Origin(str(source), commit, find_licence(folder) if folder else ""))
    if source.name == "atlas":
        return f"{format_code(source)}; made by xlkd; names of Unicode CLDR, Unicode licence"
    paths = sources.list_paths(str(source))  # none where the text after the colon is a name
    licence = find_licence(paths[0] if paths[0].is_dir() else paths[0].parent) if paths else ""
    return f"{format_code(source)}; licence: {format_word(licence) if licence else UNSTATED}"


def _list_languages(seen: Mapping[str, Sequence[str]]) -> list[str]:
    ways = {"training": "training", "selection": "choosing the checkpoint", "teacher": "training a teacher"}
    rows = [(ways.get(way, way), _join_words(tags)) for way, tags in seen.items() if way != "parallel"]
    lines = ["## Languages whose labels were seen", "", *_format_table(("in", ""), rows)]
    return lines + (
        ["", f"Parallel text in training: {_join_words(seen['parallel'])}."] if seen.get("parallel") else []
    )


def _join_words(words: Sequence[str]) -> str:
    return ", ".join(map(format_word, words)) or "none"


def _tabulate_scores(scores: Mapping[str, Json], exported: Export, place: Place) -> Iterator[list[str]]:
    """Yields a section with a table for each evaluation set; of a branch it has the scores of that branch."""
    for name, record in scores.items():
        metric, title = record["main"], record["main"]
        if exported.route:
            metric, title = f"accuracy_via_{exported.route}", f"accuracy through {format_word(exported.route)}"
        intervals = _compute_intervals(name, record, metric, place)
        rows = [
            (format_word(cell), f"{values[metric]:.1f}", intervals.get(cell, ""), str(values.get("n", "")))
            for cell, values in record["cells"].items()
            if metric in values
        ]
        if metric == record["main"]:
            rows += [("mean", f"{record['mean']:.1f}", intervals.get("", ""), "")]
        table = _format_table(("", title, "95%", "rows"), rows)
        yield [f"## {format_word(name)}: {title} at step {record['step']}", "", *table]


def _compute_intervals(name: str, record: Mapping[str, Json], metric: str, place: Place) -> dict[str, str]:
    """Returns the confidence interval of each cell, and under "" that of their mean, as the report computes them.

    They come from the scores of each example that the stage kept; a cell without these has no interval.
    """
    rows = files.Stage("", place.stage, files.UNFINISHED, {}).rows(name)
    data_sets = results.score_rows(rows, name, dict(record), metric)
    numbers = {}
    for data_set, (cells, _) in data_sets.items():
        for cell, number in cells.items():
            numbers |= {cell: number, f"{data_set} {cell}": number}
    if len(data_sets) == 1:
        numbers[""] = next(mean for _, mean in data_sets.values())
    return {
        cell: f"{number['low']:.1f} to {number['high']:.1f}"
        for cell, number in numbers.items()
        if number["low"] is not None
    }


def _format_settings(settings: AnySettings) -> list[str]:
    blocks = {key: value for key, value in spec.to_plain(settings).items() if key in SETTINGS}
    return ["## Settings", "", *format_block(json.dumps(blocks, indent=1, ensure_ascii=False, sort_keys=True), "json")]


def _describe_command(environment: Mapping[str, Json]) -> list[str]:
    """Returns the section on the command, the revision and the packages of the run."""
    lines = ["## How it was made", ""]
    if not environment:
        return [*lines, f"By xlkd {read_version()}; the run left no record of its command."]
    changed = ", with changes that were not committed" if environment.get("git_changes") else ""
    revision = (
        f"revision {format_code(environment['git'])}{changed}" if environment.get("git") else "not a git checkout"
    )
    packages = ", ".join(f"{name} {number}" for name, number in (environment.get("packages") or {}).items())
    lines += [*format_block(shlex.join(map(str, environment.get("command") or ())), "sh"), ""]
    return [*lines, f"xlkd {read_version()} ({revision}), Python {environment.get('python')}, {packages}."]


def _format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _read_start(path: pathlib.Path) -> str:
    """Reads the start of a text file; "" where it cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LICENCE_CHARACTERS)
    except OSError:
        return ""
