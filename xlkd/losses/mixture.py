# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One answer out of K language branches: their weights for each row, and the mixture at the level that was chosen."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlkd.losses.terms import NEVER, real


def allowed(own: jax.Array, branches: int, *, real_branches: int | None = None, keep_own: bool = False) -> jax.Array:
    """Which branches are mixed for each row [rows, branches]: all but its own.

    own: the branch of the row's language, -1 where it has none. Branches from `real_branches` on are padding.
    """
    k = jnp.arange(branches)[None, :]
    exists = k < (branches if real_branches is None else real_branches)
    return jnp.broadcast_to(exists, (len(own), branches)) & (keep_own | (k != own[:, None]))


def uniform(allowed: jax.Array) -> jax.Array:
    """log w [rows, branches], the same over the allowed branches, about -1e30 elsewhere."""
    return _normalised(jnp.zeros(allowed.shape), allowed)


def learned(scores: jax.Array, allowed: jax.Array) -> jax.Array:
    """log w = log softmax over the allowed branches of a vector [branches] that all rows share."""
    return _normalised(jnp.broadcast_to(scores[None, :], allowed.shape), allowed)


def dirichlet(key: jax.Array, place: jax.Array, alpha: float, allowed: jax.Array) -> jax.Array:
    """log w, w ~ Dirichlet(α) over the allowed branches; a draw a row, by its place in the global batch [rows]."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, place)
    draws = jax.vmap(lambda key: jax.random.loggamma(key, alpha, allowed.shape[1:]))(keys)
    return _normalised(draws, allowed)


def weights(log_weights: jax.Array, allowed: jax.Array) -> jax.Array:
    """w [rows, branches]; exactly 0 where a branch is left out, and all 0 where none is allowed."""
    return jnp.where(allowed, jnp.exp(log_weights), 0)


def mix(weights: jax.Array, of: jax.Array) -> jax.Array:
    """Σ_k w_bk x_kb of representations or logits [branches, rows, …]."""
    return jnp.einsum("bk,kb...->b...", weights, of)


def mix_probabilities(log_weights: jax.Array, logits: jax.Array, temperature: float = 1.0) -> jax.Array:
    """log Σ_k w_bk softmax(z_kb / T) of logits [branches, rows, classes]: log-probabilities at T."""
    log_q = jax.nn.log_softmax(real(logits) / temperature, axis=-1)
    return jax.nn.logsumexp(log_weights.T[:, :, None] + log_q, axis=0)


def _normalised(scores: jax.Array, allowed: jax.Array) -> jax.Array:
    # A log of a weight of 0 gives the right loss and a NaN gradient: the mask goes in before the softmax.
    return jax.nn.log_softmax(jnp.where(allowed, real(scores), NEVER), axis=-1)
