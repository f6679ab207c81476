# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dropout by a hash of key, place and position: the same mask however arrays are divided, at almost no cost.

JAX's generators mix well enough for any use; a dropout mask needs only two rounds of multiply and shift, which XLA
fuses into the multiplication by the mask. docs/performance.md says what each costs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray, UInt32

from xlkd.models.rows import number_rows

# Odd multipliers with a good spread of bits; 2^32 over the golden ratio, and two constants found by hash prospecting
_GOLDEN, _FIRST, _SECOND = (np.uint32(x) for x in (0x9E3779B9, 0x7FEB352D, 0x846CA68B))


def dropout(
    x: Float[Array, "*axes"],
    rate: float,
    key: PRNGKeyArray | None,
    *place: Integer[Array, ""] | int,
    first: int = 0,
    groups: int = 1,
) -> Float[Array, "*axes"]:
    """Sets a share `rate` of the values to 0 and scales the others up; returns x itself without a key.

    `place` distinguishes calls with the same key: the number of a layer, a site within it. Where x is a part of a
    larger array, `first` is the index in each of its rows where the part begins. Axis 0 may have several groups, each
    with all rows of the batch; without groups the array has no rows of the batch, but is the same on all devices.
    """
    if key is None or rate == 0:
        return x
    keep = random_bits(key, x.shape, *place, first=first, groups=groups) >= np.uint32(
        min(round(rate * 2**32), 2**32 - 1)
    )
    return jnp.where(keep, x * (1 / (1 - rate)), 0).astype(x.dtype)


def random_bits(
    key: PRNGKeyArray, shape: tuple[int, ...], *place: Integer[Array, ""] | int, first: int = 0, groups: int = 1
) -> UInt32[Array, " ..."]:
    """Returns uniform words of 32 bits, each a function of key, place and its own index; axis 0 is that of rows.

    Where the array is a part of a larger one, `first` is the index in each of its rows where the part begins.
    """
    rows, *inner = shape
    a: jax.Array | np.uint32 = _GOLDEN
    b: jax.Array | np.uint32 = _SECOND
    for word in (*jax.random.key_data(key), *place, number_rows(rows, groups)):
        word = jnp.asarray(word).astype(jnp.uint32)
        a, b = _mix(word, a, b), _mix(word + _GOLDEN, b, a)
    a, b = (jnp.reshape(x, (rows, *[1] * len(inner))) for x in (a, b))
    index, stride = jnp.full((1, *inner), np.uint32(first)), 1
    for axis in range(len(inner), 0, -1):
        index += jax.lax.broadcasted_iota(jnp.uint32, (1, *inner), axis) * np.uint32(stride)
        stride *= shape[axis]
    return _mix(index, a, b)


def _mix(
    x: UInt32[Array, " ..."], a: UInt32[Array, " ..."] | np.uint32, b: UInt32[Array, " ..."] | np.uint32
) -> UInt32[Array, " ..."]:
    """Mixes in two rounds; b enters between them, so that equal words a do not make equal streams."""
    x = x ^ a
    x = (x ^ (x >> 16)) * _FIRST + b
    x = (x ^ (x >> 15)) * _SECOND
    return x ^ (x >> 16)
