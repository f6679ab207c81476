# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the files of a folder for the options `languages` and `split`, by their names."""

from __future__ import annotations

import pathlib
import re

from xlkd.data.sources import BadRows, Source, _files
from xlkd.errors import UserError
from xlkd.languages import normalise_tag


def find_files(
    source: Source, pattern: str, expected: str, bad_rows: BadRows, folders: tuple[str, ...] = ("",), others: str = ""
) -> dict[tuple[str, ...], pathlib.Path]:
    """Returns the files whose complete name matches, by the languages in its groups; the path may be one such file.

    All other files below the path are noted, except those whose names match `others`, which are of another split.
    """
    root = source.locate()
    if not source.path or not root.exists():
        raise UserError("no such file or folder", str(root) if source.path else str(source), "check the path")
    paths = [root] if root.is_file() else [p for folder in folders for p in sorted((root / folder).glob("*.json"))]
    matches = [(path, match) for path in paths if (match := re.fullmatch(pattern, path.name))]
    if not matches:
        raise UserError(f"no file named {expected}", str(root), "check the path and split=")
    files = {}
    for path, match in matches:
        languages = tuple(normalise_tag(tag, str(path)) for tag in match.groups())
        if languages in files:
            raise UserError(f"the same languages as {files[languages].name}", str(path), "keep one of the two")
        files[languages] = path
    if root.is_dir():
        names = _files.list_unread(root, files.values())
        bad_rows.note_unread(root, [name for name in names if not re.fullmatch(others, pathlib.Path(name).name)])
    return files


def choose_split(source: Source, choices: tuple[str, ...]) -> str:
    """Returns the option `split`, by default the first choice; for a single file any, since its name says which."""
    return "|".join(choices) if source.path.endswith(".json") else source.choice("split", choices)


def choose_languages(source: Source, available: set[str], besides: str = "") -> list[str]:
    """Returns the languages of the option `languages` in its order, or all available ones, without `besides`."""
    requested = [language for language in source.languages() if language != besides]
    if missing := [language for language in requested if language not in available]:
        raise UserError(f"no file for {', '.join(missing)}", str(source), f"there are {', '.join(sorted(available))}")
    return list(dict.fromkeys(requested)) or sorted(available - {besides})
