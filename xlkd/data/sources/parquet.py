# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`parquet:FILE` or `parquet:DIR?split=test`: parquet files, or a folder that `save_to_disk` of `datasets` wrote.

Of a folder all files of a split are read, which their names or those of their folders say: `train-00000-of-00002`,
`train/0000`, `test`. Columns are chosen as `_arrow` describes.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from xlkd.data.sources import BadRows, Source, _aligned, _arrow, _arrow_files, _files, _folders, _layout
from xlkd.errors import UserError

TASKS = _arrow.TASKS
OPTIONS = {task: (*names, "split") for task, names in _arrow.OPTIONS.items()}

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_SHARD = re.compile(r".*?(\d+)-of-(\d+)\b.*")
_PARENTS = 3  # folders above the path that may have the name of a known data set
_NO_LANGUAGES = ("all", "dev", "val")  # names that are codes of small languages too
_Splits = dict[str, list[pathlib.Path]]  # files in order


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Any]:
    """Returns the rows of a split in the order of its files, language after language."""
    root = source.locate()
    if not source.path or not root.exists():
        raise UserError("no such file or folder", str(root) if source.path else str(source), "check the path")
    if not root.is_dir():
        splits = {_infer_split(root): [root]}
    elif (root / _DICT).is_file() or (root / _STATE).is_file():
        splits = _find_saved(root, bad_rows)
    else:
        folders = _find_shards(root, bad_rows)
        if len(folders) > 1:
            return _arrow.read_files(source, task, _choose_languages(source, root, folders), bad_rows)
        ((root, splits),) = folders.items()
    split = _choose_split(source, splits)
    if not root.is_file():
        _check_complete(splits[split], root)
    return _arrow.read_files(source, task, {_name_origin(root, split): splits[split]}, bad_rows)


def _choose_languages(source: Source, root: pathlib.Path, folders: dict[pathlib.Path, _Splits]) -> _arrow.Parts:
    """Returns the files of a split in each language that the options choose, where folders are named by languages."""
    tags = _layout.find_languages([folder.name for folder in folders])
    if len(tags) < len(folders):
        names = ", ".join(folder.name for folder in folders)
        raise UserError(f"has files of several data sets ({names})", str(root), "name the folder of one")
    folder_of = {tags[folder.name]: folder for folder in folders}
    parts = {}
    for language in _folders.choose_languages(source, set(folder_of)):
        folder = folder_of[language]
        split = _choose_split(source, folders[folder])
        _check_complete(folders[folder][split], folder)
        origin, whole = _name_origin(folder, split), _name_origin(root, split)
        set_name = whole.set if origin.set == folder.name else origin.set
        parts[_arrow.Origin(set_name, whole.scope, split, language)] = folders[folder][split]
    return parts


def _find_shards(root: pathlib.Path, bad_rows: BadRows) -> dict[pathlib.Path, _Splits]:
    """Returns the parquet files of each split of each folder that is a data set; other files are noted."""
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*.parquet") if path.is_file()]
    visible = [name for name in paths if not any(part.startswith(".") for part in name.split("/"))]
    configs = _layout.find_configs(visible, {})
    if not configs:
        raise UserError("no parquet files, and none that save_to_disk wrote", str(root), "check the path")
    bad_rows.note_unread(root, _files.list_unread(root, [root / name for name in visible]))
    folders: dict[pathlib.Path, _Splits] = {}
    for config, splits in configs.items():
        folder = root if config == _layout.DEFAULT else root / config
        folders[folder] = {split: [root / name for name in names] for split, names in splits.items()}
    return folders


def _find_saved(root: pathlib.Path, bad_rows: BadRows) -> _Splits:
    """Returns the files of each split of a folder that `save_to_disk` wrote; other files are noted."""
    folders = {_infer_split(root): root}
    if (root / _DICT).is_file():
        folders = {name: root / name for name in _read_names(root / _DICT, "splits")}
    splits = {name: _list_saved(folder) for name, folder in folders.items()}
    settings = [root / _DICT, *(folder / name for folder in folders.values() for name in (_STATE, _INFO))]
    files = [path for paths in splits.values() for path in paths]
    bad_rows.note_unread(root, _files.list_unread(root, [*files, *settings]))
    return splits


