# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in a bucket: every process uploads its part, and the primary one lists, completes and deletes them.

A checkpoint is saved when it has `sums.json`, written last, with the size and the CRC-32C of each object as the bucket
computed them. To compare them later needs a list of the objects and no download.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Generator
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from xlkd import storage
from xlkd.compat import ORBAX_COMMITTED, ORBAX_OBJECT
from xlkd.runtime import distributed
from xlkd.runtime.saved_steps import SUMS, is_saved, list_objects_by_step, list_saved_steps
from xlkd.train.checkpoint_folder import NO_LIMIT, list_shapes


class BucketStore:
    """The checkpoints at the URL of a folder in a bucket; `Checkpoints` describes the arguments."""

    def __init__(self, url: str, best: Callable[[], int | None], check: Callable[[], None]) -> None:
        from orbax.checkpoint import v1 as orbax

        for name in ("asyncio", "gcsfs", "fsspec"):  # they log an error, with its traceback, before they raise it
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._orbax, self._best, self._check = orbax, best, check
        self._folder = storage.RemoteFolder(url)
        self._context = orbax.Context()
        self._context.async_options.timeout_secs = NO_LIMIT  # its limits use a clock that may jump
        self._context.async_options.create_directories_asynchronously = False
        self._context.file_options.skip_sync_file_validations = True  # `_free_place` does that on one process
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._saving: concurrent.futures.Future[None] | None = None
        distributed.broadcast_from_primary("leftovers", self._delete_leftovers)

    def save(self, step: int, state: Any, *, wait: bool) -> None:
        """Saves a state in the background, after an earlier save has ended; with `wait` returns when it is saved."""
        self._wait()  # may take long, so the check comes after it
        self._check()
        best = self._best()
        distributed.broadcast_from_primary("place", lambda: self._free_place(step))
        with self._use_orbax():
            upload = self._orbax.save_checkpointables_async(self._url(step), {"state": state})
        self._saving = self._thread.submit(self._finish, step, upload, list_shapes(state), best)
        if wait:
            self._wait()

    def list_shapes(self, step: int) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each array in a checkpoint by its path."""
        shapes = distributed.broadcast_from_primary("shapes", lambda: self._read_record(step)["shapes"])
        return {path: tuple(shape) for path, shape in shapes.items()}

    def load(self, step: int, abstract: Any) -> Any:
        """Returns the state in a checkpoint with the shardings of `abstract`.

        Of several processes each reads its own part of every array; then they exchange what they have read.
        """
        parts = jax.tree.map(_split_replicas, abstract) if distributed.has_several_processes() else abstract
        with self._use_orbax():
            state = self._orbax.load_checkpointables(self._url(step), {"state": parts})["state"]
        if parts is abstract:
            return state
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        return jax.jit(lambda tree: tree, out_shardings=shardings)(state)

    def reload(self) -> None:
        """Does nothing: every question is asked of the bucket."""

    def close(self) -> None:
        """Waits for a save in progress."""
        self._wait()
        self._thread.shutdown()

    def list_steps(self) -> list[int]:
        """Returns the steps that are saved, sorted."""
        return list_saved_steps(self._folder.url)

    def describe_damage(self, step: int) -> str:
        """Returns which object of a checkpoint is not as it was written; "" if none."""
        objects = self._folder.list_objects(f"{step}/")
        if f"{step}/{SUMS}" not in objects:
            return f"{SUMS} is missing"
        try:
            for name, (size, crc32c) in self._read_record(step)["files"].items():
                entry = objects.get(f"{step}/{name}")
                if entry is None:
                    return f"{name} is missing"
                if entry.size != size:
                    return f"{name} has {entry.size} of {size} bytes"
                if entry.crc32c != crc32c:
                    return f"{name} does not match its checksum"
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return f"{SUMS} is unreadable"
        return ""

    def set_aside(self, step: int) -> str:
        """Moves a checkpoint to `damaged`, where it can be examined and is not restored; returns its new place."""
        self._check()
        stage = storage.RemoteFolder(self._folder.url.rpartition("/")[0])
        taken = {name.split("/")[1] for name in stage.list_objects("damaged/")}
        names = itertools.chain([str(step)], (f"{step}-{number}" for number in itertools.count(2)))
        aside = next(f"damaged/{name}" for name in names if name not in taken)
        place = f"{self._folder.url.rpartition('/')[2]}/{step}"
        objects = stage.list_objects(f"{place}/")
        for name in objects:
            stage.copy(name, aside + name.removeprefix(place))
        stage.delete(objects)
        return f"{stage.url}/{aside}"

    @contextlib.contextmanager
    def _use_orbax(self) -> Generator[None, None, None]:
        """Sets the options of Orbax for its functions, whose errors become those of a bucket."""
        with storage.explain_errors(self._folder.url), self._context:
            yield

    def _url(self, step: int) -> str:
        return f"{self._folder.url}/{step}"

    def _read_record(self, step: int) -> dict[str, Any]:
        """Reads what `_finish` wrote about a checkpoint: its files, and the shapes of its arrays."""
        content = self._folder.read(f"{step}/{SUMS}")
        return json.loads(content[0]) if content else {}

    def _wait(self) -> None:
        """Waits until the last save has ended, and raises its error."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def _finish(self, step: int, upload: Any, shapes: dict[str, tuple[int, ...]], best: int | None) -> None:
        """Waits until all processes have uploaded their parts; then completes the checkpoint and deletes earlier ones.

        Called by the thread.
        """
        with storage.explain_errors(self._folder.url):
            upload.result()
        if not distributed.is_primary():
            return
        self._check()
        steps = list_objects_by_step(self._folder)
        files = {name: [entry.size, entry.crc32c] for name, entry in steps[step].items()}
        self._folder.write(f"{step}/{SUMS}", json.dumps({"files": files, "shapes": shapes}, indent=1).encode())
        saved = sorted({step, *(other for other, names in steps.items() if is_saved(names))})
        for former in set(saved) - {best, *saved[-2:]}:
            self._delete(former, set(steps[former]))

    def _delete_leftovers(self) -> None:
        """Deletes checkpoints that were never complete: the process was killed while it uploaded or deleted them."""
        for step, names in list_objects_by_step(self._folder).items():
            if not is_saved(names) and all(map(ORBAX_OBJECT.fullmatch, names)):
                self._delete(step, set(names))

    def _free_place(self, step: int) -> None:
        """Removes an incomplete checkpoint that has the name of the next one, and moves away what no run wrote."""
        names = list_objects_by_step(self._folder).get(step, {})
        if all(map(ORBAX_OBJECT.fullmatch, names)):
            self._delete(step, set(names))
        else:
            self.set_aside(step)

    def _delete(self, step: int, names: set[str]) -> None:
        """Deletes a checkpoint; its marks go first, so that a kill leaves one that is incomplete."""
        marks = [mark for mark in (SUMS, ORBAX_COMMITTED) if mark in names]
        self._folder.delete(f"{step}/{name}" for name in (*marks, *(names - set(marks))))


def _split_replicas(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Returns a shape with a sharding under which no part of the array is on two devices, where its sizes allow that.

    Orbax writes the same parts: the replicas of a shard are cut along the first axis that their number divides.
    """
    mesh, spec = leaf.sharding.mesh, [*leaf.sharding.spec, *(None,) * (leaf.ndim - len(leaf.sharding.spec))]
    parts = [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]
    unused = tuple(name for name in mesh.axis_names if name not in itertools.chain(*parts))
    replicas = math.prod(mesh.shape[name] for name in unused)
    for axis, size in enumerate(leaf.sharding.shard_shape(leaf.shape)):
        if size % replicas == 0:
            parts[axis] += unused
            return leaf.update(sharding=NamedSharding(mesh, PartitionSpec(*parts)))
    return leaf
