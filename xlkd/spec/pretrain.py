# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of pre-training."""

from __future__ import annotations

import dataclasses
from typing import Literal

from xlkd.spec import setting, stage

TASKS = ("masked",)
READS = ("data.exponent", "data.block")


@dataclasses.dataclass(frozen=True)
class Method(stage.Method):
    """Masked and translation language modelling; its settings are in the task and in `encoder.new`."""

    name: str = setting("pretrain", "The method: a module of xlkd/methods.")
    trains: Literal["all", "head"] = setting("all", "What is trained; head leaves the encoder as it is.")
