# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The heads of an encoder for spans, labels and masked tokens, as each architecture has them; logits are float32."""

from __future__ import annotations

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from xlkd.models.dropout import dropout
from xlkd.models.encoder import ACTIVATIONS, MASKED, Architecture, Params, dense, init_dense, init_norm, layer_norm
from xlkd.models.matmul import AnyArray

OLD = ("bert", "distilbert")  # the other model types are RoBERTa's family


class SpanHead(nn.Module):
    """Computes two logits for each position: whether an answer starts and whether it ends there."""

    architecture: Architecture
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "rows length hidden"]
    ) -> tuple[Float[Array, "rows length"], Float[Array, "rows length"]]:
        output = self.param("output", init_dense, (self.architecture.hidden_size, 2))
        logits = dense(output, hidden, self.dtype).astype(jnp.float32)
        return logits[..., 0], logits[..., 1]


class ClassifierHead(nn.Module):
    """Computes one logit for each label from the first position; the rows may be several groups, for dropout."""

    architecture: Architecture
    labels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "rows length hidden"],
        train: bool = False,
        key: PRNGKeyArray | None = None,
        groups: int = 1,
    ) -> Float[Array, "rows classes"]:
        before = after = None
        if train:
            if key is None:
                raise ValueError("train=True needs a key for dropout")
            before, after = jax.random.split(key)
        D, model_type = self.architecture.hidden_size, self.architecture.model_type
        inner = self.param("dense", init_dense, (D, D))
        output = self.param("output", init_dense, (D, self.labels))
        first = hidden[:, 0]
        if model_type not in OLD:
            first = dropout(first, self.architecture.classifier_dropout, before, groups=groups)
        activation = jax.nn.relu if model_type == "distilbert" else jnp.tanh
        pooled = activation(dense(inner, first, self.dtype))
        pooled = dropout(pooled, self.architecture.classifier_dropout, after, groups=groups)
        return dense(output, pooled, self.dtype).astype(jnp.float32)


class MaskedLMHead(nn.Module):
    """Computes logits over the vocabulary; the decoder is the table of word embeddings.

    Pass only the hidden states of masked positions: logits at all positions seldom fit in memory. Tokens that were
    appended to the table (`runtime/mesh.py`) have logits that are as good as minus infinity.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "*axes hidden"], words: Float[AnyArray, "#vocabulary hidden"]
    ) -> Float[Array, "*axes vocabulary"]:
        architecture, D = self.architecture, self.architecture.hidden_size
        inner = self.param("dense", init_dense, (D, D))
        norm = self.param("norm", lambda _: init_norm((D,)))
        bias = self.param("bias", nn.initializers.zeros, (architecture.vocab_size,))
        # RoBERTa's family has GELU here, whatever the layers have
        activation = ACTIVATIONS[architecture.activation if architecture.model_type in OLD else "gelu"]
        x = layer_norm(norm, activation(dense(inner, hidden, self.dtype)), architecture.norm_eps)
        product = jnp.einsum(
            "...d,vd->...v", x.astype(self.dtype), words.astype(self.dtype), preferred_element_type=jnp.float32
        )
        appended = max(len(words) - architecture.vocab_size, 0)
        return product + (jnp.pad(bias, (0, appended), constant_values=MASKED) if appended else bias)


def init_head(head: SpanHead | ClassifierHead | MaskedLMHead, key: PRNGKeyArray) -> Params:
    """Returns fresh parameters of a head: matrices normal(0, 0.02), biases 0."""
    D = head.architecture.hidden_size
    words = (jnp.zeros((1, D)),) if isinstance(head, MaskedLMHead) else ()  # a table of one word is enough
    return cast(Params, head.init(key, jnp.zeros((1, 1, D)), *words)["params"])


def init_perceptron(key: PRNGKeyArray, inputs: int, hidden: int, outputs: int) -> Params:
    """Returns the linear maps `inner` and `outer`, which have no bias, and the `norm` between them.

    A map is uniform in ±1/√(its own number of inputs), PyTorch's default.
    """

    def init_linear(key: PRNGKeyArray, fan_in: int, fan_out: int) -> Params:
        bound = fan_in**-0.5
        return {"kernel": jax.random.uniform(key, (fan_in, fan_out), jnp.float32, -bound, bound)}

    first, second = jax.random.split(key)
    inner, outer = init_linear(first, inputs, hidden), init_linear(second, hidden, outputs)
    return {"inner": inner, "norm": init_norm((hidden,)), "outer": outer}
