# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The parts that layers of encoders are made of: linear maps, norms, activations, and masks of attention."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from xlkd.models.family import Params
from xlkd.models.matmul import AnyArray, add_bias, matmul

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: x * 0.5 * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype))),
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
}
MASKED = -1e9  # finite: a row without any valid key gives uniform weights, not NaN
EMBEDDINGS, ATTENTION_WEIGHTS, ATTENTION_OUTPUT, FEED_FORWARD, HEAD = range(5)  # places of dropout


def init_dense(key: PRNGKeyArray, shape: tuple[int, ...]) -> Params:
    """Returns fresh parameters of a linear map; `shape` is [..., inputs, outputs]."""
    return {"kernel": normal(key, shape), "bias": jnp.zeros((*shape[:-2], shape[-1]))}


def init_norm(shape: tuple[int, ...]) -> Params:
    """Returns the parameters of a layer norm with scale 1 and shift 0."""
    return {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}


def normal(key: PRNGKeyArray, shape: tuple[int, ...], scale: float = 0.02) -> Float[Array, " ..."]:
    """Draws from Normal(0, scale) in float32."""
    return scale * jax.random.normal(key, shape, jnp.float32)


def attention_bias(mask: Shaped[AnyArray, "rows length"]) -> Float[Array, "rows 1 1 length"]:
    """Returns the bias that is added to the attention scores, from a mask of 1 and 0."""
    return jnp.where(mask[:, None, None, :] > 0, 0.0, MASKED).astype(jnp.float32)


def dense(
    params: Params, x: Float[Array, "*axes inputs"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "*axes outputs"]:
    """Returns x·kernel in the compute dtype, plus the bias if there is one."""
    product = matmul(x.astype(dtype), params["kernel"].astype(dtype))
    return add_bias(product, params["bias"].astype(dtype)) if "bias" in params else product


def layer_norm(params: Params, x: Float[AnyArray, "*axes hidden"], eps: float) -> Float[Array, "*axes hidden"]:
    """Normalises over the last axis, in float32; the variance is the mean of squared deviations."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + eps) * params["scale"]
    return scaled + params["bias"] if "bias" in params else scaled


def decode_tokens(
    bias: Float[AnyArray, " tokens"],
    hidden: Float[Array, "*axes hidden"],
    words: Float[AnyArray, "#vocabulary hidden"],
    dtype: DTypeLike,
) -> Float[Array, "*axes vocabulary"]:
    """Returns the products with all word embeddings, plus a bias; tokens appended to the table are masked."""
    product = jnp.einsum("...d,vd->...v", hidden.astype(dtype), words.astype(dtype), preferred_element_type=jnp.float32)
    appended = max(len(words) - len(bias), 0)
    return product + (jnp.pad(bias, (0, appended), constant_values=MASKED) if appended else bias)
