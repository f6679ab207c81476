# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes what the files of a run contain, and checks values that were read from them.

A shape is a `Kind` for a single value, `[shape]` for a list, or a dict for an object. In a dict, `"key"` is required,
`"key?"` may be missing or null, and the shape under `str` is that of all other keys, which are dropped without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from xlkd.files import Json
from xlkd.metrics.ranks import MOST

LARGEST = 1e15  # of a number: counts up to it are exact, and sums stay finite
Shape = Any  # a Kind, [Shape] or {key: Shape}


class Mismatch(ValueError):
    """Reports the first part of a value that does not have its shape."""


class Kind(NamedTuple):
    """A kind of value: its name for messages, and the test of a value."""

    name: str
    accepts: Callable[[Json], bool]


def is_number(value: Json) -> bool:
    """Says whether a value is a finite number of plausible size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _is_count(value: Json) -> bool:
    return is_number(value) and isinstance(value, int) and value >= 0


def _is_link(value: Json) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


ANY = Kind("a value", lambda value: True)
TEXT = Kind("a string", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", is_number)
COUNT = Kind("a whole number, 0 or more", _is_count)
RANK = Kind(f"a whole number from 0 to {MOST}", lambda value: _is_count(value) and value <= MOST)
WHOLE = Kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
NUMBER_OR_NULL = Kind("a finite number", lambda value: value is None or is_number(value))
PLAIN = Kind("a number or a string", lambda value: not isinstance(value, dict | list))
LINK = Kind("a pair of whole numbers", _is_link)

BUDGET = {"steps?": COUNT}
STAGE_BLOCKS = {"start?": TEXT, "budget?": BUDGET}  # of the config of a stage
CONFIG = {
    **STAGE_BLOCKS,
    "stages": [TEXT],
    "controls?": [TEXT],
    "seed?": WHOLE,
    "method?": {"control?": TEXT, "variant?": TEXT, str: ANY},
    "budget?": {**BUDGET, str: ANY},
    "report?": {"compare?": [TEXT], "primary?": [TEXT], "judged_by?": TEXT, str: ANY},
    str: ANY,
}
ENVIRONMENT = {
    "command?": [TEXT],
    "git?": TEXT,
    "git_changes?": FLAG,
    "devices?": [TEXT],
    "models?": {str: TEXT},
    "data_sets?": {str: TEXT},
}
METRIC = {
    "label": TEXT,
    "over": Kind("'example' or 'cell'", ("example", "cell").__contains__),
    "higher_is_better": FLAG,
}
NULL_THRESHOLD = {"value": NUMBER, "origin": TEXT}
SCORES = {  # of an evaluation set at a step
    "step": COUNT,
    "task?": TEXT,
    "main": TEXT,
    "mean": NUMBER,
    "cells": {str: {str: NUMBER}},
    "languages?": {str: [TEXT]},
    "metrics?": {str: METRIC},
    "null_threshold?": NULL_THRESHOLD,
}
CONTAMINATION = {
    "flagged": COUNT,
    "rows": COUNT,
    "kinds?": {str: COUNT},
    "by_language?": {str: COUNT},
    "examples?": [{"kind?": TEXT, "id?": TEXT, "language?": TEXT, "text?": TEXT}],
    "keys?": {str: [TEXT]},
}
STAGE = {  # the record that a stage writes at its end
    "version?": WHOLE,
    "stage?": TEXT,
    "method?": TEXT,
    "task?": TEXT,
    "start?": TEXT,
    "commit?": TEXT,
    "steps?": COUNT,
    "rows?": COUNT,
    "lr?": NUMBER,
    "seconds?": NUMBER,
    "parameters?": COUNT,
    "sets?": {str: SCORES},
    "seen?": {str: [TEXT]},
    "contamination?": {str: CONTAMINATION},
    "null_threshold?": NULL_THRESHOLD,
    "ceilings?": {str: {str: {str: NUMBER_OR_NULL}}},
}
EVENT = {"time": NUMBER, "kind": TEXT, "stage?": TEXT, "step?": NUMBER, "waited?": NUMBER}
STEP = {"step": NUMBER, str: ANY}  # of the metrics that were logged in training, which may be NaN
PICTURE = {
    "title?": TEXT,
    "points": [{"x": NUMBER, "y": NUMBER, "language?": TEXT, "id?": TEXT}],
    "links?": [LINK],
}
_ROW = {"key": TEXT, "id": TEXT, "group": TEXT, "set?": TEXT}
ROWS = {  # the scores of an example, by task
    "qa": {
        **_ROW,
        "question_language": TEXT,
        "context_language": TEXT,
        "f1": NUMBER,
        "em": NUMBER,
        "prediction": TEXT,
        "start?": COUNT,
        "end?": COUNT,
        "rank?": RANK,
        str: PLAIN,
    },
    "classify": {**_ROW, "language": TEXT, "gold": TEXT, "prediction": TEXT, "accuracy": NUMBER, str: PLAIN},
    "unlabelled": {**_ROW, "language": TEXT, "gold?": TEXT, "prediction?": TEXT, "accuracy?": NUMBER, str: PLAIN},
    "retrieval": {
        **_ROW,
        "source_language": TEXT,
        "target_language": TEXT,
        "to_source": NUMBER,
        "to_target": NUMBER,
        "retrieval?": NUMBER,
        str: PLAIN,
    },
    "": {"set?": TEXT, str: PLAIN},
}
_TEXT = {"key": TEXT, "id": TEXT, "set?": TEXT}
QUESTION = {
    **_TEXT,
    "question": TEXT,
    "context": TEXT,
    "answers": [{"text": TEXT, "start": COUNT}],
    "question_language": TEXT,
    "context_language": TEXT,
}
LABELLED = {**_TEXT, "text": TEXT, "second?": TEXT, "label?": TEXT, "language": TEXT}


def select(value: Json, shape: Shape, path: str = "") -> Json:
    """Returns the part of a value that its shape describes; raises `Mismatch` where the value does not have it."""
    where = path or "the content"
    if isinstance(shape, Kind):
        if not shape.accepts(value):
            raise Mismatch(f"{where} is {_describe(value)}, not {shape.name}")
        return value
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise Mismatch(f"{where} is {_describe(value)}, not a list")
        return [select(item, shape[0], f"{path}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, dict):
        raise Mismatch(f"{where} is {_describe(value)}, not a JSON object")
    selected = {}
    for key, item in value.items():
        optional = shape.get(f"{key}?")
        if optional and item is None:
            continue
        if inner := shape.get(key) or optional or shape.get(str):
            selected[key] = select(item, inner, f"{path}.{key}" if path else key)
    if lacking := [key for key in shape if key is not str and key[-1] != "?" and key not in value]:
        raise Mismatch(f"{f'{path}.' if path else ''}{lacking[0]} is missing")
    return selected


def _describe(value: Json) -> str:
    """Describes a value of the wrong kind for a message."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(value) if isinstance(value, float) or abs(value) <= LARGEST else "too large"
    return "a string" if isinstance(value, str) else "a list" if isinstance(value, list) else "a JSON object"
