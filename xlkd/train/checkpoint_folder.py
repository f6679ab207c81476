# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in a folder of a file system, which all processes share: written as a draft that is then renamed."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax

from xlkd import files
from xlkd.compat import ORBAX_DRAFT, ORBAX_METADATA
from xlkd.data.cache import checksum
from xlkd.runtime import distributed
from xlkd.runtime.saved_steps import SUMS

NO_LIMIT = 10 * 365 * 86400  # seconds


class FolderStore:
    """The checkpoints in a folder, whose path is absolute; `Checkpoints` describes the arguments."""

    def __init__(self, folder: pathlib.Path, best: Callable[[], int | None], check: Callable[[], None]) -> None:
        from orbax.checkpoint import v1 as orbax

        self._folder, self._check, self._saving = folder, check, -1  # the step that is being saved

        class BestAndLast:
            def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
                saved = [c.step for c in checkpoints if _is_checkpoint(folder / str(c.step))]
                former = set(saved) - {best(), *saved[-2:]}
                return [c.step not in former for c in checkpoints]

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

    def save(self, step: int, state: Any, *, wait: bool) -> None:
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

    def list_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each array in a checkpoint by its path."""
        return list_shapes(self._checkpointer.checkpointables_metadata(step).metadata["state"])

    def load(self, step: int, abstract: Any) -> Any:
        """Returns the state in a checkpoint with the shardings of `abstract`."""
        return self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]

    def close(self) -> None:
        """Waits for a save in progress."""
        self._checkpointer.close()
        self._seal_last()

    def list_steps(self) -> list[int]:
        """Returns the steps that are saved, sorted."""
        steps = (checkpoint.step for checkpoint in self._checkpointer.checkpoints)
        return sorted(step for step in steps if _is_checkpoint(self._folder / str(step)))

    def describe_damage(self, step: int) -> str:
        """Returns which file of a checkpoint is not as it was written; "" if none."""
        return _describe_damage(self._folder / str(step))

    def set_aside(self, step: int) -> str:
        """Moves a checkpoint to `damaged`, where it can be examined and is not restored; returns its new place."""
        self._check()
        damaged = self._folder.with_name("damaged")
        damaged.mkdir(exist_ok=True)
        names = itertools.chain([str(step)], (f"{step}-{number}" for number in itertools.count(2)))
        aside = next(damaged / name for name in names if not (damaged / name).exists())
        (self._folder / str(step)).rename(aside)
        return str(aside)

    def reload(self) -> None:
        """Lists the folder again, after a checkpoint was moved."""
        self._checkpointer.reload()

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
        is_taken = (self._folder / str(step)).exists() and step not in self.list_steps()
        if is_taken:
            self.set_aside(step)
        return is_taken


def list_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each leaf by its path, which is the same in a state and in its checkpoint."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}


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
