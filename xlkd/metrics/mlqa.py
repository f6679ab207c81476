# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 by the rules of MLQA: as for SQuAD, but normalised by the language of the context."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from xlkd.errors import UserError
from xlkd.metrics import squad

# Unicode 14.0: category P and the ASCII punctuation. Frozen, because other Python versions know other characters.
_RANGES = """
21-2F 3A-40 5B-60 7B-7E A1 A7 AB B6-B7 BB BF 37E 387 55A-55F 589-58A 5BE 5C0 5C3 5C6 5F3-5F4 609-60A 60C-60D 61B
61D-61F 66A-66D 6D4 700-70D 7F7-7F9 830-83E 85E 964-965 970 9FD A76 AF0 C77 C84 DF4 E4F E5A-E5B F04-F12 F14
F3A-F3D F85 FD0-FD4 FD9-FDA 104A-104F 10FB 1360-1368 1400 166E 169B-169C 16EB-16ED 1735-1736 17D4-17D6 17D8-17DA
1800-180A 1944-1945 1A1E-1A1F 1AA0-1AA6 1AA8-1AAD 1B5A-1B60 1B7D-1B7E 1BFC-1BFF 1C3B-1C3F 1C7E-1C7F 1CC0-1CC7
1CD3 2010-2027 2030-2043 2045-2051 2053-205E 207D-207E 208D-208E 2308-230B 2329-232A 2768-2775 27C5-27C6
27E6-27EF 2983-2998 29D8-29DB 29FC-29FD 2CF9-2CFC 2CFE-2CFF 2D70 2E00-2E2E 2E30-2E4F 2E52-2E5D 3001-3003
3008-3011 3014-301F 3030 303D 30A0 30FB A4FE-A4FF A60D-A60F A673 A67E A6F2-A6F7 A874-A877 A8CE-A8CF A8F8-A8FA
A8FC A92E-A92F A95F A9C1-A9CD A9DE-A9DF AA5C-AA5F AADE-AADF AAF0-AAF1 ABEB FD3E-FD3F FE10-FE19 FE30-FE52
FE54-FE61 FE63 FE68 FE6A-FE6B FF01-FF03 FF05-FF0A FF0C-FF0F FF1A-FF1B FF1F-FF20 FF3B-FF3D FF3F FF5B FF5D
FF5F-FF65 10100-10102 1039F 103D0 1056F 10857 1091F 1093F 10A50-10A58 10A7F 10AF0-10AF6 10B39-10B3F 10B99-10B9C
10EAD 10F55-10F59 10F86-10F89 11047-1104D 110BB-110BC 110BE-110C1 11140-11143 11174-11175 111C5-111C8 111CD
111DB 111DD-111DF 11238-1123D 112A9 1144B-1144F 1145A-1145B 1145D 114C6 115C1-115D7 11641-11643 11660-1166C
116B9 1173C-1173E 1183B 11944-11946 119E2 11A3F-11A46 11A9A-11A9C 11A9E-11AA2 11C41-11C45 11C70-11C71
11EF7-11EF8 11FFF 12470-12474 12FF1-12FF2 16A6E-16A6F 16AF5 16B37-16B3B 16B44 16E97-16E9A 16FE2 1BC9F
1DA87-1DA8B 1E95E-1E95F
"""


def list_punctuation() -> list[int]:
    """Returns the code points that are deleted, in order."""
    ends = (part.partition("-") for part in _RANGES.split())
    return [point for first, _, last in ends for point in range(int(first, 16), int(last or first, 16) + 1)]


_PUNCTUATION = dict.fromkeys(list_punctuation())
_CHINESE = re.compile("([\u4e00-\u9fa5])")
_ARTICLES = {
    "en": re.compile(r"\b(?:a|an|the)\b"),
    "es": re.compile(r"\b(?:un|una|unos|unas|el|la|los|las)\b"),
    "de": re.compile(r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "vi": re.compile(r"\b(?:c\u1ee7a|l\u00e0|c\u00e1i|chi\u1ebfc|nh\u1eefng)\b"),
    "ar": re.compile("\u0627\u0644"),  # alif-lam anywhere, inside a word as well
    "hi": None,
    "zh": None,
}
LANGUAGES = tuple(sorted(_ARTICLES))


@functools.lru_cache(maxsize=16384)
def normalise(text: str, language: str, fallback: bool = False) -> str:
    """Returns the text in lower case, without punctuation and articles; each Chinese character becomes a word.

    With `fallback`, a language outside the seven keeps its articles and is split at white space.
    """
    if language not in _ARTICLES and not fallback:
        known = f"the rules know {', '.join(LANGUAGES)}"
        raise UserError(f"MLQA has no rules for {language!r}", remedy=f"{known}; set mlqa_fallback=true for the others")
    text = text.lower().translate(_PUNCTUATION)
    if articles := _ARTICLES.get(language):
        text = articles.sub(" ", text)
    if language == "zh":
        text = _CHINESE.sub(r" \1 ", text)
    return " ".join(text.split())


def em(prediction: str, golds: Sequence[str], language: str, fallback: bool = False) -> float:
    """Returns 1 where the normalised prediction equals a normalised gold answer, else 0."""
    clean = functools.partial(normalise, language=language, fallback=fallback)
    return squad.best_em(clean(prediction), map(clean, golds))


def f1(prediction: str, golds: Sequence[str], language: str, fallback: bool = False) -> float:
    """Returns the best F1 over the gold answers, between bags of normalised words."""
    clean = functools.partial(normalise, language=language, fallback=fallback)
    return squad.best_f1(clean(prediction), map(clean, golds))
