# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small sets of aligned text files, one sentence a line."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping

from xlkd.data.corpus import strip_text
from xlkd.data.sources import Bad
from xlkd.errors import UserError
from xlkd.languages import normalise_tag
from xlkd.rows import Pair, make_key


def lines(path: pathlib.Path, bad: Bad) -> list[str | None]:
    """The lines of a file, stripped; None for one that is not UTF-8, which is bad."""
    if not path.is_file():
        raise UserError("no such file", str(path), "look at the path")
    raw = path.read_bytes().split(b"\n")
    return [_decoded(line, f"{path}: line {at}", bad) for at, line in enumerate(raw[: -1 if not raw[-1] else None], 1)]


def _decoded(line: bytes, where: str, bad: Bad) -> str | None:
    try:
        return strip_text(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        bad(f"not UTF-8 at byte {error.start}", where)
        return None


def same_length(texts: Mapping[pathlib.Path, list[str | None]]) -> None:
    """Refuse files that cannot belong together, with both counts."""
    (path, first), *others = texts.items()
    for other, found in others:
        if len(found) != len(first):
            what = f"{len(found):,} lines, but {path.name} has {len(first):,}"
            raise UserError(what, str(other), "the files must be aligned line by line")


def sound(
    paths: tuple[pathlib.Path, ...], texts: tuple[list[str | None], ...], bad: Bad
) -> Iterator[tuple[int, list[str]]]:
    """Numbers from 0 and texts of the lines that hold something in all files; an empty one is bad."""
    for number, row in enumerate(zip(*texts, strict=True)):
        if empty := [path for path, text in zip(paths, row, strict=True) if text == ""]:
            bad("empty line", f"{empty[0]}: line {number + 1}")
        elif None not in row:
            yield number, list(row)


def find(root: pathlib.Path, pattern: str, expected: str) -> dict[str, pathlib.Path]:
    """The files whose name matches by language; of variants (por, por-BR) the one with the shortest name."""
    if not root.is_dir():
        raise UserError("no such folder", str(root), "look at the path")
    found: dict[str, pathlib.Path] = {}
    for path in sorted(root.iterdir(), key=lambda path: (len(path.name), path.name)):
        match = re.fullmatch(pattern, path.name)
        if match and (language := known(match.group(1))):
            found.setdefault(language, path)
    if not found:
        raise UserError(f"no file named {expected}", str(root), "look at the path")
    return found


def known(tag: str) -> str:
    """The tag used here; empty for a language that is not in the table."""
    try:
        return normalise_tag(tag)
    except UserError:
        return ""


def pair(set: str, scope: str, group: str, number: int, languages: tuple[str, str], texts: list[str]) -> Pair:
    """A row; its id is the number of its line, from 1."""
    id, (source, target) = str(number + 1), texts
    key = make_key(set, scope, *languages, id, source, target)
    return Pair(id, key, f"{set}/{group}", set, source, target, languages[0], languages[1])
