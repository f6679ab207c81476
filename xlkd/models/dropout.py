# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Dropout whose bits are a hash of key, place and position: the same however arrays are cut, and almost for nothing.

JAX's own generators mix for the sake of any use; for a mask of dropout two rounds of multiply and shift do, and XLA
fuses them into the multiplication that they decide. docs/performance.md has what each costs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# Odd multipliers with a good spread of bits; 2^32 over the golden ratio, and two finds of hash prospecting
_GOLDEN, _FIRST, _SECOND = (np.uint32(x) for x in (0x9E3779B9, 0x7FEB352D, 0x846CA68B))


def dropout(x: jax.Array, rate: float, key: jax.Array | None, *place: jax.Array | int, first: int = 0) -> jax.Array:
    """x with a share `rate` of its values set to 0 and the rest scaled up; without a key x itself.

    `place` tells apart those who share a key: the number of a layer, a site within it. `first`: see `bits`.
    """
    if key is None or rate == 0:
        return x
    keep = bits(key, x.shape, *place, first=first) >= np.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(keep, x * (1 / (1 - rate)), 0).astype(x.dtype)


def bits(key: jax.Array, shape: tuple[int, ...], *place: jax.Array | int, first: int = 0) -> jax.Array:
    """Uniform words of 32 bits, each a function of key, place and its own index; axis 0 is that of rows.

    Where an array is a stretch of a larger one, `first` is where in each row of that one it begins.
    """
    rows, *inner = shape
    a, b = _GOLDEN, _SECOND
    for word in (*jax.random.key_data(key), *place, jnp.arange(rows)):
        word = jnp.asarray(word).astype(jnp.uint32)
        a, b = _mixed(word, a, b), _mixed(word + _GOLDEN, b, a)
    a, b = (x.reshape(rows, *[1] * len(inner)) for x in (a, b))
    index, stride = jnp.full((1, *inner), np.uint32(first)), 1
    for axis in range(len(inner), 0, -1):
        index += jax.lax.broadcasted_iota(jnp.uint32, (1, *inner), axis) * np.uint32(stride)
        stride *= shape[axis]
    return _mixed(index, a, b)


def _mixed(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Two rounds; the second word enters between them, so that equal first words do not make equal streams."""
    x = x ^ a
    x = (x ^ (x >> 16)) * _FIRST + b
    x = (x ^ (x >> 15)) * _SECOND
    return x ^ (x >> 16)
