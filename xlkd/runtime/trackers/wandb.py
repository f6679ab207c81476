# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sends values to Weights & Biases: each stage is a run of the project `xlkd`, unless WANDB_PROJECT names another.

A restart continues the same run. All variables of wandb apply, for example WANDB_MODE=offline. The run's group is the
work directory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from xlkd.runtime.trackers import Place

PACKAGE = "wandb"


class Run:
    """A run of wandb."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the values to those of the step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Uploads what is left."""
        self._run.finish()


def open_tracker(place: Place) -> Run:
    """Begins or continues the run of a stage; without an API key it is refused, because wandb would ask for one."""
    import wandb  # pyrefly: ignore[missing-import] (an extra)

    if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False):
        raise RuntimeError("no API key: wandb login, or set WANDB_API_KEY or WANDB_MODE=offline")
    run = wandb.init(
        id=place.id,
        resume="allow",
        project=os.environ.get("WANDB_PROJECT", "xlkd"),
        group=place.run,
        name=f"{place.run}/{place.stage}",
        dir=place.folder.parent,  # wandb makes the folder `wandb` in it
        config=dict(place.settings),
        reinit="create_new",
        settings=wandb.Settings(console="off", silent=True),
    )
    return Run(run)
