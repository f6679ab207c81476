# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Typed settings: a block of a config is a frozen dataclass whose fields say type, default, range and meaning.

Plain Python that imports no jax, so that configs and commands can use it before anything is computed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from xlkd.errors import UserError

T = TypeVar("T")
Block = Mapping[str, Any]  # a block of a config as plain values
_LONGEST_SHOWN = 200  # characters of a value in a message
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # halves of surrogate pairs among them
_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class SourceText(str):
    """A source string of a config, and the key that has it, for example `config.data.train`; outside of configs empty.

    `xlkd.spec.source` parses it.
    """

    place: str

    def __new__(cls, text: str, place: str = "") -> SourceText:
        source = super().__new__(cls, text)
        source.place = place
        return source


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting's meaning and the values it may have; `also` lists values that are allowed outside the range.

    The choices are those of the field's type, a `Literal`: `list_settings` fills them in.
    """

    meaning: str
    choices: tuple[str, ...] = ()
    at_least: float = -math.inf
    at_most: float = math.inf
    also: tuple[float, ...] = ()

    def allows(self, value: Any) -> bool:
        """Returns whether a value is one of the choices, or inside the range, as each value of a list has to be."""
        if self.choices:
            return value in self.choices
        if isinstance(value, tuple):
            return all(map(self.allows, value))
        if isinstance(value, bool) or not isinstance(value, int | float) or value in self.also:
            return True
        return self.at_least <= value <= self.at_most

    def describe_range(self) -> str:
        """Describes the values that are allowed; empty where every value of the type is."""
        if self.choices:
            return ", ".join(self.choices)
        if math.isinf(self.at_least):
            return ""
        return ", or ".join((f"{self.at_least:.15g} to {self.at_most:.15g}", *(f"{value:g}" for value in self.also)))


def setting(default: T, meaning: str, **limits: Any) -> T:
    """Declares a field of a settings dataclass; `limits` are those of `Setting`."""
    metadata = {"setting": Setting(meaning, **limits)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def list_settings(cls: type) -> dict[str, Setting]:
    """Returns the settings of a dataclass by name; fields that are blocks themselves are left out."""
    declared = {
        field.name: field.metadata["setting"] for field in dataclasses.fields(cls) if "setting" in field.metadata
    }
    kinds = resolve_types(cls)
    return {name: dataclasses.replace(entry, choices=list_choices(kinds[name])) for name, entry in declared.items()}


def list_choices(kind: Any) -> tuple[str, ...]:
    """Returns the values that a field's type lists; none where it lists none."""
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def list_blocks(cls: type) -> dict[str, type]:
    """Returns the fields of a dataclass that are settings dataclasses themselves."""
    return {name: kind for name, kind in resolve_types(cls).items() if dataclasses.is_dataclass(kind)}


@functools.cache
def resolve_types(cls: type) -> dict[str, Any]:
    """Returns the types of a dataclass's fields, resolved."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def list_defaults(cls: type, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the default of every setting of a dataclass, or of the named ones; a config file begins with them."""
    blank = cls()
    values = {name: getattr(blank, name) for name in names or list_settings(cls)}
    return {name: str(value) if isinstance(value, SourceText) else value for name, value in values.items()}


def read_block(cls: type[T], block: Block, path: str, locate: Callable[[str], str] = "config.{}".format) -> T:
    """Reads a block into its dataclass: absent keys get their default, keys that it does not have are left alone.

    A value of another type or out of range is refused; `locate` says where the key of a path was set.
    """
    values: dict[str, Any] = {}
    for name, inner in list_blocks(cls).items():
        values[name] = read_block(inner, block.get(name) or {}, f"{path}.{name}", locate)
    for name, known in list_settings(cls).items():
        if name in block:
            values[name] = check_value(known, resolve_types(cls)[name], block[name], locate(f"{path}.{name}"))
    return cls(**values)


