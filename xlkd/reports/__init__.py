# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run found, for people and for programs: results.json, report.html and plain tables, from its files alone."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Sequence

from xlkd.errors import UserError, visible

Paths = str | os.PathLike | Sequence[str | os.PathLike]


def write(
    workdirs: Paths,
    log: Callable[[str], object],
    *,
    page: pathlib.Path | None = None,
    data: pathlib.Path | None = None,
) -> None:
    """Compute the numbers of one or several work directories, write page, numbers and tables, and `log` them in brief.

    One work directory gets the files into it; several leave them in the current folder, where nothing else is said.
    """
    from xlkd.reports import files, results, tables
    from xlkd.reports import page as pages

    folders = [workdirs] if isinstance(workdirs, (str, os.PathLike)) else workdirs
    folders = [pathlib.Path(folder) for folder in folders]
    where = folders[0] if len(folders) == 1 else pathlib.Path()
    runs = [files.read(folder) for folder in folders]
    found, answers = results.compute(runs)
    _replace(data or where / "results.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    page = page or where / "report.html"
    _replace(page, pages.build(found, answers, runs))
    _replace(page.with_suffix(".txt"), "\n".join(map(visible, tables.lines(found))) + "\n")
    for line in tables.lines(found, brief=True):
        log(visible(line))
    log(f"report: {page}, its tables as text: {page.with_suffix('.txt').name}")


def _replace(path: pathlib.Path, text: str) -> None:
    """Whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(path), "name another file") from None
