# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The card of an exported model, from the run's own files: where it comes from, what it saw, what it scored.

What data, paths and labels say stands there as text: it can be neither markup nor a key of the card's head.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from xlkd import spec
from xlkd.data import sources
from xlkd.errors import escape_controls
from xlkd.methods import Export
from xlkd.models import hf, hub, sentences
from xlkd.models.pooling import DESCRIBED
from xlkd.reports import files, results
from xlkd.spec.stage import AnySettings

SETTINGS = ("seed", "encoder", "task", "data", "method", "teacher", "teachers", "optim", "budget", "eval")
UNSTATED = "not stated where it was taken from"
READ = 1 << 16  # characters of a file in which a licence is looked for
_PLAIN = re.compile(r"[\w→ ,:%+-]+")  # is itself wherever it stands
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Origin(NamedTuple):
    """A model by its name, with what is known of it."""

    name: str
    revision: str | None = None
    licence: str = ""

    def __str__(self) -> str:
        revision = f", revision {code(self.revision)}" if self.revision else ""
        return f"{code(self.name)}{revision}; licence: {said(self.licence) if self.licence else UNSTATED}"


class Place(NamedTuple):
    """Where an export stands in a run: its stage's folder and its work directory, where there is one."""

    stage: pathlib.Path | None
    workdir: pathlib.Path | None

    @classmethod
    def of(cls, export: pathlib.Path) -> Place:
        for folder in export.absolute().parents:
            if folder.parent.name == "stages":
                return cls(folder, folder.parent.parent)
        return cls(None, None)

    def environment(self) -> dict[str, Any]:
        path = self.workdir / "environment.json" if self.workdir else None
        return hf.read_json(path) if path and path.exists() else {}

    def earlier(self, name: str) -> pathlib.Path | None:
        """What an earlier stage exported."""
        found = self.stage.parent.iterdir() if self.stage else ()
        return next((path / "export" for path in found if re.fullmatch(rf"\d+-{re.escape(name)}", path.name)), None)


def card(
    settings: AnySettings,
    scores: Mapping[str, Any],
    seen: Mapping[str, Sequence[str]],
    exported: Export,
    place: Place,
    teacher: str = "",
) -> str:
    """Returns the model card: `scores` of the stage by set, `seen` languages by kind, `teacher` as the method says."""
    base = base_of(settings, place)
    parts = [
        _keys("sentence-transformers" if exported.pooling else "transformers", base),
        _title(settings, exported),
        _origins(settings, base, place, teacher),
        _seen(seen),
        *_scores(scores, exported, place),
        _settings(settings),
        _made(place.environment()),
    ]
    return "\n".join(line for part in parts for line in (*part, ""))


def trimmed(folder: pathlib.Path, whole: Origin, kept: Sequence[str], flags: Sequence[str]) -> str:
    """Of a model that is a part of another: what was kept, and under it the other's own card."""
    base = first(Origin(str(folder), licence=whole.licence)) if (folder / hf.RECORD).is_file() else whole
    pooled = "sentence-transformers" if (folder / sentences.MODULES).is_file() else "transformers"
    own = re.sub(r"\A---\s*\n.*?\n---[ \t]*\n", "", _text(folder / hf.CARD), flags=re.S).strip()
    lines = [*_keys(pooled, base), "", "# A smaller model", "", f"Of {whole}, this is {' and '.join(kept)}.", ""]
    lines += [f"It began with {base}.", ""] if base != whole else []
    lines += [
        "Made by:",
        "",
        *fenced(shlex.join(["python", "-m", "xlkd.trim", *flags]), "sh"),
        "",
        f"xlkd {version()}.",
        "",
    ]
    lines += ["Below is the card of the whole model. Its scores are not this model's.", "", own] if own else []
    return "\n".join(lines) + "\n"


def base_of(settings: AnySettings, place: Place) -> Origin:
    """The model that training began with, in this stage or in one before it."""
    if settings.start == "encoder":
        if settings.encoder.path == "new":
            return Origin("new")
        return first(origin(settings.encoder.path, settings.encoder.revision))
    folder = place.earlier(settings.start)
    return first(origin(str(folder) if folder else settings.start))


