# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Encoders of BERT's kind as pure functions of stacked parameters, which return every hidden state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, Shaped

from xlkd.errors import UserError
from xlkd.models import rows
from xlkd.models.attention import attend
from xlkd.models.dropout import dropout
from xlkd.models.matmul import AnyArray, matmul

Params = dict[str, Any]  # parameters by name: a tree of arrays, or of their shapes

REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: x * 0.5 * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype))),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
MASKED = -1e9  # finite: a row without any valid key gives uniform weights, not NaN
EMBEDDINGS, ATTENTION_WEIGHTS, ATTENTION_OUTPUT, FEED_FORWARD = range(4)  # places of dropout in a layer


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The settings that determine the shapes and the arithmetic of an encoder."""

    model_type: str  # bert, roberta, xlm-roberta, camembert, distilbert
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    positions: int  # rows of the position table, as in the file
    types: int  # rows of the token type table; 0 = no table
    pad_id: int
    position_offset: int  # the first token's row in the position table: 0, or pad_id + 1 in RoBERTa's family
    norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float = 0.1
    activation: str = "gelu"

    @property
    def max_length(self) -> int:
        """The longest row in tokens, special tokens included."""
        return self.positions - self.position_offset


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
        tables = self.param("embeddings", init_embeddings, self.architecture)
        stacked = self.param("layers", init_layers, self.architecture)
        stacked = stacked if layers is None else jax.tree.map(lambda x: x[:layers], stacked)
        hidden = embed(self.architecture, tables, ids, types, dtype=self.dtype, key=key)
        options = {"dtype": self.dtype, "scan": self.scan, "remat": self.remat, "key": key}
        return (hidden, *run_layers(self.architecture, stacked, hidden, attention_bias(mask), **options))


def scan_by_device() -> bool:
    """Says whether to scan over layers: where compiling is slow (TPU, GPU), but not on CPU, where scans are slow."""
    return jax.default_backend() != "cpu"


def init(architecture: Architecture, key: PRNGKeyArray, embedding_scale: float = 0.02) -> Params:
    """Returns fresh parameters of an encoder: matrices normal(0, 0.02), word embeddings normal(0, embedding_scale)."""
    tables, layers = jax.random.split(key)
    return {
        "embeddings": init_embeddings(tables, architecture, embedding_scale),
        "layers": init_layers(layers, architecture),
    }


def init_embeddings(key: PRNGKeyArray, architecture: Architecture, scale: float = 0.02) -> Params:
    """Returns fresh parameters of the embeddings: tables and a norm; `scale` is that of the words, others have 0.02."""
    words, positions, types = jax.random.split(key, 3)
    D = architecture.hidden_size
    params = {
        "words": normal(words, (architecture.vocab_size, D), scale),
        "positions": normal(positions, (architecture.positions, D)),
        "norm": init_norm((D,)),
    }
    return params | ({"types": normal(types, (architecture.types, D))} if architecture.types else {})


def init_layers(key: PRNGKeyArray, architecture: Architecture) -> Params:
    """Returns fresh parameters of all layers, stacked on axis 0."""
    L, D, F = architecture.layers, architecture.hidden_size, architecture.intermediate_size
    keys = jax.random.split(key, 6)
    shapes = {"query": (D, D), "key": (D, D), "value": (D, D), "output": (D, D), "up": (D, F), "down": (F, D)}
    dense = {name: init_dense(k, (L, *shape)) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return dense | {"attention_norm": init_norm((L, D)), "norm": init_norm((L, D))}


def init_dense(key: PRNGKeyArray, shape: tuple[int, ...]) -> Params:
    """Returns fresh parameters of a linear map; `shape` is [..., inputs, outputs]."""
    return {"kernel": normal(key, shape), "bias": jnp.zeros((*shape[:-2], shape[-1]))}


def init_norm(shape: tuple[int, ...]) -> Params:
    """Returns the parameters of a layer norm with scale 1 and shift 0."""
    return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}


def normal(key: PRNGKeyArray, shape: tuple[int, ...], scale: float = 0.02) -> Float[Array, " ..."]:
    """Draws from Normal(0, scale) in float32."""
    return scale * jax.random.normal(key, shape, jnp.float32)


def embed(
    architecture: Architecture,
    tables: Params,
    ids: Integer[AnyArray, "rows length"],
    types: Integer[AnyArray, "rows length"] | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "rows length hidden"]:
    """Returns the input of the first layer: words + positions + token types, normalised."""
    length = ids.shape[-1]
    if length > architecture.max_length:
        raise UserError(
            f"rows of {length} tokens do not fit an encoder of {architecture.max_length} positions",
            remedy="choose a shorter length",
        )
    hidden = rows.look_up(tables["words"], ids)
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


def attention_bias(mask: Shaped[AnyArray, "rows length"]) -> Float[Array, "rows 1 1 length"]:
    """Returns the bias that is added to the attention scores, from a mask of 1 and 0."""
    return jnp.where(mask[:, None, None, :] > 0, 0.0, MASKED).astype(jnp.float32)


def run_layers(
    architecture: Architecture,
    stacked: Params,
    hidden: Float[Array, "rows length hidden"],
    bias: Float[Array, "rows 1 1 length"],
    *,
    first: Int[Array, ""] | int = 0,
    dtype: DTypeLike = jnp.float32,
    scan: bool = False,
    remat: str = "none",
    key: PRNGKeyArray | None = None,
) -> tuple[Float[Array, "rows length hidden"], ...]:
    """Returns the output of each of the given layers: layers `first`, `first + 1`, … of an encoder, stacked.

    The number tells dropout which layer it is in, so that a divided encoder draws the masks of the whole one.
    """

    def layer(
        hidden: Float[Array, "rows length hidden"], params: Params, number: Int[Array, ""] | int
    ) -> Float[Array, "rows length hidden"]:
        return run_layer(architecture, params, hidden, bias, dtype=dtype, key=key, number=number)

    if remat != "none":
        layer = jax.checkpoint(layer, policy=_choose_remat_policy(remat), prevent_cse=not scan)
    count = jax.tree.leaves(stacked)[0].shape[0]
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


def run_layer(
    architecture: Architecture,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    bias: Float[Array, "rows 1 1 length"],
    *,
    dtype: DTypeLike = jnp.float32,
    key: PRNGKeyArray | None = None,
    number: Int[Array, ""] | int = 0,
) -> Float[Array, "rows length hidden"]:
    """Runs one layer, which is normalised after attention and after the feed-forward part."""
    hidden = rows.shard_rows(hidden)
    attended = _run_attention(architecture, params, hidden, bias, dtype, key, number)
    if architecture.model_type != "distilbert":  # which has no dropout here
        attended = dropout(attended, architecture.dropout, key, ATTENTION_OUTPUT, number)
    hidden = rows.shard_rows(
        layer_norm(params["attention_norm"], attended + hidden, architecture.norm_eps).astype(dtype)
    )
    inner = ACTIVATIONS[architecture.activation](dense(params["up"], hidden, dtype))
    outer = dropout(dense(params["down"], inner, dtype), architecture.dropout, key, FEED_FORWARD, number)
    return layer_norm(params["norm"], outer + hidden, architecture.norm_eps).astype(dtype)


def _run_attention(
    architecture: Architecture,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    bias: Float[Array, "rows 1 1 length"],
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
    number: Int[Array, ""] | int,
) -> Float[Array, "rows length hidden"]:
    rows, length, D = hidden.shape
    split = (rows, length, architecture.heads, D // architecture.heads)
    q, k, v = (dense(params[name], hidden, dtype).reshape(split) for name in ("query", "key", "value"))
    context = attend(q, k, v, bias, architecture.attention_dropout, key, ATTENTION_WEIGHTS, number)
    return dense(params["output"], context.reshape(rows, length, D), dtype)


def dense(
    params: Params, x: Float[Array, "*axes inputs"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "*axes outputs"]:
    """Returns x·kernel + bias in the compute dtype."""
    return matmul(x.astype(dtype), params["kernel"].astype(dtype)) + params["bias"].astype(dtype)


def layer_norm(params: Params, x: Float[AnyArray, "*axes hidden"], eps: float) -> Float[Array, "*axes hidden"]:
    """Normalises over the last axis, in float32; the variance is the mean of squared deviations."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + eps) * params["scale"] + params["bias"]


def forward_flops(architecture: Architecture, tokens: int, rows: int) -> float:
    """Returns the FLOPs of the layers (2 for a multiply-add) for a number of real tokens in a number of rows.

    The compiler's own count takes the body of a scan over layers once.
    """
    D, F = architecture.hidden_size, architecture.intermediate_size
    mean_length = tokens / max(rows, 1)
    return tokens * architecture.layers * (8.0 * D**2 + 4.0 * D * F + 4.0 * mean_length * D)
