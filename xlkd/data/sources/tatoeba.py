# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tatoeba:DIR?languages=de,fr`: up to 1,000 sentences a language with English, as `tatoeba.deu-eng.{deu,eng}`.

The English side differs from language to language; `limit=N` takes the first N pairs of each.
"""

from __future__ import annotations

import pathlib

from xlkd.data.sources import Bad, Spec, _aligned, _folders
from xlkd.rows import Pair

TASKS = ("parallel",)


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Pair, ...]:
    """Language after language; every pair is a group of its own."""
    spec.allow("languages", "limit")
    folder = pathlib.Path(spec.path).expanduser()
    english = _aligned.find(folder, r"tatoeba\.([\w-]+)-eng\.eng", "tatoeba.LANG-eng.eng")
    found = []
    for language in _folders.choose(spec, set(english), besides="en"):
        tag = english[language].name.split(".")[1].removesuffix("-eng")
        paths = english[language], english[language].with_suffix(f".{tag}")
        texts = tuple(_aligned.lines(path, bad) for path in paths)
        _aligned.same_length(dict(zip(paths, texts, strict=True)))
        pairs = (
            _aligned.pair("tatoeba", language, f"{language}/{number + 1}", number, ("en", language), row)
            for number, row in _aligned.sound(paths, texts, bad)
        )
        found += spec.first(pairs)
    return tuple(found)
