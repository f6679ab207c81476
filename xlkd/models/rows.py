# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shards the rows of a batch over the mesh while an encoder computes."""

from __future__ import annotations

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

ROWS = ("data", "fsdp")  # mesh axes that the rows of a batch are spread over


def shard_rows(x: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """Keeps the rows spread over their mesh axes, where there is a mesh.

    Under FSDP the compiler then gathers a layer's parameters; without this it moves the hidden states of the rows.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(mesh.shape[axis] == 1 for axis in ROWS):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROWS, *(None,) * (x.ndim - 1)))