def _list_saved(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a folder that `save_to_disk` wrote, in the order of its list."""
    state = _arrow_files.read_json(folder / _STATE)
    if isinstance(state, dict) and state.get("_indices_data_files"):
        what = "selects rows by an index, as early releases of datasets wrote"
        raise UserError(what, str(folder / _STATE), "load and save it again with a newer release")
    return [folder / name for name in _read_names(folder / _STATE, "_data_files", "filename")]


def _read_names(path: pathlib.Path, key: str, inner: str = "") -> list[str]:
    """Returns the names of files or folders that a file of settings lists, of which none leads elsewhere."""
    value = _arrow_files.read_json(path)
    entries = value.get(key) if isinstance(value, dict) else None
    entries = entries if isinstance(entries, list) else [None]
    values = [entry.get(inner) if inner and isinstance(entry, dict) else entry for entry in entries]
    names = [name for name in values if isinstance(name, str) and name not in ("", "..") and "/" not in name]
    if not names or len(names) < len(values):
        raise UserError(f"no list of names under {key!r}", str(path), "save the data set again")
    return names


def _infer_split(path: pathlib.Path) -> str:
    """Returns the split that a name says; train where it says none."""
    ((split,),) = _layout.find_configs([f"{path.stem}.parquet"], {}).values()
    return split


def _choose_split(source: Source, splits: _Splits) -> str:
    """Returns the split that the option `split` names, or the only one, whose rows may say their split themselves."""
    name, (only, *others) = source.option("split"), splits
    if not others and (not name or "partition" in _arrow_files.read_schema(splits[only][0]).names):
        return only
    split = _layout.find_split(splits, name)
    if not split:
        what = f"no split named {name}" if name else "has several splits"
        raise UserError(what, str(source), f"there is split={', '.join(sorted(splits))}")
    return split


def _check_complete(files: Sequence[pathlib.Path], root: pathlib.Path) -> None:
    """Refuses files that are numbered `2-of-3`, but of which some are missing or there twice."""
    matches = [match for file in files if (match := _SHARD.fullmatch(file.stem))]
    if len(matches) < len(files):
        return
    counts, numbers = {int(match[2]) for match in matches}, sorted(int(match[1]) for match in matches)
    if len(counts) > 1 or len(files) > max(counts):
        raise UserError("has files of several versions of a split", str(root), "keep those of one")
    if len(files) < max(counts) or len(set(numbers)) < len(numbers):
        what = f"has {len(set(numbers))} of the {max(counts)} files of a split"
        raise UserError(what, str(root), "fetch the missing ones")


def _name_origin(root: pathlib.Path, split: str) -> _arrow.Origin:
    """Returns the origin of a file or folder: the set and the languages by its name, as in `xquad.de`.

    Within the folder of a known data set, as `paws-x/de`, the set is that one, and folders may name the languages.
    """
    path = pathlib.PurePath(os.path.abspath(root))
    own = path.stem if root.is_file() else path.name
    scope = path.name if root.is_file() else f"{path.name}/{split}"
    tags: list[str] = []
    for name in (own, *(parent.name for parent in itertools.islice(path.parents, _PARENTS))):
        set_name, *endings = name.split(".")
        if known := _arrow.find_known_set(set_name):
            return _make_origin(known, scope, split, endings or tags)
        tags = tags or ([] if name in _NO_LANGUAGES else _list_languages([name]))
    set_name, *endings = own.split(".")
    return _make_origin(set_name if _list_languages(endings) else own, scope, split, endings)


def _make_origin(set_name: str, scope: str, split: str, tags: Sequence[str]) -> _arrow.Origin:
    """Returns an origin with the languages of the contexts and, where there are two, of the questions."""
    language, question_language, *_ = (*_list_languages(tags), "", "")
    return _arrow.Origin(set_name, scope, split, language, question_language)


def _list_languages(tags: Iterable[str]) -> list[str]:
    """Returns the tags that are languages."""
    return [tag for tag in tags if _aligned.find_language(tag)]
