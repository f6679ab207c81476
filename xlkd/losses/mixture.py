# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mixes K language branches into one answer: the branches' weights for each row, and the mixture at a chosen level."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray

from xlkd.losses.terms import MASKED_SCORE, at_least_float32


def select_branches(
    own: Integer[Array, " rows"], branches: int, *, real_branches: int | None = None, keep_own: bool = False
) -> Bool[Array, "rows {branches}"]:
    """Returns which branches are mixed for each row: all but its own.

    `own` is the branch of the row's language, -1 where it has none. Branches from `real_branches` on are padding.
    """
    k = jnp.arange(branches)[None, :]
    exists = k < (branches if real_branches is None else real_branches)
    return jnp.broadcast_to(exists, (len(own), branches)) & (keep_own | (k != own[:, None]))


def uniform_log_weights(allowed: Bool[Array, "rows branches"]) -> Float[Array, "rows branches"]:
    """Returns log w, the same over the allowed branches and about -1e30 elsewhere."""
    return _normalise_log_weights(jnp.zeros(allowed.shape), allowed)


def learned_log_weights(
    scores: Float[Array, " branches"], allowed: Bool[Array, "rows branches"]
) -> Float[Array, "rows branches"]:
    """Returns log w = log softmax over the allowed branches of scores that all rows share."""
    return _normalise_log_weights(jnp.broadcast_to(scores[None, :], allowed.shape), allowed)


def dirichlet_log_weights(
    key: PRNGKeyArray, place: Integer[Array, " rows"], alpha: float, allowed: Bool[Array, "rows branches"]
) -> Float[Array, "rows branches"]:
    """Returns log w, w ~ Dirichlet(α) over the allowed branches; each row draws by its place in the global batch."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, place)
    draws = jax.vmap(lambda key: jax.random.loggamma(key, alpha, allowed.shape[1:]))(keys)
    return _normalise_log_weights(draws, allowed)


def weights_from_log(
    log_weights: Float[Array, "rows branches"], allowed: Bool[Array, "rows branches"]
) -> Float[Array, "rows branches"]:
    """Returns w: exactly 0 where a branch is left out, and all 0 where none is allowed."""
    return jnp.where(allowed, jnp.exp(log_weights), 0)


def mix(weights: Float[Array, "rows branches"], values: Float[Array, "branches rows ..."]) -> Float[Array, "rows ..."]:
    """Returns Σ_k w_bk x_kb of representations or logits."""
    return jnp.einsum("bk,kb...->b...", weights, values)


def mix_probabilities(
    log_weights: Float[Array, "rows branches"], logits: Float[Array, "branches rows classes"], temperature: float = 1.0
) -> Float[Array, "rows classes"]:
    """Returns log Σ_k w_bk softmax(z_kb / T): log-probabilities at temperature T."""
    log_q = jax.nn.log_softmax(at_least_float32(logits) / temperature, axis=-1)
    return jax.nn.logsumexp(log_weights.T[:, :, None] + log_q, axis=0)


def _normalise_log_weights(
    scores: Float[Array, "rows branches"], allowed: Bool[Array, "rows branches"]
) -> Float[Array, "rows branches"]:
    # A log of a weight of 0 gives the right loss and a NaN gradient: the mask goes in before the softmax.
    return jax.nn.log_softmax(jnp.where(allowed, at_least_float32(scores), MASKED_SCORE), axis=-1)
