# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reports scores with intervals and badges: `python -m xlkd.report WORKDIR [WORKDIR …] [--out=FILE] [--json=FILE]`.

  WORKDIR        the folder of a run, finished or not, or gs://BUCKET/FOLDER. Several that differ in their seed
                 only are seeds of one system, and draws if each has its own questions; others are shown side by side,
                 compared with the first. Other runs on different questions are refused.
  --out=FILE     the page; by default WORKDIR/report.html, for several or in a bucket ./report.html
  --json=FILE    the numbers; by default WORKDIR/results.json, for several or in a bucket ./results.json

The page needs no network and no other file. Its tables are also written as plain text (report.txt), and what fits a
terminal is printed. How to read them, and what results.json contains: docs/report.md.

Examples:
  python -m xlkd.report runs/gxlt-1a2b3c4d
  python -m xlkd.report runs/seeds/seed=0 runs/seeds/seed=1 --out=seeds.html --json=seeds.json
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

from xlkd import cli, files, storage
from xlkd.errors import UserError


def main(arguments: list[str]) -> None:
    """Writes the report of the work directories."""
    flags, folders = cli.split_flags(arguments, ("out", "json"))
    if unknown := [text for text in folders if text.startswith("-")]:
        raise UserError(f"unknown flag {unknown[0]!r}", "command line", "--help lists the flags")
    if not folders:
        raise UserError("no work directory given", "command line", "for example runs/gxlt-1a2b3c4d")
    from xlkd import reports

    page, data = (cli.parse_output(flags[name]) if name in flags else None for name in ("out", "json"))
    here = pathlib.Path() if any(map(storage.is_remote, folders)) else None
    with tempfile.TemporaryDirectory(prefix="xlkd-report-") as scratch:
        paths = [locate_run(folder, pathlib.Path(scratch)) for folder in folders]
        if len({path.resolve() for path in paths}) < len(paths):
            raise UserError("the same work directory twice", "command line", "name each once")
        reports.write(paths, print, reports.locate_outputs(paths, page=page, data=data, folder=here))


def locate_run(name: str, scratch: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a run; one in a bucket is downloaded into `scratch`, without weights."""
    if not storage.is_remote(name):
        return files.expand_path(name)
    from xlkd.runtime.mirror import Mirror

    remote = storage.RemoteFolder(name)
    path = scratch / remote.url.removeprefix(storage.SCHEME)
    path.mkdir(parents=True, exist_ok=True)
    Mirror(remote, path).download()
    return path


if __name__ == "__main__":
    sys.exit(cli.run(main))
