# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which pairs of a parallel corpus are left out, and by which rule."""

from __future__ import annotations

import dataclasses
import functools
import re

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
_SCRIPTS = {
    "ar": "Arab", "az": "Latn Cyrl", "be": "Cyrl", "bg": "Cyrl", "bn": "Beng", "el": "Grek", "fa": "Arab",
    "gu": "Gujr", "he": "Hebr", "hi": "Deva", "hy": "Armn", "ja": "Hani Kana", "ka": "Geor", "kk": "Cyrl Latn",
    "kn": "Knda", "ko": "Hang Hani", "mk": "Cyrl", "ml": "Mlym", "mn": "Cyrl", "mr": "Deva", "my": "Mymr",
    "ne": "Deva", "pa": "Guru Arab", "ps": "Arab", "ru": "Cyrl", "si": "Sinh", "sr": "Cyrl Latn", "ta": "Taml",
    "te": "Telu", "th": "Thai", "uk": "Cyrl", "ur": "Arab", "uz": "Latn Cyrl", "zh": "Hani",
}  # fmt: skip
# English characters that one character stands for, from 1,997 translated news sentences; the others are near 1
_WIDTH = {"ja": 2.2, "ko": 1.9, "zh": 3.0}
_SLACK = 8  # characters on both sides, so that "Yes." may be "Mais oui, bien sûr !"


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a pair must hold to; 0 turns a rule off, `only_empty` all but one."""

    longest: int = 1000  # characters of either side
    ratio: int = 3  # of the longer side to the shorter, in English characters
    only_empty: bool = False

    def fault(self, source: str, target: str, languages: tuple[str, str]) -> str:
        """The first rule that leaves the pair out, or nothing; the texts are stripped."""
        if not source or not target:
            return EMPTY
        if self.only_empty:
            return ""
        if self.longest and max(len(source), len(target)) > self.longest:
            return LONG
        if source == target:
            return IDENTICAL
        a, b = (len(t) * _WIDTH.get(of, 1) + _SLACK for t, of in zip((source, target), languages, strict=True))
        if self.ratio and max(a, b) > self.ratio * min(a, b):
            return RATIO
        return "" if in_script(source, languages[0]) and in_script(target, languages[1]) else SCRIPT


def in_script(text: str, language: str) -> bool:
    """Whether half of the letters, or what they stand for, are of the language's own scripts."""
    if text.isascii() and language not in _SCRIPTS:
        return True
    own, other = _letters(language)
    return _WIDTH.get(language, 1) * len(own.findall(text)) >= len(other.findall(text))


@functools.cache
def _letters(language: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Letters of the language's scripts, Latin unless the table says otherwise, and all others."""
    ranges = "".join(_RANGES[name] for name in _SCRIPTS.get(language, "Latn").split())
    return re.compile(f"[{ranges}]"), re.compile(rf"[^\W\d_{ranges}]")
