# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of masked tokens against the original ones: pre-training, and the token level of MMKD."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Shaped

from xlkd.losses.terms import Term, at_least_float32, make_term


def masked_lm_term(
    logits: Float[Array, "*axes vocabulary"],
    ids: Integer[Array, "*axes"],
    counted: Shaped[Array, "*axes"],
    weight: float = 1.0,
) -> Term:
    """Returns the cross-entropy against the original ids, at the positions that count."""
    log_q = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    return make_term(-jnp.take_along_axis(log_q, ids[..., None], axis=-1)[..., 0], counted, weight)
