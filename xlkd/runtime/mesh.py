# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds the mesh of devices, and shards arrays over it by one table."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from xlkd.errors import UserError
from xlkd.models.rows import ROWS
from xlkd.spec.stage import Mesh as MeshSettings

Result = TypeVar("Result")
Tree = Any  # a pytree of arrays or shapes

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


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """The division of the examples of a step over devices and micro-batches."""

    examples: int
    rows: int  # the examples and the masked rows after them
    devices: int
    micro_batches: int
    micro_batches_asked: int

    def describe(self) -> str:
        """Says in one line how many rows are padding, and if there are fewer micro-batches than asked; else empty."""
        rows = f"{self.rows} rows on {self.devices} devices ({self.examples / self.rows:.0%} useful)"
        parts = f"{self.micro_batches} micro-batch{'es' if self.micro_batches > 1 else ''}"
        if self.micro_batches < self.micro_batches_asked:
            return f"batch of {self.examples} examples: {rows}, {parts} instead of {self.micro_batches_asked}"
        return f"batch of {self.examples} examples: {rows}" if self.rows > self.examples else ""


def fit_batch(mesh: Mesh, examples: int, micro_batches: int) -> BatchLayout:
    """Returns the layout of a batch that is padded to the next multiple of the row shards.

    The micro-batches are the largest number, at most those asked for, that divides the rows of a shard.
    """
    shards = count_row_shards(mesh)
    rows_of_shard = -(-examples // shards)
    parts = max(n for n in range(1, micro_batches + 1) if rows_of_shard % n == 0)
    return BatchLayout(examples, rows_of_shard * shards, mesh.size, parts, micro_batches)


def build_mesh(settings: MeshSettings, devices: Sequence[Any] | None = None, slices: int = 0) -> Mesh:
    """Builds a mesh over all devices, or over the given ones; one size may be -1 for all remaining devices.

    Axes may split the physical axes of a TPU slice. Of several slices (`slices`, or as the devices say) each holds an
    equal part of `data`; no other axis leaves a slice.
    """
    devices = list(devices or jax.devices())
    groups = group_by_slice(devices)
    if len({len(group) for group in groups}) > 1:
        shown = " and ".join(str(len(group)) for group in groups)
        raise UserError(f"slices of {shown} devices", "the devices", "start on slices of one size")
    sizes = _resolve_sizes(settings, len(devices), slices or len(groups))
    # Auto: jax.make_mesh alone would give explicit axes, under which an embedding lookup is refused.
    return Mesh(_arrange_devices(groups, sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _resolve_sizes(settings: MeshSettings, count: int, slices: int) -> tuple[int, ...]:
    """Replaces -1, and refuses sizes that do not use all devices or whose inner axes cross slices."""
    sizes = [getattr(settings, axis) for axis in AXES]
    if sizes.count(-1) > 1:
        raise UserError("only one axis can be -1", "config.mesh", "set the sizes of the others")
    if settings.dcn_data not in (-1, slices):
        what = f"dcn_data={settings.dcn_data}, but the number of slices is {slices}"
        raise UserError(what, "config.mesh", f"set dcn_data={slices}, or -1")
    known = math.prod(size for size in sizes if size != -1)
    resolved = tuple(max(count // known, 1) if size == -1 else size for size in sizes)
    remedy = f"for example {_describe_sizes(_find_nearest_sizes(resolved, count, slices))}"
    if math.prod(resolved) != count:
        raise UserError(f"{_describe_sizes(resolved)} does not use the {count} devices", "config.mesh", remedy)
    if resolved[0] % slices:
        what = f"{_describe_sizes(resolved)} does not fit {slices} slices of {count // slices} devices"
        raise UserError(what, "config.mesh", f"data alone can cross slices: {remedy}")
    return resolved


def _find_nearest_sizes(sizes: Sequence[int], count: int, slices: int) -> tuple[int, ...]:
    """Returns sizes that can be built: each axis but `data` as large as in the config, or the next smaller divisor."""
    left, nearest = count // slices, []
    for asked in reversed(sizes[1:]):
        nearest.insert(0, max(n for n in range(1, left + 1) if left % n == 0 and n <= max(asked, 1)))
        left //= nearest[0]
    return slices * left, *nearest


def _describe_sizes(sizes: Sequence[int]) -> str:
    return " × ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))


def group_by_slice(devices: Sequence[Any]) -> list[list[Any]]:
    """Returns the devices of each TPU slice; other devices are one group, whatever network they share."""
    groups: dict[int, list[Any]] = {}
    for device in devices:
        number = getattr(device, "slice_index", None) if device.platform == "tpu" else None
        groups.setdefault(number or 0, []).append(device)
    return [groups[number] for number in sorted(groups)]


def _arrange_devices(groups: Sequence[Sequence[Any]], sizes: tuple[int, ...]) -> np.ndarray:
    """Arranges devices so that the axes to the right have the fastest links; slices follow one another."""
    inner = (sizes[0] // len(groups), *sizes[1:])
    try:
        parts = [mesh_utils.create_device_mesh(inner, group, allow_split_physical_axes=True) for group in groups]
    except (AssertionError, NotImplementedError, ValueError):  # part of a slice, whose grid of links is not known
        parts = [np.asarray(group).reshape(inner) for group in groups]
    return np.concatenate(parts)


def make_shardings(mesh: Mesh, tree: Tree) -> Tree:
    """Returns the sharding of each leaf of a tree of arrays or shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _choose_partition(mesh, path, leaf.shape)), tree
    )


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding under which every device has a complete copy."""
    return NamedSharding(mesh, PartitionSpec())


def row_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that divides the rows of a batch."""
    return NamedSharding(mesh, PartitionSpec(ROWS))


def count_row_shards(mesh: Mesh) -> int:
    """Returns the number of parts that the rows of a batch are divided into."""
    return math.prod(mesh.shape[axis] for axis in ROWS)


def select_local_rows(mesh: Mesh, index: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " local"]:
    """Returns the rows of a global batch that belong to this process's devices, each once, in order."""
    if jax.process_count() == 1:
        return index
    slices = [cut[0] for cut in row_sharding(mesh).addressable_devices_indices_map(index.shape).values() if cut]
    bounds = sorted({rows.indices(len(index))[:2] for rows in slices})
    return np.concatenate([index[start:stop] for start, stop in bounds])


def place_batch(mesh: Mesh, batch: Tree, rows: int) -> Tree:
    """Makes a global batch from the rows of each process."""
    sharding = row_sharding(mesh)

    def place(local: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, local, (rows, *local.shape[1:]))

    return jax.tree.map(place, batch)


def trace_with_mesh(mesh: Mesh, function: Callable[..., Result]) -> Callable[..., Result]:
    """Wraps a function to be jitted: while it is traced, layers know the mesh and keep rows sharded over it."""

    @functools.wraps(function)
    def with_mesh(*arguments: Any) -> Result:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return with_mesh


def _choose_partition(mesh: Mesh, path: Sequence[Any], shape: tuple[int, ...]) -> PartitionSpec:
    """Returns the mesh axes of a leaf by its path in the tree."""
    name = "/".join(str(getattr(part, "key", getattr(part, "name", part))) for part in path)
    axes = next(axes for pattern, axes in TABLE if re.search(pattern, name))
    axes = axes[-len(shape) :] if shape else ()
    full = (None,) * (len(shape) - len(axes)) + axes
    fits = [a if a and size % mesh.shape[a] == 0 else None for a, size in zip(full, shape, strict=True)]
    return PartitionSpec(*fits)
