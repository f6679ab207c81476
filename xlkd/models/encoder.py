# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs encoders of any family as pure functions of stacked parameters, which return every hidden state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, Shaped

from xlkd.errors import UserError
from xlkd.models.families import find_family
from xlkd.models.family import Architecture, Params, count_stacked
from xlkd.models.matmul import AnyArray

REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Encoder(nn.Module):
    """Computes `(ids, mask, types) -> (embeddings, layer 1, …, layer L)`, hidden states in the compute dtype.

    With `train=True` dropout draws from `key`, the same masks scanned and unrolled. `layers=n` runs only the first n.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        ids: Integer[AnyArray, "rows length"],
        mask: Shaped[AnyArray, "rows length"],
        types: Integer[AnyArray, "rows length"] | None = None,
        train: bool = False,
        layers: int | None = None,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "rows length hidden"], ...]:
        if train and key is None:
            raise ValueError("train=True needs a key for dropout")
        key = key if train else None
        family = find_family(self.architecture)
        tables = self.param("embeddings", family.init_embeddings, self.architecture, 0.02)
        stacked = self.param("layers", family.init_layers, self.architecture)
        final = family.init_final(self.architecture) and self.param(
            "final", lambda _: family.init_final(self.architecture)
        )
        stacked = stacked if layers is None else jax.tree.map(lambda x: x[:layers], stacked)
        hidden = embed(self.architecture, tables, ids, types, dtype=self.dtype, key=key)
        prepared = family.prepare(self.architecture, tables, mask, self.dtype)
        options = {"dtype": self.dtype, "scan": self.scan, "remat": self.remat, "key": key}
        states = run_layers(self.architecture, stacked, hidden, prepared, **options)
        if len(states) == self.architecture.layers:
            states = (*states[:-1], family.finish(self.architecture, final, states[-1]))
        return (hidden, *states)


def scan_by_device() -> bool:
    """Says whether to scan over layers: where compiling is slow (TPU, GPU), but not on CPU, where scans are slow."""
    return jax.default_backend() != "cpu"


def init(architecture: Architecture, key: PRNGKeyArray, embedding_scale: float = 0.02) -> Params:
    """Returns fresh parameters of an encoder: matrices normal(0, 0.02), word embeddings normal(0, embedding_scale)."""
    family = find_family(architecture)
    tables, layers = jax.random.split(key)
    params = {
        "embeddings": family.init_embeddings(tables, architecture, embedding_scale),
        "layers": family.init_layers(layers, architecture),
    }
    final = family.init_final(architecture)
    return params | {"final": final} if final else params


def embed(
    architecture: Architecture,
    tables: Params,
    ids: Integer[AnyArray, "rows length"],
    types: Integer[AnyArray, "rows length"] | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "rows length hidden"]:
    """Returns the input of the first layer."""
    if (length := ids.shape[-1]) > architecture.max_length:
        raise UserError(
            f"rows of {length} tokens do not fit an encoder of {architecture.max_length} positions",
            remedy="choose a shorter length",
        )
    return find_family(architecture).embed(architecture, tables, ids, types, dtype=dtype, key=key)


def run_layers(
    architecture: Architecture,
    stacked: Params,
    hidden: Float[Array, "rows length hidden"],
    prepared: Any,
    *,
    first: Int[Array, ""] | int = 0,
    dtype: DTypeLike = jnp.float32,
    scan: bool = False,
    remat: str = "none",
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "rows length hidden"], ...]:
    """Returns the output of each of the given layers: layers `first`, `first + 1`, … of an encoder, stacked.

    `prepared` is what the family prepares for all layers. The number tells a layer which one it is, also for dropout,
    so that a divided encoder draws the masks of the whole one.
    """
    run_layer = find_family(architecture).run_layer

    def layer(
        hidden: Float[Array, "rows length hidden"], params: Params, number: Int[Array, ""] | int
    ) -> Float[Array, "rows length hidden"]:
        return run_layer(architecture, params, hidden, prepared, dtype=dtype, key=key, number=number)

    if remat != "none":
        static = () if scan or not isinstance(first, int) else (2,)  # a known number stays one
        policy = _choose_remat_policy(remat)
        layer = jax.checkpoint(layer, policy=policy, prevent_cse=not scan, static_argnums=static)
    count = count_stacked(stacked)
    if not scan:
        states = []
        unstacked = jax.tree.map(jax.lax.unstack, stacked)  # its transpose is one stack, not a sum of padded slices
        for i in range(count):
            own = jax.tree.map(lambda _, x, i=i: x[i], stacked, unstacked)
            hidden = layer(hidden, own, first + i)
            states.append(hidden)
        return tuple(states)

    def body(
        hidden: Float[Array, "rows length hidden"], xs: tuple[Params, Int[Array, ""]]
    ) -> tuple[Float[Array, "rows length hidden"], Float[Array, "rows length hidden"]]:
        hidden = layer(hidden, *xs)
        return hidden, hidden

    last, states = jax.lax.scan(body, hidden, (stacked, first + jnp.arange(count)))
    # The last comes from the carry: where no other state is used, the stack of all states is never stored
    return (*(states[i] for i in range(count - 1)), last)[:count]


def _choose_remat_policy(remat: str) -> Callable[..., bool]:
    if remat not in REMAT:
        raise UserError(f"no remat policy {remat!r}", remedy=f"choose one of none, {', '.join(REMAT)}")
    return REMAT[remat]


def forward_flops(architecture: Architecture, tokens: float, rows: float) -> float:
    """Returns the FLOPs of the layers (2 for a multiply-add) for a number of real tokens in a number of rows.

    The compiler's own count takes the body of a scan over layers once.
    """
    return find_family(architecture).forward_flops(architecture, tokens, rows)
