# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""AdamW, its learning rate as a function of the step, and the mask of the parameters that decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from xlkd.methods import Step, Tree
from xlkd.spec.optim import Optim

LearningRate = Callable[[Step], Float[Array, ""]]


def make_schedule(settings: Optim, steps: int) -> LearningRate:
    """Makes the learning rate by step: a linear warm-up, then constant, or linear or cosine to 0 at the last step.

    A warm-up begins at 0. If it is shorter than a step, there is none: a run of one step would learn nothing.
    """
    warmup = settings.warmup * steps if settings.warmup < 1 else settings.warmup
    warmup = warmup if warmup >= 1 else 0

    def rate(step: Step) -> Float[Array, ""]:
        s = jnp.asarray(step, jnp.float32)
        rising = s / warmup if warmup else jnp.ones_like(s)
        left = jnp.clip((steps - s) / max(steps - warmup, 1.0), 0.0, 1.0)
        falling = SHAPES[settings.schedule](left)
        return settings.lr * jnp.where(s < warmup, rising, falling)

    return rate


MATRICES = ("kernel", "words", "positions", "types", "relative")

SHAPES: dict[str, Callable[[jax.Array], jax.Array]] = {  # of the share of the steps that is left
    "constant": lambda left: jnp.ones_like(left),
    "linear": lambda left: left,
    "cosine": lambda left: 0.5 * (1 - jnp.cos(jnp.pi * left)),
}


def make_optimizer(settings: Optim) -> optax.GradientTransformationExtraArgs:
    """Makes Adam's direction with decoupled weight decay; the step multiplies it by the learning rate."""
    return optax.chain(
        scale_by_adam(settings.b1, settings.b2, settings.eps),
        optax.add_decayed_weights(settings.weight_decay, mask=DECAY_MASKS[settings.decay_mask]),
    )


def scale_by_adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformationExtraArgs:
    """Makes `optax.scale_by_adam`, whose moments stay as they are where `update` is called with `ok=False`.

    On a CPU the new moments are stored before the direction is computed from them. XLA would compute the direction from
    the previous moments, which it has to copy for that, because the new ones take their place.
    """
    adam = optax.scale_by_adam(b1, b2, eps)

    def update(
        updates: Tree,
        state: Any,
        params: Tree | None = None,
        *,
        ok: Bool[Array, ""] | bool = True,
        **_: Any,
    ) -> tuple[Tree, Any]:
        moments: Any = adam.update(updates, state, params)[1]
        moments = jax.tree.map(lambda new, old: jnp.where(ok, new, old), moments, state)
        moments = jax.lax.platform_dependent(moments, cpu=jax.lax.optimization_barrier, default=lambda x: x)
        mean = optax.tree.bias_correction(moments.mu, b1, moments.count)
        square = optax.tree.bias_correction(moments.nu, b2, moments.count)
        return jax.tree.map(lambda m, s: m / (jnp.sqrt(s) + eps), mean, square), moments

    return optax.GradientTransformationExtraArgs(adam.init, update)


def mask_matrices(params: Tree) -> Tree:
    """Returns True for kernels and embeddings, False for biases and norms.

    Names decide, not the number of axes: in a stack of layers a bias is a matrix too.
    """

    def is_matrix(path: tuple[Any, ...], _: jax.Array) -> bool:
        return path[-1].key in MATRICES

    return jax.tree_util.tree_map_with_path(is_matrix, params)


DECAY_MASKS: dict[str, Callable[[Tree], Tree] | None] = {"matrices": mask_matrices, "all": None}


def clip_gradients(gradients: Tree, norm: Float[Array, ""], limit: float) -> Tree:
    """Scales gradients down to a global norm of at most `limit`; with a limit of 0 they stay as they are."""
    if not limit:
        return gradients
    scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda g: g * scale, gradients)
