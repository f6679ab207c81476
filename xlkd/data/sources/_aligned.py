# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads small sets of aligned text files with one sentence per line."""

from __future__ import annotations

import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping

from xlkd.data.corpus import strip_text
from xlkd.data.sources import BadRows, _files
from xlkd.errors import UserError
from xlkd.languages import find_tag
from xlkd.rows import Pair, make_key

LONGEST = 1 << 20  # bytes of a line
# Kinds of files, by the ends of their names, that are codes of small languages too
_KINDS = frozenset({
    "bin", "bpe", "cfg", "csv", "dic", "ids", "lic", "log", "lst", "map", "new", "npy", "old", "pth", "raw", "sgm",
    "sha", "spm", "src", "sum", "tar", "tmp", "tok", "tsv", "txt", "url", "xml", "yml",
})  # fmt: skip


def read_lines(path: pathlib.Path, bad_rows: BadRows) -> list[str | None]:
    """Returns the stripped lines of a file; a line that cannot be read is a bad row and None."""
    lines: list[str | None] = []
    with _files.open_text(path) as file:
        for _, line, _ in _files.iterate_lines(file, LONGEST):
            try:
                lines.append(decode_line(line))
            except LineFault as fault:
                lines.append(None)
                bad_rows.report(str(fault), f"{path}: line {len(lines)}")
    return lines


def iterate_lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Yields offset and bytes of each line of a file, packed or not; of a line that is too long only the beginning."""
    at = 0
    with _files.open_corpus(path) if path.suffix == ".gz" else _files.open_text(path) as file:
        try:
            for start, line, size in _files.iterate_lines(file, LONGEST):
                yield start, line
                at = start + size
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(
                f"cannot be decompressed beyond byte {at:,}: {error}", str(path), "download it again"
            ) from None


class LineFault(Exception):
    """Reports a line that cannot be read."""


def decode_line(line: bytes) -> str:
    """Decodes and strips a line, or raises `LineFault`."""
    if len(line) > LONGEST:
        raise LineFault(f"more than {LONGEST:,} bytes without a line end")
    if b"\0" in line:
        raise LineFault("contains a zero byte")
    if b"\r" in line and not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r"):
        raise LineFault("line ends are carriage returns alone")  # one line, where other programs see several
    try:
        return strip_text(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LineFault(f"not UTF-8 at byte {error.start}") from None


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
        if match and (language := find_language(match.group(1))):
            files.setdefault(language, path)
    if not files:
        raise UserError(f"no file named {expected}", str(root), "check the path")
    return files


def find_language(ending: str) -> str:
    """Returns the language of a file by the end of its name; an empty string where that says its kind: xml, log."""
    return "" if ending.lower() in _KINDS else find_tag(ending)


def make_pair(set: str, scope: str, group: str, number: int, languages: tuple[str, str], texts: list[str]) -> Pair:
    """Makes the pair of line `number`, counted from 0; its id counts from 1.

    Its group is `set/group`; `scope` tells apart lines of several files whose texts are equal.
    """
    id, (source, target) = str(number + 1), texts
    key = make_key(set, scope, *languages, id, source, target)
    return Pair(id, key, f"{set}/{group}", set, source, target, languages[0], languages[1])
