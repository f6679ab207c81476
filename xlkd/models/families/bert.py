# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""BERT, RoBERTa, XLM-R, CamemBERT and DistilBERT: absolute positions, and a norm after each part of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, Shaped

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models import rows
from xlkd.models.attention import attend
from xlkd.models.dropout import dropout
from xlkd.models.family import NEEDED, Architecture, Family, Form, Head, Inits, Params, check_activation
from xlkd.models.layers import (
    ACTIVATIONS,
    ATTENTION_OUTPUT,
    ATTENTION_WEIGHTS,
    EMBEDDINGS,
    FEED_FORWARD,
    attention_bias,
    decode_tokens,
    dense,
    init_dense,
    init_norm,
    layer_norm,
    normal,
)
from xlkd.models.matmul import AnyArray

OLD = ("bert", "distilbert")  # the other model types are RoBERTa's


def init_embeddings(key: PRNGKeyArray, architecture: Architecture, scale: float) -> Params:
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
    hidden = rows.look_up(tables["words"], ids)
    if architecture.position_offset:
        real = (ids != architecture.pad_id).astype(jnp.int32)
        hidden += tables["positions"][jnp.cumsum(real, axis=-1) * real + architecture.pad_id]
    else:
        hidden += tables["positions"][:length]
    if architecture.types:
        # RoBERTa has a table of one row, whatever a tokenizer says
        several = architecture.types > 1 and types is not None
        hidden += tables["types"][types if several else 0]
    hidden = layer_norm(tables["norm"], hidden, architecture.norm_eps).astype(dtype)
    return dropout(hidden, architecture.dropout, key, EMBEDDINGS)


def prepare(
    architecture: Architecture, tables: Params, mask: Shaped[AnyArray, "rows length"], dtype: DTypeLike
) -> Float[Array, "rows 1 1 length"]:
    """Returns the bias of the attention scores."""
    return attention_bias(mask)


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


def forward_flops(architecture: Architecture, tokens: float, rows: float) -> float:
    """Returns the operations of all layers: linear maps, and attention over the mean length."""
    D, F = architecture.hidden_size, architecture.intermediate_size
    mean_length = tokens / max(rows, 1)
    return tokens * architecture.layers * (8.0 * D**2 + 4.0 * D * F + 4.0 * mean_length * D)


def _init_span(architecture: Architecture, labels: int) -> Inits:
    return {"output": lambda key: init_dense(key, (architecture.hidden_size, 2))}


def _apply_span(
    architecture: Architecture,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    *,
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
) -> Float[Array, "rows length 2"]:
    return dense(params["output"], hidden, dtype).astype(jnp.float32)


SPAN = Head(_init_span, _apply_span)


def _init_classifier(architecture: Architecture, labels: int) -> Inits:
    D = architecture.hidden_size
    return {"dense": lambda key: init_dense(key, (D, D)), "output": lambda key: init_dense(key, (D, labels))}


def _apply_classifier(
    architecture: Architecture,
    params: Params,
    pooled: Float[Array, "rows hidden"],
    *,
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
    groups: int,
) -> Float[Array, "rows classes"]:
    before, after = (None, None) if key is None else jax.random.split(key)
    model_type, rate = architecture.model_type, architecture.classifier_dropout
    if model_type not in OLD:
        pooled = dropout(pooled, rate, before, groups=groups)
    activation = jax.nn.relu if model_type == "distilbert" else jnp.tanh
    pooled = activation(dense(params["dense"], pooled, dtype))
    return dense(params["output"], dropout(pooled, rate, after, groups=groups), dtype).astype(jnp.float32)


def _init_masked_lm(architecture: Architecture, labels: int) -> Inits:
    D = architecture.hidden_size
    return {
        "dense": lambda key: init_dense(key, (D, D)),
        "norm": lambda key: init_norm((D,)),
        "bias": lambda key: jnp.zeros(architecture.vocab_size),
    }


def _apply_masked_lm(
    architecture: Architecture,
    params: Params,
    hidden: Float[Array, "*axes hidden"],
    words: Float[AnyArray, "#vocabulary hidden"],
    *,
    dtype: DTypeLike,
) -> Float[Array, "*axes vocabulary"]:
    # RoBERTa has GELU here, whatever the layers have
    activation = ACTIVATIONS[architecture.activation if architecture.model_type in OLD else "gelu"]
    hidden = layer_norm(params["norm"], activation(dense(params["dense"], hidden, dtype)), architecture.norm_eps)
    return decode_tokens(params["bias"], hidden, words, dtype)


def _read(form: Form, config: Mapping[str, Json], pad_id: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"types": 0} | form.read_fields(config)
    if fields["classifier_dropout"] is None and form.classes != "DistilBert":
        fields["classifier_dropout"] = fields["dropout"]
    is_old = form.classes in ("Bert", "DistilBert")
    return fields | {"position_offset": 0 if is_old else pad_id + 1}


