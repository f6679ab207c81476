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
OwnRows = Callable[[Tree, Tree], tuple[Tree, Tree, Tree, Tree]]  # as GradientLayout.run_on_own_rows takes it

AXES = ("data", "fsdp", "tensor", "branch")
SAME = PartitionSpec()  # every device has all of it
LANES = 128
TILE = 8  # a TPU stores and exchanges arrays in tiles of 8 × 128 values; the divided dimension is that of 8

# Path of a leaf (parameters, moments and teacher alike) -> mesh axes of its last dimensions; first match wins.
# _choose_partition says what becomes of an axis that does not divide its dimension.
TABLE = (
    (r"branches/((position_)?(query|key)|value|gate|up)/kernel$", ("branch", None, "fsdp", "tensor")),
    (r"branches/(output|down)/kernel$", ("branch", None, "tensor", "fsdp")),
    (r"branches/", ("branch", None, None)),  # biases and norms: branch, layer, width
    (r"embeddings/words$", ("tensor", "fsdp")),
    (r"layers/((position_)?(query|key)|value|gate|up)/kernel$", ("fsdp", "tensor")),
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


@dataclasses.dataclass(frozen=True)
class GradientLayout:
    """Describes how the devices share the gradient and the update of a step; the default is that of one device."""

    own: tuple[str, ...] = ()  # axes along which devices keep the gradient of their own rows until the end of the step
    is_hybrid: bool = False  # whether parameters are divided over another axis
    params: Tree = None  # shardings of the parameters
    moments: Tree = None  # shardings of gradient, moments and update, where they are divided further
    sum_dtype: str = "auto"  # type of the sum over these axes; auto: that in which the gradient was computed

    def sums_at_end(self, *, is_coupled: bool) -> bool:
        """Returns whether the gradient is summed after the backward pass even if that has only one micro-batch.

        Under hybrid FSDP this spares sums of complete tables, unless coupled terms would need a second forward pass.
        """
        is_asked = self.sum_dtype != "auto" or self.moments is not None
        return bool(self.own) and (is_asked or (self.is_hybrid and not is_coupled))

    def run_on_own_rows(self, function: OwnRows, rows: Tree, shared: Tree, gradient: Tree = SAME) -> Any:
        """Runs `function(rows, shared)` -> (sums, results by row, others, gradient) with the rows of each device.

        The rows are on the second axis, as those of the results. Sums are added up over the devices; the function
        itself does this with the gradient, by `sum_gradient`, which leaves it in the partition `gradient`.
        """
        if not self.own:
            return function(rows, shared)

        def run(rows: Tree, shared: Tree) -> tuple[Tree, Tree, Tree, Tree]:
            sums, *results = function(rows, shared)
            return jax.lax.psum(sums, self.own), *results

        by_row = PartitionSpec(None, self.own)
        # Unchecked: the results of a method's loss do not say over which axes they vary
        run_on_devices = jax.shard_map(
            run,
            in_specs=(by_row, SAME),
            out_specs=(SAME, by_row, SAME, gradient),
            axis_names=set(self.own),
            check_vma=False,
        )
        return run_on_devices(rows, shared)

    @property
    def gradient(self) -> Tree:
        """Returns the partition in which `sum_gradient` leaves a gradient: divided over fsdp as its moments are."""
        if self.moments is None:
            return SAME
        return jax.tree.map(
            lambda s: PartitionSpec(*("fsdp" if axis == "fsdp" else None for axis in s.spec)), self.moments
        )

    def sum_gradient(self, gradient: Tree) -> Tree:
        """Adds up the gradient of the devices' own rows; of what is divided over fsdp each device gets its own part."""
        if not self.own:
            return gradient

        def add_up(own: jax.Array, partition: PartitionSpec) -> jax.Array:
            if "fsdp" not in partition:
                return jax.lax.psum(own, self.own)
            part = jax.lax.psum_scatter(own, "fsdp", scatter_dimension=partition.index("fsdp"), tiled=True)
            return jax.lax.psum(part, "data")

        def add_up_rounded(own: jax.Array, partition: PartitionSpec) -> jax.Array:
            def add_up_float32(own: jax.Array) -> jax.Array:
                """Sums rounded values in float32, because XLA for CPUs fails on sums in bfloat16."""
                return add_up(jax.lax.reduce_precision(own, exponent_bits=8, mantissa_bits=7), partition)

            def add_up_bfloat16(own: jax.Array) -> jax.Array:
                return add_up(own.astype(jax.numpy.bfloat16), partition).astype(own.dtype)

            return jax.lax.platform_dependent(own, cpu=add_up_float32, default=add_up_bfloat16)

        add_up_leaf = add_up_rounded if self.sum_dtype == "bfloat16" else add_up
        if self.moments is None:
            return jax.tree.map(lambda own: add_up_leaf(own, SAME), gradient)
        return jax.tree.map(add_up_leaf, gradient, self.gradient)

    def shard_like_params(self, tree: Tree) -> Tree:
        """Shards a tree as the parameters are, so that a device never has more of it than of these."""
        return self._shard(tree, self.params)

    def shard_update(self, tree: Tree) -> Tree:
        """Shards a gradient, or new parameters, as the moments are, where these are divided further."""
        return self._shard(tree, self.moments)

    def _shard(self, tree: Tree, shardings: Tree) -> Tree:
        if shardings is None:
            return tree
        return jax.tree.map(lambda x, s: jax.lax.with_sharding_constraint(x, s.spec), tree, shardings)


ONE_DEVICE = GradientLayout()


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


def make_shardings(mesh: Mesh, tree: Tree, axes: Sequence[str] = AXES) -> Tree:
    """Returns the sharding of each leaf of a tree of arrays or shapes; only these axes divide it."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _choose_partition(mesh, path, leaf.shape, axes)), tree
    )


def pad_vocabulary(mesh: Mesh, encoder: Tree) -> Tree:
    """Appends tokens to an encoder's word embeddings where the axis `tensor` would not divide them; they are zeros."""
    if mesh.shape["tensor"] == 1:
        return encoder
    words = encoder["embeddings"]["words"]
    missing = -len(words) % (mesh.shape["tensor"] * mesh.shape["fsdp"] * find_tile(mesh))
    if not missing:
        return encoder
    return encoder | {"embeddings": encoder["embeddings"] | {"words": jax.numpy.pad(words, ((0, missing), (0, 0)))}}


def find_tile(mesh: Mesh) -> int:
    """Returns the number of values of a divided dimension that the devices store and exchange together."""
    return TILE if mesh.devices.flat[0].platform == "tpu" else 1


def count_tiled_values(mesh: Mesh, shape: tuple[int, ...]) -> int:
    """Counts the values of an array as a device stores it: on a TPU in whole tiles, the better way round."""
    if find_tile(mesh) == 1 or len(shape) < 2:
        return math.prod(shape)
    *outer, a, b = shape
    areas = (-(-rows // TILE) * TILE * -(-lanes // LANES) * LANES for rows, lanes in ((a, b), (b, a)))
    return math.prod(outer) * min(areas)


def list_parameter_axes(settings: MeshSettings) -> tuple[str, ...]:
    """Lists the axes that divide parameters; all of them divide the moments."""
    return tuple(axis for axis in AXES if axis != "fsdp" or settings.fsdp_shards == "parameters")


def lay_out_gradient(mesh: Mesh, settings: MeshSettings, params: Tree, moments: Tree) -> GradientLayout:
    """Returns how the devices share the gradient of parameters that, like their moments, have these shardings."""
    if mesh.size == 1:
        return ONE_DEVICE
    is_divided = settings.fsdp_shards == "moments" and mesh.shape["fsdp"] > 1
    own = ROWS if is_divided else ("data",)
    own = own if math.prod(mesh.shape[axis] for axis in own) > 1 else ()
    is_hybrid = mesh.shape["fsdp"] > 1 and not is_divided
    return GradientLayout(own, is_hybrid, params, moments if is_divided else None, settings.sum_dtype)


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


def _choose_partition(
    mesh: Mesh, path: Sequence[Any], shape: tuple[int, ...], allowed: Sequence[str] = AXES
) -> PartitionSpec:
    """Returns the mesh axes of a leaf by its path in the tree.

    An axis that leaves less than a tile of its dimension on a device, or no whole number of them, goes to the other
    dimension of the table's entry, or is left out: a TPU would exchange such parts as complete arrays.
    """
    name = "/".join(str(getattr(part, "key", getattr(part, "name", part))) for part in path)
    axes = next(axes for pattern, axes in TABLE if re.search(pattern, name))
    axes = axes[-len(shape) :] if shape else ()
    full = (None,) * (len(shape) - len(axes)) + axes
    full = tuple(axis if axis in allowed else None for axis in full)
    if name.endswith("words"):
        return _divide_words(mesh, shape, *full)
    tile = find_tile(mesh)
    parts: list[tuple[str, ...]] = [() for _ in shape]

    def fits(place: int, axis: str) -> bool:
        devices = math.prod(mesh.shape[other] for other in (*parts[place], axis))
        return shape[place] % devices == 0 and (mesh.shape[axis] == 1 or shape[place] // devices % tile == 0)

    for place, axis in enumerate(full):
        if axis is None:
            continue
        other = next((at for at, name in enumerate(full) if {axis, name} == {"fsdp", "tensor"}), place)
        places = (place, other) if axis == "fsdp" else (place,)
        if (best := next((at for at in places if fits(at, axis)), None)) is not None:
            parts[best] += (axis,)
    return PartitionSpec(*(part[0] if len(part) == 1 else part or None for part in parts))


def _divide_words(mesh: Mesh, shape: tuple[int, ...], *axes: str | None) -> PartitionSpec:
    """Returns the mesh axes of a table of word embeddings: of tokens, or of columns, which each device looks up itself.

    Both dimensions are never divided: XLA ends in a failed check where rows are on a manual axis as well.
    """
    tokens, width = (
        axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True)
    )
    if tokens and width and mesh.shape[tokens] > 1 and mesh.shape[width] > 1:
        fits = shape[0] % (mesh.shape[tokens] * mesh.shape[width]) == 0
        return PartitionSpec((tokens, width), None) if fits else PartitionSpec(None, width)
    return PartitionSpec(tokens, width)