def origin(name: str, revision: str = "") -> Origin:
    """What the folder of a model says of itself, without a question to the hub."""
    if name.startswith("package:"):
        return Origin(name, None, "apache-2.0")
    folder, commit = hub.find_resolved(name, revision or None)
    return Origin(name, commit, licence(folder) if folder else "")


def first(of: Origin) -> Origin:
    """What a model of ours began with; another is its own beginning."""
    path = pathlib.Path(of.name) / hf.RECORD
    recorded = hf.read_json(path).get("base") if path.is_file() else None
    if not isinstance(recorded, dict) or not isinstance(recorded.get("name"), str):
        return of
    return Origin(*(str(recorded[key]) if recorded.get(key) else "" for key in Origin._fields))


def licence(folder: pathlib.Path) -> str:
    """As the head of a card there states it, else the first line of a licence file; empty where neither is."""
    with_head = _text(folder / hf.CARD)
    head = re.match(r"---\s*\n(.*?)\n---", with_head, re.S)
    found = re.search(r"^license:[ \t]*(?:\n\s*-[ \t]*)?(\S.*)$", head[1], re.M) if head else None
    if found:
        return found[1].strip(" \t\r\"'[]")[:100]
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING"):
        if line := next((line.strip() for line in _text(folder / name).splitlines() if line.strip()), ""):
            return line[:100]
    return ""


def code(text: Any) -> str:
    """Text that is nothing but text, in a table too."""
    text = escape_controls(str(text)).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", text)), default=0)
    blank = " " if longest else ""
    return f"{'`' * (longest + 1)}{blank}{text or ' '}{blank}{'`' * (longest + 1)}"


def said(text: str) -> str:
    """A word as it stands, anything else as code."""
    return text if _PLAIN.fullmatch(text) else code(text)


def fenced(text: str, kind: str = "") -> list[str]:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [fence + kind, *map(escape_controls, text.split("\n")), fence]


def version() -> str:
    try:
        return importlib.metadata.version("xlkd")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _keys(library: str, base: Origin) -> list[str]:
    """What the hub reads."""
    lines = ["---", f"library_name: {library}", "tags: [xlkd]"]
    lines += ["pipeline_tag: sentence-similarity"] if library == "sentence-transformers" else []
    is_hub = _HUB.fullmatch(base.name) and not pathlib.Path(base.name).exists()
    return [*lines, *([f"base_model: {json.dumps(base.name)}"] if is_hub else []), "---"]


def _title(settings: AnySettings, exported: Export) -> list[str]:
    lines = [f"# {said(settings.name)}", ""]
    lines += [f"Trained by xlkd: method `{settings.method.name}`, config {settings.run}, seed {settings.seed}."]
    if exported.pooling:
        what = f"The vector of a text is {DESCRIBED[exported.pooling]} of the last layer, not normalised."
        lines += [f"{what} The folder opens in transformers and in sentence-transformers."]
    if exported.route:
        lines += [f"One branch ({said(exported.route)}) of a student of several, as an ordinary classifier."]
    if exported.labels:
        lines += [f"Labels, in the order of the logits: {', '.join(map(said, exported.labels))}."]
    return lines


def _origins(settings: AnySettings, base: Origin, place: Place, teacher: str) -> list[str]:
    rows = [
        ("base model", "none: a new encoder" if base.name == "new" else str(base)),
        ("start", code(settings.weights_from)),
    ]
    if settings.teacher.path:
        rows += [("teacher", str(first(origin(settings.teacher.path, settings.teacher.revision))))]
    rows += [("teacher", teacher)] if teacher else []
    for tag, names in sorted(settings.teachers.items()):
        rows += [(f"teacher of {said(tag)}", _teacher(name, place)) for name in filter(None, names.split("+"))]
    for name, title in DATA.items():
        rows += [(f"{title} data", _data(source)) for source in _specs(getattr(settings.data, name))]
    return ["## Where it comes from", "", *_table(("", "with the licence as it is given there"), rows)]


