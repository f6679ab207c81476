# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The rules by which pairs of a parallel corpus, and lines of text, are left out."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence

from xlkd.languages import get_script

CORRUPT, EMPTY, LONG, IDENTICAL, RATIO, SCRIPT, DUPLICATE = RULES = (
    "corrupt", "empty", "too long", "identical sides", "length ratio", "wrong script", "duplicate",
)  # fmt: skip

_RANGES = {
    "Arab": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc",
    "Armn": "\u0530-\u058f",
    "Beng": "\u0980-\u09ff",
    "Cyrl": "\u0400-\u052f",
    "Deva": "\u0900-\u097f",
    "Geor": "\u10a0-\u10ff\u1c90-\u1cbf",
    "Grek": "\u0370-\u03ff\u1f00-\u1fff",
    "Gujr": "\u0a80-\u0aff",
    "Guru": "\u0a00-\u0a7f",
    "Hang": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3",
    "Hani": "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Hebr": "\u0590-\u05ff",
    "Kana": "\u3040-\u30ff\uff66-\uff9f",
    "Knda": "\u0c80-\u0cff",
    "Latn": "A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff",
    "Mlym": "\u0d00-\u0d7f",
    "Mymr": "\u1000-\u109f",
    "Sinh": "\u0d80-\u0dff",
    "Taml": "\u0b80-\u0bff",
    "Telu": "\u0c00-\u0c7f",
    "Thai": "\u0e00-\u0e7f",
}
# Languages that are written in two scripts, where the tag does not say in which
_SCRIPTS = {"az": "Latn Cyrl", "kk": "Cyrl Latn", "pa": "Guru Arab", "sr": "Cyrl Latn", "uz": "Latn Cyrl"}
# Scripts that are several of Unicode's
_PARTS = {"Hans": "Hani", "Hant": "Hani", "Jpan": "Hani Kana", "Kore": "Hang Hani"}
# English characters per character of the script, from 1,997 translated news sentences; other languages are near 1
_WIDTH = {"Jpan": 2.2, "Kore": 1.9, "Hans": 3.0, "Hant": 3.0}
_SLACK = 8  # characters added to both sides, so that short sentences may differ ("Yes.", "Mais oui, bien sûr !")


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules that a pair or a text must satisfy; 0 turns a rule off, `only_empty` keeps the one on empty texts."""

    longest: int = 1000  # maximum characters of each side
    ratio: int = 3  # maximum of the longer side to the shorter, in English characters
    only_empty: bool = False

    def find_fault(self, texts: Sequence[str], languages: Sequence[str]) -> str:
        """Returns the first rule that a text or a pair breaks, or an empty string; texts must be stripped."""
        if not all(texts):
            return EMPTY
        if self.only_empty:
            return ""
        if self.longest and max(map(len, texts)) > self.longest:
            return LONG
        if len(set(texts)) < len(texts):
            return IDENTICAL
        widths = [len(text) * get_width(tag) + _SLACK for text, tag in zip(texts, languages, strict=True)]
        if self.ratio and max(widths) > self.ratio * min(widths):
            return RATIO
        return "" if all(map(is_in_script, texts, languages)) else SCRIPT


def is_in_script(text: str, language: str) -> bool:
    """Returns whether at least half of the letters, weighted by width, are of the language's own scripts."""
    ranges = _list_ranges(language)
    if not ranges or (text.isascii() and "A-Z" in ranges and language not in _SCRIPTS):
        return True
    own, other = _compile_letters(ranges)
    return get_width(language) * len(own.findall(text)) >= len(other.findall(text))


def get_width(language: str) -> float:
    """Returns how many English characters say what one character of the language says."""
    return _WIDTH.get(get_script(language), 1)


@functools.cache
def _list_ranges(language: str) -> str:
    """Returns the ranges of characters of the language's scripts; an empty string for a script that is not known."""
    script = get_script(language)
    names = _SCRIPTS.get(language, _PARTS.get(script, script)).split()
    return "".join(_RANGES.get(name, "") for name in names)


@functools.cache
def _compile_letters(ranges: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Compiles patterns of the letters in these ranges of characters, and of all other letters."""
    return re.compile(f"[{ranges}]"), re.compile(rf"[^\W\d_{ranges}]")
