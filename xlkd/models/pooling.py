# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One vector of a text, and which piece of another text lies nearest to each of its pieces."""

from __future__ import annotations

import jax
import jax.numpy as jnp

DESCRIBED = {"cls": "the first position", "mean": "the mean over all positions"}
POOLINGS = tuple(DESCRIBED)


def pool(hidden: jax.Array, mask: jax.Array, how: str) -> jax.Array:
    """[rows, length, D] -> [rows, D], not in half precision: the first position, or the mean of all that are there."""
    (hidden,) = _real(hidden)
    if how == "cls":
        return hidden[:, 0]
    weights = mask[..., None].astype(hidden.dtype)
    return (hidden * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)


def nearest(x: jax.Array, y: jax.Array, x_mask: jax.Array, y_mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each piece of x [rows, length, D] the place of the nearest of y by cosine, and the other way round."""
    x, y = (v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-12) for v in _real(x, y))
    similarity = jnp.einsum("bid,bjd->bij", x, y)
    forth = jnp.where(y_mask[:, None, :], similarity, -jnp.inf).argmax(2)
    return forth, jnp.where(x_mask[:, :, None], similarity, -jnp.inf).argmax(1)


def _real(*arrays: jax.Array) -> list[jax.Array]:
    return [array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in arrays]
