# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The encoders of BERT's kind, as pure functions of stacked parameters, every hidden state returned as a value."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from xlkd.errors import UserError
from xlkd.models import rows
from xlkd.models.attention import attend
from xlkd.models.dropout import dropout
from xlkd.models.matmul import matmul

Params = dict[str, Any]

REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype))),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
MASKED = -1e9  # finite: a row without any valid key gives uniform weights, not NaN
EMBEDDINGS, ATTENTION_WEIGHTS, ATTENTION_OUTPUT, FEED_FORWARD = range(4)  # the sites of dropout


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What fixes the shapes and the arithmetic of an encoder."""

    model_type: str  # bert, roberta, xlm-roberta, camembert, distilbert
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    positions: int  # rows of the position table, as in the file
    types: int  # rows of the token type table; 0 = no table
    pad_id: int
    position_offset: int  # the first piece's row in the position table: 0, or pad_id + 1 in RoBERTa's family
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float = 0.1
    activation: str = "gelu"

    @property
    def max_length(self) -> int:
        """The longest row, special pieces included."""
        return self.positions - self.position_offset


class Encoder(nn.Module):
    """`(ids, mask, types) -> (embeddings, layer 1, …, layer L)`, each [rows, length, D] in the compute dtype.

    With `train=True` dropout draws from `key`, the same masks scanned and unrolled. `layers=n` runs the first n only.
    """

    architecture: Architecture
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        ids: jax.Array,
        mask: jax.Array,
        types: jax.Array | None = None,
        train: bool = False,
        layers: int | None = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        if train and key is None:
            raise ValueError("train=True needs a key for dropout")
        key = key if train else None
        tables = self.param("embeddings", init_embeddings, self.architecture)
        stacked = self.param("layers", init_layers, self.architecture)
        stacked = stacked if layers is None else jax.tree.map(lambda x: x[:layers], stacked)
        hidden = embed(self.architecture, tables, ids, types, dtype=self.dtype, key=key)
        options = {"dtype": self.dtype, "scan": self.scan, "remat": self.remat, "key": key}
        return (hidden, *run_layers(self.architecture, stacked, hidden, attention_bias(mask), **options))


def scan_by_device() -> bool:
    """Scanned where compiling is dear (TPU, GPU), unrolled on CPU, where the scan costs time at every step."""
    return jax.default_backend() != "cpu"


def init(architecture: Architecture, key: jax.Array, embedding_scale: float = 0.02) -> Params:
    """Fresh parameters of an encoder: matrices normal(0, 0.02), word embeddings normal(0, embedding_scale)."""
    tables, layers = jax.random.split(key)
    return {
        "embeddings": init_embeddings(tables, architecture, embedding_scale),
        "layers": init_layers(layers, architecture),
    }


def init_embeddings(key: jax.Array, architecture: Architecture, scale: float = 0.02) -> Params:
    """The tables before the first layer."""
    words, positions, types = jax.random.split(key, 3)
    D = architecture.hidden_size
    params = {
        "words": normal(words, (architecture.vocab_size, D), scale),
        "positions": normal(positions, (architecture.positions, D)),
        "norm": init_norm((D,)),
    }
    return params | ({"types": normal(types, (architecture.types, D))} if architecture.types else {})


def init_layers(key: jax.Array, architecture: Architecture) -> Params:
    """All layers, stacked on axis 0."""
    L, D, F = architecture.layers, architecture.hidden_size, architecture.intermediate_size
    keys = jax.random.split(key, 6)
    shapes = {"query": (D, D), "key": (D, D), "value": (D, D), "output": (D, D), "up": (D, F), "down": (F, D)}
    dense = {name: init_dense(k, (L, *shape)) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return dense | {"attention_norm": init_norm((L, D)), "norm": init_norm((L, D))}


def init_dense(key: jax.Array, shape: tuple[int, ...]) -> Params:
    """A linear map, kernel [..., in, out]."""
    return {"kernel": normal(key, shape), "bias": jnp.zeros((*shape[:-2], shape[-1]))}


def init_norm(shape: tuple[int, ...]) -> Params:
    """A layer norm that changes nothing but mean and variance."""
    return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}


def normal(key: jax.Array, shape: tuple[int, ...], scale: float = 0.02) -> jax.Array:
    """Normal(0, scale) in float32."""
    return scale * jax.random.normal(key, shape, jnp.float32)


def embed(
    architecture: Architecture,
    tables: Params,
    ids: jax.Array,
    types: jax.Array | None = None,
    *,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
) -> jax.Array:
    """What enters the first layer: words + positions + token types, normalised."""
    length = ids.shape[-1]
    if length > architecture.max_length:
        raise UserError(
            f"rows of {length} pieces do not fit an encoder of {architecture.max_length} positions",
            remedy="choose a shorter length",
        )
    hidden = tables["words"][ids]
    if architecture.position_offset:
        real = (ids != architecture.pad_id).astype(jnp.int32)
        hidden += tables["positions"][jnp.cumsum(real, axis=-1) * real + architecture.pad_id]
    else:
        hidden += tables["positions"][:length]
    if architecture.types:
        # RoBERTa's family has a table of one row, whatever a tokenizer says
        several = architecture.types > 1 and types is not None
        hidden += tables["types"][types if several else 0]
    hidden = layer_norm(tables["norm"], hidden, architecture.norm_eps).astype(dtype)
    return dropout(hidden, architecture.dropout, key, EMBEDDINGS)


def attention_bias(mask: jax.Array) -> jax.Array:
    """[rows, length] of 1 and 0 -> what is added to the scores, [rows, 1, 1, length] in float32."""
    return jnp.where(mask[:, None, None, :] > 0, 0.0, MASKED).astype(jnp.float32)


def run_layers(
    architecture: Architecture,
    stacked: Params,
    hidden: jax.Array,
    bias: jax.Array,
    *,
    first: int = 0,
    dtype: Any = jnp.float32,
    scan: bool = False,
    remat: str = "none",
    key: jax.Array | None = None,
) -> tuple[jax.Array, ...]:
    """The output of each of the given layers, `stacked` being layers `first`, `first + 1`, … of an encoder.

    The number tells dropout which layer it is in, so that a cut encoder draws what the whole one draws.
    """

    def layer(hidden: jax.Array, params: Params, number: jax.Array | int) -> jax.Array:
        return run_layer(architecture, params, hidden, bias, dtype=dtype, key=key, number=number)

    if remat != "none":
        layer = jax.checkpoint(layer, policy=_policy(remat), prevent_cse=not scan)
    count = jax.tree.leaves(stacked)[0].shape[0]
    if not scan:
        states = []
        unstacked = jax.tree.map(jax.lax.unstack, stacked)  # its transpose is one stack, not a sum of padded slices
        for i in range(count):
            own = jax.tree.map(lambda _, x, i=i: x[i], stacked, unstacked)
            hidden = layer(hidden, own, first + i)
            states.append(hidden)
        return tuple(states)

    def body(hidden: jax.Array, xs: tuple[Params, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden = layer(hidden, *xs)
        return hidden, hidden

    last, states = jax.lax.scan(body, hidden, (stacked, first + jnp.arange(count)))
    # The last from the carry: where no other state is asked for, the stack of all is never kept
    return (*(states[i] for i in range(count - 1)), last)[:count]


def _policy(remat: str) -> Any:
    if remat not in REMAT:
        raise UserError(f"no remat policy {remat!r}", remedy=f"choose one of none, {', '.join(REMAT)}")
    return REMAT[remat]


def run_layer(
    architecture: Architecture,
    params: Params,
    hidden: jax.Array,
    bias: jax.Array,
    *,
    dtype: Any = jnp.float32,
    key: jax.Array | None = None,
    number: jax.Array | int = 0,
) -> jax.Array:
    """One layer, normalised after each half."""
    hidden = rows.shard_rows(hidden)
    attended = _attention(architecture, params, hidden, bias, dtype, key, number)
    if architecture.model_type != "distilbert":  # it drops nothing here
        attended = dropout(attended, architecture.dropout, key, ATTENTION_OUTPUT, number)
    hidden = rows.shard_rows(
        layer_norm(params["attention_norm"], attended + hidden, architecture.norm_eps).astype(dtype)
    )
    inner = ACTIVATIONS[architecture.activation](dense(params["up"], hidden, dtype))
    outer = dropout(dense(params["down"], inner, dtype), architecture.dropout, key, FEED_FORWARD, number)
    return layer_norm(params["norm"], outer + hidden, architecture.norm_eps).astype(dtype)


def _attention(
    architecture: Architecture,
    params: Params,
    hidden: jax.Array,
    bias: jax.Array,
    dtype: Any,
    key: jax.Array | None,
    number: jax.Array | int,
) -> jax.Array:
    rows, length, D = hidden.shape
    split = (rows, length, architecture.heads, D // architecture.heads)
    q, k, v = (dense(params[name], hidden, dtype).reshape(split) for name in ("query", "key", "value"))
    context = attend(q, k, v, bias, architecture.attention_dropout, key, ATTENTION_WEIGHTS, number)
    return dense(params["output"], context.reshape(rows, length, D), dtype)


def dense(params: Params, x: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    """x·kernel + bias in the compute dtype."""
    return matmul(x.astype(dtype), params["kernel"].astype(dtype)) + params["bias"].astype(dtype)


def layer_norm(params: Params, x: jax.Array, eps: float) -> jax.Array:
    """Layer norm over the last axis, in float32; the variance is the mean of squared deviations."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + eps) * params["scale"] + params["bias"]


def forward_flops(architecture: Architecture, tokens: int, rows: int) -> float:
    """Multiply-adds × 2 of the layers over so many real tokens in so many rows, by formula: a compiler's count of a
    scan's body is of one layer only."""
    D, F = architecture.hidden_size, architecture.intermediate_size
    mean_length = tokens / max(rows, 1)
    return tokens * architecture.layers * (8.0 * D**2 + 4.0 * D * F + 4.0 * mean_length * D)
