# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`moses:PREFIX?languages=en,de,fr`: aligned text files, the first language with each of the others.

PREFIX.en with PREFIX.de, or as OPUS names them PREFIX.de-en.de with PREFIX.de-en.en, compressed (.gz) or not. Pairs are
cleaned (`xlkd.data.cleaning`): at most `longest=1000` characters and `ratio=3`; `clean=empty` drops empty pairs only.
`limit=N` takes N pairs of each two languages, `take=random` (from `seed=0`) or `head`.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from xlkd.data.cleaning import Rules
from xlkd.data.composition import CappedRows, JoinedRows
from xlkd.data.corpus import Corpus, CorpusOrigin, CorruptLine, RawRow
from xlkd.data.sources import BadRows, Source, _aligned
from xlkd.errors import UserError
from xlkd.languages import is_english
from xlkd.rows import Pair

TASKS = ("parallel",)
OPTIONS = ("languages", "longest", "ratio", "clean", "limit", "take", "seed")
_NAME = re.compile(r"(?:([A-Za-z][\w-]*-[A-Za-z][\w-]*)\.)?([A-Za-z][\w-]*?)(\.gz)?")


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Pair]:
    """Returns the pairs of one language pair after the other, each in the order of its files."""
    parts = [
        cap_rows(Corpus(origin, parse_rules(source), bad_rows), source) for origin in _find_origins(source, bad_rows)
    ]
    return parts[0] if len(parts) == 1 else JoinedRows(parts)


def parse_rules(source: Source, clean: Sequence[str] = ("all", "empty")) -> Rules:
    """Returns the cleaning rules that the options ask for; the first of the choices of `clean` is its default."""
    default = Rules()
    return Rules(
        longest=source.number("longest", default.longest),
        ratio=source.number("ratio", default.ratio),
        only_empty=source.choice("clean", clean) == "empty",
    )


def cap_rows(rows: Sequence[Any], source: Source) -> Sequence[Any]:
    """Limits rows to the number that the options ask for."""
    limit, take, seed = source.number("limit"), source.choice("take", ("random", "head")), source.number("seed")
    return CappedRows(rows, limit, take, seed) if limit else rows


def _find_origins(source: Source, bad_rows: BadRows) -> list[CorpusOrigin]:
    """Returns a corpus for each pair of languages that the option `languages` gives."""
    prefix = source.locate()
    files = _find_files(prefix, bad_rows)
    available = sorted(
        {language for pair in files for language in pair}, key=lambda language: (not is_english(language), language)
    )
    languages = source.languages() or tuple(available)
    if len(languages) < 2 or (not source.languages() and len(languages) > 2):
        available_text = f"there are {', '.join(available) or 'none'}"
        raise UserError(
            "no language pair given", str(source), f"set languages=A,B,…, the first with each other; {available_text}"
        )
    pairs = [(languages[0], other) for other in languages[1:]]
    if missing := ["-".join(pair) for pair in pairs if pair not in files]:
        raise UserError(
            f"no pair of files for {', '.join(missing)}", str(prefix), f"languages there: {', '.join(available)}"
        )
    return [CorpusOrigin("moses", prefix.name, p, files[p], functools.partial(_read, *files[p])) for p in pairs]


def _find_files(prefix: pathlib.Path, bad_rows: BadRows) -> dict[tuple[str, str], tuple[pathlib.Path, pathlib.Path]]:
    """Returns the files of each ordered pair of languages."""
    if not prefix.name or not prefix.parent.is_dir():
        raise UserError("no such folder", str(prefix.parent), "check the path")
    groups: dict[str, dict[str, pathlib.Path]] = {}
    paths = sorted(prefix.parent.glob(f"{prefix.name.translate(_ESCAPED)}.*"))
    for path in paths:
        match = _NAME.fullmatch(path.name[len(prefix.name) + 1 :])
        if match and path.is_file() and (language := _aligned.find_language(match[2])):
            groups.setdefault(match[1] or "", {}).setdefault(language, path)
    read = {path for group in groups.values() for path in group.values()}
    bad_rows.note_unread(prefix, [path.name for path in paths if path not in read])
    return {(a, b): (group[a], group[b]) for group in groups.values() for a, b in itertools.permutations(group, 2)}


_ESCAPED = str.maketrans({character: f"[{character}]" for character in "[*?"})


def _read(source: pathlib.Path, target: pathlib.Path) -> Iterator[RawRow | CorruptLine]:
    """Yields the pairs in order, with their places where both files are uncompressed."""
    plain = source.suffix != ".gz" and target.suffix != ".gz"
    lines = itertools.zip_longest(_aligned.iterate_lines(source), _aligned.iterate_lines(target))
    for number, (a, b) in enumerate(lines, start=1):
        if a is None or b is None:
            shorter, longer = (source, target) if a is None else (target, source)
            what = f"{number - 1:,} lines, but {longer.name} has {number + sum(1 for _ in lines):,}"
            raise UserError(what, str(shorter), "the files must be aligned line by line")
        texts = []
        try:
            for _, line in (a, b):
                texts.append(_aligned.decode_line(line))
        except _aligned.LineFault as fault:
            yield CorruptLine(len(texts), number, str(fault))
            continue
        place = (a[0], b[0], len(a[1].rstrip(b"\r\n")), len(b[1].rstrip(b"\r\n"))) if plain else None
        yield RawRow(number, tuple(texts), place)
