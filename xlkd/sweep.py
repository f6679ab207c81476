# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs combinations of settings: `python -m xlkd.sweep --config=configs/gxlt.py --over='seed=0,1,2' --workdir=DIR`.

  --config=FILE[:VARIANT]  as for xlkd.main; the stages before the controls are trained once
  --over='KEY=A,B KEY=A,B' every combination of these values is a run of the controls, in its own folder
  --workdir=DIR            DIR/start has the stage that all runs begin with, DIR/KEY=A… each run
  --config.KEY=VALUE       as for xlkd.main, for all runs

For example --over='seed=0,1,2', or --over='method.temperature=2,4,8 data.ntl=1,3,5'. Started
again, the command resumes. At the end the runs are compared as by `python -m xlkd.report DIR/*=*`, where runs that
differ only in their seed are seeds of one system.
"""

from __future__ import annotations

import itertools
import math
import sys

from ml_collections import ConfigDict

from xlkd import cli, files, settings, storage
from xlkd.data import sources
from xlkd.errors import UserError

MOST_RUNS = 1000


def main(arguments: list[str]) -> None:
    """Trains the shared stage, then the controls of each combination, and reports all of them."""
    flags, overrides = cli.split_flags(arguments, ("config", "workdir", "over"))
    for name, example in (("config", "configs/gxlt.py"), ("over", "seed=0,1,2"), ("workdir", "runs/sweep")):
        if not flags.get(name):
            raise UserError(f"no --{name} given", "command line", f"for example --{name}={example}")

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
    shared = [name for name in first.stages if name not in first.controls]
    if not first.controls or len(shared) != 1:
        what = f"{flags['config']} has {len(shared)} stages before {len(first.controls)} controls"
        raise UserError(what, "--config", "a sweep needs one stage, and controls that start from it")
    for key in _list_keys(flags["over"]):
        if key in ("encoder.path", "encoder.revision") or key.startswith(f"{shared[0]}."):
            what = f"{key} is used only by stage {shared[0]}, which is trained once for all runs"
            raise UserError(what, "--over", "start a run for each value")
    from xlkd import reports
    from xlkd.train.run import run

    folders = [base / name for name in runs]
    if base.is_dir():
        reports.locate_outputs(folders, folder=base)  # refuses now what the report would refuse after the training
    command = ["python", "-m", "xlkd.sweep", *arguments]
    start_only = {"stages": tuple(shared), "controls": (), "report__compare": (), "method__control": "all"}
    run(settings.replace_values(first, **start_only), str(base / "start"), command)
    for name, config in runs.items():
        start = str(base / "start" / "stages" / f"01-{shared[0]}" / "export")
        stages = tuple(stage for stage in config.stages if stage not in shared)
        run(settings.replace_values(config, start=start, stages=stages), str(base / name), command)
    reports.write(folders, print, reports.locate_outputs(folders, folder=base))


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
