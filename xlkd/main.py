# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a model: `python -m xlkd.main --config=configs/gxlt.py [--workdir=DIR] [--config.KEY=VALUE …]`.

  --config=FILE[:VARIANT]  a config with get_config(variant), or the config.json of an earlier run
  --workdir=DIR            the folder for everything that the run writes, or gs://BUCKET/FOLDER (default:
                           runs/CONFIG-HASH)
  --config.KEY=VALUE       any key of the config; --config.STAGE.KEY=VALUE sets it for one stage
  --keys                   list every key with its type, range, value and meaning, and train nothing

Several processes can form one run: on TPU hosts, Slurm and GKE by themselves, elsewhere by three flags on each of them:
  --coordinator=HOST:PORT --processes=N --process=I     I from 0; process 0 runs on HOST; see launch/README.md

The same command resumes a stopped run. Exit codes: 0 done, 2 bad input, 3 not finite, 75 stopped by a signal after
saving, or because another process did not start or was lost: start it again.

Examples:
  python -m xlkd.main --config=configs/gxlt.py
  python -m xlkd.main --config=configs/finetune.py:classify --config.data.train=tsv:train.tsv --config.seed=1
  python -m xlkd.main --config=configs/mblm.py --keys
"""

from __future__ import annotations

import pathlib
import sys

from xlkd import cli, settings
from xlkd.errors import UserError
from xlkd.runtime import distributed
from xlkd.spec import reading


def main(arguments: list[str]) -> None:
    """Reads the config and runs its stages."""
    flags, overrides = cli.split_flags(arguments, ("config", "workdir", *distributed.FLAGS), ("keys",))
    if "config" not in flags:
        raise UserError("no --config given", "command line", "for example --config=configs/gxlt.py")
    config = settings.apply_flags(settings.read_config(flags["config"]), overrides)
    if "keys" in flags:
        print("\n".join(settings.describe_keys(config)))
        return
    stem = pathlib.Path(flags["config"].partition(":")[0]).stem
    name = flags.get("workdir") or f"runs/{stem}-{reading.compute_digest(settings.to_plain(config))}"
    with distributed.join_run(flags):
        from xlkd.train.run import run

        run(config, name, [*cli.name_command("main"), *arguments])


if __name__ == "__main__":
    sys.exit(cli.run(main))
