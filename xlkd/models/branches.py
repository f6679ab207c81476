# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Divides an encoder into a trunk of lower layers, which all languages share, and K stacked branches of upper ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from xlkd.models import encoder as encoders
from xlkd.models.encoder import Encoder, forward_flops
from xlkd.models.families import find_family
from xlkd.models.family import Architecture, Params, count_stacked

WHOLE = "branches"  # the export with all branches
MIXTURE = "mixture"  # the route through all branches


def split_encoder(encoder: Params, count: int, top: int) -> tuple[Params, Params]:
    """Returns the trunk, and `count` branches that are copies of the `top` upper layers [count, top, …]."""
    trunk = encoder | {"layers": jax.tree.map(lambda x: x[:-top], encoder["layers"])}
    return trunk, jax.tree.map(lambda x: jnp.repeat(x[None, -top:], count, axis=0), encoder["layers"])


def join_encoder(trunk: Params, branches: Params, k: int) -> Params:
    """Returns the trunk and branch k as an ordinary encoder."""
    layers = jax.tree.map(lambda below, above: jnp.concatenate([below, above[k]]), trunk["layers"], branches)
    return trunk | {"layers": layers}


def pad_branches(tree: Params, multiple: int) -> Params:
    """Appends copies of the last branch, so that a mesh axis divides their number; their weight is always 0."""
    return jax.tree.map(lambda x: jnp.concatenate([x, *[x[-1:]] * (-len(x) % multiple)]), tree)


def count_branches(branches: Params) -> int:
    """Returns the number of branches, including the padding branches that fill a mesh axis."""
    return count_stacked(branches)


def run_trunk(
    encoder: Encoder, trunk: Params, text: Mapping[str, jax.Array], key: PRNGKeyArray | None = None
) -> Float[Array, "rows length hidden"]:
    """Returns the hidden states that all branches read."""
    hidden = encoders.embed(
        encoder.architecture, trunk["embeddings"], text["ids"], text["types"], dtype=encoder.dtype, key=key
    )
    if not count_stacked(trunk["layers"]):
        return hidden
    prepared = _prepare(encoder, trunk, text["mask"])
    return encoders.run_layers(
        encoder.architecture, trunk["layers"], hidden, prepared, **_list_layer_options(encoder, key)
    )[-1]


def run_branches(
    encoder: Encoder,
    trunk: Params,
    branches: Params,
    hidden: Float[Array, "rows length hidden"],
    mask: Shaped[Array, "rows length"],
    key: PRNGKeyArray | None = None,
) -> Float[Array, "branches rows hidden"]:
    """Returns what a classifier reads of each branch's last hidden states; dropout differs between branches.

    Of the trunk it needs what all layers share, and what follows the last one.
    """
    architecture, family = encoder.architecture, find_family(encoder.architecture)
    below = architecture.layers - jax.tree.leaves(branches)[0].shape[1]
    prepared = _prepare(encoder, trunk, mask)

    def run_branch(layers: Params, k: Int[Array, ""]) -> Float[Array, "rows hidden"]:
        options = _list_layer_options(encoder, None if key is None else jax.random.fold_in(key, k))
        last = encoders.run_layers(architecture, layers, hidden, prepared, first=below, **options)[-1]
        return family.pool(architecture, family.finish(architecture, trunk.get("final", {}), last), mask)

    return jax.vmap(run_branch)(branches, jnp.arange(count_branches(branches)))


def flops(architecture: Architecture, branches: int, top: int, tokens: int, rows: int) -> float:
    """Returns the operations of a forward pass through the trunk and all branches."""
    return forward_flops(architecture, tokens, rows) * (1 + (branches - 1) * top / architecture.layers)


def _prepare(encoder: Encoder, trunk: Params, mask: Shaped[Array, "rows length"]) -> Any:
    """Returns what the family prepares for all layers."""
    architecture = encoder.architecture
    return find_family(architecture).prepare(architecture, trunk["embeddings"], mask, encoder.dtype)


def _list_layer_options(encoder: Encoder, key: PRNGKeyArray | None) -> dict[str, Any]:
    return {"dtype": encoder.dtype, "scan": encoder.scan, "remat": encoder.remat, "key": key}
