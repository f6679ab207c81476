# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shards the rows of a batch over the mesh while an encoder computes."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, Integer

from xlkd.models.matmul import AnyArray

ROWS = ("data", "fsdp")  # mesh axes that the rows of a batch are spread over


def shard_rows(x: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """Keeps the rows spread over their mesh axes, where there is a mesh.

    Under FSDP the compiler then gathers a layer's parameters; without this it moves the hidden states of the rows.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in ROWS if axis not in mesh.manual_axes)
    if all(mesh.shape[axis] == 1 for axis in axes if not mesh.empty):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *(None,) * (x.ndim - 1)))


def number_rows(rows: int, groups: int = 1) -> Int[Array, " rows"]:
    """Returns the number of each row in the array of all devices, also where a device sees its own rows alone.

    An array of several groups of rows has first all rows of the first group. One of no groups is that of all devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in ROWS if axis in mesh.manual_axes)
    if not axes or not groups:
        return jnp.arange(rows)
    own, devices = rows // groups, math.prod(mesh.shape[axis] for axis in axes)
    first = own * (jnp.arange(groups) * devices + jax.lax.axis_index(axes))
    return (first[:, None] + jnp.arange(own)).reshape(rows)


def look_up(
    table: Float[AnyArray, "vocabulary hidden"], ids: Integer[AnyArray, "rows length"]
) -> Float[Array, "rows length hidden"]:
    """Returns the rows of a table, of which under FSDP each device has some columns.

    A device looks up its columns for the rows of all devices, and these exchange the result; without this the compiler
    sums the gradient of the complete table over the devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    is_divided = not mesh.empty and mesh.shape["fsdp"] > 1 == mesh.shape["tensor"] and "fsdp" not in mesh.manual_axes
    if not is_divided or table.shape[1] % mesh.shape["fsdp"]:
        return jnp.asarray(table)[ids]
    rows = tuple(axis for axis in ROWS if axis not in ("fsdp", *mesh.manual_axes)) or None
    ids = jax.lax.with_sharding_constraint(ids, PartitionSpec(rows, None))
    return jax.lax.with_sharding_constraint(jnp.asarray(table)[ids], PartitionSpec(rows, None, "fsdp"))
