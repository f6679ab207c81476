# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the systems of a report: the stages of its runs, where runs that differ only in their seed are joined."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

from xlkd.errors import UserError
from xlkd.reports import files


@dataclasses.dataclass(frozen=True)
class System:
    """A stage with all its seeds; `stages` come from the runs in which the stage is done."""

    name: str
    stage: str
    config: int  # the number of its config among the configs of the report
    seeds: tuple[int, ...]
    stages: tuple[files.Stage, ...]

    @property
    def results(self) -> files.Record:
        """The record of the first seed's stage."""
        return self.stages[0].results

    def select_seed(self, seed: int) -> System:
        """Returns the system with one of its seeds."""
        return dataclasses.replace(self, seeds=(seed,), stages=(self.stages[self.seeds.index(seed)],))


@dataclasses.dataclass(frozen=True)
class Pair:
    """Names a difference a − b to be shown, which may be primary; if `asked`, it must be possible."""

    a: str
    b: str
    asked: bool
    primary: bool = False


@dataclasses.dataclass(frozen=True)
class Score:
    """Names the score that decides a study: a data set, an average and a metric by their names in results.json."""

    data_set: str
    average: str
    metric: str


def group_runs(runs: Sequence[files.Run]) -> list[list[files.Run]]:
    """Groups the runs by config, each group in the order of seeds; the draws of a study are seeds too."""
    groups = []
    for draws in _group_by(runs, files.Run.study):
        distinct = len({run.seed for run in draws}) == len(draws)
        groups += [draws] if distinct else _group_by(draws, files.Run.identity)
    for same in groups:
        same.sort(key=lambda run: run.seed)
        for earlier, other in itertools.pairwise(same):
            if earlier.seed == other.seed:
                what = f"the same config and seed as {earlier.folder}"
                raise UserError(what, str(other.folder), "give runs that differ")
    return groups


def _group_by(runs: Sequence[files.Run], name: Callable[[files.Run], str]) -> list[list[files.Run]]:
    groups: dict[str, list[files.Run]] = {}
    for run in runs:
        groups.setdefault(name(run), []).append(run)
    return list(groups.values())


def find_systems(runs: Sequence[files.Run]) -> list[System]:
    """Returns all stages that are done; with several configs a name begins with its folder's."""
    groups = group_runs(runs)
    systems = []
    for config, (label, same) in enumerate(zip(make_prefixes(groups), groups, strict=True)):
        for name in dict.fromkeys(stage.name for run in same for stage in run.stages):
            done = [(run.seed, s) for run in same for s in run.stages if s.name == name and s.state == files.DONE]
            if done:
                seeds, stages = zip(*done, strict=True)
                systems.append(System(label + name, name, config, seeds, stages))
    return systems


def choose_pairs(runs: Sequence[files.Run], systems: Sequence[System], notes: list[str]) -> list[Pair]:
    """Returns the pairs that the configs name, where both stages are done, primary ones first; then configs' pairs.

    Those compare later configs with the first.
    """
    chosen: list[Pair] = []
    for config, same in enumerate(group_runs(runs)):
        names = {system.stage: system.name for system in systems if system.config == config}
        run = same[0]
        known = {*run.config["stages"], *run.config}  # a stage that is left out of `stages` has a block all the same
        report = run.config.get("report") or {}
        primary = report.get("primary") or ()
        for text in dict.fromkeys([*primary, *(report.get("compare") or ())]):
            a, colon, b = text.partition(":")
            if not colon or {a, b} - known:
                key = "primary" if text in primary else "compare"
                notes.append(f"report.{key}: {text} is not a pair of stages (STAGE:STAGE) of {run.folder}")
            elif a in names and b in names:
                chosen.append(Pair(names[a], names[b], asked=False, primary=text in primary))
    chosen.sort(key=lambda pair: not pair.primary)
    return chosen + _compare_configs(systems)


def read_score(runs: Sequence[files.Run]) -> Score | None:
    """Returns the score by which the first config's study is judged, if it names one."""
    parts = ((runs[0].config.get("report") or {}).get("judged_by") or "").split("/")
    return Score(*parts) if len(parts) == 3 else None


def _compare_configs(systems: Sequence[System]) -> list[Pair]:
    """Pairs each stage with the stage of that name in the first config, or the last stages where no name is common."""
    first_config = {system.stage: system for system in systems if system.config == 0}
    chosen = []
    for config in range(1, 1 + max((system.config for system in systems), default=0)):
        stages_of_config = {system.stage: system for system in systems if system.config == config}
        if not stages_of_config or not first_config:
            continue
        common = [name for name in stages_of_config if name in first_config]
        chosen += [Pair(stages_of_config[name].name, first_config[name].name, asked=True) for name in common]
        if not common:
            chosen.append(
                Pair(list(stages_of_config.values())[-1].name, list(first_config.values())[-1].name, asked=True)
            )
    return chosen


def make_prefixes(groups: Sequence[Sequence[files.Run]]) -> list[str]:
    """Returns what the names of each config's systems begin with: the name of its folder, or the path where two agree.

    That of a single config is empty. The folders of a sweep are named by their settings; of those of several seeds the
    words that all have are the name.
    """
    if len(groups) == 1:
        return [""]
    names = [_join_common_words([run.folder.resolve().name for run in same]) for same in groups]
    full = [str(same[0].folder) for same in groups]
    return [f"{name if names.count(name) == 1 else path}/" for name, path in zip(names, full, strict=True)]


def _join_common_words(names: Sequence[str]) -> str:
    """Returns the words that all names have, or the first name where they have none in common."""
    first, *others = (name.split(" ") for name in names)
    return " ".join(word for word in first if all(word in other for other in others)) or names[0]
