# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A loss is a dict of terms: sums and counts that add up over rows, micro-batches and devices, divided once."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

MASKED_SCORE = -1e30  # used as minus infinity: its product with 0 is 0, and its gradient is finite


class Term(NamedTuple):
    """A part of the differentiated scalar, weight · sum / count; absent where the count is 0."""

    sum: Float[Array, ""]
    count: Float[Array, ""]
    weight: Float[Array, ""] | float = 1.0


def make_term(
    values: Float[Array, "*axes"], mask: Shaped[Array, "*axes"], weight: Float[Array, ""] | float = 1.0
) -> Term:
    """Sums and counts the values (of rows, of tokens) where the mask is set; the others may be anything, NaN too."""
    mask = mask.astype(bool)
    return Term(jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask, dtype=values.dtype), weight)


def mean(term: Term) -> Float[Array, ""]:
    """Returns sum / count, without the weight; 0 where nothing was counted."""
    is_counted = term.count > 0
    return jnp.where(is_counted, term.sum, 0) / jnp.where(is_counted, term.count, 1)


def total(terms: dict[str, Term]) -> Float[Array, ""]:
    """Returns the scalar that is differentiated: Σ weight · sum / count."""
    return sum((term.weight * mean(term) for term in terms.values()), jnp.zeros(()))


def number_groups(rows: Shaped[Array, " rows"], size: int) -> Int[Array, " rows"]:
    """Returns for each row the number of its group of `size` consecutive real rows; with size 0 there is one group.

    Padded rows do not count, so the groups are the same wherever padding stands; a padded row's number means nothing.
    """
    order = jnp.cumsum(rows.astype(jnp.int32)) - rows.astype(jnp.int32)
    return order // size if size else jnp.zeros_like(order)


def at_least_float32(x: Shaped[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Widens half precision, in which no softmax, norm or sum is taken; float64 stays."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
