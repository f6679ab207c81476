# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs combinations of settings: `python -m xlkd.sweep --config=configs/gxlt.py --over='seed=0,1,2' --workdir=DIR`.

  --config=FILE[:VARIANT]  as in training; stages before the controls are trained once, all others in each run
  --over='KEY=A,B KEY=A,B' every combination of these values is a run, in its own folder
  --workdir=DIR            DIR/KEY=A… has each run, DIR/start the stages that all of them begin with, if there are any
  --results=DIR            the runs are draws of one study: DIR/KEY=A….json keeps the numbers of each, and a run whose
                           file is there is not repeated
  --again                  with --results: repeats the runs, and compares their numbers with those of the files
  --config.KEY=VALUE       as in training, for all runs

Started again, the command resumes. At the end the runs are compared as by `python -m xlkd.report DIR/*=*`, where runs
that differ only in their seed are seeds of one system. With --results the differences between the controls are judged
over the draws, in the report too. Where a value changes a stage before the controls, that stage is trained for each
value, in DIR/start-….

Examples:
  python -m xlkd.sweep --config=configs/gxlt.py --over='seed=0,1,2' --workdir=runs/seeds
  python -m xlkd.sweep --config=configs/gxlt.py --over='method.temperature=2,4,8 data.ntl=1,3' --workdir=runs/grid
  python -m xlkd.sweep --config=configs/finetune.py --over='optim.lr=2e-5,5e-5' --workdir=runs/rates
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from xlkd import cli, files, settings, storage
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.rows import make_key

MOST_RUNS = 1000


@dataclasses.dataclass(frozen=True)
class Start:
    """The stages that several runs begin with, at least one: the name of their folder, and their config."""

    name: str
    config: ConfigDict

    def replace_names(self, config: ConfigDict, folder: pathlib.Path) -> ConfigDict:
        """Returns the config of a run without these stages, their names replaced by their exports in `folder`."""
        stages = tuple(self.config.stages)
        exports = {name: str(folder / "stages" / f"{n:02d}-{name}" / "export") for n, name in enumerate(stages, 1)}

        def replace(text: str) -> str:
            return "+".join(exports.get(name.strip(), name) for name in text.split("+"))

        copy = config.copy_and_resolve_references()
        copy.stages = tuple(name for name in config.stages if name not in stages)
        for block in (copy, *(copy[name] for name in copy.stages if name in copy)):
            if "start" in block:
                block.start = replace(block.start)
            for name, teacher in (block.get("teachers") or {}).items():
                block.teachers[name] = replace(teacher)
        return copy


def main(arguments: list[str]) -> None:
    """Trains the stages that all runs share, then each combination, and reports all of them."""
    flags, overrides = cli.split_flags(arguments, ("config", "workdir", "over", "results"), ("again",))
    for name, example in (("config", "configs/gxlt.py"), ("over", "seed=0,1,2"), ("workdir", "runs/sweep")):
        if not flags.get(name):
            raise UserError(f"no --{name} given", "command line", f"for example --{name}={example}")
    if "again" in flags and "results" not in flags:
        raise UserError("--again compares with the files of --results", "command line", "give --results too")

    def read_config(*combination: str) -> ConfigDict:
        return settings.apply_flags(
            settings.read_config(flags["config"]), [*overrides, *(f"--config.{text}" for text in combination)]
        )

    runs = {" ".join(combination): read_config(*combination) for combination in _list_combinations(flags["over"])}
    for config in runs.values():
        for stage in settings.read_stages(config):  # refuses now what its run would refuse after those before it
            sources.check_options(stage)
    if storage.is_remote(flags["workdir"]):
        what, remedy = "the runs of a sweep read each other's files", "name a local folder, and copy it to the bucket"
        raise UserError(what, flags["workdir"], remedy)
    base = files.expand_path(flags["workdir"])
    first = read_config()
    shared = _list_shared_stages(first)
    for key in _list_keys(flags["over"]):
        if shared and key in ("encoder.path", "encoder.revision"):
            what = f"{key} is used only by stage {shared[0]}, which is trained once for all runs"
            raise UserError(what, "--over", "start a run for each value")
    starts = {name: _choose_start(first, config, shared) for name, config in runs.items()} if shared else {}
    command = [*cli.name_command("sweep"), *arguments]
    if "results" in flags:
        if others := [key for key in _list_keys(flags["over"]) if key != "seed"]:
            remedy = "sweep seed alone, and keep other settings in another folder"
            raise UserError(f"draws of one study do not differ in {others[0]}", "--over", remedy)
        _run_study(base, files.expand_path(flags["results"]), runs, starts, command, again="again" in flags)
    else:
        _run_sweep(base, runs, starts, command)


def _run_sweep(
    base: pathlib.Path, runs: dict[str, ConfigDict], starts: dict[str, Start], command: Sequence[str]
) -> None:
    """Runs all combinations, and compares them in one report."""
    from xlkd import reports
    from xlkd.train.run import run

    folders = [base / name for name in runs]
    if base.is_dir():
        reports.locate_outputs(folders, folder=base)  # refuses now what the report would refuse after the training
    for start in dict((start.name, start) for start in starts.values()).values():
        run(start.config, str(base / start.name), command)
    for name, config in runs.items():
        run(_begin_at_start(config, starts.get(name), base), str(base / name), command)
    reports.write(folders, print, reports.locate_outputs(folders, folder=base))


