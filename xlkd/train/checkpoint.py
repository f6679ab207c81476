# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves and restores the checkpoints of a stage: in the background, atomically, keeping the best and the last two.

A checkpoint contains the checksums of its files, written before it gets its final name. A checkpoint that was damaged
later is therefore noticed, and not restored.
"""

from __future__ import annotations

import itertools
import json
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from xlkd import files
from xlkd.compat import ORBAX_DRAFT, ORBAX_METADATA
from xlkd.data.cache import checksum
from xlkd.errors import UserError
from xlkd.runtime import distributed

SUMS = "sums.json"
NO_LIMIT = 10 * 365 * 86400  # seconds


class Checkpoints:
    """The checkpoints of one stage; `best` returns the step to keep. Without `close` a save in progress is lost.

    `check` is called before a save begins and before it gets its final name: it raises if the work directory is gone.
    """

    def __init__(
        self, folder: pathlib.Path, best: Callable[[], int | None], check: Callable[[], None] = lambda: None
    ) -> None:
        check()
        self._check, self._saving = check, -1  # the step that is being saved
        # Orbax takes no relative path, logs every step at INFO, and logs each exception a dozen times at ERROR
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from orbax.checkpoint import v1 as orbax

        folder = folder.resolve()

        class BestAndLast:
            def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
                saved = [c.step for c in checkpoints if _is_checkpoint(folder / str(c.step))]
                former = set(saved) - {best(), *saved[-2:]}
                return [c.step not in former for c in checkpoints]

        self._folder = folder
        # Its time limits use a clock that may jump, and a slow disk is no reason to lose a run
        options = orbax.options.AsyncOptions(
            timeout_secs=NO_LIMIT,
            create_directories_asynchronously=False,
            post_finalization_callback=lambda: self._seal(),  # of a bound method Orbax would copy the object
        )
        self._checkpointer = orbax.training.Checkpointer(
            str(folder),
            context=orbax.Context(async_options=options),
            preservation_policy=BestAndLast(),
            cleanup_tmp_directories=True,
        )
        files.flush_path(folder.parent)

    def list_steps(self) -> list[int]:
        """Returns the steps that are saved; a folder of the user that has a number for a name does not count."""
        return distributed.broadcast_from_primary("steps", self._list_steps)

    def _list_steps(self) -> list[int]:
        steps = (checkpoint.step for checkpoint in self._checkpointer.checkpoints)
        return sorted(step for step in steps if _is_checkpoint(self._folder / str(step)))

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Saves a state in the background, after an earlier save has ended; with `wait` returns when it is saved."""
        self._checkpointer.wait()  # may take long, so the check comes after it
        self._check()
        self._seal_last()
        if distributed.broadcast_from_primary("place", lambda: self._free_place(step)):
            self._checkpointer.reload()
        self._saving = step
        # Without force=True Orbax skips the save, silently, while an earlier one runs
        call = self._checkpointer.save_checkpointables if wait else self._checkpointer.save_checkpointables_async
        call(step, {"state": state}, force=True)
        if wait:
            self._seal_last()

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
            aside = distributed.broadcast_from_primary("aside", lambda step=step: self._set_aside(step))
            before = f"step {steps[number - 1]}" if number else "the beginning of this stage"
            log(f"the checkpoint of step {step} is damaged ({damage}): moved to {aside}, resuming from {before}")
            self._checkpointer.reload()
        return None

    def restore_if_sound(self, step: int, abstract: Any) -> Any | None:
        """Restores the state of a step; None where its checkpoint is damaged, which stays for `restore_last`."""
        return self._read_state(step, abstract)[0]

    def restore(self, step: int, abstract: Any) -> Any:
        """Restores the state of a step with the shardings of `abstract`."""
        state, damage = self._read_state(step, abstract)
        if damage:
            what = f"the checkpoint of step {step}, which is to be exported, is damaged ({damage})"
            stage = self._folder.parent
            raise UserError(what, str(self._folder), f"delete {stage} and start again: this stage is trained again")
        return state

    def close(self) -> None:
        """Waits for a save in progress."""
        self._checkpointer.close()
        self._seal_last()

    def _read_state(self, step: int, abstract: Any) -> tuple[Any, str]:
        """Returns the state of a step and "", or None and what is wrong with its files."""
        damage = distributed.broadcast_from_primary("damage", lambda: _describe_damage(self._folder / str(step)))
        if damage:
            return None, damage
        self._check_shapes(step, abstract)
        return self._checkpointer.load_checkpointables(step, {"state": abstract})["state"], ""

    def _check_shapes(self, step: int, abstract: Any) -> None:
        """Refuses a checkpoint whose arrays differ in shape from those of the model."""
        saved = _list_shapes(self._checkpointer.checkpointables_metadata(step).metadata["state"])
        wanted = _list_shapes(abstract)
        for leaf in sorted(saved.keys() | wanted.keys()):
            in_file, in_model = (shapes.get(leaf, "absent") for shapes in (saved, wanted))
            if in_file != in_model:
                what = (
                    f"the checkpoint of step {step} does not fit this model: {leaf} is {in_file} there, {in_model} here"
                )
                raise UserError(what, str(self._folder), "use another work directory")

    def _seal(self) -> None:
        """Writes checksums into the checkpoint that is about to get its final name; called by a thread of Orbax."""
        if distributed.is_primary():
            self._check()
            draft = self._folder / ORBAX_DRAFT.format(step=self._saving)
            if draft.is_dir():
                _write_sums(draft)

    def _seal_last(self) -> None:
        """Flushes the final name of the last save, and writes its checksums where Orbax has other names for drafts."""
        saved = self._folder / str(self._saving)
        if distributed.is_primary() and saved.is_dir():
            self._check()
            if not (saved / SUMS).exists():
                _write_sums(saved)
            files.flush_path(self._folder)

    def _free_place(self, step: int) -> bool:
        """Moves away an incomplete checkpoint that has the name of the next one; returns whether there was one."""
        is_taken = (self._folder / str(step)).exists() and step not in self._list_steps()
        if is_taken:
            self._set_aside(step)
        return is_taken

    def _set_aside(self, step: int) -> str:
        """Moves a folder to `damaged`, where it can be examined and is not taken for a checkpoint."""
        self._check()
        damaged = self._folder.with_name("damaged")
        damaged.mkdir(exist_ok=True)
        names = itertools.chain([str(step)], (f"{step}-{number}" for number in itertools.count(2)))
        aside = next(damaged / name for name in names if not (damaged / name).exists())
        (self._folder / str(step)).rename(aside)
        return str(aside)


