# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A loss is a dict of terms: sums and counts that add up over rows, micro-batches and devices, divided once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

NEVER = -1e30  # stands for minus infinity: 0 times it is 0, and its gradient is finite


class Term(NamedTuple):
    """weight · sum / count of the differentiated scalar; absent where the count is 0."""

    sum: jax.Array
    count: jax.Array
    weight: jax.Array | float = 1.0


def over(values: jax.Array, mask: jax.Array, weight: jax.Array | float = 1.0) -> Term:
    """The term of the values (of rows, of tokens) where the mask is set; what lies elsewhere may be anything."""
    mask = mask.astype(bool)
    return Term(jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask, dtype=values.dtype), weight)


def mean(term: Term) -> jax.Array:
    """sum / count, without the weight; 0 where nothing was counted."""
    any_ = term.count > 0
    return jnp.where(any_, term.sum, 0) / jnp.where(any_, term.count, 1)


def total(terms: dict[str, Term]) -> jax.Array:
    """The scalar that is differentiated: Σ weight · sum / count."""
    return sum((term.weight * mean(term) for term in terms.values()), jnp.zeros(()))


def groups(rows: jax.Array, size: int) -> jax.Array:
    """For each row the number of its group of `size` consecutive real rows [rows]; size 0: one group.

    Padded rows do not count, so the groups are the same wherever padding stands; a padded row's number means nothing.
    """
    order = jnp.cumsum(rows.astype(jnp.int32)) - rows.astype(jnp.int32)
    return order // size if size else jnp.zeros_like(order)


def real(x: jax.Array) -> jax.Array:
    """At least float32: softmaxes, norms and sums are not taken in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
