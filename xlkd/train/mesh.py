# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Devices as a mesh, and one table that says which axis of which array lies on which axis of it."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from xlkd.errors import UserError
from xlkd.models.rows import ROWS

AXES = ("data", "fsdp", "tensor", "branch")

# Path of a leaf (parameters, moments and teacher alike) -> mesh axes of its last dimensions; first match wins.
# An axis that does not divide its dimension is left out for that leaf.
TABLE = (
    (r"branches/(query|key|value|up)/kernel$", ("branch", None, "fsdp", "tensor")),
    (r"branches/(output|down)/kernel$", ("branch", None, "tensor", "fsdp")),
    (r"branches/", ("branch", None, None)),  # biases and norms: branch, layer, width
    (r"embeddings/words$", ("tensor", "fsdp")),
    (r"layers/(query|key|value|up)/kernel$", ("fsdp", "tensor")),
    (r"layers/(output|down)/kernel$", ("tensor", "fsdp")),
    (r"kernel$", ("fsdp", None)),
    (r"", ()),
)


def build(config, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices, or over the given ones; one size may be -1: the rest."""
    sizes = [config[axis] for axis in AXES]
    count = len(devices or jax.devices())
    if sizes.count(-1) > 1:
        raise UserError("only one axis can be -1", "config.mesh")
    if any(size < 1 and size != -1 for size in sizes):
        raise UserError("a size is neither -1 nor 1 or more", "config.mesh")
    if config["branch"] == -1:
        raise UserError("branch=-1 is not possible", "config.mesh", "say how many, and set another axis to -1")
    known = math.prod(size for size in sizes if size != -1)
    sizes = [count // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != count:
        shape = " × ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))
        raise UserError(f"{shape} does not use the {count} devices", "config.mesh", "set one axis to -1")
    # Auto: jax.make_mesh alone would give explicit axes, under which an embedding lookup is refused.
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def shardings(mesh: Mesh, tree: Any) -> Any:
    """The sharding of each leaf of a tree of arrays or shapes."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _spec(mesh, path, leaf.shape)), tree)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_rows(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(ROWS))


def row_shards(mesh: Mesh) -> int:
    """How many parts the rows of a batch are cut into."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def check_rows(mesh: Mesh, rows: int, micro_batches: int) -> None:
    """A batch divides into micro-batches, and each of them over the devices."""
    parts = row_shards(mesh) * micro_batches
    if rows % parts:
        what = f"{rows} rows do not divide into {micro_batches} micro-batches on {row_shards(mesh)} devices"
        raise UserError(what, "config.data.batch", f"choose a multiple of {parts}")


def own_rows(mesh: Mesh, index: np.ndarray) -> np.ndarray:
    """Of the rows of a global batch those that lie on this process's devices, each once, in order."""
    if jax.process_count() == 1:
        return index
    cuts = over_rows(mesh).addressable_devices_indices_map(index.shape).values()
    return np.concatenate(
        [index[start:stop] for start, stop in sorted({cut[0].indices(len(index))[:2] for cut in cuts})]
    )


def place_batch(mesh: Mesh, batch: Any, rows: int) -> Any:
    """A global batch from the rows that this process holds."""
    sharding = over_rows(mesh)

    def place(local: np.ndarray):
        return jax.make_array_from_process_local_data(sharding, local, (rows, *local.shape[1:]))

    return jax.tree.map(place, batch)


def traced(mesh: Mesh, function: Callable) -> Callable:
    """The function, to be jitted: while it is traced, layers know the mesh and keep rows spread over it."""

    @functools.wraps(function)
    def under(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return under


def _spec(mesh: Mesh, path, shape: tuple[int, ...]) -> PartitionSpec:
    name = "/".join(str(getattr(part, "key", getattr(part, "name", part))) for part in path)
    axes = next(axes for pattern, axes in TABLE if re.search(pattern, name))
    axes = axes[-len(shape) :] if shape else ()
    full = (None,) * (len(shape) - len(axes)) + axes
    fits = [a if a and size % mesh.shape[a] == 0 else None for a, size in zip(full, shape, strict=True)]
    return PartitionSpec(*fits)
