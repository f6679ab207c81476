# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the configs and splits of a data set of the hub by the names of its parquet files and the head of its card.

A config that the card describes has the files that it names there. Without a description the names of folders and files
tell: `CONFIG/SPLIT-00000-of-00002.parquet`, `CONFIG/SPLIT/0000.parquet`, `data/SPLIT-….parquet`, `SPLIT.parquet`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xlkd.languages import find_tag

Splits = dict[str, tuple[str, ...]]  # the files of each split, in order
Configs = dict[str, Splits]

DEFAULT = "default"  # the config of files that no folder or card puts into another one
PARTIAL = "partial-"  # begins the folder of a split of which the hub has converted a part only
SUFFIX = ".parquet"
_SHARD = re.compile(r"(.+?)[-_.]\d+[-_]of[-_]\d+\b.*")  # train-00000-of-00002, also with a hash behind it
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_ALL_LANGUAGES = re.compile(rf"({DEFAULT}|all)([_.-].*)?")


def find_configs(names: Iterable[str], card: Mapping[str, Any]) -> Configs:
    """Returns the parquet files of each split of each config; `card` is the head of README.md."""
    files = sorted((name for name in names if name.endswith(SUFFIX)), key=_split_numbers)
    entries = card.get("configs")
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    if not any("data_files" in entry or "data_dir" in entry for entry in entries):
        return _infer_configs(files)
    configs = {str(entry.get("config_name", DEFAULT)): _find_described(entry, files) for entry in entries}
    return {name: splits for name, splits in configs.items() if splits}


def find_default(card: Mapping[str, Any]) -> str:
    """Returns the config that the head of a card marks as the default; "" where it marks none."""
    entries = card.get("configs")
    marked = (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()
    return next((str(entry.get("config_name", DEFAULT)) for entry in marked if entry.get("default") is True), "")


def find_languages(configs: Iterable[str]) -> dict[str, str]:
    """Returns the canonical tag of each config where the configs of a data set are languages; else nothing.

    They are where all but `default` and `all…` are different tags, or tags behind one common prefix, as in `xquad.de`.
    """
    names = [name for name in configs if not _ALL_LANGUAGES.fullmatch(name)]
    prefixes = {name.rpartition(".")[0] for name in names}
    tags = {name: find_tag(name.rpartition(".")[2]) for name in names}
    is_clear = len(names) > 1 and len(prefixes) == 1 and all(tags.values()) and len(set(tags.values())) == len(tags)
    return tags if is_clear else {}


def find_split(splits: Iterable[str], name: str) -> str:
    """Returns the split of this name, or the only one that means the same, as `validation` for `dev`; else ""."""
    alike = [split for split in splits if normalise_split(split) == normalise_split(name)]
    return name if name in splits else alike[0] if len(alike) == 1 else ""


def find_cell(config: str) -> tuple[str, str]:
    """Returns the languages of contexts and questions of a config such as `mlqa.ar.de`; "" for any other."""
    cell = re.fullmatch(r"[^.]+\.([\w-]+)\.([\w-]+)", config)
    tags = [find_tag(tag) for tag in cell.groups()] if cell else []
    return (tags[0], tags[1]) if tags and all(tags) else ("", "")


def infer_split(file: str) -> str:
    """Returns the split that the name of a file and of its folder tells; without any it is `train`."""
    return _infer_place(file)[1]


def is_partial(file: str) -> bool:
    """Returns whether a file belongs to a split of which the hub has converted a part only."""
    return any(part.startswith(PARTIAL) for part in file.split("/")[:-1])


def is_converted(file: str) -> bool:
    """Returns whether a file has the name of those to which the hub converts data sets: CONFIG/SPLIT/0000.parquet."""
    return re.fullmatch(r"[^/]+/[^/]+/[0-9]{4}\.parquet", file) is not None


def normalise_split(name: str) -> str:
    """Returns the one name of a split that has several, as `validation` for `dev`; any other is its own."""
    return _SPLITS.get(name, name)


def _find_described(entry: Mapping[str, Any], files: list[str]) -> Splits:
    """Returns the files of each split of a config that a card describes."""
    folder = str(entry.get("data_dir") or "").strip("./")
    inside = [name for name in files if name.startswith(f"{folder}/")] if folder else files
    if "data_files" not in entry:
        splits = [splits for _, splits in sorted(_infer_configs(inside).items())]
        return {name: tuple(file for each in splits for file in each.get(name, ())) for each in splits for name in each}
    described: dict[str, tuple[str, ...]] = {}
    for split, pattern in _list_patterns(entry["data_files"]):
        parts, earlier = (f"{folder}/{pattern}" if folder else pattern).split("/"), described.get(split, ())
        matches = [name for name in inside if name not in earlier and _matches(name.split("/"), parts)]
        described[split] = (*earlier, *matches)
    return {split: matches for split, matches in described.items() if matches}


def _list_patterns(data_files: Any) -> Iterator[tuple[str, str]]:
    """Yields split and pattern of `data_files`, whose form may be a pattern, or a list or mapping of splits."""
    if isinstance(data_files, str):
        yield "train", data_files.removeprefix("./")
    elif isinstance(data_files, list):
        for item in data_files:
            is_split = isinstance(item, dict) and "path" in item
            for _, pattern in _list_patterns(item["path"] if is_split else item):
                yield str(item.get("split", "train")) if is_split else "train", pattern
    elif isinstance(data_files, dict):
        for split, paths in data_files.items():
            for _, pattern in _list_patterns(paths):
                yield str(split), pattern


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Returns whether a path matches a pattern, both in parts; the part ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _infer_configs(files: Iterable[str]) -> Configs:
    """Returns the files by the config and the split that their names tell."""
    configs: dict[str, dict[str, list[str]]] = {}
    for name in files:
        config, split = _infer_place(name)
        configs.setdefault(config, {}).setdefault(split, []).append(name)
    return {config: {split: tuple(names) for split, names in splits.items()} for config, splits in configs.items()}


def _infer_place(name: str) -> tuple[str, str]:
    """Returns the config and the split of a file; files whose names tell no split are for training."""
    *folders, file = name.removesuffix(SUFFIX).split("/")
    words = re.split(r"[-_.]", shard[1] if (shard := _SHARD.fullmatch(file)) else file)
    split = next((_SPLITS[word] for word in words if word in _SPLITS), "")
    if shard and not split and not shard[1].startswith("part"):
        split = shard[1]
    if not split and folders and (folders[-1].removeprefix(PARTIAL) in _SPLITS or re.fullmatch(r"\d+", file)):
        folder = folders.pop().removeprefix(PARTIAL)
        split = _SPLITS.get(folder, folder)
    return "/".join(folder for folder in folders if folder != "data") or DEFAULT, split or "train"


def _split_numbers(name: str) -> list[tuple[int, str]]:
    """Returns a key by which numbers in names are sorted as numbers."""
    parts = re.split("([0-9]+)", name)  # text and number in turn
    return [(len(part.lstrip("0")), part.lstrip("0")) if at % 2 else (-1, part) for at, part in enumerate(parts)]
