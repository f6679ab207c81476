# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Where the rows of a batch lie while an encoder computes."""

from __future__ import annotations

import jax
from jax.sharding import PartitionSpec

ROWS = ("data", "fsdp")  # mesh axes that the rows of a batch are spread over


def shard_rows(x: jax.Array) -> jax.Array:
    """Keep [rows, …] spread over its axes, where a mesh is known.

    Under FSDP the compiler then gathers a layer's parameters; left to itself it moves what the rows became.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(mesh.shape[axis] == 1 for axis in ROWS):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROWS, *(None,) * (x.ndim - 1)))
