# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`moses:PREFIX?languages=en,de,fr`: aligned text files, the first language with each other one.

PREFIX.en with PREFIX.de, or as OPUS names them PREFIX.de-en.de with PREFIX.de-en.en, packed (.gz) or not. Pairs are
cleaned (`xlkd.data.cleaning`): `longest=1000` characters, `ratio=3` at most, `clean=empty` leaves out empty pairs
only. `limit=N` takes N pairs of each two languages, `take=random` (from `seed=0`) or `head`.
"""

from __future__ import annotations

import functools
import gzip
import itertools
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from xlkd.data.cleaning import Rules
from xlkd.data.composition import CappedRows, JoinedRows
from xlkd.data.corpus import Corpus, CorpusOrigin, CorruptLine, RawPair, strip_text
from xlkd.data.sources import Bad, Spec, _aligned
from xlkd.errors import UserError
from xlkd.rows import Pair

TASKS = ("parallel",)
OPTIONS = ("longest", "ratio", "clean", "limit", "take", "seed")
_NAME = re.compile(r"(?:([A-Za-z]\w*)-([A-Za-z]\w*)\.)?([A-Za-z][\w-]*?)(\.gz)?")
_LINE = 1 << 20  # bytes; a file without line ends is no corpus


def rows(spec: Spec, task: str, bad: Bad) -> Sequence[Pair]:
    """Pair of languages after pair of languages, each in the order of its files."""
    spec.allow("languages", *OPTIONS)
    found = [capped(Corpus(origin, rules(spec), bad), spec) for origin in _origins(spec)]
    return found[0] if len(found) == 1 else JoinedRows(found)


def rules(spec: Spec) -> Rules:
    default = Rules()
    return Rules(
        longest=spec.number("longest", default.longest),
        ratio=spec.number("ratio", default.ratio),
        only_empty=spec.choice("clean", ("all", "empty")) == "empty",
    )


def capped(corpus: Corpus, spec: Spec) -> Sequence[Pair]:
    limit, take, seed = spec.number("limit"), spec.choice("take", ("random", "head")), spec.number("seed")
    return CappedRows(corpus, limit, take, seed) if limit else corpus


def _origins(spec: Spec) -> list[CorpusOrigin]:
    prefix = pathlib.Path(spec.path).expanduser()
    found = _files(prefix)
    there = sorted({language for pair in found for language in pair}, key=lambda language: (language != "en", language))
    asked = spec.languages() or tuple(there)
    if len(asked) < 2 or (not spec.languages() and len(asked) > 2):
        there_are = f"there are {', '.join(there) or 'none'}"
        raise UserError("which languages?", str(spec), f"say languages=A,B,…, the first with each other; {there_are}")
    pairs = [(asked[0], other) for other in asked[1:]]
    if missing := ["-".join(pair) for pair in pairs if pair not in found]:
        raise UserError(f"no two files for {', '.join(missing)}", str(prefix), f"languages there: {', '.join(there)}")
    return [CorpusOrigin("moses", prefix.name, p, found[p], functools.partial(_read, *found[p])) for p in pairs]


def _files(prefix: pathlib.Path) -> dict[tuple[str, str], tuple[pathlib.Path, pathlib.Path]]:
    """The files of each ordered pair of languages."""
    if not prefix.name or not prefix.parent.is_dir():
        raise UserError("no such folder", str(prefix.parent), "look at the path")
    groups: dict[str, dict[str, pathlib.Path]] = {}
    for path in sorted(prefix.parent.glob(f"{prefix.name.translate(_AS_IT_IS)}.*")):
        match = _NAME.fullmatch(path.name[len(prefix.name) + 1 :])
        if match and path.is_file() and (language := _aligned.known(match[3])):
            groups.setdefault(f"{match[1]}-{match[2]}", {}).setdefault(language, path)
    return {(a, b): (group[a], group[b]) for group in groups.values() for a, b in itertools.permutations(group, 2)}


_AS_IT_IS = str.maketrans({character: f"[{character}]" for character in "[*?"})


def _read(source: pathlib.Path, target: pathlib.Path) -> Iterator[RawPair | CorruptLine]:
    """Pairs in order; places are given where both files lie in the open."""
    plain = source.suffix != ".gz" and target.suffix != ".gz"
    both = itertools.zip_longest(_lines(source), _lines(target))
    for number, (a, b) in enumerate(both, start=1):
        if a is None or b is None:
            short, long = (source, target) if a is None else (target, source)
            what = f"{number - 1:,} lines, but {long.name} has {number + sum(1 for _ in both):,}"
            raise UserError(what, str(short), "the files must be aligned line by line")
        try:
            texts = _decoded(0, number, a[1]), _decoded(1, number, b[1])
        except _CorruptLine as found:
            yield CorruptLine(*found.args)
            continue
        yield RawPair(number, *texts, (a[0], b[0], len(a[1]), len(b[1])) if plain else None)


class _CorruptLine(Exception):
    pass


def _decoded(file: int, number: int, line: bytes) -> str:
    if len(line) > _LINE:
        raise _CorruptLine(file, number, f"more than {_LINE:,} bytes without a line end")
    if b"\0" in line:
        raise _CorruptLine(file, number, "holds a zero byte")
    try:
        return strip_text(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _CorruptLine(file, number, f"not UTF-8 at byte {error.start}") from None


def _lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each line without its end; of one that is too long only the beginning."""
    at = 0
    with opened(path) as file:
        try:
            while line := file.readline(_LINE + 1):
                size = len(line)
                rest = line
                while not rest.endswith(b"\n") and (rest := file.readline(_LINE)):
                    size += len(rest)
                yield at, line.rstrip(b"\r\n")
                at += size
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"cannot be unpacked beyond byte {at:,}: {error}", str(path), "fetch it again") from None


def opened(path: pathlib.Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb", buffering=1 << 20)
