# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""AdamW with its schedule as a function of the state's step, and a mask that decides what decays."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from xlkd.spec.optim import Optim


def schedule(settings: Optim, steps: int) -> Callable[[jax.Array], jax.Array]:
    """Learning rate by step: a linear warm-up, then constant, linear or cosine to 0 at the last step.

    A warm-up begins at 0. One of less than a step is none: a run of one step would learn nothing.
    """
    warmup = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    warmup = warmup if warmup >= 1 else 0

    def rate(step):
        s = jnp.asarray(step, jnp.float32)
        rising = s / warmup if warmup else jnp.ones_like(s)
        left = jnp.clip((steps - s) / max(steps - warmup, 1.0), 0.0, 1.0)
        falling = SHAPES[settings.schedule](left)
        return settings.lr * jnp.where(s < warmup, rising, falling)

    return rate


MATRICES = ("kernel", "words", "positions", "types")

SHAPES = {
    "constant": lambda left: jnp.ones_like(left),
    "linear": lambda left: left,
    "cosine": lambda left: 0.5 * (1 - jnp.cos(jnp.pi * left)),
}


def optimizer(settings: Optim) -> optax.GradientTransformation:
    """Adam's direction with decoupled decay; the loop multiplies it by the learning rate."""
    return optax.chain(
        optax.scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps),
        optax.add_decayed_weights(settings.weight_decay, mask=DECAY_MASKS[settings.decay_mask]),
    )


def decay_matrices(params):
    """True for kernels and embeddings, false for biases and norms, whose stacked form has an axis more."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in MATRICES, params)


DECAY_MASKS = {"matrices": decay_matrices, "all": None}


def clip(gradients, norm: jax.Array, limit: float):
    """Gradients scaled down to a global norm of `limit`; 0 leaves them alone."""
    if not limit:
        return gradients
    scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda g: g * scale, gradients)
