# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reports of runs, for people and programs, from a run's files alone: results.json, report.html, plain tables."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence

from xlkd.errors import UserError, escape_controls
from xlkd.files import OutputFile, check_file, check_inputs, find_own_descriptor

RUN_FILES = ("config.json", "environment.json", "log.txt", "events.jsonl", "stages", "texts")  # read by a report
REPORT_FILES = ("results.json", "report.html", "report.txt")

Paths = str | os.PathLike | Sequence[str | os.PathLike]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The files of one report."""

    data: OutputFile
    page: OutputFile
    text: OutputFile | None  # beside the page; none where that is a pipe, a device or standard output


def locate_outputs(
    workdirs: Paths,
    *,
    page: pathlib.Path | None = None,
    data: pathlib.Path | None = None,
    folder: pathlib.Path | None = None,
) -> Outputs:
    """Returns the files to write, after checking that no other files would be replaced.

    Without names the files go into the work directory, for several into `folder` or the current folder. Where the user
    did not name a file, only those of an earlier report are replaced.
    """
    runs = _list_folders(workdirs)
    own = folder is None and len(runs) == 1
    folder = folder or (runs[0] if own else pathlib.Path())
    run_files = [run / name for run in runs for name in RUN_FILES]
    pages, numbers = page or folder / "report.html", data or folder / "results.json"
    for path, named, recognise in ((pages, page, _is_page), (numbers, data, _is_results)):
        check_file(path)
        check_inputs(path, run_files)
        if not (own or named or recognise(path)) and os.path.lexists(path):
            raise UserError("exists, and no report wrote it", str(path), "move it away, or name the output")
    text = None
    if find_own_descriptor(pages) is None and (not pages.exists() or pages.is_file()):
        text = pages.with_suffix(".txt")
        check_file(text)
        check_inputs(text, run_files)
        if os.path.lexists(text) and text != pages and not (own and not page) and not _is_page(pages):
            raise UserError("exists, and the tables of the report would replace it", str(text), "name another page")
    paths = [os.path.realpath(path) for path in (pages, numbers, text) if path]
    if len(set(paths)) < len(paths):
        what = "two of the page, its text tables (.txt) and the numbers have the same name"
        raise UserError(what, str(pages), "name the page NAME.html and the numbers otherwise")
    return Outputs(OutputFile(numbers), OutputFile(pages), OutputFile(text) if text else None)


def write(
    workdirs: Paths,
    log: Callable[[str], object],
    outputs: Outputs | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Computes the numbers of one or several work directories, writes page, numbers and tables, and logs a summary.

    The files go into the work directory; for several, without `outputs`, into the current folder.
    `check` is called before anything is written.
    """
    from xlkd.reports import files, results, tables
    from xlkd.reports import page as pages

    folders = _list_folders(workdirs)
    outputs = outputs or locate_outputs(folders)
    runs = [files.read_run(folder) for folder in folders]
    numbers, answers = results.compute_results(runs)
    page = pages.build_page(numbers, answers, runs)
    check()
    outputs.data.write_json(numbers)
    outputs.page.write_text(page)
    if outputs.text:
        outputs.text.write_text("\n".join(map(escape_controls, tables.format_lines(numbers))) + "\n")
    for line in tables.format_lines(numbers, brief=True):
        log(escape_controls(line))
    tables_as_text = f", its tables as text: {outputs.text.path.name}" if outputs.text else ""
    log(escape_controls(f"report: {outputs.page.path}{tables_as_text}"))


def _list_folders(workdirs: Paths) -> list[pathlib.Path]:
    return [pathlib.Path(path) for path in ([workdirs] if isinstance(workdirs, (str, os.PathLike)) else workdirs)]


def _is_page(path: pathlib.Path) -> bool:
    """Returns whether a file is the page of a report."""
    return path.is_file() and b"<title>Report: " in _read_head(path)


def _is_results(path: pathlib.Path) -> bool:
    """Returns whether a file contains the numbers of a report."""
    if not path.is_file():
        return False
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and {"version", "runs", "sets"} <= value.keys()


def _read_head(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2000)
