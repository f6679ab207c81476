# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parses and writes source strings: `NAME:PATH?languages=en,de&split=test&limit=100`, several joined with `+`.

A config may have a dict in place of a string, `dict(source="xquad", path="DIR", languages=["en", "de"])`, or a list of
dicts and strings. Both are written as a string before anything reads them. Where a path or a value would be read as
another one, as `a?limit=1.json`, `%` after the name says that `?`, `&`, `+` and `%` are percent-encoded:
`squad%:a%3Flimit=1.json`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import pathlib
import pkgutil
import re
import shlex
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from xlkd import files
from xlkd.errors import UserError, suggest_name
from xlkd.languages import normalise_tag
from xlkd.spec import SourceText, shorten

_T = TypeVar("_T")
_FOLDER = pathlib.Path(__file__).parents[1] / "data" / "sources"
_QUERY = re.compile(r"\?(?=(?:\w+=[^&]*)?(?:&(?:\w+=[^&]*)?)*\Z|[\w&=]*\Z)")  # a name of a file may contain ?
_ENCODED = str.maketrans({character: f"%{ord(character):02X}" for character in "%?&+"})
_OPTION = re.compile(r"\w+")
Value = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]  # of a key of a config that has a source
_OWN_KEYS = ("source", "path")  # of a dict; an option of such a name is written with _ at its end


