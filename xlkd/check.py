# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reports on data without training: `python -m xlkd.check --data=xquad:DIR [--model=DIR] [--json=FILE]`.

  --data=SOURCE   any source string, several joined by +
  --task=NAME     qa, classify, parallel or masked, where the source leaves it open
  --model=NAME    a folder, a hub id or package:NAME, whose tokenizer is used to report also windows, what is cut, which
                  answers survive, the best possible score, and what buckets save; no weights are read
  --json=FILE     also write the report as JSON
  --batch=32 --buckets=4 --revision=COMMIT --max_length=384 --max_query_length=64 --doc_stride=128
  --doc_stride_means=step --max_answer_tokens=30 …: the settings of the model's training by default

Every fault is one line on standard error with file, row and reason. The exit code is 2 where there are faults.

Examples:
  python -m xlkd.check --data=squad:train.json
  python -m xlkd.check --data='xquad:DIR?languages=en,de' --model=package:multilingual --json=check.json
"""

from __future__ import annotations

import array
import collections
import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xlkd import cli, files
from xlkd.errors import DONE, USER_INPUT, UserError, escape_controls
from xlkd.rows import Cell, Labelled, Pair, Question, Text
from xlkd.settings import TASK_FLAGS

if TYPE_CHECKING:
    from xlkd.data.sources import Rows

MODEL_FLAGS = ("batch", "buckets", "revision", *TASK_FLAGS)
FLAGS = ("data", "task", "model", "json", *MODEL_FLAGS)


def main(arguments: list[str]) -> int:
    """Prints the report of a source; returns the exit code."""
    flags = cli.parse_flags(arguments, FLAGS)
    if "data" not in flags:
        raise UserError("no --data given", "command line", "for example --data=squad:FILE")
    if "model" not in flags and (unused := [name for name in MODEL_FLAGS if name in flags]):
        raise UserError(f"--{unused[0]} needs a tokenizer", "command line", "add --model=DIR")
    from xlkd.data import sources

    folder = files.expand_path(flags.get("model", ""))
    models = [folder] if "model" in flags and folder.is_dir() else []
    file = cli.resolve_output(flags, "json", [*sources.list_paths(flags["data"]), *models])
    task, rows, faults, notes = read_sources(flags["data"], flags.get("task", ""))
    report: dict[str, Any] = {"version": 1, "data": flags["data"], "task": task, "rows": len(rows)}
    report |= {"cells": describe_cells(rows), "faults": faults, "left_out": _count_left_out(rows, faults)}
    report["notes"] = notes
    if "model" in flags and len(rows):
        report["windows"] = describe_windows(flags, task, rows)
    elif task == "classify":
        from xlkd.tasks.labelled import describe_labelled

        report["contents"] = describe_labelled(rows)
    if file:
        file.write_json(report)
    cli.print_lines(map(escape_controls, format_report(report)))
    for fault in faults:
        print(escape_controls(fault), file=sys.stderr)
    return USER_INPUT if faults else DONE


def read_sources(text: str, task: str) -> tuple[str, Rows, list[str], list[str]]:
    """Reads all sources; returns their task, the valid rows, the faults of all sources, and what else is unusual."""
    from xlkd.data import sources

    parsed = sources.parse(text)
    names = [*dict.fromkeys(name for source in parsed for name in sources.list_tasks(source))]
    own = [name for name in names if all(name in sources.list_tasks(source) for source in parsed)]
    served = own or [name for name in names if all(sources.serves(source, name) for source in parsed)]
    if not task and len(served) != 1:
        what = f"has data for several tasks ({', '.join(served)})" if served else "the sources have no task in common"
        remedy = "choose one with --task" if served else "check them one by one"
        raise sources.quote(UserError(what, text, remedy), text)
    task = task or served[0]
    parts, dropped, faults, notes = [], [], [], []
    for source in parsed:
        bad = sources.BadRows("skip")
        try:
            parts.append(sources.read_source(source, task, bad))
            faults += [f"{where}: {reason}" for where, reason in bad.skipped]
            if not len(parts[-1]) and not bad.skipped and not bad.left_out:
                faults.append(f"{source}: no rows")
        except UserError as error:
            faults += [*(f"{where}: {reason}" for where, reason in bad.skipped), str(error)]
        dropped += [*bad.skipped, *bad.left_out]
        notes += [f"{where}: {note}" for where, note in bad.notes.items()]
    return task, sources.Rows(tuple(parts), tuple(dropped)), faults, notes


def _count_left_out(rows: Rows, faults: Sequence[str]) -> dict[str, int]:
    """Counts by reason the rows that rules of their source leave out, which are no faults."""
    known = set(faults)
    return collections.Counter(reason for where, reason in rows.dropped if f"{where}: {reason}" not in known)


def describe_cells(rows: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Counts `rows`, `groups`, `unanswerable` questions and `labels` of each cell, and measures its texts.

    `characters` has by text the median, the 95% quantile and the maximum.
    """
    counts: dict[str, _Counts] = collections.defaultdict(_Counts)
    for row in rows:
        name, texts, label = _split_row(row)
        cell = counts[name]
        cell.groups.add(row.group)
        for part, text in texts.items():
            cell.lengths[part].append(len(text))
        if label is not None:
            cell.labels[label] += 1
        cell.unanswerable += isinstance(row, Question) and not row.answers
        cell.rows += 1
    return {name: cell.summarize() for name, cell in counts.items()}


