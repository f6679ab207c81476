# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a stage: saved beside the running loop, whole or absent, the best and the last two kept.

Each holds the checksums of its files, written before it gets its name: what was damaged since is not gone on from.
"""

from __future__ import annotations

import itertools
import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from xlkd.compat import ORBAX_DRAFT, ORBAX_METADATA
from xlkd.data.cache import checksum
from xlkd.errors import UserError
from xlkd.runtime import distributed

SUMS = "sums.json"
NO_LIMIT = 10 * 365 * 86400  # seconds


class Checkpoints:
    """The checkpoints of one stage; `best` names the step to keep. Close it, or the save under way is lost.

    `check` is called before a save begins and before it gets its name: it raises where the work directory is gone.
    """

    def __init__(
        self, folder: pathlib.Path, best: Callable[[], int | None], check: Callable[[], None] = lambda: None
    ) -> None:
        check()
        self._check, self._saving = check, -1  # the step whose save is under way
        # Orbax takes no relative path, tells of every step at INFO, and of what it raises a dozen times at ERROR.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from orbax.checkpoint import v1 as orbax

        where = folder.resolve()

        class BestAndLast:
            def should_preserve(self, checkpoints, *, context):
                saved = [c.step for c in checkpoints if _is_checkpoint(where / str(c.step))]
                former = set(saved) - {best(), *saved[-2:]}
                return [c.step not in former for c in checkpoints]

        self._folder = where
        # Its limits are read from a clock that may jump, and a slow disk is no reason to lose a run
        sealed = orbax.options.AsyncOptions(
            timeout_secs=NO_LIMIT,
            create_directories_asynchronously=False,
            post_finalization_callback=lambda: self._seal(),  # orbax would copy what a bound method belongs to
        )
        self._checkpointer = orbax.training.Checkpointer(
            self._folder,
            context=orbax.Context(async_options=sealed),
            preservation_policy=BestAndLast(),
            cleanup_tmp_directories=True,
        )

    def steps(self) -> list[int]:
        """Returns the steps that are saved; a folder of the user's with a number for a name is none."""
        return distributed.broadcast_from_primary("steps", self._list_steps)

    def _list_steps(self) -> list[int]:
        steps = (found.step for found in self._checkpointer.checkpoints)
        return sorted(step for step in steps if _is_checkpoint(self._folder / str(step)))

    def save(self, step: int, state: Any, *, wait: bool = False) -> None:
        """Start a save, or make it; a former one that still runs is waited for."""
        self._checkpointer.wait()  # for a former save, which may take long: the check comes behind it
        self._check()
        self._saving = step
        # Without force=True orbax leaves the save out, silently, while the former one runs.
        call = self._checkpointer.save_checkpointables if wait else self._checkpointer.save_checkpointables_async
        call(step, {"state": state}, force=True)

    def last(self, abstract: Any, log: Callable[[str], None]) -> Any:
        """The state of the last checkpoint, or of the one before where that is damaged; None where none is left."""
        steps = self.steps()
        for number, step in reversed(list(enumerate(steps))):
            found, damage = self._read(step, abstract)
            if not damage:
                log(f"restored step {step}")
                return found
            aside = distributed.broadcast_from_primary("aside", lambda step=step: self._set_aside(step))
            before = f"step {steps[number - 1]}" if number else "the beginning of this stage"
            log(f"the checkpoint of step {step} is damaged ({damage}): moved to {aside}, resuming from {before}")
            self._checkpointer.reload()
        return None

    def restore(self, step: int, abstract: Any) -> Any:
        """The state of a step, placed as `abstract` says."""
        found, damage = self._read(step, abstract)
        if damage:
            what = f"the checkpoint of step {step}, which is to be exported, is damaged ({damage})"
            stage = self._folder.parent
            raise UserError(what, str(self._folder), f"delete {stage} and start again: this stage is trained again")
        return found

    def close(self) -> None:
        self._checkpointer.close()

    def _read(self, step: int, abstract: Any) -> tuple[Any, str]:
        """The state of a step, or what is wrong with its files."""
        damage = distributed.broadcast_from_primary("damage", lambda: _damage(self._folder / str(step)))
        if damage:
            return None, damage
        try:
            self._fits(step, abstract)
            found = self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]
        except (OSError, ValueError, KeyError) as error:
            if (self._folder / str(step) / SUMS).exists():  # sound, so it is something else
                raise
            found, damage = None, f"unreadable: {type(error).__name__}"
        unread = distributed.any_process(np.array([found is None])).any()
        return (None, damage or "unreadable at another process") if unread else (found, "")

    def _fits(self, step: int, abstract: Any) -> None:
        saved = _shapes(self._checkpointer.checkpointables_metadata(step).metadata["state"])
        wanted = _shapes(abstract)
        if not saved:
            raise ValueError("its metadata names no array")
        for leaf in sorted(saved.keys() | wanted.keys()):
            there, here = (shapes.get(leaf, "absent") for shapes in (saved, wanted))
            if there != here:
                what = f"the checkpoint of step {step} does not fit this model: {leaf} is {there} there, {here} here"
                raise UserError(what, str(self._folder), "use another work directory")

    def _seal(self) -> None:
        """Writes checksums into the checkpoint that is about to get its name; orbax calls this in its own thread."""
        if distributed.is_primary():
            self._check()
            draft = self._folder / ORBAX_DRAFT.format(step=self._saving)
            if not draft.is_dir():
                logging.getLogger(__name__).warning("%s: Orbax has renamed its drafts: saved without checksums", draft)
                return
            files = sorted(path for path in (draft / "state").rglob("*") if path.is_file())
            sums = {str(path.relative_to(draft)): [path.stat().st_size, checksum(path)] for path in files}
            (draft / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")

    def _set_aside(self, step: int) -> str:
        """Kept for who wants to look at it, where nothing takes it for a checkpoint."""
        self._check()
        damaged = self._folder.with_name("damaged")
        damaged.mkdir(exist_ok=True)
        names = itertools.chain([str(step)], (f"{step}-{number}" for number in itertools.count(2)))
        aside = next(damaged / name for name in names if not (damaged / name).exists())
        (self._folder / str(step)).rename(aside)
        return str(aside)


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes with the placement that a restore must give them: without it, the saved one is taken."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _is_checkpoint(folder: pathlib.Path) -> bool:
    """Says whether a folder was saved by us, or is about to get its name: a folder of the user's is neither."""
    return not folder.exists() or any((folder / name).exists() for name in (SUMS, ORBAX_METADATA))


def _damage(folder: pathlib.Path) -> str:
    """What is not as it was written; nothing is known of a checkpoint without checksums."""
    if not (folder / SUMS).exists():
        return ""
    try:
        for name, (size, expected) in json.loads((folder / SUMS).read_text(encoding="utf-8")).items():
            if not (folder / name).exists():
                return f"{name} is missing"
            if (there := (folder / name).stat().st_size) != size:
                return f"{name} has {there} of {size} bytes"
            if checksum(folder / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, TypeError, AttributeError):
        return f"{SUMS} is unreadable"
    return ""


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """By path; the paths of what was saved and of what it was saved from are the same."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in leaves}
