# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Devices as a mesh, and one table that says which axis of which array lies on which axis of it."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from xlkd.errors import UserError
from xlkd.models.rows import ROWS
from xlkd.spec.stage import Mesh as MeshSettings

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
    """How the examples of a step lie on the devices."""

    examples: int
    rows: int  # the examples, and behind them masked rows
    devices: int
    micro_batches: int
    micro_batches_asked: int

    def describe(self) -> str:
        """Say in one line what differs from the config; empty where nothing does."""
        rows = f"{self.rows} rows on {self.devices} devices ({self.examples / self.rows:.0%} useful)"
        parts = f"{self.micro_batches} micro-batch{'es' if self.micro_batches > 1 else ''}"
        if self.micro_batches < self.micro_batches_asked:
            return f"batch of {self.examples} examples: {rows}, {parts} instead of {self.micro_batches_asked}"
        return f"batch of {self.examples} examples: {rows}" if self.rows > self.examples else ""


def fit_batch(mesh: Mesh, examples: int, micro_batches: int) -> BatchLayout:
    """Pad a batch to the next multiple of the row shards, the fewest rows that divide.

    The micro-batches are the largest number, at most those asked for, that divides the rows of a shard.
    """
    shards = row_shards(mesh)
    rows_of_shard = -(-examples // shards)
    parts = max(n for n in range(1, micro_batches + 1) if rows_of_shard % n == 0)
    return BatchLayout(examples, rows_of_shard * shards, mesh.size, parts, micro_batches)


def build(settings: MeshSettings, devices: Sequence[Any] | None = None, slices: int = 0) -> Mesh:
    """Make a mesh over all devices, or over the given ones; one size may be -1: the rest.

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
    """Fill in -1, and refuse sizes that do not use the devices or whose inner axes leave a slice."""
    sizes = [getattr(settings, axis) for axis in AXES]
    if sizes.count(-1) > 1:
        raise UserError("only one axis can be -1", "config.mesh", "say how many for the others")
    if settings.dcn_data not in (-1, slices):
        what = f"dcn_data={settings.dcn_data}, but the number of slices is {slices}"
        raise UserError(what, "config.mesh", f"set dcn_data={slices}, or -1")
    known = math.prod(size for size in sizes if size != -1)
    resolved = tuple(max(count // known, 1) if size == -1 else size for size in sizes)
    remedy = f"for example {_describe_sizes(_nearest_sizes(resolved, count, slices))}"
    if math.prod(resolved) != count:
        raise UserError(f"{_describe_sizes(resolved)} does not use the {count} devices", "config.mesh", remedy)
    if resolved[0] % slices:
        what = f"{_describe_sizes(resolved)} does not fit {slices} slices of {count // slices} devices"
        raise UserError(what, "config.mesh", f"data alone can cross slices: {remedy}")
    return resolved


def _nearest_sizes(sizes: Sequence[int], count: int, slices: int) -> tuple[int, ...]:
    """Return sizes that can be built: each axis but `data` as large as asked for or the next smaller divisor."""
    left, nearest = count // slices, []
    for asked in reversed(sizes[1:]):
        nearest.insert(0, max(n for n in range(1, left + 1) if left % n == 0 and n <= max(asked, 1)))
        left //= nearest[0]
    return slices * left, *nearest


def _describe_sizes(sizes: Sequence[int]) -> str:
    return " × ".join(f"{axis} {size}" for axis, size in zip(AXES, sizes, strict=True))


def group_by_slice(devices: Sequence[Any]) -> list[list[Any]]:
    """Return the devices of each TPU slice; other devices are one group, whatever network they share."""
    groups: dict[int, list[Any]] = {}
    for device in devices:
        number = getattr(device, "slice_index", None) if device.platform == "tpu" else None
        groups.setdefault(number or 0, []).append(device)
    return [groups[number] for number in sorted(groups)]


def _arrange_devices(groups: Sequence[Sequence[Any]], sizes: tuple[int, ...]) -> np.ndarray:
    """Place devices so that the axes to the right have the fastest links; slices stand one behind the other."""
    inner = (sizes[0] // len(groups), *sizes[1:])
    try:
        parts = [mesh_utils.create_device_mesh(inner, group, allow_split_physical_axes=True) for group in groups]
    except (AssertionError, NotImplementedError, ValueError):  # part of a slice: no grid of links to go by
        parts = [np.asarray(group).reshape(inner) for group in groups]
    return np.concatenate(parts)


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