@dataclasses.dataclass
class _Counts:
    """The counts of a cell, and the lengths of its texts."""

    rows: int = 0
    unanswerable: int = 0
    groups: set[str] = dataclasses.field(default_factory=set)
    labels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    lengths: dict[str, array.array] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(lambda: array.array("q"))
    )

    def summarize(self) -> dict[str, Any]:
        import numpy as np

        lengths = {
            part: [round(float(value), 1) for value in np.quantile(values, (0.5, 0.95, 1))]
            for part, values in self.lengths.items()
        }
        labels = {"labels": dict(sorted(self.labels.items()))} if self.labels else {}
        labels |= {"unanswerable": self.unanswerable} if self.unanswerable else {}
        return {"rows": self.rows, "groups": len(self.groups)} | labels | {"characters": lengths}


def _split_row(row: Question | Labelled | Pair | Text) -> tuple[str, dict[str, str], str | None]:
    """Returns the cell of a row, its texts by name, and its label."""
    cell = str(Cell.from_example(row))
    if isinstance(row, Question):
        answer = {"answer": row.answers[0].text} if row.answers else {}
        return cell, {"context": row.context, "question": row.question} | answer, None
    if isinstance(row, Labelled):
        second = {} if row.second is None else {"second": row.second}
        return cell, {"text": row.text} | second, row.label
    if isinstance(row, Text):
        return cell, {"text": row.text}, None
    return cell, {"source": row.source, "target": row.target}, None


def describe_windows(flags: dict[str, str], task: str, rows: Rows) -> dict[str, Any]:
    """Tokenizes the rows as the model would, and reports windows, buckets and cut tokens."""
    from xlkd import api, settings, spec
    from xlkd.inputs import data as inputs
    from xlkd.models import hf
    from xlkd.runtime.log import Log
    from xlkd.spec.stage import Data

    folder, _ = api.locate_export(flags["model"], flags.get("revision", ""))
    architecture = api.read_model_architecture(folder)
    task_settings = settings.read_task(task, api.read_record(folder).get("task", {}), flags)
    batches = Data(
        batch=cli.parse_count(flags, "batch", 32, 1_000_000), buckets=cli.parse_count(flags, "buckets", 4, 1024)
    )
    built = inputs.load_module("tasks", task).build(task_settings, hf.load_tokenizer(folder, architecture=architecture))
    features = inputs.load_features(built, rows, Log(stream=sys.stderr))
    report = inputs.report_data(built, features, rows, inputs.plan_batches(batches, 0, built, features, architecture))
    names = ("windows", "tokens", "buckets", "padding", "padding_at_longest", "task")
    return {name: report[name] for name in names} | {"settings": spec.to_plain(task_settings)}


def format_report(report: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a report that are printed."""
    output = [f"{report['task']}: {report['rows']} rows, {len(report['faults'])} faults"]
    output += [f"note: {note}" for note in report["notes"]]
    if report["cells"]:
        output += ["", "lengths in characters: median / 95% / longest"]
    for name, cell in report["cells"].items():
        lengths = "  ".join(f"{part} {_format_quantiles(values)}" for part, values in cell["characters"].items())
        labels = "".join(f"  {label} {count}" for label, count in cell.get("labels", {}).items())
        labels += f"  {cell['unanswerable']} unanswerable" if "unanswerable" in cell else ""
        output.append(f"{name:<14} {cell['rows']:>8} rows {cell['groups']:>7} groups  {lengths}{labels}")
    if windows := report.get("windows"):
        output += ["", f"{windows['windows']} windows, {windows['tokens']} tokens"]
        saved = (
            f"padding {windows['padding']:.0%}, {windows['padding_at_longest']:.0%} if all were padded to one length"
        )
        output.append(f"buckets {', '.join(windows['buckets'])}: {saved}")
        output.append(windows["task"]["shown"])
        for name, value in windows["task"].items():
            output += ["", *_format_grid(name, value)] if isinstance(value, dict) else []
    if contents := report.get("contents"):  # which says what was left out
        output += ["", contents["shown"], "", *_format_grid("rows", contents["cells"])]
    elif report["left_out"]:
        output += ["", *(f"left out: {reason}" for reason in report["left_out"])]
    return output


def _format_quantiles(values: Sequence[float]) -> str:
    return " / ".join(f"{value:g}" for value in values)


def _format_grid(name: str, by_language: Mapping[str, Mapping[str, float]]) -> list[str]:
    columns = list(next(iter(by_language.values()), {}))
    widths = [max(len(column), 7) for column in columns]
    head = "  ".join(f"{column:>{width}}" for column, width in zip(columns, widths, strict=True))
    output = [f"{name:<10}  {head}"]
    for language, values in by_language.items():
        shown = (f"{values[c]:.2f}" if isinstance(values[c], float) else str(values[c]) for c in columns)
        row = "  ".join(f"{value:>{width}}" for value, width in zip(shown, widths, strict=True))
        output.append(f"{language:<10}  {row}")
    return output


if __name__ == "__main__":
    sys.exit(cli.run(main))