def _run_study(
    base: pathlib.Path,
    results: pathlib.Path,
    runs: dict[str, ConfigDict],
    starts: dict[str, Start],
    command: Sequence[str],
    *,
    again: bool,
) -> None:
    """Runs the draws whose numbers are not there yet, or `again` all of them; keeps their numbers, and judges them."""
    report = next(iter(runs.values())).report
    if missing := [key for key in ("primary", "judged_by") if not report.get(key)]:
        key, example = missing[0], {"primary": "skd:ce", "judged_by": "mlqa/gxlt_off/f1"}[missing[0]]
        raise UserError("is empty, so no difference can be judged", f"config.report.{key}", f"for example {example}")
    from xlkd import reports
    from xlkd.reports import draws
    from xlkd.train.run import run

    if base.is_dir():
        reports.locate_outputs([base / name for name in runs], folder=base)  # refuses it before the training
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(results), "name another folder") from None
    for name in dict.fromkeys([*runs, *(start.name for start in starts.values())]):
        files.check_file(results / f"{name}.json")
    trained: set[str] = set()

    def train(name: str, config: ConfigDict) -> None:
        if name not in trained:
            run(config, str(base / name), command)
            record = draws.describe_run(base / name)
            if record["judged_by"]:
                draws.check_judged_by(record)  # before other draws are trained, and before its numbers are kept
            _keep_numbers(results / f"{name}.json", record, float(config.report.get("tolerance", 1.0)))
            trained.add(name)

    for name, config in runs.items():
        if (results / f"{name}.json").exists() and not again:
            print(f"{name}: not repeated, its numbers are in {results / name}.json")
            continue
        start = starts.get(name)
        if start:
            train(start.name, start.config)
        train(name, _begin_at_start(config, start, base))
    records = draws.read_draws(results)
    for line in draws.format_lines(records):
        print(line)
    folders = [base / name for name in records]
    if missing := [folder.name for folder in folders if not folder.is_dir()]:
        print(f"no report of all draws: the runs of {', '.join(missing)} are not in {base}")
    else:
        reports.write(folders, print, reports.locate_outputs(folders, folder=base))


def _keep_numbers(path: pathlib.Path, record: dict[str, Any], tolerance: float) -> None:
    """Writes the numbers of a run, or compares them with those of the same run that are there."""
    from xlkd.reports import draws

    if not path.exists():
        files.write_text(path, draws.format_record(record))
        return
    deviation, difference = draws.measure_deviation(draws.read_record(path), record)
    what = f"{path.stem}, repeated: {difference}"
    if deviation > tolerance:
        remedy = "compare commit, packages and processor in the file with this machine's"
        raise UserError(f"{what}, more than {tolerance:g}", str(path), remedy)
    print(f"{path}: {what}")


def _list_shared_stages(config: ConfigDict) -> list[str]:
    """Returns the stages before the first control, with which all runs begin; none where no stage is a control."""
    shared = list(itertools.takewhile(lambda stage: stage not in config.controls, config.stages))
    return shared if len(shared) < len(config.stages) else []


def _begin_at_start(config: ConfigDict, start: Start | None, base: pathlib.Path) -> ConfigDict:
    """Returns the config of a run, which begins with the export of its start where there is one."""
    return start.replace_names(config, base / start.name) if start else config


def _choose_start(first: ConfigDict, config: ConfigDict, shared: Sequence[str]) -> Start:
    """Returns the start of a run: `start`, or another one where the run changes the blocks of its stages."""
    only_start = {"stages": tuple(shared), "controls": (), "method__control": "all"}
    only_start |= {"report__compare": (), "report__primary": (), "report__judged_by": ""}
    start = settings.replace_values(first, **only_start)
    blocks, own = ({name: settings.to_plain(c).get(name) for name in shared} for c in (first, config))
    if own == blocks:
        return Start("start", start)
    for name in shared:
        start[name] = config.copy_and_resolve_references()[name]
    return Start(f"start-{make_key(json.dumps(own, sort_keys=True))[:8]}", start)


def _list_keys(over: str) -> list[str]:
    return [part.partition("=")[0] for part in over.split()]


def _list_combinations(over: str) -> list[tuple[str, ...]]:
    """Lists every combination of the values in `--over`, each as texts KEY=VALUE."""
    choices = []
    for part in over.split():
        key, equals, values = part.partition("=")
        if not equals or not all(values.split(",")):
            raise UserError(f"cannot read {part!r}", "--over", "write KEY=A,B, for example seed=0,1,2")
        choices.append([f"{key}={value}" for value in values.split(",")])
    names = [name for choice in choices for name in dict.fromkeys(choice)]
    if len(names) < sum(map(len, choices)) or len(set(_list_keys(over))) < len(choices):
        raise UserError("names a key or a value twice", "--over", "name each once")
    if any(".." in name.replace("=", "/").split("/") for name in names):
        raise UserError("'..' in a value cannot be in the name of a folder", "--over", "give an absolute path")
    if math.prod(map(len, choices)) > MOST_RUNS:
        raise UserError(f"{math.prod(map(len, choices))} runs are more than {MOST_RUNS}", "--over", "name fewer values")
    return list(itertools.product(*choices))


if __name__ == "__main__":
    sys.exit(cli.run(main))
