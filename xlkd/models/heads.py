# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The heads of an encoder for spans, labels and masked tokens, as each family has them; logits are float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from xlkd.models.families import find_family, find_form
from xlkd.models.family import Architecture, Inits, Params
from xlkd.models.layers import init_norm
from xlkd.models.matmul import AnyArray


class SpanHead(nn.Module):
    """Computes two logits for each position: whether an answer starts and whether it ends there."""

    architecture: Architecture
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "rows length hidden"], train: bool = False, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "rows length"], Float[Array, "rows length"]]:
        head = find_family(self.architecture).heads["span"]
        params = _make_params(self, head.init(self.architecture, 2))
        logits = head.apply(self.architecture, params, hidden, dtype=self.dtype, key=key if train else None)
        return logits[..., 0], logits[..., 1]


class ClassifierHead(nn.Module):
    """Computes one logit for each label from pooled hidden states; the rows may be several groups, for dropout."""

    architecture: Architecture
    labels: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        pooled: Float[Array, "rows hidden"],
        train: bool = False,
        key: PRNGKeyArray | None = None,
        groups: int = 1,
    ) -> Float[Array, "rows classes"]:
        if train and key is None:
            raise ValueError("train=True needs a key for dropout")
        head = find_family(self.architecture).heads["classifier"]
        params = _make_params(self, head.init(self.architecture, self.labels))
        key = key if train else None
        return head.apply(self.architecture, params, pooled, dtype=self.dtype, key=key, groups=groups)


class MaskedLMHead(nn.Module):
    """Computes logits over the vocabulary; the decoder is the table of word embeddings.

    Pass only the hidden states of masked positions: logits at all positions seldom fit in memory. Tokens that were
    appended to the table (`runtime/mesh.py`) have logits that are as good as minus infinity.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "*axes hidden"], words: Float[AnyArray, "#vocabulary embedding"]
    ) -> Float[Array, "*axes vocabulary"]:
        head = find_family(self.architecture).heads["masked_lm"]
        params = _make_params(self, head.init(self.architecture, 0))
        return head.apply(self.architecture, params, hidden, words, dtype=self.dtype)


def _make_params(module: nn.Module, inits: Inits) -> Params:
    """Returns the parameters of a module, which it has been given or draws."""
    return {name: module.param(name, init) for name, init in inits.items()}


def start_head(
    name: str, head: SpanHead | ClassifierHead, key: PRNGKeyArray, trained_heads: Mapping[str, Params]
) -> Params:
    """Returns fresh parameters of a head, but those of a trained masked-LM head that `transformers` names the same.

    ModernBERT's heads begin with the same linear map and norm.
    """
    modules, masked_lm = find_form(head.architecture).heads, trained_heads.get("masked_lm", {})
    params = init_head(head, key)
    shared = {part for part in params if part in masked_lm and modules[name][part] == modules["masked_lm"][part]}
    return params | {part: masked_lm[part] for part in shared}


def init_head(head: SpanHead | ClassifierHead | MaskedLMHead, key: PRNGKeyArray) -> Params:
    """Returns fresh parameters of a head: matrices normal(0, 0.02), biases 0."""
    D = head.architecture.hidden_size
    one_word = jnp.zeros((1, head.architecture.word_size))  # such a table is enough
    words = (one_word,) if isinstance(head, MaskedLMHead) else ()
    hidden = jnp.zeros((1, D) if isinstance(head, ClassifierHead) else (1, 1, D))
    return cast(Params, head.init(key, hidden, *words)["params"])


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
