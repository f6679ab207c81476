# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a stage: saved beside the running loop, whole or absent, the best and the last two kept."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from xlkd.errors import UserError
from xlkd.train import distributed


class Checkpoints:
    """The checkpoints of one stage; `best` names the step to keep. Close it, or the save under way is lost."""

    def __init__(self, folder: pathlib.Path, best: Callable[[], int | None]) -> None:
        # Orbax takes no relative path and tells of every step at INFO.
        logging.getLogger("absl").setLevel(logging.ERROR)
        from orbax.checkpoint.experimental.v1 import training

        class BestAndLast:
            def should_preserve(self, checkpoints, *, context):
                keep = {best(), *(c.step for c in checkpoints[-2:])}
                return [c.step in keep for c in checkpoints]

        self._checkpointer = training.Checkpointer(
            folder.resolve(), preservation_policy=BestAndLast(), cleanup_tmp_directories=True
        )

    def steps(self) -> list[int]:
        return distributed.once("steps", lambda: sorted(found.step for found in self._checkpointer.checkpoints))

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Start a save, or make it; a former one that still runs is waited for."""
        # Without force=True orbax leaves the save out, silently, while the former one runs.
        call = self._checkpointer.save_checkpointables if wait else self._checkpointer.save_checkpointables_async
        call(step, {"state": state}, force=True)

    def restore(self, step: int, abstract: Any) -> Any:
        """The state of a step, placed as `abstract` says."""
        saved = _shapes(self._checkpointer.checkpointables_metadata(step).metadata["state"])
        wanted = _shapes(abstract)
        for leaf in sorted(saved.keys() | wanted.keys()):
            there, here = (shapes.get(leaf, "absent") for shapes in (saved, wanted))
            if there != here:
                what = f"the checkpoint of step {step} does not fit this model: {leaf} is {there} there, {here} here"
                raise UserError(what, str(self._checkpointer.directory), "use another work directory")
        return self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]

    def close(self) -> None:
        self._checkpointer.close()


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes with the placement that a restore must give them: without it, the saved one is taken."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """By path; the paths of what was saved and of what it was saved from are the same."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
