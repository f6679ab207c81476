# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds stages for tests: from a config with flags or from settings alone, resolved without data."""

import dataclasses

from xlkd import settings
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import StageSettings, StageSpec


def read_stage(config: str, name: str = "", *flags: str) -> StageSettings:
    """Reads a stage of a config file (the first by default) with flags such as `optim.lr=0.1`."""
    values = settings.apply_flags(settings.read_config(config), [f"--config.{flag}" for flag in flags])
    return settings.read_stage(values, name or values.stages[0])


def change(stage: StageSettings, **values) -> StageSettings:
    """Returns a stage with changed settings; `method__kl` stands for `method.kl`."""
    for name, value in values.items():
        block, _, key = name.partition("__")
        if key:
            value = dataclasses.replace(getattr(stage, block), **{key: value})
        stage = dataclasses.replace(stage, **{block: value})
    return stage


def resolve(stage: StageSettings, steps: int = 0, steps_per_epoch: int = 0, labels: tuple[str, ...] = ()) -> StageSpec:
    """Returns the stage that data with `steps` steps would resolve to."""
    starts = tuple(range(0, steps + 1, steps_per_epoch)) if steps_per_epoch else (0,)
    values = {field.name: getattr(stage, field.name) for field in dataclasses.fields(StageSettings)}
    if labels:
        values["task"] = dataclasses.replace(stage.task, labels=labels)
    return StageSpec(**values, horizon=Horizon(steps, steps_per_epoch, starts))


def make_spec(task=None, method=None, **values) -> StageSpec:
    """Returns a resolved stage from settings alone; all other fields have their defaults."""
    return StageSpec(name="one", run="", task=task, method=method, **values)
