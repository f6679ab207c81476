# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tmx:FILE?languages=en,de`: a translation memory (TMX, .gz too), read as a stream.

Without `languages` the two of the first unit are taken, English first. Cleaning, `limit` and `take` are as for
`moses:`. Nothing outside the file is ever read, and a file that declares entities is refused.
"""

from __future__ import annotations

import functools
import gzip
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO
from xml.parsers import expat

from xlkd.data.corpus import Corpus, CorpusOrigin, CorruptLine, RawPair, strip_text
from xlkd.data.sources import BadRows, Source, _aligned, moses
from xlkd.errors import UserError
from xlkd.rows import Pair

TASKS = ("parallel",)
Unit = dict[str, str]  # texts by language; the first where a language occurs twice
_READ = 1 << 16  # bytes parsed at once
_LONGEST = 1 << 20  # characters of a segment
_TAG = 1 << 20  # bytes of a tag or a comment, which the parser buffers until its end
_UNIT = re.compile(rb"<tu[\s>]")
_CODES = frozenset({"bpt", "ept", "ph", "it", "ut", "sub"})  # mark-up of the program that wrote the file, not text


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Pair]:
    """Returns the pairs that cleaning keeps, read from the file when they are used.

    They are in the order of the file; with `limit` a random choice of them, or with `take=head` the first. Without
    `languages` they are in the languages of the first unit.
    """
    source.allow("languages", *moses.OPTIONS)
    path = pathlib.Path(source.path).expanduser()
    if not path.is_file():
        raise UserError("no such file", str(path), "check the path")
    languages = source.languages() or _find_languages(path)
    if len(languages) != 2 or languages[0] == languages[1]:
        raise UserError("no language pair given", str(source), "set languages=A,B")
    origin = CorpusOrigin("tmx", path.name, languages, (path,), functools.partial(_read, path, languages))
    return moses.cap_rows(Corpus(origin, moses.parse_rules(source), bad_rows), source)


def _find_languages(path: pathlib.Path) -> tuple[str, ...]:
    """Returns the languages of the first unit."""
    for unit in read_units(path):
        if not isinstance(unit, CorruptLine):
            return tuple(sorted(unit, key=lambda language: (language != "en", language)))
    raise UserError("no readable translation unit", str(path), "is it a TMX file?")


def _read(path: pathlib.Path, languages: tuple[str, str]) -> Iterator[RawPair | CorruptLine]:
    """Yields the pairs; a unit that lacks one of the languages is an empty pair."""
    for number, unit in enumerate(read_units(path), start=1):
        if isinstance(unit, CorruptLine):
            yield unit
        else:
            source, target = (unit.get(language, "") for language in languages)
            yield RawPair(number, source, target)


def read_units(path: pathlib.Path) -> Iterator[Unit | CorruptLine]:
    """Yields the units; a broken one is reported, and reading resumes at the next unit."""
    with moses.open_file(path) as file:
        parser, line, data = _Parser(path), 1, _read_block(file, path)  # the line on which the data begins
        while True:
            try:
                yield from parser.feed(data)
                if not data:
                    return
                line, data = line + data.count(b"\n"), _read_block(file, path)
            except expat.ExpatError as error:
                yield from parser.take_units()
                yield CorruptLine(0, parser.line, f"broken XML: {expat.errors.messages[error.code]}")
                at = parser.resume_at
                line, data = _find_next_unit(file, path, line + data[:at].count(b"\n"), data[at:])
                if not data:
                    return
                parser = _Parser(path, line)


def _find_next_unit(file: BinaryIO | gzip.GzipFile, path: pathlib.Path, line: int, data: bytes) -> tuple[int, bytes]:
    """Returns the line of the next unit and the data from there on, which are empty at the end of the file."""
    while not (unit := _UNIT.search(data)):
        if not (block := _read_block(file, path)):
            return line, b""
        line, data = line + data[:-4].count(b"\n"), data[-4:] + block
    return line + data[: unit.start()].count(b"\n"), data[unit.start() :]


def _read_block(file: BinaryIO | gzip.GzipFile, path: pathlib.Path) -> bytes:
    """Reads and decompresses the next block."""
    try:
        return file.read(_READ)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"cannot be read to its end: {error}", str(path), "download it again") from None


class _Parser:
    """Collects units; after a fault a new parser begins in the middle of the file, at a known line."""

    def __init__(self, path: pathlib.Path, line: int = 0) -> None:
        self._path, self._fed = path, 0
        self._units: list[Unit | CorruptLine] = []
        self._texts: dict[str, str] = {}
        self._parts: list[str] = []
        self._language, self._inside, self._codes, self._size = "", False, 0, 0
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler, self._expat.EndElementHandler = self._start, self._end
        self._expat.CharacterDataHandler, self._expat.EntityDeclHandler = self._text, self._entity
        self._before = max(line - 1, 0)
        if line:
            self.feed(b"<tmx><body>")

    @property
    def line(self) -> int:
        """Returns the current line of the file."""
        return self._before + self._expat.CurrentLineNumber

    @property
    def resume_at(self) -> int:
        """Returns where in the last data the search for the next unit begins."""
        return max(self._expat.ErrorByteIndex - self._fed, 0) + 1

    def feed(self, data: bytes) -> list[Unit | CorruptLine]:
        """Parses data and returns the units that it completes."""
        try:
            self._expat.Parse(data, not data)
        except (LookupError, ValueError) as error:  # an unknown encoding
            raise UserError(f"cannot be read: {error}", str(self._path), "save it as UTF-8") from None
        self._fed += len(data)
        if self._fed - self._expat.CurrentByteIndex > _TAG:
            what = f"a tag of more than {_TAG:,} bytes at line {self.line:,}"
            raise UserError(what, str(self._path), "close it or remove it")
        return self.take_units()

    def take_units(self) -> list[Unit | CorruptLine]:
        """Returns the completed units and forgets them."""
        units, self._units = self._units, []
        return units

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        """Handles the start of an element."""
        if name == "tu":
            self._texts = {}
        elif name == "tuv":
            self._language = _parse_language(attributes.get("xml:lang", attributes.get("lang", "")))
        elif name == "seg":
            self._parts, self._inside, self._size, self._codes = [], True, 0, 0
        elif name in _CODES:
            self._codes += 1

    def _end(self, name: str) -> None:
        """Handles the end of an element."""
        if name == "seg":
            if self._language:
                self._texts.setdefault(self._language, strip_text(" ".join("".join(self._parts).split())))
            self._inside = False
        elif name in _CODES:
            self._codes -= 1
        elif name == "tu":
            self._units.append(self._texts)

    def _text(self, text: str) -> None:
        """Collects the text of a segment."""
        if not self._inside or self._codes:
            return
        self._size += len(text)
        if self._size > _LONGEST:
            what = f"a segment of more than {_LONGEST:,} characters at line {self.line:,}"
            raise UserError(what, str(self._path), "close it or remove it")
        self._parts.append(text)

    def _entity(self, name: str, *_: object) -> None:
        """Refuses a file that declares entities."""
        raise UserError(f"declares the entity {name!r}", str(self._path), "remove it: a TMX file needs none")


@functools.lru_cache(1024)
def _parse_language(tag: str) -> str:
    """Returns xlkd's tag of a language, or an empty string."""
    return _aligned.parse_tag(tag) if tag else ""
