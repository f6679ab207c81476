# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes official scores by language: `python -m xlkd.evaluate --model=DIR --data=xquad:DIR [--json=FILE]`.

  --model=NAME           a folder (an export of a run, or any other in transformers' format), a hub id, package:NAME
  --predictions=PATH     instead of a model: answers of any system, as the official {id: answer} JSON. A folder, or
                         several files joined by commas, has one file for each cell, named as the data files are:
                         xquad.de.json, dev-context-de-question-en.json; for other data context-de-question-en.json
  --data=SOURCE          squad:FILE, xquad:DIR, mlqa:DIR?pairs=all, tydiqa:DIR, tfds:NAME, atlas; joined by +;
                         texts with labels: xnli:DIR, pawsx:DIR, nusax:DIR, amazon:DIR, tsv:FILE, csv:FILE, jsonl:FILE
  --json=FILE            also write everything as JSON: cells, averages and their missing cells, settings, near-ties
  --on_bad_row=skip      leave bad rows out and list them, instead of stopping at the first
  --task=qa|classify     the task, where data and model allow both
  --batch=64             rows per batch, on CPUs fewer if they are long; the scores do not depend on it
  --revision=COMMIT      of a hub id

Task settings, by default those of the model's training, where a run of xlkd recorded them:
  --max_length=384 --max_query_length=64 --doc_stride=128 --doc_stride_means=step|overlap --candidates=all|context
  --n_best=20 --max_answer_tokens=30 --published_empty=false --mlqa_fallback=false
  --null_threshold=0     for data with unanswerable questions: a question gets no answer where the score of no answer
                         exceeds that of the best span by more; by default the threshold that was chosen in training

Classification:
  --language=de          of all rows, instead of the data's languages; und: not known
  --route=de             use that branch of a model that has several; or mixture: all of them
  --labels=A,B,C         the names of the model's labels, in the order of its logits, where it has none of its own

A language with a branch uses its branch, any other the mixture of all; the table says which, and the JSON has the
accuracy of every other route. Means over languages are named by the labels seen in training.

A cell is named by question language and context language: en-de asks in English about German text. MLQA is scored by
its own rules, all other data by SQuAD's; a cell with unanswerable questions by those of SQuAD 2, with the same names:
HasAns, NoAns, and the best threshold that the cell could have had. An average is official only if none of its cells is
missing.

Examples:
  python -m xlkd.evaluate --model=runs/NAME/stages/02-ce/export --data=xquad:DIR
  python -m xlkd.evaluate --predictions=answers.json --data=squad:dev.json --json=scores.json
  python -m xlkd.evaluate --model=OWNER/NAME --data='tsv:test.tsv?languages=de' --labels=negative,positive
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from xlkd import cli, files
from xlkd.errors import UserError, escape_controls
from xlkd.files import Json, expand_path
from xlkd.rows import Cell, Question
from xlkd.settings import TASK_FLAGS

if TYPE_CHECKING:
    from xlkd.data.sources import Rows

LABEL_FLAGS = ("language", "route", "labels")
MODEL_FLAGS = ("batch", "revision", "null_threshold", *TASK_FLAGS)
FLAGS = ("model", "predictions", "data", "json", "on_bad_row", "task", *LABEL_FLAGS, *MODEL_FLAGS)
METRICS = ("f1", "em")
TASKS = ("qa", "classify")
_NAMES = (  # of files of predictions; the groups are context and question language, or one group for both
    r"(?:.*-)?context-([\w-]+)-question-([\w-]+)\.json",
    r"xquad\.([\w-]+)\.json",
    r"tydiqa\.goldp\.([\w-]+)\.\w+\.json",
)


def main(arguments: list[str]) -> None:
    """Evaluates a model, or answers in files."""
    flags = cli.parse_flags(arguments, FLAGS)
    if ("model" in flags) == ("predictions" in flags):
        raise UserError("give either --model or --predictions", "command line", "--help shows both")
    if "data" not in flags:
        raise UserError("no --data given", "command line", "for example --data=xquad:DIR")
    if flags.get("task", "qa") not in TASKS:
        raise UserError(f"--task={flags['task']} is not possible", "command line", f"choose {' or '.join(TASKS)}")
    batch = cli.parse_count(flags, "batch", 64, 65_536)
    from xlkd.data import sources

    file = cli.resolve_output(flags, "json", [*sources.list_paths(flags["data"]), *_list_inputs(flags)])
    task = _choose_task(flags)
    if task == "qa" and (unused := [name for name in LABEL_FLAGS if name in flags]):
        raise UserError(f"--{unused[0]} does not belong to the task qa", "command line", "leave it out")
    if task == "classify" and "null_threshold" in flags:
        raise UserError("--null_threshold does not belong to the task classify", "command line", "leave it out")
    rows = sources.read(flags["data"], task, flags.get("on_bad_row", "stop"), "--on_bad_row")
    for where, reason in rows.dropped:
        print(escape_controls(f"left out: {where}: {reason}"), file=sys.stderr)
    for note in rows.notes:
        print(escape_controls(f"note: {note}"), file=sys.stderr)
    if task == "classify":
        scores = _evaluate_classifier(flags, rows, batch)
    else:
        scores = _evaluate_model(flags, rows, batch) if "model" in flags else _evaluate_predictions(flags, rows)
    dropped = [{"where": where, "reason": reason} for where, reason in rows.dropped]
    results = {"version": 1, "data": flags["data"], "rows": len(rows), "dropped": dropped} | scores
    if file:
        file.write_json(results)
    lines = format_label_table(results) if task == "classify" else format_question_table(results)
    print("\n".join(map(escape_controls, lines)))


def _list_inputs(flags: dict[str, str]) -> list[pathlib.Path]:
    """Returns the paths that are read beside the data: the model's folder, or the answers."""
    if "predictions" in flags:
        return [expand_path(part) for part in flags["predictions"].split(",")]
    folder = expand_path(flags["model"])
    return [folder] if folder.is_dir() else []  # else a hub id or package:NAME


def _choose_task(flags: dict[str, str]) -> str:
    """Returns the task of `--task`, else the one that the data allows, else the one that the model was trained for."""
    from xlkd.data import sources

    possible = set(TASKS).intersection(*(sources.list_tasks(source) for source in sources.parse(flags["data"])))
    if "task" in flags or len(possible) == 1:
        return flags.get("task") or possible.pop()
    if "model" not in flags:
        return "qa"
    from xlkd import api

    return api.find_task(flags["model"], flags.get("revision", ""))


def _evaluate_model(flags: dict[str, str], rows: Rows, batch: int) -> dict[str, Json]:
    """Returns the scores of a model's answers."""
    from xlkd import api, spec
    from xlkd.inputs import data as inputs
    from xlkd.runtime.log import Log
    from xlkd.tasks.nulls import apply_threshold, find_near_threshold
    from xlkd.tasks.scores import average_records, find_unanswerable_cells

    model = api.load(flags["model"], flags.get("revision", ""))
    task_settings, threshold = model.question_settings(flags), model.null_threshold(flags)
    reader = api.Reader(model, task_settings, batch=batch)
    log = Log(stream=sys.stderr)
    features = inputs.load_features(reader.task, rows, log)
    log(f"reading {len(features['lengths'])} windows of {len(rows)} rows")
    predictions = reader.predict(features)
    unanswerable = find_unanswerable_cells(rows)
    records = reader.task.make_records(predictions, rows, unanswerable)
    limit = threshold.value if threshold else None
    scores = average_records(apply_threshold(records, rows, limit, task_settings.mlqa_fallback), rows)
    close = {*predictions.near_ties(), *find_near_threshold(records, limit)}
    ties = [{"id": rows[i].id, "key": rows[i].key, "cell": str(Cell.from_example(rows[i]))} for i in sorted(close)]
    identity = {"model": flags["model"], "revision": model.revision, "task": spec.to_plain(task_settings)}
    if unanswerable:
        identity |= {"null_threshold": threshold._asdict() if threshold else None}
        if not threshold:
            log("note: the model has no threshold, so each question gets a span; --null_threshold=0 sets one")
    return identity | summarize_questions(scores.cells) | {"near_ties": ties}


def _evaluate_predictions(flags: dict[str, str], rows: Rows) -> dict[str, Json]:
    """Returns the scores of answers in files; needs neither a model nor jax."""
    from xlkd import settings
    from xlkd.tasks.scores import score_file

    if unused := [name for name in MODEL_FLAGS if name in flags and name != "mlqa_fallback"]:
        raise UserError(f"--{unused[0]} needs --model", "command line", "leave it out with --predictions")
    fallback = settings.read_task("qa", {}, flags).mlqa_fallback
    members: dict[Cell, list[Question]] = {}
    for row in rows:
        members.setdefault(Cell.from_example(row), []).append(row)
    prediction_files = _find_prediction_files(flags["predictions"], list(members.values()))
    cells, has_answers = {}, False
    for cell, cell_rows in members.items():
        path = prediction_files.get(cell.languages) or prediction_files.get(())
        if not path:
            question, context = cell.languages
            file_name = f"context-{context}-question-{question}.json"
            what = f"no file for questions in {question} about contexts in {context}"
            raise UserError(what, flags["predictions"], f"name it {file_name}")
        predictions = _read_json(path)
        scores, missing = score_file(predictions, cell_rows, str(path), fallback)
        cells[cell] = scores.cells[cell] | {"missing": missing}
        has_answers = has_answers or bool(predictions)
    _print_unread(flags["predictions"], {prediction_files.get(cell.languages) for cell in members})
    if has_answers and sum(scores["missing"] for scores in cells.values()) == len(rows):
        raise UserError("has answers to none of the questions", flags["predictions"], "give the answers to this data")
    return {"predictions": flags["predictions"]} | summarize_questions(cells)


def _print_unread(text: str, read: Collection[pathlib.Path | None]) -> None:
    """Prints the names of the files in folders of predictions that no cell of the data needs."""
    from xlkd.data.sources import BadRows

    for folder in filter(pathlib.Path.is_dir, map(expand_path, text.split(","))):
        unread = sorted(path.name for path in folder.iterdir() if path not in read and not path.name.startswith("."))
        notes = BadRows()
        notes.note_unread(folder, unread)
        for place, note in notes.notes.items():
            print(escape_controls(f"note: {place}: {note}"), file=sys.stderr)


def _evaluate_classifier(flags: dict[str, str], rows: Rows, batch: int) -> dict[str, Json]:
    """Returns the scores of the labels that a model gives to texts."""
    if "model" not in flags:
        raise UserError("--predictions is for question answering", "command line", "give --model for labels")
    from xlkd import api, spec
    from xlkd.inputs import data as inputs
    from xlkd.languages import UNKNOWN, normalise_tag
    from xlkd.rows import make_key
    from xlkd.runtime.log import Log
    from xlkd.tasks.classify import describe_names

    if tag := flags.get("language"):
        tag = tag if tag == UNKNOWN else normalise_tag(tag, "--language")
        relabelled = [dataclasses.replace(row, language=tag, key=make_key(row.key, tag)) for row in rows]
        rows = dataclasses.replace(rows, parts=(relabelled,))
    model = api.load(flags["model"], flags.get("revision", ""))
    task_settings = model.label_settings(flags)
    labeller, log = api.Labeller(model, task_settings, batch=batch), Log(stream=sys.stderr)
    forced_route = flags.get("route", "")
    routes = collections.Counter(labeller.find_route(row.language, forced_route) for row in rows)
    features = inputs.load_features(labeller.task, rows, log)
    log("; ".join([f"reading {len(rows)} rows", *describe_names(rows, features["labels"].tolist())]))
    scores = labeller.task.score(labeller.compute_outputs(features, forced_route), features, rows)
    results = {
        "model": flags["model"],
        "revision": model.revision,
        "task": spec.to_plain(task_settings),
        "routes": dict(routes),
    }
    route_of = {row.language: labeller.find_route(row.language, forced_route) for row in rows}
    return results | summarize_labels(scores.cells, route_of, model.record.get("seen"))


def summarize_labels(
    cells: Mapping[Cell, Mapping[str, float]], routes: Mapping[str, str], seen: Mapping[str, Sequence[str]] | None
) -> dict[str, Json]:
    """Groups cells by set and adds their means over languages.

    `routes` are by language; `seen` is the run's record of the labels that it saw.
    """
    from xlkd.languages import has_language
    from xlkd.metrics import labels

    training = set((seen or {}).get("training", ()))
    all_seen = set().union(*(seen or {}).values())
    sets: dict[str, Json] = {}
    for name in dict.fromkeys(cell.set for cell in cells):
        own_cells = {cell.languages[0]: values for cell, values in cells.items() if cell.set == name}
        values = {tag: cell["accuracy"] for tag, cell in own_cells.items()}
        zero_shot = [tag for tag in values if seen and not has_language(all_seen, tag)]
        supervised = [tag for tag in values if has_language(training, tag)]
        means = labels.compute_means(
            values, supervised=supervised, zero_shot=zero_shot, pivot="en" if "en" in values else None
        )
        sets[name] = {
            "cells": {
                tag: {"languages": [tag], "route": routes[tag] or None, **cell} for tag, cell in own_cells.items()
            },
            "averages": {
                mean_name: {"accuracy": mean.value, "languages": list(mean.languages)}
                for mean_name, mean in means.items()
            },
        }
    return {"sets": sets, "mean": {"accuracy": sum(cell["accuracy"] for cell in cells.values()) / len(cells)}}


def format_label_table(results: Mapping[str, Json]) -> list[str]:
    """Formats scores of classification as lines of a table."""
    lines = []
    for set_name, scores in results["sets"].items():
        lines.append(f"{set_name:<16} {'accuracy':>8} {'macro-F1':>8} {'majority':>8} {'rows':>7}  route")
        lines += [
            f"{tag:<16} {cell['accuracy']:8.2f} {cell['macro_f1']:8.2f} {cell['majority']:8.2f} {cell['n']:7d}"
            f"  {cell['route'] or '–'}"
            for tag, cell in scores["cells"].items()
        ]
        lines += [
            f"{name:<16} {average['accuracy']:8.2f}  {', '.join(average['languages'])}"
            for name, average in scores["averages"].items()
            if average["accuracy"] is not None
        ]
    if results["routes"].keys() != {""}:
        lines.append("rows by route: " + ", ".join(f"{name} {count}" for name, count in results["routes"].items()))
    return lines


def summarize_questions(cells: Mapping[Cell, Mapping[str, float]]) -> dict[str, Json]:
    """Returns `sets`, each with its `cells` and `averages`, and the plain `mean` over all cells."""
    sets = {}
    for name in dict.fromkeys(cell.set for cell in cells):
        own_cells = {cell.languages: values for cell, values in cells.items() if cell.set == name}
        named_cells = {str(Cell("", pair)): {"languages": list(pair), **values} for pair, values in own_cells.items()}
        sets[name] = {"cells": named_cells, "averages": _compute_averages(name, own_cells)}
    mean = {metric: sum(cell[metric] for cell in cells.values()) / len(cells) for metric in METRICS}
    return {"sets": sets, "mean": mean}


def _compute_averages(set: str, cells: Mapping[tuple[str, ...], Mapping[str, float]]) -> dict[str, Json]:
    """Returns for each average of a set its `title`, its metrics, and the numbers of cells that it has and lacks."""
    from xlkd.metrics import averages

    languages = averages.LANGUAGES.get(set) or sorted({language for cell in cells for language in cell})
    entries: dict[str, Json] = {}
    for metric in METRICS:
        scores = {(question, context): values[metric] for (question, context), values in cells.items()}
        for name, average in averages.compute_averages(scores, languages, set=set).items():
            counts = {"title": average.title, "of": len(average.cells), "missing": len(average.missing)}
            entry = entries.setdefault(name, counts)
            entry[metric] = average.value
            if name == "worst" and average.cells:
                entry[f"{metric}_cell"] = str(Cell("", average.cells[0]))
    return entries


def format_question_table(results: Mapping[str, Json]) -> list[str]:
    """Formats scores of question answering as lines of a table."""
    lines = []
    for set_name, scores in results["sets"].items():
        lines.append(f"{set_name:<12} {'F1':>7} {'EM':>7} {'questions':>10}")
        for name, cell in scores["cells"].items():
            absent = f"  {cell['missing']} without an answer" if cell.get("missing") else ""
            lines.append(f"{name:<12} {cell['f1']:7.2f} {cell['em']:7.2f} {cell['n']:10d}{absent}")
        lines += _format_unanswerable(scores["cells"])
        lines += [
            f"{name:<12} {average['f1']:7.2f} {average['em']:7.2f}{_format_average_note(name, average)}"
            for name, average in scores["averages"].items()
            if average["f1"] is not None and "[" not in name
        ]
    lines.append(f"{'all cells':<12} {results['mean']['f1']:7.2f} {results['mean']['em']:7.2f} {results['rows']:10d}")
    if threshold := results.get("null_threshold"):
        lines.append(f"no answer above null odds of {threshold['value']:.6g}, {threshold['origin']}")
    if ties := results.get("near_ties"):
        ids = ", ".join(tie["id"] for tie in ties[:3]) + (", …" if len(ties) > 3 else "")
        lines.append(f"{len(ties)} rows whose two best answers may change places on other devices: {ids}")
    return lines


def _format_unanswerable(cells: Mapping[str, Mapping[str, Json]]) -> list[str]:
    """Returns the lines of the cells with unanswerable questions: the numbers of SQuAD 2."""
    lines = []
    for name, cell in cells.items():
        parts = [
            f"{part} F1 {cell[f'{part}_f1']:.2f} EM {cell[f'{part}_exact']:.2f} ({cell[f'{part}_total']})"
            for part in ("HasAns", "NoAns")
            if f"{part}_total" in cell
        ]
        parts += [
            f"best {label} {cell[f'best_{part}']:.2f} above {cell[f'best_{part}_thresh']:.4g}"
            for part, label in (("f1", "F1"), ("exact", "EM"))
            if f"best_{part}" in cell
        ]
        lines += [f"{name:<12} {'  '.join(parts)}"] if parts else []
    return lines


def _format_average_note(name: str, average: Mapping[str, Json]) -> str:
    """Returns the end of the line of an average: its worst cells, or how many cells it has if some are missing."""
    if name == "worst":
        return f"  F1 {average['f1_cell']}, EM {average['em_cell']}"
    return f"  {average['of']} of {average['of'] + average['missing']} cells" if average["missing"] else ""


def _find_prediction_files(text: str, cells: Sequence[Sequence[Question]]) -> dict[tuple[str, ...], pathlib.Path]:
    """Returns files of predictions by (question, context) language; the key () means one file for all cells."""
    from xlkd.languages import normalise_tag

    paths = [expand_path(part) for part in text.split(",")]
    if len(paths) == 1 and not paths[0].is_dir():
        ids = [{row.id for row in rows} for rows in cells]
        if sum(map(len, ids)) > len(set().union(*ids)):
            what = f"one file for {len(cells)} cells that share ids"
            raise UserError(what, text, "give a folder with one file for each cell, or --data of one cell")
        return {(): paths[0]}
    path_of: dict[tuple[str, ...], pathlib.Path] = {}
    for path in [file for folder in paths for file in (sorted(folder.glob("*.json")) if folder.is_dir() else [folder])]:
        match = next(filter(None, (re.fullmatch(name, path.name) for name in _NAMES)), None)
        if not match:
            raise UserError("the name does not say which cell", str(path), "name it like the data file, see --help")
        context, question = (normalise_tag(tag, str(path)) for tag in (match.groups() * 2)[:2])
        if (question, context) in path_of:
            raise UserError(f"the same cell as {path_of[question, context]}", str(path), "keep one of the two")
        path_of[question, context] = path
    return path_of


def _read_json(path: pathlib.Path) -> Json:
    """Reads a JSON file."""
    try:
        with files.open_input(path) as file:
            return json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=_refuse_repeated_keys)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "check the path") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", str(path), "save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"broken JSON: {error}", str(path), "write the file again") from None
    except UserError as error:
        raise UserError(error.what, str(path), error.remedy) from None


def _refuse_repeated_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Returns a JSON object; refuses one with a repeated key, of which only the last would count."""
    if (key := files.find_repeated_key(pairs)) is not None:
        raise UserError(f"the id {key!r} occurs twice", remedy="keep one answer for each question")
    return dict(pairs)


if __name__ == "__main__":
    sys.exit(cli.run(main))
