# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`align:PREFIX?languages=en,fr`: sentence pairs with manual word links, in PREFIX.en, PREFIX.fr and PREFIX.gold.

A line of the gold file lists links `i-j` (sure) and `i?j` or `ipj` (possible), source word first, words split at white
space and counted from 0, or from 1 with `first=1`. `languages` says which side is the source; a prefix such as `enfr`
says it too. `limit=N` takes the first N pairs.
"""

from __future__ import annotations

import dataclasses
import glob
import pathlib
import re
from collections.abc import Iterator, Mapping

from xlkd.data.sources import BadRows, Source, _aligned
from xlkd.errors import UserError
from xlkd.languages import find_tag
from xlkd.rows import Pair

TASKS = ("parallel",)
OPTIONS = ("languages", "first", "limit")
_LINK = re.compile(r"(\d{1,6})([-?p])(\d{1,6})")


@dataclasses.dataclass(frozen=True, slots=True)
class AlignedPair(Pair):
    """A pair with gold links: the sure ones in `links`, the others in `possible`."""

    possible: tuple[tuple[int, int], ...] = ()


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[AlignedPair, ...]:
    """Returns the pairs, each a group; a link that points outside its sentences is a bad row, but the pair stays."""
    prefix = source.locate()
    gold = prefix.with_name(f"{prefix.name}.gold")
    paths = _find_sides(source, prefix, gold, bad_rows)
    texts = {path: _aligned.read_lines(path, bad_rows) for path in (*paths.values(), gold)}
    _aligned.check_same_length(texts)
    pairs = _make_rows(source, prefix.name, paths, texts, gold, bad_rows)
    return tuple(source.first(pairs))


def _make_rows(
    source: Source,
    name: str,
    paths: Mapping[str, pathlib.Path],
    texts: Mapping[pathlib.Path, list[str | None]],
    gold: pathlib.Path,
    bad_rows: BadRows,
) -> Iterator[AlignedPair]:
    """Yields the pairs with their links."""
    (first, second), sides = paths, tuple(paths.values())
    for number, row in _aligned.iterate_complete(sides, tuple(texts[path] for path in sides), bad_rows):
        if (line := texts[gold][number]) is None:
            continue
        words = [len(text.split()) for text in row]
        links = list(_parse_links(line, words, source.number("first"), f"{gold}: line {number + 1}", bad_rows))
        sure, possible = (tuple(link for link, is_sure in links if is_sure is wanted) for wanted in (True, False))
        plain = _aligned.make_pair("align", name, f"{name}/{number + 1}", number, (first, second), row)
        values = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
        yield AlignedPair(**values | {"links": sure, "possible": possible})


def _parse_links(
    line: str, words: list[int], first: int, where: str, bad_rows: BadRows
) -> Iterator[tuple[tuple[int, int], bool]]:
    """Yields the links of a line, and whether each is sure."""
    for text in line.split():
        if not (match := _LINK.fullmatch(text)):
            bad_rows.report(f"{text!r} is not a link such as 3-4 or 3?4", where)
            continue
        link = int(match[1]) - first, int(match[3]) - first
        if outside := [f"{i + first} of {n} words" for i, n in zip(link, words, strict=True) if not 0 <= i < n]:
            bad_rows.report(f"link {text} points outside its sentence (word {outside[0]}, counted from {first})", where)
            continue
        yield link, match[2] == "-"


def _find_sides(source: Source, prefix: pathlib.Path, gold: pathlib.Path, bad_rows: BadRows) -> dict[str, pathlib.Path]:
    """Returns the two text files by language, source first."""
    pattern = re.escape(prefix.name) + r"\.([\w-]+)"
    files = _aligned.find_files(prefix.parent, pattern, f"{prefix.name}.LANG")
    beside = prefix.parent.glob(f"{glob.escape(prefix.name)}.*")
    bad_rows.note_unread(prefix, sorted(path.name for path in beside if path not in (gold, *files.values())))
    tags = [find_tag(part) for part in (prefix.name[:2], prefix.name[2:])]
    order = list(source.languages()) or (tags if set(tags) == set(files) else [])
    if len(order) != 2 or len(set(order)) != 2:
        available = f"there are {', '.join(sorted(files))}"
        raise UserError("the source language is not given", str(source), f"set languages=A,B; {available}")
    if missing := [language for language in order if language not in files]:
        raise UserError(f"no file for {', '.join(missing)}", str(source), f"there are {', '.join(sorted(files))}")
    return {language: files[language] for language in order}
