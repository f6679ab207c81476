# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`hf:OWNER/NAME?config=…&split=…&revision=…`: parquet files of a data set of the Hugging Face hub, at one commit.

Without `config` those of `languages` are read where configs are languages as in XNLI, else the only one or `default`;
without `split` the only one. `revision` is a branch, a tag or a commit. The other options are those of `parquet:`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

from xlkd import hub
from xlkd.data.sources import BadRows, Source, _arrow, _hub, _layout
from xlkd.errors import UserError, escape_controls, suggest_name

TASKS = _arrow.TASKS
OPTIONS = {task: ("config", "split", "revision", *names) for task, names in _arrow.OPTIONS.items()}
NAMED = True  # the text after the colon names a data set, not a path
_MOST_SHOWN = 12  # configs or splits that an error lists


@dataclasses.dataclass(frozen=True)
class Part:
    """A split of a config, and the languages that the name of the config says; "" where it says none."""

    config: str
    split: str
    files: tuple[str, ...]
    language: str = ""
    question_language: str = ""
    is_language: bool = False  # whether the configs of the data set are languages

    def make_origin(self, name: str) -> _arrow.Origin:
        """Returns the origin of the rows, in which a config that is a language has no other name than that."""
        scope = self.split if self.is_language else f"{self.config}/{self.split}"
        return _arrow.Origin(name, scope, self.split, self.language, self.question_language)


def rows(source: Source, task: str, bad_rows: BadRows) -> Sequence[Any]:
    """Returns the rows of the configs in the order of `languages`, each in the order of its files."""
    data_set = _hub.resolve(get_repository(source))
    parts = choose_parts(source, data_set)
    place = f"hf:{data_set.repository}"
    bad_rows.notes[place] = data_set.describe_commit()
    for part in parts:
        if any(_layout.is_partial(file) for file in part.files):
            name = escape_controls(f"{part.config}/{part.split}")
            bad_rows.notes[f"{place} {name}"] = "the hub has converted only the beginning"
    names = [file for part in parts for file in part.files]
    paths = dict(zip(names, _hub.download(data_set, names), strict=True))
    set_name = data_set.repository.name.rpartition("/")[2]
    files = {part.make_origin(set_name): [paths[file] for file in part.files] for part in parts}
    return _arrow.read_files(source, task, files, bad_rows)


def get_repository(source: Source) -> hub.Repository:
    """Returns the repository and the revision that a source names."""
    if not source.path or source.path.startswith((".", "/", "~")) or source.path.count("/") > 1:
        remedy = "give its name on the hub, as in hf:OWNER/NAME; files of your own are read with parquet:"
        raise UserError("not the name of a data set", str(source), remedy)
    return hub.Repository(source.path, source.option("revision") or None, hub.DATA_SET)


def resolve_commit(source: Source) -> str:
    """Returns the commit of a source, after checking that it has the config and the split; only its card is read."""
    data_set = _hub.resolve(get_repository(source))
    choose_parts(source, data_set)
    return data_set.commit


def find_resolved(source: Source) -> tuple[pathlib.Path | None, str | None]:
    """Returns the folder of the card and the commit of a source that was read, without a request; else two None."""
    data_set = _hub.find_resolved(get_repository(source))
    return (data_set.card, data_set.commit) if data_set else (None, None)


def choose_parts(source: Source, data_set: _hub.DataSet) -> list[Part]:
    """Returns the splits that the options choose, several only where configs are languages."""
    tags = _layout.find_languages(data_set.configs)
    parts = []
    for config in _choose_configs(source, data_set, tags):
        split = _choose_split(source, config, data_set.configs[config])
        context, question = (tags[config], "") if config in tags else _layout.find_cell(config)
        parts.append(Part(config, split, data_set.configs[config][split], context, question, config in tags))
    return parts


def _choose_configs(source: Source, data_set: _hub.DataSet, tags: dict[str, str]) -> list[str]:
    """Returns the config of the option `config`, else those of the languages, the only one, or the default."""
    config, configs = source.option("config"), data_set.configs
    if config:
        if config not in configs:
            raise UserError(f"no config {config}", str(source), _suggest(config, configs))
        return [config]
    if tags and (languages := source.languages()):
        config_of = {tag: name for name, tag in tags.items()}
        if missing := [language for language in languages if language not in config_of]:
            raise UserError(f"no config for {', '.join(missing)}", str(source), f"there are {_shorten(config_of)}")
        return [config_of[language] for language in dict.fromkeys(languages)]
    if len(configs) == 1 or _layout.DEFAULT in configs:
        return [_layout.DEFAULT if _layout.DEFAULT in configs else next(iter(configs))]
    if data_set.default in configs:
        return [data_set.default]
    remedy = "choose one with config=NAME" + (", or some with languages=A,B" if tags else "")
    raise UserError(f"{len(configs)} configs: {_shorten(configs)}", str(source), remedy)


def _choose_split(source: Source, config: str, splits: _layout.Splits) -> str:
    """Returns the split of the option `split`, also by another usual name (`dev`), else the only one."""
    name = source.option("split")
    if not name and len(splits) > 1:
        what = f"config {config} has {len(splits)} splits: {_shorten(splits)}"
        raise UserError(what, str(source), "choose one with split=NAME")
    split = _layout.find_split(splits, name) if name else next(iter(splits))
    if not split:
        raise UserError(f"config {config} has no split {name}", str(source), _suggest(name, splits))
    return split


def _suggest(name: str, choices: Collection[str]) -> str:
    """Returns the remedy for an unknown name."""
    return suggest_name(name, choices, f"there are {_shorten(choices)}")


def _shorten(names: Collection[str]) -> str:
    """Lists names, of many the first ones."""
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(list(names)[:_MOST_SHOWN]) + more
