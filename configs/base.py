# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The blocks that all configs share, with the defaults of `xlkd/spec`; each config changes some of them."""

from typing import Any

from ml_collections import ConfigDict, FieldReference

from xlkd import spec
from xlkd.spec import stage

LEFT_OUT = [key for key in stage.OPTIONAL if key.startswith("data.") or key == "teacher.vectors"]


def base() -> ConfigDict:
    """Returns the shared blocks, without stages, a method or a task."""
    c = ConfigDict({"stages": (), "controls": ()})
    c.seed, c.start, c.teachers = 0, "encoder", ConfigDict()
    for name, block in spec.list_blocks(stage.StageSettings).items():
        values = list_defaults(block).items()
        c[name] = ConfigDict({key: value for key, value in values if f"{name}.{key}" not in LEFT_OUT})
    c.task = ConfigDict()
    c.method = ConfigDict({"control": "all"})
    c.report = ConfigDict({"compare": (), "primary": (), "judged_by": "", "tolerance": 1.0})
    return c


def list_defaults(cls: type, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the defaults of settings, of which those for a source take a string, a dict or a list."""
    kinds = spec.resolve_types(cls)
    return {
        name: FieldReference(value, field_type=object) if kinds[name] is spec.SourceText else value
        for name, value in spec.list_defaults(cls, names).items()
    }
