# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists the steps of a stage whose checkpoints are saved in a bucket."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from xlkd import storage
from xlkd.compat import ORBAX_COMMITTED

SUMS = "sums.json"  # the sizes and checksums of a checkpoint's files


def list_saved_steps(url: str) -> list[int]:
    """Returns the steps that are saved in a folder of checkpoints in a bucket, sorted."""
    objects = list_objects_by_step(storage.RemoteFolder(url))
    return sorted(step for step, names in objects.items() if is_saved(names))


def list_objects_by_step(folder: storage.RemoteFolder) -> dict[int, dict[str, storage.Object]]:
    """Returns the objects of each checkpoint in a folder, by step and by name; some checkpoints may be incomplete."""
    steps: defaultdict[int, dict[str, storage.Object]] = defaultdict(dict)
    for path, entry in folder.list_objects().items():
        step, _, name = path.partition("/")
        if step.isdecimal() and step == str(int(step)) and name:
            steps[int(step)][name] = entry
    return dict(steps)


def is_saved(names: Collection[str]) -> bool:
    """Returns whether a checkpoint with objects of these names was complete; it may have been damaged since then."""
    return SUMS in names or ORBAX_COMMITTED in names