@dataclasses.dataclass(frozen=True)
class Source:
    """A source of a source string: its name, its path and its options.

    `place` is the key of the config that it stands in, for example `config.data.train[1]`; empty outside of configs.
    """

    name: str
    path: str
    options: tuple[tuple[str, str], ...] = ()
    place: str = dataclasses.field(default="", compare=False)
    text: SourceText = dataclasses.field(default=SourceText(""), compare=False)  # the whole source string

    def __str__(self) -> str:
        plain = self._write(self.name, self.path, self.options)
        if not any(character in plain for character in "?+") or _reads_as(plain, self):
            return plain
        options = [(name, value.translate(_ENCODED)) for name, value in self.options]
        return self._write(f"{self.name}%", self.path.translate(_ENCODED), options)

    @staticmethod
    def _write(name: str, path: str, options: Iterable[tuple[str, str]]) -> str:
        """Writes a source string of parts that need no more encoding."""
        query = "&".join(f"{option}={value}" for option, value in options)
        return name + (f":{path}" if path else "") + (f"?{query}" if query else "")

    def locate_option(self, name: str) -> str:
        """Returns the place of an option in messages: its key in the config, else the whole source."""
        return f"{self.place}.{name}" if self.place else str(self)

    def locate(self) -> pathlib.Path:
        """Returns the path, with `~` expanded."""
        return files.expand_path(self.path)

    def option(self, name: str, default: str = "") -> str:
        """Returns the value of an option."""
        return dict(self.options).get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """Returns an option as a whole number, 0 or more."""
        text = self.option(name, str(default))
        if not is_whole(text):
            raise UserError(f"{name}={text} is not a whole number", self.locate_option(name))
        return int(text)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Returns an option as one of the choices, by default the first."""
        value = self.option(name, choices[0])
        if value not in choices:
            remedy = f"choose one of {', '.join(choices)}"
            raise UserError(f"{name}={value} is not possible", self.locate_option(name), remedy)
        return value

    def first(self, rows: Iterable[_T]) -> Iterator[_T]:
        """Returns the first rows, as many as `limit` says, or all."""
        return itertools.islice(rows, self.number("limit") or None)

    def pairs(self, languages: Sequence[str]) -> list[tuple[str, str]]:
        """Returns each language paired with itself, or with every language."""
        all_pairs = self.choice("pairs", ("diagonal", "all")) == "all"
        return [(a, b) for a in languages for b in languages if all_pairs or a == b]

    def languages(self) -> tuple[str, ...]:
        """Returns the normalised tags of the option `languages`; empty means all."""
        tags = self.option("languages")
        return tuple(normalise_tag(tag, self.locate_option("languages")) for tag in tags.split(",")) if tags else ()

    def allow(self, *names: str) -> None:
        """Refuses options that this source does not know."""
        for name, _ in self.options:
            if name not in names:
                remedy = suggest_name(name, (*names, *_OWN_KEYS), f"known here: {', '.join(names)}")
                raise UserError(f"unknown option {name!r}", self.locate_option(name), remedy)

    def remove_options(self, names: Collection[str]) -> Source:
        """Returns the source without some options."""
        return dataclasses.replace(self, options=tuple(item for item in self.options if item[0] not in names))

    def set_option(self, name: str, value: str) -> Source:
        """Returns the source with another value of an option, or with another `source` or `path`."""
        if name in _OWN_KEYS:
            return dataclasses.replace(self, **{"name" if name == "source" else "path": value})
        name = name.removesuffix("_")
        if name not in dict(self.options):
            return dataclasses.replace(self, options=(*self.options, (name, value)))
        return dataclasses.replace(self, options=tuple((n, value if n == name else v) for n, v in self.options))


def is_whole(text: str) -> bool:
    """Says whether a text is digits alone, few enough for a plausible number."""
    return text.isdecimal() and len(text) < 19


def list_sources() -> list[str]:
    """Returns the names of all sources: the modules of the folder `xlkd/data/sources`."""
    names = (module.name for module in pkgutil.iter_modules([str(_FOLDER)]))
    return sorted(name for name in names if not name.startswith("_"))


def quote(error: UserError, text: str) -> UserError:
    """Returns the refusal of a source string with the flag that sets it, quoted for a shell.

    A shell cuts a string that is not quoted at `&`, and some expand `?`: what was read need not be what was written.
    """
    place = text.place if isinstance(text, SourceText) and text.place else "data"
    quoted = shlex.quote(text)
    flag = f"--{place}='{text}'" if quoted == text else f"--{place}={quoted}"
    return UserError(error.what, error.where, "; ".join(filter(None, (error.remedy, f"in a shell quote it: {flag}"))))


def parse(value: Value) -> list[Source]:
    """Returns the sources of a source string, a dict or a list."""
    text = write_value(value, "source")
    place = text.place if isinstance(text, SourceText) else ""
    try:
        if "\0" in text or text != text.encode(errors="ignore").decode():
            raise UserError("contains a zero byte or is not UTF-8", text, "rename the file or its folder")
        parts = _compile_join().split(text)
        places = [f"{place}[{i}]" if place and len(parts) > 1 else place for i in range(len(parts))]
        sources = [_parse_source(part, part_place) for part, part_place in zip(parts, places, strict=True)]
    except UserError as error:
        raise quote(error, text) from error
    return [dataclasses.replace(source, text=SourceText(text, place)) for source in sources]


def _parse_source(part: str, place: str) -> Source:
    """Returns one source of a source string."""
    head, query = (*_QUERY.split(part, maxsplit=1), "")[:2]
    name, _, path = head.partition(":")
    pairs = [item.partition("=") for item in query.split("&") if item]
    options = [(option, value) for option, _, value in pairs]
    if name.endswith("%"):
        try:
            name, path = name[:-1], urllib.parse.unquote(path, errors="strict")
            options = [(option, urllib.parse.unquote(value, errors="strict")) for option, value in options]
        except UnicodeDecodeError:
            raise UserError("is not percent-encoded UTF-8", part, "write % as %25") from None
    _check_name(name, part)
    files.expand_path(path)
    names = [option for option, _ in options]
    if repeated := [option for option in names if names.count(option) > 1]:
        raise UserError(f"two options {repeated[0]!r}", part, "keep one of them")
    return Source(name, path, tuple(options), place)


def _check_name(name: str, where: str) -> None:
    """Refuses a source that does not exist."""
    if name not in list_sources():
        remedy = suggest_name(name, list_sources(), f"known sources: {', '.join(list_sources())}")
        raise UserError(f"unknown source {shorten(repr(name))}", where, remedy)


@functools.cache
def _compile_join() -> re.Pattern[str]:
    """Compiles the pattern of a + that joins two sources, not one in the name of a file."""
    names = "|".join(list_sources())
    return re.compile(rf"\+(?=[a-z_]+:|(?:{names})%:|(?:(?:{names})%?|)(?:[?+]|\Z))")


def _reads_as(text: str, source: Source) -> bool:
    """Returns whether a source string is read as this one source."""
    try:
        return parse(text) == [source]
    except UserError:
        return False


def write_value(value: Any, place: str) -> str:
    """Returns the source string of a value in a config: a string, a dict, or a list of these.

    `place` is the key of the value in messages. A string, and a value of any other type, is returned as it is.
    """
    if isinstance(value, Mapping):
        return str(_read_mapping(value, place))
    if not isinstance(value, list | tuple):
        return value
    return "+".join(_write_item(item, f"{place}[{i}]") for i, item in enumerate(value))


def _write_item(item: Any, place: str) -> str:
    """Returns the source string of an item of a list, which is one source."""
    if isinstance(item, Mapping):
        return str(_read_mapping(item, place))
    if not isinstance(item, str):
        raise UserError(f"{shorten(repr(item))} is not of type source", place, "write a dict or a string")
    try:
        count = len(parse(SourceText(item, place.rpartition("[")[0])))
    except UserError as error:
        raise UserError(error.what, place, error.remedy) from error
    if count > 1:
        raise UserError(f"names {count} sources", place, "give each its own place in the list")
    return item


def _read_mapping(values: Mapping[Any, Any], place: str) -> Source:
    """Returns the source that a dict of a config describes; its options are in alphabetical order."""
    if "source" not in values:
        similar = difflib.get_close_matches("source", map(str, values), n=1)
        remedy = f"did you mean 'source' in place of {similar[0]!r}?" if similar else "add for example source='xquad'"
        raise UserError("names no source", place, remedy)
    for key in values:
        if not isinstance(key, str) or not _OPTION.fullmatch(key):
            raise UserError(f"{shorten(repr(key))} cannot be the name of an option", place, "use letters and digits")
    for key in _OWN_KEYS:
        if not isinstance(values.get(key, ""), str):
            raise UserError(f"{shorten(repr(values[key]))} is not of type str", f"{place}.{key}", "write a text")
    name, path = values["source"], values.get("path", "")
    _check_name(name, f"{place}.source")
    options = {
        key.removesuffix("_"): _write_option(value, f"{place}.{key}")
        for key, value in sorted(values.items())
        if key not in _OWN_KEYS
    }
    return Source(name, path, tuple(options.items()))


def _write_option(value: Any, place: str) -> str:
    """Returns the text of an option: of a text, a number, a boolean, or a list of these."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    if not isinstance(value, list | tuple) or any(isinstance(item, list | tuple) for item in value):
        what = f"{shorten(repr(value))} is not of type str, int, float, bool or a list of these"
        raise UserError(what, place, "write for example 'test', 100 or ['en', 'de']")
    texts = [_write_option(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if commas := [text for text in texts if "," in text]:
        raise UserError(f"{shorten(repr(commas[0]))} in a list contains a comma", place, "give each its own place")
    return ",".join(texts)


def set_option(text: str, option: str, value: str, place: str) -> str:
    """Returns the source string with another value of an option of its only source."""
    text = SourceText(text, place)
    sources = parse(text)
    if len(sources) > 1:
        raise quote(UserError(f"names {len(sources)} sources", place, "give all of them"), text)
    return str(sources[0].set_option(option, value))
