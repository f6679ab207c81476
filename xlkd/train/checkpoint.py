# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves and restores the checkpoints of a stage: in the background, atomically, keeping the best and the last two.

A checkpoint contains the checksums of its files, written before it counts as saved. A checkpoint that was damaged later
is therefore noticed, and not restored.
"""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import jax

from xlkd.errors import UserError
from xlkd.runtime import distributed
from xlkd.train.checkpoint_bucket import BucketStore
from xlkd.train.checkpoint_folder import FolderStore, list_shapes


class Store(Protocol):
    """A place for checkpoints. All processes call the first five methods, only the primary one calls the others."""

    def save(self, step: int, state: Any, *, wait: bool) -> None:
        """Saves a state in the background, after an earlier save has ended; with `wait` returns when it is saved."""

    def list_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each array in a checkpoint by its path."""

    def load(self, step: int, abstract: Any) -> Any:
        """Returns the state in a checkpoint with the shardings of `abstract`."""

    def reload(self) -> None:
        """Notices that a checkpoint was set aside."""

    def close(self) -> None:
        """Waits for a save in progress."""

    def list_steps(self) -> list[int]:
        """Returns the steps that are saved, sorted."""

    def describe_damage(self, step: int) -> str:
        """Returns which file of a checkpoint is not as it was written; "" if none."""

    def set_aside(self, step: int) -> str:
        """Moves a checkpoint to `damaged`, where it can be examined and is not restored; returns its new place."""


class Checkpoints:
    """The checkpoints of one stage, in a folder or at the URL of one in a bucket; `best` returns the step to keep.

    Without `close` a save in progress is lost. `check` is called before a save begins and before it counts as saved: it
    raises if the work directory is gone.
    """

    def __init__(
        self, folder: pathlib.Path | str, best: Callable[[], int | None], check: Callable[[], None] = lambda: None
    ) -> None:
        check()
        # Orbax logs every step at INFO, and each exception a dozen times at ERROR
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        self._store: Store
        if isinstance(folder, str):
            self._store = BucketStore(folder, best, check)
            self._place, self._stage = folder, folder.rpartition("/")[0]
        else:
            folder = folder.resolve()  # Orbax takes no relative path
            self._store = FolderStore(folder, best, check)
            self._place, self._stage = str(folder), str(folder.parent)

    def list_steps(self) -> list[int]:
        """Returns the steps that are saved; a folder of the user that has a number for a name does not count."""
        return distributed.broadcast_from_primary("steps", self._store.list_steps)

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Saves a state in the background, after an earlier save has ended; with `wait` returns when it is saved."""
        self._store.save(step, state, wait=wait)

    def restore_last(self, abstract: Any, log: Callable[[str], None]) -> Any:
        """Restores the last checkpoint that is not damaged; returns None if there is none.

        Damaged checkpoints are moved to the folder `damaged`.
        """
        steps = self.list_steps()
        for number, step in reversed(list(enumerate(steps))):
            state, damage = self._read_state(step, abstract)
            if not damage:
                log(f"restored step {step}")
                return state
            aside = distributed.broadcast_from_primary("aside", lambda step=step: self._store.set_aside(step))
            before = f"step {steps[number - 1]}" if number else "the beginning of this stage"
            log(f"the checkpoint of step {step} is damaged ({damage}): moved to {aside}, resuming from {before}")
            self._store.reload()
        return None

    def restore_if_sound(self, step: int, abstract: Any) -> Any | None:
        """Restores the state of a step; None where its checkpoint is damaged, which stays for `restore_last`."""
        return self._read_state(step, abstract)[0]

    def restore(self, step: int, abstract: Any) -> Any:
        """Restores the state of a step with the shardings of `abstract`."""
        state, damage = self._read_state(step, abstract)
        if damage:
            what = f"the checkpoint of step {step}, which is to be exported, is damaged ({damage})"
            remedy = f"delete {self._stage} and start again: this stage is trained again"
            raise UserError(what, self._place, remedy)
        return state

    def close(self) -> None:
        """Waits for a save in progress."""
        self._store.close()

    def _read_state(self, step: int, abstract: Any) -> tuple[Any, str]:
        """Returns the state of a step and "", or None and what is wrong with its files."""
        damage = distributed.broadcast_from_primary("damage", lambda: self._store.describe_damage(step))
        if damage:
            return None, damage
        self._check_shapes(step, abstract)
        return self._store.load(step, abstract), ""

    def _check_shapes(self, step: int, abstract: Any) -> None:
        """Refuses a checkpoint whose arrays differ in shape from those of the model."""
        saved, wanted = self._store.list_shapes(step), list_shapes(abstract)
        for leaf in sorted(saved.keys() | wanted.keys()):
            in_file, in_model = (shapes.get(leaf, "absent") for shapes in (saved, wanted))
            if in_file != in_model:
                what = (
                    f"the checkpoint of step {step} does not fit this model: {leaf} is {in_file} there, {in_model} here"
                )
                raise UserError(what, self._place, "use another work directory")


def make_abstract(tree: Any, shardings: Any) -> Any:
    """Returns the shapes of a tree with the shardings to restore it with; without them the saved ones are used."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
