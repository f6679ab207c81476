# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Settings of supervised fine-tuning."""

from __future__ import annotations

import dataclasses

from xlkd.spec import setting, stage

TASKS = ("qa", "classify")
READS = ()


@dataclasses.dataclass(frozen=True)
class Method(stage.Method):
    """Cross-entropy on one head; it has no settings of its own."""

    name: str = setting("finetune", "The method: a module of xlkd/methods.")
