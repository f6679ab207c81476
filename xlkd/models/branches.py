# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""An encoder cut in two: a trunk of lower layers that all languages share, and K branches of upper ones, stacked."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlkd.models import encoder as encoders
from xlkd.models.encoder import Encoder, Params, forward_flops

WHOLE = "branches"  # the export that holds all of them
MIXTURE = "mixture"  # the route through all of them


def split(encoder: Params, count: int, top: int) -> tuple[Params, Params]:
    """The trunk, and `count` branches that are copies of the `top` upper layers [count, top, …]."""
    trunk = {"embeddings": encoder["embeddings"], "layers": jax.tree.map(lambda x: x[:-top], encoder["layers"])}
    return trunk, jax.tree.map(lambda x: jnp.repeat(x[None, -top:], count, axis=0), encoder["layers"])


def join(trunk: Params, branches: Params, k: int) -> Params:
    """The ordinary encoder that the trunk and one branch are."""
    layers = jax.tree.map(lambda below, above: jnp.concatenate([below, above[k]]), trunk["layers"], branches)
    return {"embeddings": trunk["embeddings"], "layers": layers}


def pad_branches(tree: Params, multiple: int) -> Params:
    """Copies of the last branch behind it, so that a mesh axis divides their number; they are never weighed."""
    return jax.tree.map(lambda x: jnp.concatenate([x, *[x[-1:]] * (-len(x) % multiple)]), tree)


def count(branches: Params) -> int:
    """How many there are, those that only fill a mesh axis included."""
    return len(jax.tree.leaves(branches)[0])


def run_trunk(encoder: Encoder, trunk: Params, text: Params, key: jax.Array | None = None) -> jax.Array:
    """What all branches read [rows, length, D]."""
    hidden = encoders.embed(
        encoder.architecture, trunk["embeddings"], text["ids"], text["types"], dtype=encoder.dtype, key=key
    )
    if not count(trunk["layers"]):
        return hidden
    bias = encoders.attention_bias(text["mask"])
    return encoders.run_layers(encoder.architecture, trunk["layers"], hidden, bias, **_options(encoder, key))[-1]


def run_branches(
    encoder: Encoder, branches: Params, hidden: jax.Array, mask: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """The first token behind each branch [K, rows, D]; dropout differs by branch."""
    below = encoder.architecture.layers - jax.tree.leaves(branches)[0].shape[1]
    bias = encoders.attention_bias(mask)

    def first(layers: Params, k: jax.Array) -> jax.Array:
        options = _options(encoder, None if key is None else jax.random.fold_in(key, k))
        return encoders.run_layers(encoder.architecture, layers, hidden, bias, first=below, **options)[-1][:, 0]

    return jax.vmap(first)(branches, jnp.arange(count(branches)))


def flops(architecture: encoders.Architecture, branches: int, top: int, tokens: int, rows: int) -> float:
    """Forward, all branches run."""
    return forward_flops(architecture, tokens, rows) * (1 + (branches - 1) * top / architecture.layers)


def _options(encoder: Encoder, key: jax.Array | None) -> dict:
    return {"dtype": encoder.dtype, "scan": encoder.scan, "remat": encoder.remat, "key": key}