DATA = {
    "train": "training",
    "eval": "evaluation",
    "dev": "selection",
    "retrieval": "retrieval",
    "alignment": "alignment",
}


def _teacher(name: str, place: Place) -> str:
    folder = place.earlier(name.strip())
    if not folder:
        return str(origin(name.strip()))
    return f"stage {code(name.strip())}, which began with {first(origin(str(folder)))}"


def _specs(source: str) -> list[sources.Spec]:
    return sources.parse(source) if source else []


def _data(spec: sources.Spec) -> str:
    if not spec.path:
        stated = "made by xlkd; names of Unicode CLDR, Unicode licence" if spec.name == "atlas" else UNSTATED
        return f"{code(spec)}; {stated}"
    path = pathlib.Path(spec.path).expanduser()
    stated = licence(path if path.is_dir() else path.parent)
    return f"{code(spec)}; licence: {said(stated) if stated else UNSTATED}"


def _seen(seen: Mapping[str, Sequence[str]]) -> list[str]:
    ways = {"training": "training", "selection": "choosing the checkpoint", "teacher": "training a teacher"}
    rows = [(ways.get(way, way), _listed(of)) for way, of in seen.items() if way != "parallel"]
    lines = ["## Languages whose labels were seen", "", *_table(("in", ""), rows)]
    return lines + (["", f"Parallel text in training: {_listed(seen['parallel'])}."] if seen.get("parallel") else [])


def _listed(tags: Sequence[str]) -> str:
    return ", ".join(map(said, tags)) or "none"


def _scores(told: Mapping[str, Any], exported: Export, place: Place) -> Iterator[list[str]]:
    for name, found in told.items():
        metric, title = found["main"], found["main"]
        if exported.route:
            metric, title = f"accuracy_via_{exported.route}", f"accuracy through {said(exported.route)}"
        between = _intervals(name, metric, place)
        rows = [
            (said(cell), f"{values[metric]:.1f}", between.get(cell, ""), str(values.get("n", "")))
            for cell, values in found["cells"].items()
            if metric in values
        ]
        if metric == found["main"]:
            rows += [("mean", f"{found['mean']:.1f}", between.get("", ""), "")]
        yield [f"## {said(name)}: {title} at step {found['step']}", "", *_table(("", title, "95%", "rows"), rows)]


def _intervals(name: str, metric: str, place: Place) -> dict[str, str]:
    """By cell, and by "" of their mean, from where to where: drawn over groups of the rows that the stage kept."""
    rows = files.Stage("", place.stage, files.UNFINISHED, {}).rows(name)
    found = results.score_rows(rows, name, metric)
    numbers = {
        key: number for set, (cells, _) in found.items() for c, number in cells.items() for key in (c, f"{set} {c}")
    }
    if len(found) == 1:
        numbers[""] = next(mean for _, mean in found.values())
    return {
        cell: f"{number['low']:.1f} to {number['high']:.1f}"
        for cell, number in numbers.items()
        if number["low"] is not None
    }


def _settings(settings: AnySettings) -> list[str]:
    blocks = {key: value for key, value in spec.to_plain(settings).items() if key in SETTINGS}
    return ["## Settings", "", *fenced(json.dumps(blocks, indent=1, ensure_ascii=False, sort_keys=True), "json")]


def _made(environment: Mapping[str, Any]) -> list[str]:
    lines = ["## How it was made", ""]
    if not environment:
        return [*lines, f"By xlkd {version()}; the run left no record of its command."]
    changed = ", with changes that were not committed" if environment.get("git_changes") else ""
    revision = f"revision {code(environment['git'])}{changed}" if environment.get("git") else "not a git checkout"
    packages = ", ".join(f"{name} {of}" for name, of in (environment.get("packages") or {}).items())
    lines += [*fenced(shlex.join(map(str, environment.get("command") or ())), "sh"), ""]
    return [*lines, f"xlkd {version()} ({revision}), Python {environment.get('python')}, {packages}."]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _text(path: pathlib.Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(READ)
    except OSError:
        return ""