def check_value(known: Setting, kind: Any, value: Any, where: str) -> Any:
    """Returns the value as its type, or refuses it."""
    try:
        converted = convert_value(kind, value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{shorten(repr(value))} is not of type {describe_type(kind)}", where, "see --keys for type and range"
        ) from None
    if not known.allows(converted):
        remedy = f"choose one of {known.describe_range()}" if known.choices else f"give {known.describe_range()}"
        raise UserError(f"{where.rpartition('.')[2]}={shorten(converted)} is not possible", where, remedy)
    if fault := _find_text_fault(converted):
        raise UserError(fault, where, "correct it")
    return SourceText(converted, where) if kind is SourceText else converted


def shorten(value: Any) -> str:
    """Returns a value as text, without the end of a long one."""
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _find_text_fault(value: Any) -> str:
    """Finds a control character, an empty name or a repeated name in a value; returns a description, else nothing."""
    if isinstance(value, str):
        return "contains a control character" if _CONTROL.search(value) else ""
    if not isinstance(value, Mapping | tuple):
        return ""
    parts = (*value, *value.values()) if isinstance(value, Mapping) else value
    if isinstance(value, tuple) and any(isinstance(part, str) for part in value):
        if "" in value:
            return "contains an empty name"
        if len(set(value)) < len(value):
            return "contains a name twice"
    return next(filter(None, map(_find_text_fault, parts)), "")


def convert_value(kind: Any, value: Any) -> Any:
    """Converts a plain value to the type of a field: lists to tuples, whole numbers to floats where it is a float."""
    if list_choices(kind) or kind is SourceText:
        kind = str
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, tuple | list) or (arguments[-1] is not Ellipsis and len(value) != len(arguments)):
            raise TypeError(value)
        return tuple(convert_value(arguments[0], inner) for inner in value)
    if origin is not None:  # a mapping by language
        if not isinstance(value, Mapping):
            raise TypeError(value)
        if not all(isinstance(name, str) for name in value):
            raise TypeError(value)
        return {name: convert_value(arguments[1], inner) for name, inner in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is not kind:
        raise TypeError(value)
    return value


def parse_value(kind: Any, text: str) -> Any:
    """Returns the text of a flag as the type of a field; raises KeyError or ValueError for an invalid text."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}[text.casefold()]
    if typing.get_origin(kind) is tuple:
        parts = text.strip("()").split(",")
        if not parts[-1].strip():  # an empty text, or a comma at the end
            parts.pop()
        if not all(map(str.strip, parts)):
            raise ValueError(text)
        return tuple(parse_value(typing.get_args(kind)[0], part.strip()) for part in parts)
    if kind is int:
        if not _WHOLE.fullmatch(text):
            raise ValueError(text)
        return int(text)
    if kind is float:
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not math.isfinite(value) or (not value and re.search("[1-9]", re.split("[eE]", text)[0])):
            raise ValueError(text)
        return value
    return text


def describe_type(kind: Any) -> str:
    """Returns the name of a field's type as `--keys` shows it."""
    if typing.get_origin(kind) is tuple:
        inner, other = typing.get_args(kind)
        return f"{'list' if other is Ellipsis else 'pair'} of {inner.__name__}"
    if list_choices(kind):
        return "str"
    if kind is SourceText:
        return "source"
    return kind.__name__ if not typing.get_args(kind) else "by language"


def find_value_type(kind: Any) -> Any:
    """Returns the type of the values of a mapping by language."""
    return typing.get_args(kind)[1]


def to_plain(settings: Any) -> dict[str, Any]:
    """Returns settings in the form of config.json: dicts, lists, strings and numbers."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: convert(inner) for name, inner in value.items()}
        return [convert(inner) for inner in value] if isinstance(value, tuple) else value

    return convert(dataclasses.asdict(settings))


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every key of nested blocks with its value, as `optim.lr`."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flatten(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, inner
