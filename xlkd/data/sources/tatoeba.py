# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`tatoeba:DIR?languages=de,fr`: up to 1,000 sentences per language with English, as `tatoeba.deu-eng.{deu,eng}`.

The English side differs from language to language; `limit=N` takes the first N pairs of each.
"""

from __future__ import annotations

import pathlib

from xlkd.data.sources import BadRows, Source, _aligned, _files, _folders
from xlkd.rows import Pair

TASKS = ("parallel",)
OPTIONS = ("languages", "limit")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Pair, ...]:
    """Returns the pairs language after language; every pair is its own group."""
    folder = source.locate()
    english = _aligned.find_files(folder, r"tatoeba\.([\w-]+)-eng\.eng", "tatoeba.LANG-eng.eng")
    paths_of = {language: (path, path.with_suffix(f".{_parse_code(path)}")) for language, path in english.items()}
    bad_rows.note_unread(folder, _files.list_unread(folder, [path for paths in paths_of.values() for path in paths]))
    pairs = []
    for language in _folders.choose_languages(source, set(english), besides="en"):
        paths = paths_of[language]
        texts = tuple(_aligned.read_lines(path, bad_rows) for path in paths)
        _aligned.check_same_length(dict(zip(paths, texts, strict=True)))
        members = (
            _aligned.make_pair("tatoeba", language, f"{language}/{number + 1}", number, ("en", language), row)
            for number, row in _aligned.iterate_complete(paths, texts, bad_rows)
        )
        pairs += source.first(members)
    return tuple(pairs)


def _parse_code(path: pathlib.Path) -> str:
    """Returns the code of the other language in the name of an English file."""
    return path.name.split(".")[1].removesuffix("-eng")
