# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What stands on an encoder: spans, labels, masked words, each as its architecture shapes it; logits are float32."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from xlkd.models.dropout import dropout
from xlkd.models.encoder import ACTIVATIONS, Architecture, Params, dense, init_dense, init_norm, layer_norm

OLD = ("bert", "distilbert")  # the others are RoBERTa's family


class SpanHead(nn.Module):
    """`hidden [rows, length, D] -> (start, end)`, two logits for each position."""

    architecture: Architecture
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = self.param("output", init_dense, (self.architecture.hidden_size, 2))
        logits = dense(output, hidden, self.dtype).astype(jnp.float32)
        return logits[..., 0], logits[..., 1]


class ClassifierHead(nn.Module):
    """`hidden [rows, length, D] -> logits [rows, labels]`, read from the first position."""

    architecture: Architecture
    labels: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        if train and key is None:
            raise ValueError("train=True needs a key for dropout")
        D, model_type = self.architecture.hidden_size, self.architecture.model_type
        inner = self.param("dense", init_dense, (D, D))
        output = self.param("output", init_dense, (D, self.labels))
        before, after = jax.random.split(key) if train else (None, None)
        first = hidden[:, 0]
        if model_type not in OLD:
            first = dropout(first, self.architecture.classifier_dropout, before)
        activation = jax.nn.relu if model_type == "distilbert" else jnp.tanh
        pooled = dropout(activation(dense(inner, first, self.dtype)), self.architecture.classifier_dropout, after)
        return dense(output, pooled, self.dtype).astype(jnp.float32)


class MaskedLMHead(nn.Module):
    """`(hidden [..., D], words [V, D]) -> logits [..., V]`; the decoder is the table of word embeddings.

    Give it the gathered masked positions: logits over the vocabulary at all positions seldom fit in memory.
    """

    architecture: Architecture
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, hidden: jax.Array, words: jax.Array) -> jax.Array:
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
        return product + bias


def init_head(head: SpanHead | ClassifierHead | MaskedLMHead, key: jax.Array) -> Params:
    """Fresh parameters of a head: matrices normal(0, 0.02), biases 0."""
    D = head.architecture.hidden_size
    words = (jnp.zeros((1, D)),) if isinstance(head, MaskedLMHead) else ()  # one word stands for the table
    return head.init(key, jnp.zeros((1, 1, D)), *words)["params"]


def init_perceptron(key: jax.Array, inputs: int, hidden: int, outputs: int) -> Params:
    """Two linear maps without bias and the norm between them; uniform in ±1/√inputs, as PyTorch begins."""

    def linear(key: jax.Array, fan_in: int, fan_out: int) -> Params:
        bound = fan_in**-0.5
        return {"kernel": jax.random.uniform(key, (fan_in, fan_out), jnp.float32, -bound, bound)}

    first, second = jax.random.split(key)
    inner, outer = linear(first, inputs, hidden), linear(second, hidden, outputs)
    return {"inner": inner, "norm": init_norm((hidden,)), "outer": outer}
