# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The blocks that all configs share, with the defaults of `xlkd/spec`; each config changes some of them."""

from ml_collections import ConfigDict

from xlkd import spec
from xlkd.spec import stage

LEFT_OUT = [key for key in stage.OPTIONAL if key.startswith("data.") or key == "teacher.vectors"]


def base() -> ConfigDict:
    """Returns the shared blocks, without stages, a method or a task."""
    c = ConfigDict({"stages": (), "controls": ()})
    c.seed, c.start, c.teachers = 0, "encoder", ConfigDict()
    for name, block in spec.list_blocks(stage.StageSettings).items():
        values = spec.list_defaults(block).items()
        c[name] = ConfigDict({key: value for key, value in values if f"{name}.{key}" not in LEFT_OUT})
    c.task = ConfigDict()
    c.method = ConfigDict({"control": "all"})
    c.report = ConfigDict({"compare": ()})
    return c