def _check(architecture: Architecture, config: Mapping[str, Json], where: str) -> None:
    check_activation(architecture, ACTIVATIONS, where)
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise UserError(
            f"position_embedding_type {kind!r} is not supported", where, "use an encoder with absolute positions"
        )


_MODULES = {
    "embeddings/words": "embeddings.word_embeddings",
    "embeddings/positions": "embeddings.position_embeddings",
    "embeddings/types": "embeddings.token_type_embeddings",
    "embeddings/norm": "embeddings.LayerNorm",
}
_BERT_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "norm": "output_layer_norm",
}
BERT_MASKED_LM = {
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "bias": "cls.predictions",
}
_BERT_HEADS = {
    "span": {"output": "qa_outputs"},
    "classifier": {"dense": "pooler.dense", "output": "classifier"},
    "masked_lm": BERT_MASKED_LM,
}
_ROBERTA_HEADS = {
    "span": {"output": "qa_outputs"},
    "classifier": {"dense": "classifier.dense", "output": "classifier.out_proj"},
    "masked_lm": {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head"},
}
_DISTILBERT_HEADS = {
    "span": {"output": "qa_outputs"},
    "classifier": {"dense": "pre_classifier", "output": "classifier"},
    "masked_lm": {"dense": "vocab_transform", "norm": "vocab_layer_norm", "bias": "vocab_projector"},
}
_BERT_CONFIG = {
    "hidden_size": ("hidden_size", NEEDED),
    "layers": ("num_hidden_layers", NEEDED),
    "heads": ("num_attention_heads", NEEDED),
    "intermediate_size": ("intermediate_size", NEEDED),
    "types": ("type_vocab_size", 2),
    "norm_eps": ("layer_norm_eps", 1e-12),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "classifier_dropout": ("classifier_dropout", None),  # None: the rate of the layers
    "activation": ("hidden_act", "gelu"),
}
_DISTILBERT_CONFIG = {
    "hidden_size": ("dim", NEEDED),
    "layers": ("n_layers", NEEDED),
    "heads": ("n_heads", NEEDED),
    "intermediate_size": ("hidden_dim", NEEDED),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "classifier_dropout": ("seq_classif_dropout", 0.2),
    "activation": ("activation", "gelu"),
}
# Parts of pre-trained models without an effect on hidden states: the head of masked tokens may be untied or in part
_UNUSED = ("pooler.", "cls.", "lm_head.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector.")
_PREFIXES = ("bert.", "roberta.", "camembert.", "distilbert.")
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def _describe(classes: str, prefix: str, heads: Mapping[str, Mapping[str, str]], pad_id: int, decoder: str) -> Form:
    """Describes a model type whose layers are BERT's."""
    return Form(
        classes=classes,
        prefix=prefix,
        modules=_MODULES,
        layers="encoder.layer.{}.",
        layer=_BERT_LAYER,
        heads=heads,
        config=_BERT_CONFIG,
        body=("embeddings.", "encoder."),
        unused=_UNUSED,
        pad_id=pad_id,
        decoders=(decoder,),
        prefixed_heads=("pooler.",),
        buffers=_BUFFERS,
        other_prefixes=_PREFIXES,
    )


_DISTILBERT = Form(
    classes="DistilBert",
    prefix="distilbert.",
    modules=_MODULES,
    layers="transformer.layer.{}.",
    layer=_DISTILBERT_LAYER,
    heads=_DISTILBERT_HEADS,
    config=_DISTILBERT_CONFIG,
    body=("embeddings.", "transformer."),
    unused=_UNUSED,
    pad_id=0,
    decoders=("vocab_projector.weight",),
    buffers=_BUFFERS,
    other_prefixes=_PREFIXES,
)
_ROBERTA = (_ROBERTA_HEADS, 1, "lm_head.decoder.weight")
FAMILY = Family(
    forms={
        "bert": _describe("Bert", "bert.", _BERT_HEADS, 0, "cls.predictions.decoder.weight"),
        "roberta": _describe("Roberta", "roberta.", *_ROBERTA),
        "xlm-roberta": _describe("XLMRoberta", "roberta.", *_ROBERTA),
        "camembert": _describe("Camembert", "roberta.", *_ROBERTA),
        "distilbert": _DISTILBERT,
    },
    architecture=Architecture,
    read=_read,
    check=_check,
    init_embeddings=init_embeddings,
    init_layers=init_layers,
    embed=embed,
    prepare=prepare,
    run_layer=run_layer,
    heads={
        "span": SPAN,
        "classifier": Head(_init_classifier, _apply_classifier),
        "masked_lm": Head(_init_masked_lm, _apply_masked_lm),
    },
    forward_flops=forward_flops,
)
