# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tmx:FILE?languages=en,de`: a translation memory (TMX, .gz too), read as a stream.

Without `languages` the two of the first unit are taken, English first. Cleaning, `limit` and `take` are as for
`moses:`. Nothing outside the file is ever read: a file that declares entities is refused, and a unit whose text uses
one that is not declared is a bad row, as is one whose segments are not each in a variant (`tuv`) with a language.
"""

from __future__ import annotations

import functools
import io
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence
from xml.parsers import expat

from xlkd.data.corpus import Corpus, CorpusOrigin, CorruptLine, RawRow, strip_text
from xlkd.data.sources import BadRows, Source, _files, moses
from xlkd.errors import UserError
from xlkd.languages import find_tag, get_base_language, is_english
from xlkd.rows import Pair

TASKS = ("parallel",)
OPTIONS = moses.OPTIONS
Unit = dict[str, str]  # texts by language; the first where a language occurs twice
_READ = 1 << 16  # bytes parsed at once
_LONGEST = 1 << 20  # characters of a segment
_TAG = 1 << 20  # bytes of a tag or a comment, which the parser buffers until its end
_DECLARATION = 1 << 18  # bytes of a document type declaration
_DEFAULTS = 64  # attributes that it gives values to, and
_DEFAULTS_SIZE = 1 << 12  # characters of these, which the parser adds to each element
_DEPTH = 64  # elements inside one another
_BROKEN = 10_000  # units after each of which a new parser begins
_TAG_NAME = 40  # characters of a language tag
_UNIT = re.compile(rb"<(?:[\w.-]+:)?tu[\s>]")
_CODES = frozenset({"bpt", "ept", "ph", "it", "ut", "sub"})  # mark-up of the program that wrote the file, not text


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Pair]:
    """Returns the pairs that cleaning keeps, read from the file when they are used.

    They are in the order of the file; with `limit` a random choice of them, or with `take=head` the first. Without
    `languages` they are in the languages of the first unit.
    """
    path = source.locate()
    _files.check_regular(path)
    languages = source.languages() or _find_languages(path)
    if len(languages) != 2 or languages[0] == languages[1]:
        raise UserError("no language pair given", str(source), "set languages=A,B")
    origin = CorpusOrigin("tmx", path.name, languages, (path,), functools.partial(_read, path, languages))
    return moses.cap_rows(Corpus(origin, moses.parse_rules(source), bad_rows), source)


def _find_languages(path: pathlib.Path) -> tuple[str, ...]:
    """Returns the languages of the first unit."""
    for unit in read_units(path):
        if not isinstance(unit, CorruptLine):
            return tuple(sorted(unit, key=lambda language: (not is_english(language), language)))
    raise UserError("no readable translation unit", str(path), "is it a TMX file?")


def _read(path: pathlib.Path, languages: tuple[str, str]) -> Iterator[RawRow | CorruptLine]:
    """Yields the pairs; a unit that lacks one of the languages is an empty pair."""
    for number, unit in enumerate(read_units(path), start=1):
        if isinstance(unit, CorruptLine):
            yield unit
        else:
            yield RawRow(number, tuple(_choose_text(unit, language) for language in languages))


def _choose_text(unit: Unit, language: str) -> str:
    """Returns the text in a language; without one, that in any region where the language is named without one."""
    return unit.get(language) or next((unit[tag] for tag in unit if get_base_language(tag) == language), "")


def read_units(path: pathlib.Path) -> Iterator[Unit | CorruptLine]:
    """Yields the units; a broken one is reported, and reading resumes at the next unit."""
    with _files.open_corpus(path) as file:
        parser, line, data = _Parser(path), 1, _read_block(file, path)  # the line on which the data begins
        broken = 0
        while True:
            try:
                yield from parser.feed(data)
                if not data:
                    return
                line, data = line + data.count(b"\n"), _read_block(file, path)
            except expat.ExpatError as error:
                yield from parser.take_units()
                yield CorruptLine(0, parser.line, f"broken XML: {expat.errors.messages[error.code]}")
                broken += 1
                if broken > _BROKEN:
                    raise UserError(f"more than {_BROKEN:,} broken units", str(path), "is it a TMX file?") from None
                at = parser.resume_at
                line, data = _find_next_unit(file, path, line + data[:at].count(b"\n"), data[at:])
                if not data:
                    return
                parser = parser.begin_again(line)


def _find_next_unit(file: io.BufferedReader, path: pathlib.Path, line: int, data: bytes) -> tuple[int, bytes]:
    """Returns the line of the next unit and the data from there on, which are empty at the end of the file."""
    while not (unit := _UNIT.search(data)):
        if not (block := _read_block(file, path)):
            return line, b""
        line, data = line + data[:-_TAG_NAME].count(b"\n"), data[-_TAG_NAME:] + block
    return line + data[: unit.start()].count(b"\n"), data[unit.start() :]


def _read_block(file: io.BufferedReader, path: pathlib.Path) -> bytes:
    """Reads and decompresses the next block."""
    try:
        block = file.read(_READ)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"cannot be read to its end: {error}", str(path), "download it again") from None
    if len(block) == _READ and not block.strip(b"\0"):
        raise UserError(f"{_READ:,} zero bytes", str(path), "download it again")
    return block


class _Parser:
    """Collects units; after a fault a new parser begins in the middle of the file, at a known line."""

    def __init__(
        self, path: pathlib.Path, line: int = 0, encoding: str | None = None, prefix: str | None = None
    ) -> None:
        self._path, self._fed = path, 0
        self._encoding, self._prefix = encoding, prefix  # of the file, and of the names of its elements
        self._units: list[Unit | CorruptLine] = []
        self._texts: Unit | None = None  # of the unit that is open
        self._fault = ""  # of that unit
        self._language: str | None = None  # of the variant that is open
        self._parts: list[str] | None = None  # of the segment that is open
        self._segments = self._codes = self._size = self._depth = 0
        self._declared, self._declared_size = 0, 0
        self._declaration_at = -1
        self._expat = expat.ParserCreate(encoding)
        self._expat.buffer_text = True
        self._expat.StartElementHandler, self._expat.EndElementHandler = self._start, self._end
        self._expat.CharacterDataHandler, self._expat.EntityDeclHandler = self._text, self._entity
        self._expat.SkippedEntityHandler, self._expat.AttlistDeclHandler = self._skip, self._default
        self._expat.StartDoctypeDeclHandler, self._expat.EndDoctypeDeclHandler = self._declare, self._end_declaration
        self._expat.XmlDeclHandler = self._read_encoding
        self._before = max(line - 1, 0)
        if line:
            self.feed(f"<{self._prefix}tmx><{self._prefix}body>".encode())

    @property
    def line(self) -> int:
        """Returns the current line of the file."""
        return self._before + self._expat.CurrentLineNumber

    @property
    def resume_at(self) -> int:
        """Returns where in the last data the search for the next unit begins."""
        return max(self._expat.ErrorByteIndex - self._fed, 0) + 1

    def begin_again(self, line: int) -> _Parser:
        """Returns a parser of the same file that begins at a unit; refuses a file whose units cannot be told apart."""
        if (self._encoding or "").casefold().startswith(("utf-16", "ucs-2", "utf-32")):
            raise UserError(f"broken XML before line {line:,}", str(self._path), "fix it, or save the file as UTF-8")
        return _Parser(self._path, line, self._encoding, self._prefix or "")

    def feed(self, data: bytes) -> list[Unit | CorruptLine]:
        """Parses data and returns the units that it completes."""
        if not self._fed and data.startswith((b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<")):
            self._encoding = "utf-16"
        try:
            self._expat.Parse(data, not data)
        except (LookupError, ValueError) as error:  # an unknown encoding
            raise UserError(f"cannot be read: {error}", str(self._path), "save it as UTF-8") from None
        self._fed += len(data)
        if self._fed - self._expat.CurrentByteIndex > _TAG:
            what = f"a tag of more than {_TAG:,} bytes at line {self.line:,}"
            raise UserError(what, str(self._path), "close it or remove it")
        if 0 <= self._declaration_at < self._fed - _DECLARATION:
            what = f"a document type declaration of more than {_DECLARATION:,} bytes"
            raise UserError(what, str(self._path), "remove it: a TMX file needs none")
        return self.take_units()

    def take_units(self) -> list[Unit | CorruptLine]:
        """Returns the completed units and forgets them."""
        units, self._units = self._units, []
        return units

    def _report(self, fault: str) -> None:
        """Marks the unit that is open as faulty, or reports a fault between units."""
        if self._texts is None:
            self._units.append(CorruptLine(0, self.line, fault))
        else:
            self._fault = self._fault or fault

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        """Handles the start of an element."""
        self._depth += 1
        if self._depth > _DEPTH:
            what = f"more than {_DEPTH} elements inside one another at line {self.line:,}"
            raise UserError(what, str(self._path), "close them")
        if self._prefix is None:
            self._prefix = name[: name.find(":") + 1]
        name = name.removeprefix(self._prefix)
        if name == "tu":
            if self._texts is not None:
                self._units.append(CorruptLine(0, self.line, "a <tu> that does not end before the next one"))
            self._texts, self._fault, self._language, self._parts = {}, "", None, None
        elif name == "tuv":
            self._start_variant(attributes)
        elif name == "seg":
            self._start_segment()
        elif name in _CODES:
            self._codes += 1

    def _start_variant(self, attributes: dict[str, str]) -> None:
        """Handles the start of a variant: the text of a unit in one language."""
        tag = attributes.get("xml:lang") or attributes.get("lang", "")
        if self._texts is None:
            self._report("a <tuv> outside a <tu>")
        elif self._language is not None:
            self._report("a <tuv> inside a <tuv>")
        elif not tag.strip():
            self._report("a <tuv> without xml:lang")
        self._language, self._segments = _parse_language(tag), 0

    def _start_segment(self) -> None:
        """Handles the start of a segment."""
        self._segments += 1
        if self._parts is not None:
            self._report("a <seg> inside a <seg>")
        elif self._language is None:
            self._report("a <seg> outside a <tuv>")
        elif self._segments > 1:
            self._report("two <seg> in a <tuv>")
        self._parts, self._size, self._codes = [], 0, 0

    def _end(self, name: str) -> None:
        """Handles the end of an element."""
        self._depth -= 1
        name = name.removeprefix(self._prefix or "")
        if name == "seg":
            if self._language and self._texts is not None and self._parts is not None:
                self._texts.setdefault(self._language, strip_text(" ".join("".join(self._parts).split())))
            self._parts = None
        elif name in _CODES:
            self._codes -= 1
        elif name == "tuv":
            self._language = None
        elif name == "tu" and self._texts is not None:
            self._units.append(CorruptLine(0, self.line, self._fault) if self._fault else self._texts)
            self._texts = None

    def _text(self, text: str) -> None:
        """Collects the text of a segment."""
        if self._parts is None or self._codes:
            return
        self._size += len(text)
        if self._size > _LONGEST:
            what = f"a segment of more than {_LONGEST:,} characters at line {self.line:,}"
            raise UserError(what, str(self._path), "close it or remove it")
        self._parts.append(text)

    def _skip(self, name: str, is_parameter: int) -> None:
        """Reports an entity that only another file could declare, and that is missing from the text therefore."""
        if self._parts is not None and not self._codes and not is_parameter:
            self._report(f"the entity {name[:_TAG_NAME]!r} is not declared in the file")

    def _entity(self, name: str, *_: object) -> None:
        """Refuses a file that declares entities."""
        raise UserError(f"declares the entity {name!r}", str(self._path), "remove it: a TMX file needs none")

    def _default(self, element: str, attribute: str, kind: str, value: str | None, required: int) -> None:
        """Refuses a file that declares many values of attributes, which the parser would add to each element."""
        self._declared += value is not None
        self._declared_size += len(value or "")
        if self._declared > _DEFAULTS or self._declared_size > _DEFAULTS_SIZE:
            what = f"declares values of more than {_DEFAULTS} attributes or {_DEFAULTS_SIZE:,} characters"
            raise UserError(what, str(self._path), "remove them: a TMX file needs none")

    def _declare(self, *_: object) -> None:
        """Handles the start of a document type declaration."""
        self._declaration_at = self._expat.CurrentByteIndex

    def _end_declaration(self) -> None:
        """Handles the end of a document type declaration."""
        self._declaration_at = -1

    def _read_encoding(self, version: str, encoding: str | None, standalone: int) -> None:
        """Handles the encoding that the file declares."""
        self._encoding = self._encoding or encoding


@functools.lru_cache(1024)
def _parse_language(tag: str) -> str:
    """Returns xlkd's tag of a language, or an empty string."""
    return find_tag(tag) if 0 < len(tag) <= _TAG_NAME else ""
