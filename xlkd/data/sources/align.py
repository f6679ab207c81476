# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`align:PREFIX?languages=en,fr`: sentence pairs with word links by hand, in PREFIX.en, PREFIX.fr and PREFIX.gold.

A line of the gold file lists links `i-j` (sure) and `i?j` or `ipj` (possible), source word first, words cut at white
space and counted from 0, or from 1 with `first=1`. `languages` says which side is the source; a prefix such as
`enfr` says it too. `limit=N` takes the first N pairs.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator

from xlkd.data.sources import Bad, Spec, _aligned
from xlkd.errors import UserError
from xlkd.rows import Pair

TASKS = ("parallel",)
_LINK = re.compile(r"(\d{1,6})([-?p])(\d{1,6})")


@dataclasses.dataclass(frozen=True, slots=True)
class Aligned(Pair):
    """A pair with gold links: the sure ones in `links`, and those that are not sure."""

    possible: tuple[tuple[int, int], ...] = ()


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Aligned, ...]:
    """Every pair a group; a link that points outside its sentences is bad, the pair stays."""
    spec.allow("languages", "first", "limit")
    prefix = pathlib.Path(spec.path).expanduser()
    paths = _sides(spec, prefix)
    gold = prefix.with_name(f"{prefix.name}.gold")
    texts = {path: _aligned.lines(path, bad) for path in (*paths.values(), gold)}
    _aligned.same_length(texts)
    found = _rows(spec, prefix.name, paths, texts, gold, bad)
    return tuple(spec.first(found))


def _rows(spec: Spec, name: str, paths, texts, gold: pathlib.Path, bad: Bad) -> Iterator[Aligned]:
    languages, both = tuple(paths), tuple(paths.values())
    for number, row in _aligned.sound(both, tuple(texts[path] for path in both), bad):
        if (line := texts[gold][number]) is None:
            continue
        words = [len(text.split()) for text in row]
        links = list(_links(line, words, spec.number("first"), f"{gold}: line {number + 1}", bad))
        sure, possible = (tuple(link for link, is_sure in links if is_sure is wanted) for wanted in (True, False))
        plain = _aligned.pair("align", name, f"{name}/{number + 1}", number, languages, row)
        values = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
        yield Aligned(**values | {"links": sure, "possible": possible})


def _links(line: str, words: list[int], first: int, where: str, bad: Bad) -> Iterator[tuple[tuple[int, int], bool]]:
    for text in line.split():
        if not (match := _LINK.fullmatch(text)):
            bad(f"{text!r} is not a link such as 3-4 or 3?4", where)
            continue
        link = int(match[1]) - first, int(match[3]) - first
        if outside := [f"{i + first} of {n} words" for i, n in zip(link, words, strict=True) if not 0 <= i < n]:
            bad(f"link {text} points outside its sentence (word {outside[0]}, counted from {first})", where)
            continue
        yield link, match[2] == "-"


def _sides(spec: Spec, prefix: pathlib.Path) -> dict[str, pathlib.Path]:
    """The two text files by language, source first."""
    pattern = re.escape(prefix.name) + r"\.([\w-]+)"
    found = _aligned.find(prefix.parent, pattern, f"{prefix.name}.LANG")
    named = [_aligned.known(part) for part in (prefix.name[:2], prefix.name[2:])]
    order = list(spec.languages()) or (named if set(named) == set(found) else [])
    if len(order) != 2 or len(set(order)) != 2:
        there_are = f"there are {', '.join(sorted(found))}"
        raise UserError("which side is the source?", str(spec), f"say languages=A,B; {there_are}")
    if missing := [language for language in order if language not in found]:
        raise UserError(f"no file for {', '.join(missing)}", str(spec), f"there are {', '.join(sorted(found))}")
    return {language: found[language] for language in order}
