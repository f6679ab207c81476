# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Official scores by language: `python -m xlkd.evaluate --model=DIR --data=xquad:DIR [--json=FILE]`.

  --model=NAME           a folder (what a run exported, or any other of transformers' kind), a hub id, package:NAME
  --predictions=PATH     instead of a model: answers that any system made, the official {id: answer} JSON. A folder, or
                         several files joined by commas, holds one file for each cell, named as the data files are:
                         xquad.de.json, dev-context-de-question-en.json; for other data context-de-question-en.json
  --data=SOURCE          squad:FILE, xquad:DIR, mlqa:DIR?pairs=all, tydiqa:DIR, tfds:NAME, atlas; joined by +;
                         texts with labels: xnli:DIR, pawsx:DIR, nusax:DIR, amazon:DIR, tsv:FILE, csv:FILE, jsonl:FILE
  --json=FILE            also write everything as JSON: cells, averages with what they lack, settings, near-ties
  --on_bad_row=skip      leave bad rows out and list them, instead of stopping at the first
  --task=qa|classify     what is asked of the model, where data and model leave it open
  --batch=64             rows at a time; the scores do not depend on it
  --revision=COMMIT      of a hub id

Task settings, by default those that the model was trained with, where a run of ours recorded them:
  --max_length=384 --max_query_length=64 --doc_stride=128 --doc_stride_means=step|overlap --candidates=all|context
  --n_best=20 --max_answer_tokens=30 --published_empty=false --mlqa_fallback=false

Classification:
  --language=de          of all rows, whatever the data say; und: not known
  --route=de             through that branch of a model that has several; or mixture: through all of them
  --labels=A,B,C         the names of the model's labels, in the order of its logits, where it has none of its own

A language with a branch goes through its branch, any other through the mixture of all; the table says which, and gives
accuracy by every other route in the JSON. Means over languages are named by the labels that the model's run saw.

A cell is named by question language and context language: en-de asks in English about German text. MLQA is scored by
its own rules, all else by SQuAD's. An average is official only where no cell of it is missing.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from xlkd import cli
from xlkd.errors import UserError, escape_controls
from xlkd.rows import Cell
from xlkd.settings import TASK_FLAGS

OF_LABELS = ("language", "route", "labels")
FLAGS = ("model", "predictions", "data", "json", "on_bad_row", "task", "batch", "revision", *OF_LABELS, *TASK_FLAGS)
METRICS = ("f1", "em")
TASKS = ("qa", "classify")
_NAMES = (  # of a file of predictions; the groups are context and question language, or both in one
    r"(?:.*-)?context-([\w-]+)-question-([\w-]+)\.json",
    r"xquad\.([\w-]+)\.json",
    r"tydiqa\.goldp\.([\w-]+)\.\w+\.json",
)


def main(arguments: list[str]) -> None:
    flags = cli.parse_flags(arguments, FLAGS)
    if ("model" in flags) == ("predictions" in flags):
        raise UserError("give --model or --predictions, one of them", "command line", "--help shows both")
    if "data" not in flags:
        raise UserError("no --data given", "command line", "for example --data=xquad:DIR")
    if flags.get("task", "qa") not in TASKS:
        raise UserError(f"--task={flags['task']} is not possible", "command line", f"{' and '.join(TASKS)} are")
    batch = cli.parse_count(flags, "batch", 64)
    from xlkd.data import sources

    file = cli.resolve_output(flags, "json", [*sources.list_paths(flags["data"]), *_list_inputs(flags)])
    task = _task(flags)
    if task == "qa" and (unused := [name for name in OF_LABELS if name in flags]):
        raise UserError(f"--{unused[0]} belongs to classification", "command line", "leave it out")
    rows = sources.read(flags["data"], task, flags.get("on_bad_row", "stop"))
    for where, reason in rows.dropped:
        print(escape_controls(f"left out: {where}: {reason}"), file=sys.stderr)
    if task == "classify":
        judged = _classifier(flags, rows, batch)
    else:
        judged = _model(flags, rows, batch) if "model" in flags else _predictions(flags, rows)
    dropped = [{"where": where, "reason": reason} for where, reason in rows.dropped]
    found = {"version": 1, "data": flags["data"], "rows": len(rows), "dropped": dropped} | judged
    if file:
        file.write_json(found)
    print("\n".join(map(escape_controls, label_table(found) if task == "classify" else table(found))))


def _list_inputs(flags: dict[str, str]) -> list[pathlib.Path]:
    """Returns what is read beside the data: the model's folder, or the answers."""
    if "predictions" in flags:
        return [pathlib.Path(part).expanduser() for part in flags["predictions"].split(",")]
    folder = pathlib.Path(flags["model"]).expanduser()
    return [folder] if folder.is_dir() else []  # else a name of the hub or the package


def _task(flags: dict[str, str]) -> str:
    """As asked; else what the data can be asked, and where that is both, what the model was made for."""
    from xlkd.data import sources

    served = set(TASKS).intersection(*(sources.list_tasks(spec) for spec in sources.parse(flags["data"])))
    if "task" in flags or len(served) == 1:
        return flags.get("task") or served.pop()
    if "model" not in flags:
        return "qa"
    from xlkd import api

    return api.task_of(flags["model"], flags.get("revision", ""))


def _model(flags: dict[str, str], rows, batch: int) -> dict[str, Any]:
    """What a model answers."""
    from xlkd import api, spec
    from xlkd.inputs import data as inputs
    from xlkd.runtime.log import Log
    from xlkd.tasks.scores import score

    model = api.load(flags["model"], flags.get("revision", ""))
    chosen = model.task("qa", flags)
    reader = api.Reader(model, chosen, batch=batch)
    log = Log(stream=sys.stderr)
    features = inputs.load_features(reader.task, rows, log)
    log(f"reading {len(features['lengths'])} windows of {len(rows)} rows")
    predictions = reader.predictions(features)
    scores = score(predictions.texts, rows, chosen.mlqa_fallback)
    ties = [
        {"id": rows[i].id, "key": rows[i].key, "cell": str(Cell.from_example(rows[i]))} for i in predictions.near_ties()
    ]
    model_is = {"model": flags["model"], "revision": model.revision, "task": spec.plain(chosen)}
    return model_is | summary(scores.cells) | {"near_ties": ties}


def _predictions(flags: dict[str, str], rows) -> dict[str, Any]:
    """What the answers in files are worth; no model, no jax."""
    from xlkd import settings
    from xlkd.tasks.scores import score_file

    if unused := [name for name in ("batch", "revision", *TASK_FLAGS) if name in flags and name != "mlqa_fallback"]:
        raise UserError(f"--{unused[0]} belongs to a model", "command line", "leave it out with --predictions")
    fallback = settings.task("qa", {}, flags).mlqa_fallback
    members: dict[Cell, list[Any]] = {}
    for row in rows:
        members.setdefault(Cell.from_example(row), []).append(row)
    files = _files(flags["predictions"], list(members.values()))
    cells = {}
    for cell, those in members.items():
        path = files.get(cell.languages) or files.get(())
        if not path:
            question, context = cell.languages
            named = f"context-{context}-question-{question}.json"
            raise UserError(f"no file for {cell}", flags["predictions"], f"name it {named}, see --help")
        scores, missing = score_file(_read(path), those, str(path), fallback)
        cells[cell] = scores.cells[cell] | {"missing": missing}
    return {"predictions": flags["predictions"]} | summary(cells)


def _classifier(flags: dict[str, str], rows, batch: int) -> dict[str, Any]:
    """What a model says of texts with labels."""
    if "model" not in flags:
        raise UserError("--predictions are answers to questions", "command line", "give --model for labels")
    from xlkd import api, spec
    from xlkd.inputs import data as inputs
    from xlkd.languages import UNKNOWN, normalise_tag
    from xlkd.rows import make_key
    from xlkd.runtime.log import Log

    if tag := flags.get("language"):
        tag = tag if tag == UNKNOWN else normalise_tag(tag, "--language")
        told = [dataclasses.replace(row, language=tag, key=make_key(row.key, tag)) for row in rows]
        rows = dataclasses.replace(rows, parts=(told,))
    model = api.load(flags["model"], flags.get("revision", ""))
    chosen = model.task("classify", flags)
    labeller, log = api.Labeller(model, chosen, batch=batch), Log(stream=sys.stderr)
    forced = flags.get("route", "")
    routes = collections.Counter(labeller.route_of(row.language, forced) for row in rows)
    features = inputs.load_features(labeller.task, rows, log)
    log(f"reading {len(rows)} rows")
    scores = labeller.task.score(labeller.outputs(features, forced), features, rows)
    found = {
        "model": flags["model"],
        "revision": model.revision,
        "task": spec.plain(chosen),
        "routes": dict(routes),
    }
    way = {row.language: labeller.route_of(row.language, forced) for row in rows}
    return found | label_summary(scores.cells, way, model.record.get("seen"))


def label_summary(cells: Mapping[Cell, Mapping[str, Any]], way: Mapping[str, str], seen) -> dict[str, Any]:
    """Returns cells by set with their means over languages; `seen` is what a run recorded of the labels it saw."""
    from xlkd.metrics import labels

    training = set((seen or {}).get("training", ()))
    other = set().union(*(seen or {}).values())
    sets: dict[str, Any] = {}
    for name in dict.fromkeys(cell.set for cell in cells):
        mine = {cell.languages[0]: values for cell, values in cells.items() if cell.set == name}
        values = {tag: cell["accuracy"] for tag, cell in mine.items()}
        zero = [tag for tag in values if seen and tag not in other]
        means = labels.means(values, supervised=training, zero_shot=zero, pivot="en" if "en" in values else None)
        sets[name] = {
            "cells": {tag: {"languages": [tag], "route": way[tag] or None, **cell} for tag, cell in mine.items()},
            "averages": {m: {"accuracy": of.value, "languages": list(of.languages)} for m, of in means.items()},
        }
    return {"sets": sets, "mean": {"accuracy": sum(cell["accuracy"] for cell in cells.values()) / len(cells)}}


def label_table(found: Mapping[str, Any]) -> list[str]:
    """The lines that a person reads."""
    lines = []
    for set, held in found["sets"].items():
        lines.append(f"{set:<16} {'accuracy':>8} {'macro-F1':>8} {'majority':>8} {'rows':>7}  route")
        lines += [
            f"{tag:<16} {cell['accuracy']:8.2f} {cell['macro_f1']:8.2f} {cell['majority']:8.2f} {cell['n']:7d}"
            f"  {cell['route'] or '–'}"
            for tag, cell in held["cells"].items()
        ]
        lines += [
            f"{name:<16} {average['accuracy']:8.2f}  {', '.join(average['languages'])}"
            for name, average in held["averages"].items()
            if average["accuracy"] is not None
        ]
    if found["routes"].keys() != {""}:
        lines.append("rows by route: " + ", ".join(f"{name} {count}" for name, count in found["routes"].items()))
    return lines


def summary(cells: Mapping[Cell, Mapping[str, float]]) -> dict[str, Any]:
    """Returns cells by set with their averages, and the plain mean over all cells."""

    sets = {}
    for name in dict.fromkeys(cell.set for cell in cells):
        mine = {cell.languages: values for cell, values in cells.items() if cell.set == name}
        shown = {str(Cell("", pair)): {"languages": list(pair), **values} for pair, values in mine.items()}
        sets[name] = {"cells": shown, "averages": _averages(name, mine)}
    mean = {metric: sum(cell[metric] for cell in cells.values()) / len(cells) for metric in METRICS}
    return {"sets": sets, "mean": mean}


def _averages(set: str, cells: Mapping[tuple[str, str], Mapping[str, float]]) -> dict[str, Any]:
    from xlkd.metrics import averages

    languages = averages.LANGUAGES.get(set) or sorted({language for cell in cells for language in cell})
    named: dict[str, Any] = {}
    for metric in METRICS:
        scores = {cell: values[metric] for cell, values in cells.items()}
        for name, found in averages.averages(scores, languages, set=set).items():
            counts = {"title": found.title, "of": len(found.cells), "missing": len(found.missing)}
            entry = named.setdefault(name, counts)
            entry[metric] = found.value
            if name == "worst" and found.cells:
                entry[f"{metric}_cell"] = str(Cell("", found.cells[0]))
    return named


def table(found: Mapping[str, Any]) -> list[str]:
    """The lines that a person reads."""
    lines = []
    for set, held in found["sets"].items():
        lines.append(f"{set:<12} {'F1':>7} {'EM':>7} {'questions':>10}")
        for name, cell in held["cells"].items():
            absent = f"  {cell['missing']} without an answer" if cell.get("missing") else ""
            lines.append(f"{name:<12} {cell['f1']:7.2f} {cell['em']:7.2f} {cell['n']:10d}{absent}")
        lines += [
            f"{name:<12} {average['f1']:7.2f} {average['em']:7.2f}{_remark(name, average)}"
            for name, average in held["averages"].items()
            if average["f1"] is not None and "[" not in name
        ]
    lines.append(f"{'all cells':<12} {found['mean']['f1']:7.2f} {found['mean']['em']:7.2f} {found['rows']:10d}")
    if ties := found.get("near_ties"):
        some = ", ".join(tie["id"] for tie in ties[:3]) + (", …" if len(ties) > 3 else "")
        lines.append(f"{len(ties)} rows whose two best answers may change places on other devices: {some}")
    return lines


def _remark(name: str, average: Mapping[str, Any]) -> str:
    if name == "worst":
        return f"  F1 {average['f1_cell']}, EM {average['em_cell']}"
    return f"  {average['of']} of {average['of'] + average['missing']} cells" if average["missing"] else ""


def _files(flags: str, cells: Sequence[Sequence[Any]]) -> dict[tuple[str, ...], pathlib.Path]:
    """Files of predictions by (question, context) language; by () the one that serves all cells."""
    from xlkd.languages import normalise_tag

    paths = [pathlib.Path(part).expanduser() for part in flags.split(",")]
    if len(paths) == 1 and not paths[0].is_dir():
        ids = [{row.id for row in rows} for rows in cells]
        if sum(map(len, ids)) > len(set().union(*ids)):
            what = f"one file for {len(cells)} cells that share ids"
            raise UserError(what, flags, "give a folder with one file for each cell, or --data of one cell")
        return {(): paths[0]}
    found: dict[tuple[str, ...], pathlib.Path] = {}
    for path in [file for one in paths for file in (sorted(one.glob("*.json")) if one.is_dir() else [one])]:
        match = next(filter(None, (re.fullmatch(name, path.name) for name in _NAMES)), None)
        if not match:
            raise UserError("the name does not say which cell", str(path), "name it as the data file is, see --help")
        context, question = (normalise_tag(tag, str(path)) for tag in (match.groups() * 2)[:2])
        if (question, context) in found:
            raise UserError(f"the same cell as {found[question, context]}", str(path), "keep one of the two")
        found[question, context] = path
    return found


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "look at the path") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", str(path), "save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"broken JSON: {error}", str(path), "write the file again") from None


if __name__ == "__main__":
    sys.exit(cli.run(main))
