# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads small sets of aligned text files with one sentence per line."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping

from xlkd.data.corpus import strip_text
from xlkd.data.sources import BadRows
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.rows import Pair, make_key


def read_lines(path: pathlib.Path, bad_rows: BadRows) -> list[str | None]:
    """Returns the stripped lines of a file; a line that is not UTF-8 is a bad row and None."""
    if not path.is_file():
        raise UserError("no such file", str(path), "check the path")
    raw = path.read_bytes().split(b"\n")
    return [
        _decode(line, f"{path}: line {at}", bad_rows) for at, line in enumerate(raw[: -1 if not raw[-1] else None], 1)
    ]


def _decode(line: bytes, where: str, bad_rows: BadRows) -> str | None:
    """Decodes and strips a line; None where it is not UTF-8."""
    try:
        return strip_text(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        bad_rows.report(f"not UTF-8 at byte {error.start}", where)
        return None


def check_same_length(texts: Mapping[pathlib.Path, list[str | None]]) -> None:
    """Refuses files whose numbers of lines differ, naming both numbers."""
    (path, first), *others = texts.items()
    for other, lines in others:
        if len(lines) != len(first):
            what = f"{len(lines):,} lines, but {path.name} has {len(first):,}"
            raise UserError(what, str(other), "the files must be aligned line by line")


def iterate_complete(
    paths: tuple[pathlib.Path, ...], texts: tuple[list[str | None], ...], bad_rows: BadRows
) -> Iterator[tuple[int, list[str]]]:
    """Yields number (from 0) and texts of the lines that are non-empty in all files; an empty line is a bad row."""
    for number, row in enumerate(zip(*texts, strict=True)):
        if empty := [path for path, text in zip(paths, row, strict=True) if text == ""]:
            bad_rows.report("empty line", f"{empty[0]}: line {number + 1}")
        elif None not in row:
            yield number, list(row)


def find_files(root: pathlib.Path, pattern: str, expected: str) -> dict[str, pathlib.Path]:
    """Returns the files whose name matches, by language; of variants (por, por-BR) the one with the shortest name."""
    if not root.is_dir():
        raise UserError("no such folder", str(root), "check the path")
    files: dict[str, pathlib.Path] = {}
    for path in sorted(root.iterdir(), key=lambda path: (len(path.name), path.name)):
        match = re.fullmatch(pattern, path.name)
        if match and (language := parse_tag(match.group(1))):
            files.setdefault(language, path)
    if not files:
        raise UserError(f"no file named {expected}", str(root), "check the path")
    return files


def parse_tag(tag: str) -> str:
    """Returns xlkd's tag of a language; an empty string for a language that is not in the table."""
    try:
        return normalise_tag(tag)
    except UserError:
        return ""


def make_pair(set: str, scope: str, group: str, number: int, languages: tuple[str, str], texts: list[str]) -> Pair:
    """Makes the pair of line `number`, counted from 0; its id counts from 1.

    Its group is `set/group`; `scope` tells apart lines of several files whose texts are equal.
    """
    id, (source, target) = str(number + 1), texts
    key = make_key(set, scope, *languages, id, source, target)
    return Pair(id, key, f"{set}/{group}", set, source, target, languages[0], languages[1])
