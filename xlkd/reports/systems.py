# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Systems are stages; runs that differ in their seed only are several seeds of the same systems."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from xlkd.errors import UserError
from xlkd.reports import files


@dataclasses.dataclass(frozen=True)
class System:
    """One stage over all its seeds; `stages` are those of the runs in which it is done."""

    name: str
    stage: str
    config: int  # which of the configs at hand
    seeds: tuple[int, ...]
    stages: tuple[files.Stage, ...]

    @property
    def results(self) -> files.Record:
        return self.stages[0].results


@dataclasses.dataclass(frozen=True)
class Pair:
    """A difference a − b that is to be shown; `asked` when it must be possible."""

    a: str
    b: str
    asked: bool


def groups(runs: Sequence[files.Run]) -> list[list[files.Run]]:
    """Runs of one config together, by seed."""
    found: dict[str, list[files.Run]] = {}
    for run in runs:
        found.setdefault(run.identity(), []).append(run)
    for same in found.values():
        same.sort(key=lambda run: run.seed)
        for one, other in itertools.pairwise(same):
            if one.seed == other.seed:
                what = f"the same config and seed as {one.folder}"
                raise UserError(what, str(other.folder), "give runs that differ")
    return list(found.values())


def systems(runs: Sequence[files.Run]) -> list[System]:
    """All that is done; where there are several configs a name begins with its folder's."""
    held = groups(runs)
    labels = _labels([same[0] for same in held]) if len(held) > 1 else [""]
    found = []
    for config, (label, same) in enumerate(zip(labels, held, strict=True)):
        for name in dict.fromkeys(stage.name for run in same for stage in run.stages):
            done = [(run.seed, s) for run in same for s in run.stages if s.name == name and s.state == files.DONE]
            if done:
                seeds, stages = zip(*done, strict=True)
                found.append(System(label + name, name, config, seeds, stages))
    return found


def _known(same: Sequence[files.Run]) -> set[str]:
    """Stages that are there or could be: a named variant leaves controls out."""
    return {s.name for run in same for s in run.stages} | set(same[0].config.get("controls") or ())


def pairs(runs: Sequence[files.Run], found: Sequence[System], notes: list[str]) -> list[Pair]:
    """What the configs ask for, where both stages are done; and later configs against the first."""
    chosen: list[Pair] = []
    for config, same in enumerate(groups(runs)):
        mine = {system.stage: system.name for system in found if system.config == config}
        for text in (same[0].config.get("report") or {}).get("compare") or ():
            a, colon, b = text.partition(":")
            if not colon or {a, b} - set(same[0].config["stages"]):
                notes.append(f"report.compare: {text} is no pair of stages (STAGE:STAGE) of {same[0].folder}")
            elif a in mine and b in mine:
                chosen.append(Pair(mine[a], mine[b], asked=False))
    return chosen + _across(found)


def _across(found: Sequence[System]) -> list[Pair]:
    """The same stage of another config against that of the first; the last stages where no name is common."""
    first = {system.stage: system for system in found if system.config == 0}
    chosen = []
    for config in range(1, 1 + max((system.config for system in found), default=0)):
        mine = {system.stage: system for system in found if system.config == config}
        if not mine or not first:
            continue
        common = [name for name in mine if name in first]
        chosen += [Pair(mine[name].name, first[name].name, asked=True) for name in common]
        if not common:
            chosen.append(Pair(list(mine.values())[-1].name, list(first.values())[-1].name, asked=True))
    return chosen


def _labels(runs: Sequence[files.Run]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    full = [str(run.folder) for run in runs]
    return [f"{name if names.count(name) == 1 else path}/" for name, path in zip(names, full, strict=True)]
