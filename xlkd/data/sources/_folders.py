# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which files of a folder hold which languages, by their names."""

from __future__ import annotations

import pathlib
import re

from xlkd.data.sources import Spec
from xlkd.errors import UserError
from xlkd.languages import normalise_tag


def find(
    spec: Spec, pattern: str, expected: str, folders: tuple[str, ...] = ("",)
) -> dict[tuple[str, ...], pathlib.Path]:
    """The files whose whole name matches, by the languages that its groups name; the path may be one such file."""
    root = pathlib.Path(spec.path).expanduser()
    if not spec.path or not root.exists():
        raise UserError("no such file or folder", str(root) if spec.path else str(spec), "look at the path")
    paths = [root] if root.is_file() else [p for folder in folders for p in sorted((root / folder).glob("*.json"))]
    matches = [(path, match) for path in paths if (match := re.fullmatch(pattern, path.name))]
    if not matches:
        raise UserError(f"no file named {expected}", str(root), "look at the path and at split")
    found = {}
    for path, match in matches:
        languages = tuple(normalise_tag(tag, str(path)) for tag in match.groups())
        if languages in found:
            raise UserError(f"the same languages as {found[languages].name}", str(path), "keep one of the two")
        found[languages] = path
    return found


def split(spec: Spec, choices: tuple[str, ...]) -> str:
    """The split asked for, the first unless told; of a single file any, as its name says which."""
    return "|".join(choices) if spec.path.endswith(".json") else spec.choice("split", choices)


def choose(spec: Spec, available: set[str], besides: str = "") -> list[str]:
    """The languages asked for, in that order, or all that are there, without the one that is `besides` in any case."""
    asked = [language for language in spec.languages() if language != besides]
    if missing := [language for language in asked if language not in available]:
        raise UserError(f"no file for {', '.join(missing)}", str(spec), f"there are {', '.join(sorted(available))}")
    return list(dict.fromkeys(asked)) or sorted(available - {besides})
