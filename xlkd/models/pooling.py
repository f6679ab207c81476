# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pools the tokens of a text into one vector, and finds the nearest token of another text for each token."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

DESCRIBED = {"cls": "the first position", "mean": "the mean over all positions"}
POOLINGS = tuple(DESCRIBED)


def pool(
    states: Float[Array, "rows length hidden"], mask: Shaped[Array, "rows length"], how: str
) -> Float[Array, "rows hidden"]:
    """Returns one vector a row, in float32 at least: the first position (`cls`), or the mean over the mask (`mean`)."""
    (states,) = _at_least_float32(states)
    if how == "cls":
        return states[:, 0]
    weights = mask[..., None].astype(states.dtype)
    return (states * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)


def find_nearest(
    x: Float[Array, "rows x_length hidden"],
    y: Float[Array, "rows y_length hidden"],
    x_mask: Shaped[Array, "rows x_length"],
    y_mask: Shaped[Array, "rows y_length"],
) -> tuple[Int[Array, "rows x_length"], Int[Array, "rows y_length"]]:
    """Returns for each token of x the position of the nearest token of y by cosine, and the reverse."""
    x, y = (v / jnp.maximum(jnp.linalg.norm(v, axis=-1, keepdims=True), 1e-12) for v in _at_least_float32(x, y))
    similarity = jnp.einsum("bid,bjd->bij", x, y)
    forth = jnp.where(y_mask[:, None, :], similarity, -jnp.inf).argmax(2)
    return forth, jnp.where(x_mask[:, :, None], similarity, -jnp.inf).argmax(1)


def _at_least_float32(*arrays: jax.Array) -> list[jax.Array]:
    return [array.astype(jnp.promote_types(array.dtype, jnp.float32)) for array in arrays]