def make_abstract(tree: Any, shardings: Any) -> Any:
    """Returns the shapes of a tree with the shardings to restore it with; without them the saved ones are used."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _is_checkpoint(folder: pathlib.Path) -> bool:
    """Returns whether a folder is a checkpoint, or is about to become one; other folders are left alone."""
    return not folder.exists() or any((folder / name).exists() for name in (SUMS, ORBAX_METADATA))


def _write_sums(folder: pathlib.Path) -> None:
    """Writes the size and the checksum of each file of a checkpoint, and flushes everything to the disk."""
    paths = sorted(path for path in (folder / "state").rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): [path.stat().st_size, checksum(path)] for path in paths}
    (folder / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
    files.flush_tree(folder)
    files.flush_path(folder.parent)


def _describe_damage(folder: pathlib.Path) -> str:
    """Returns which file is not as it was written; "" if none."""
    if not (folder / SUMS).exists():
        return f"{SUMS} is missing"
    try:
        sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        if not sums:
            return f"{SUMS} names no file"
        for name, (size, expected) in sums.items():
            if not (folder / name).exists():
                return f"{name} is missing"
            if (actual := (folder / name).stat().st_size) != size:
                return f"{name} has {actual} of {size} bytes"
            if checksum(folder / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return f"{SUMS} is unreadable"
    return ""


def _list_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each leaf by its path, which is the same in a state and in its checkpoint."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
