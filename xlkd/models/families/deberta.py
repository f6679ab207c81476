# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""DeBERTa-v2, DeBERTa-v3 and mDeBERTa: attention to contents and, apart from these, to relative positions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, Shaped

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models import attention, disentangled, rows
from xlkd.models.dropout import dropout
from xlkd.models.families import bert
from xlkd.models.family import MOST_ROWS, NEEDED, Architecture, Family, Form, Head, Inits, Params, check_activation
from xlkd.models.layers import (
    ACTIVATIONS,
    ATTENTION_OUTPUT,
    ATTENTION_WEIGHTS,
    EMBEDDINGS,
    FEED_FORWARD,
    HEAD,
    attention_bias,
    decode_tokens,
    dense,
    init_dense,
    init_norm,
    layer_norm,
    normal,
)
from xlkd.models.matmul import AnyArray

POSITIONS, CONVOLUTION = HEAD + 1, HEAD + 2  # places of dropout
OTHER_ACTIVATIONS = ACTIVATIONS | {"tanh": jnp.tanh}  # of the pooler and the convolution
TERMS = ("c2p", "p2c")  # content to position, position to content


@dataclasses.dataclass(frozen=True)
class Deberta(Architecture):
    """The settings of an encoder with disentangled attention."""

    embedding_size: int = 0  # the width of the tables, which a projection widens to hidden_size
    position_biased_input: bool = True  # has a table of absolute positions
    relative_attention: bool = False
    relative_norm: bool = False  # of the relative positions; `transformers` has its parameters even without these
    pos_att_type: str = ""  # the terms of the scores beside content to content, joined by |
    share_att_key: bool = False  # projects positions as contents are
    position_buckets: int = -1  # buckets of each sign; without them, each difference has a row
    max_relative_positions: int = 512
    conv_kernel_size: int = 0  # 0 = no convolution beside the first layer
    conv_groups: int = 1
    conv_act: str = "tanh"
    pooler_dropout: float = 0.0
    pooler_hidden_act: str = "gelu"
    legacy: bool = True  # which head for masked tokens `transformers` builds

    @property
    def word_size(self) -> int:
        """The width of the table of words."""
        return self.embedding_size

    @property
    def terms(self) -> list[str]:
        """The terms of the attention scores that depend on positions."""
        return [term for term in TERMS if term in self.pos_att_type]

    @property
    def span(self) -> int:
        """Half of the rows of the table of relative positions."""
        return self.position_buckets if self.position_buckets > 0 else self.max_relative_positions


class Prepared(NamedTuple):
    """Holds what all layers need: the mask, relative positions for this length, the convolution's parameters."""

    bias: Float[Array, "rows 1 1 length"]
    relative: Float[Array, "buckets hidden"] | None
    mask: Shaped[AnyArray, "rows length"]
    convolution: Params  # empty without one


def init_embeddings(key: PRNGKeyArray, architecture: Deberta, scale: float) -> Params:
    """Returns fresh parameters of the tables, norms, projection and convolution that the architecture has."""
    a, D, E = architecture, architecture.hidden_size, architecture.embedding_size
    words, positions, types, projection, relative, convolution = jax.random.split(key, 6)
    params = {"words": normal(words, (a.vocab_size, E), scale), "norm": init_norm((D,))}
    if a.position_biased_input:
        params["positions"] = normal(positions, (a.positions, E))
    if a.types:
        params["types"] = normal(types, (a.types, E))
    if E != D:
        params["projection"] = {"kernel": normal(projection, (E, D))}
    if a.relative_attention:
        params["relative"] = normal(relative, (2 * a.span, D))
    if a.relative_norm:
        params["relative_norm"] = init_norm((D,))
    if a.conv_kernel_size:
        shape = (a.conv_kernel_size, D // a.conv_groups, D)
        params["convolution"] = {"kernel": normal(convolution, shape), "bias": jnp.zeros(D)}
        params["convolution_norm"] = init_norm((D,))
    return params


def init_layers(key: PRNGKeyArray, architecture: Deberta) -> Params:
    """Returns fresh parameters of all layers, stacked on axis 0."""
    L, D = architecture.layers, architecture.hidden_size
    params, own = bert.init_layers(key, architecture), _list_own_projections(architecture)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(TERMS))
    return params | {name: init_dense(k, (L, D, D)) for k, name in zip(keys, own, strict=False)}


def _list_own_projections(architecture: Deberta) -> list[str]:
    """Returns the projections that positions have of their own in each layer."""
    if architecture.share_att_key or not architecture.relative_attention:
        return []
    return [{"c2p": "position_key", "p2c": "position_query"}[term] for term in architecture.terms]


def embed(
    architecture: Deberta,
    tables: Params,
    ids: Integer[AnyArray, "rows length"],
    types: Integer[AnyArray, "rows length"] | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "rows length hidden"]:
    """Returns the input of the first layer: the sum of the tables that the architecture has, widened and normalised."""
    hidden = rows.look_up(tables["words"], ids)
    if architecture.position_biased_input:
        hidden += tables["positions"][: ids.shape[-1]]
    if architecture.types:
        hidden += tables["types"][0 if types is None else types]
    if "projection" in tables:
        hidden = dense(tables["projection"], hidden, dtype)
    hidden = layer_norm(tables["norm"], hidden, architecture.norm_eps).astype(dtype)
    return dropout(hidden, architecture.dropout, key, EMBEDDINGS)


def prepare(architecture: Deberta, tables: Params, mask: Shaped[AnyArray, "rows length"], dtype: DTypeLike) -> Prepared:
    """Returns the bias of the attention scores and the relative positions of rows of this length, normalised."""
    relative = None
    if architecture.relative_attention and architecture.terms:
        first, index = index_differences(architecture, mask.shape[1])
        relative = jnp.asarray(tables["relative"])[first : first + max(index) + 1]
        if architecture.relative_norm:
            relative = layer_norm(tables["relative_norm"], relative, architecture.norm_eps)
        relative = relative.astype(dtype)
    names = ("convolution", "convolution_norm")
    convolution = {name: tables[name] for name in names} if architecture.conv_kernel_size else {}
    return Prepared(attention_bias(mask), relative, mask, convolution)


@functools.lru_cache
def index_differences(architecture: Deberta, length: int) -> tuple[int, Int[np.ndarray, " differences"]]:
    """Returns the first row of the relative table that rows of this length need, and, counted from it, those of all.

    The differences are those of the positions of query and key, from 1 - length to length - 1. With buckets those up to
    half their number have one each, and others share one by their logarithm.
    """
    differences, span = np.arange(1 - length, length), architecture.span
    buckets = differences
    if architecture.position_buckets > 0 and length > (middle := span // 2) + 1:
        # In float32, as PyTorch computes it: it decides which bucket a difference at the edge of two is in
        distances = np.maximum(np.abs(differences), middle).astype(np.float32) / np.float32(middle)
        longest = np.log(np.float32((architecture.max_relative_positions - 1) / middle))
        logarithmic = np.ceil(np.log(distances) / longest * np.float32(middle - 1)) + middle
        buckets = np.where(np.abs(differences) <= middle, differences, np.sign(differences) * logarithmic)
    index = np.clip(buckets + span, 0, 2 * span - 1).astype(np.int32)
    return int(index.min()), index - index.min()


def run_layer(
    architecture: Deberta,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    prepared: Prepared,
    *,
    dtype: DTypeLike = jnp.float32,
    key: PRNGKeyArray | None = None,
    number: Int[Array, ""] | int = 0,
) -> Float[Array, "rows length hidden"]:
    """Runs one layer, which is normalised after attention and after the feed-forward part; the first may convolve."""
    a, before = architecture, rows.shard_rows(hidden)
    attended = _run_attention(a, params, before, prepared, dtype, key, number)
    attended = dropout(dense(params["output"], attended, dtype), a.dropout, key, ATTENTION_OUTPUT, number)
    hidden = rows.shard_rows(layer_norm(params["attention_norm"], attended + before, a.norm_eps).astype(dtype))
    inner = ACTIVATIONS[a.activation](dense(params["up"], hidden, dtype))
    outer = dropout(dense(params["down"], inner, dtype), a.dropout, key, FEED_FORWARD, number)
    hidden = layer_norm(params["norm"], outer + hidden, a.norm_eps).astype(dtype)
    if not prepared.convolution:
        return hidden
    return jax.lax.cond(number == 0, lambda: _convolve(a, prepared, before, hidden, key), lambda: hidden)


def _run_attention(
    architecture: Deberta,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    prepared: Prepared,
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
    number: Int[Array, ""] | int,
) -> Float[Array, "rows length hidden"]:
    a, terms = architecture, architecture.terms

    def project(name: str, x: Float[Array, "*axes hidden"]) -> Float[Array, "*axes heads head_size"]:
        return dense(params[name], x, dtype).reshape(*x.shape[:-1], a.heads, -1)

    q, k, v = (project(name, hidden) for name in ("query", "key", "value"))
    scale, place = 1 / math.sqrt(1 + len(terms)), (ATTENTION_WEIGHTS, number)
    if prepared.relative is None:
        context = attention.attend(q * scale, k, v, prepared.bias, a.attention_dropout, key, *place)
        return context.reshape(hidden.shape)
    positions = dropout(prepared.relative, a.dropout, key, POSITIONS, number, groups=0)
    own = "" if a.share_att_key else "position_"
    position_keys = project(f"{own}key", positions) if "c2p" in terms else None
    position_queries = project(f"{own}query", positions) if "p2c" in terms else None
    _, index = index_differences(a, hidden.shape[1])
    context = disentangled.attend(
        q,
        k,
        v,
        position_keys,
        position_queries,
        index,
        prepared.bias,
        scale / math.sqrt(q.shape[-1]),
        a.attention_dropout,
        key,
        *place,
    )
    return context.reshape(hidden.shape)


def _convolve(
    architecture: Deberta,
    prepared: Prepared,
    before: Float[Array, "rows length hidden"],
    after: Float[Array, "rows length hidden"],
    key: PRNGKeyArray | None,
) -> Float[Array, "rows length hidden"]:
    """Adds a convolution of the first layer's input to its output, and normalises the sum."""
    params, dtype = prepared.convolution, before.dtype
    outer = jax.lax.conv_general_dilated(
        before * prepared.mask[..., None].astype(dtype),  # padding is zero, as beyond the ends
        params["convolution"]["kernel"].astype(dtype),
        window_strides=(1,),
        padding="SAME",
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=architecture.conv_groups,
    )
    outer = dropout(outer + params["convolution"]["bias"].astype(dtype), architecture.dropout, key, CONVOLUTION)
    outer = OTHER_ACTIVATIONS[architecture.conv_act](outer)
    return layer_norm(params["convolution_norm"], after + outer, architecture.norm_eps).astype(dtype)


def forward_flops(architecture: Deberta, tokens: float, rows: float) -> float:
    """Returns the operations of all layers; the projections of relative positions, which all rows share, are left out.

    Each term of the scores takes the product of a token with as many vectors as its row has tokens.
    """
    a, mean_length = architecture, tokens / max(rows, 1)
    terms = len(a.terms) if a.relative_attention else 0
    positions = tokens * a.layers * 2.0 * terms * mean_length * a.hidden_size
    convolution = tokens * 2.0 * a.conv_kernel_size * a.hidden_size**2 / a.conv_groups
    return bert.forward_flops(a, tokens, rows) + positions + convolution


def _apply_classifier(
    architecture: Deberta,
    params: Params,
    pooled: Float[Array, "rows hidden"],
    *,
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
    groups: int,
) -> Float[Array, "rows classes"]:
    before, after = (None, None) if key is None else jax.random.split(key)
    pooled = dropout(pooled, architecture.pooler_dropout, before, groups=groups)
    pooled = OTHER_ACTIVATIONS[architecture.pooler_hidden_act](dense(params["dense"], pooled, dtype))
    pooled = dropout(pooled, architecture.classifier_dropout, after, groups=groups)
    return dense(params["output"], pooled, dtype).astype(jnp.float32)


def _init_masked_lm(architecture: Deberta, labels: int) -> Inits:
    D, E = architecture.hidden_size, architecture.embedding_size
    return {
        "dense": lambda key: init_dense(key, (D, E)),
        "norm": lambda key: init_norm((E,)),
        "bias": lambda key: jnp.zeros(architecture.vocab_size),
    }


def _apply_masked_lm(
    architecture: Deberta,
    params: Params,
    hidden: Float[Array, "*axes hidden"],
    words: Float[AnyArray, "#vocabulary embedding"],
    *,
    dtype: DTypeLike,
) -> Float[Array, "*axes vocabulary"]:
    inner = ACTIVATIONS[architecture.activation](dense(params["dense"], hidden, dtype))
    return decode_tokens(params["bias"], layer_norm(params["norm"], inner, architecture.norm_eps), words, dtype)


def _read(form: Form, config: Mapping[str, Json], pad_id: int) -> dict[str, Any]:
    fields = form.read_fields(config)
    for field, default in (("embedding_size", fields["hidden_size"]), ("classifier_dropout", fields["dropout"])):
        fields[field] = default if fields[field] is None else fields[field]
    terms = fields["pos_att_type"] or []
    terms = terms.lower().split("|") if isinstance(terms, str) else terms
    if isinstance(terms, list) and all(isinstance(term, str) for term in terms):
        fields["pos_att_type"] = "|".join(sorted({term.strip() for term in terms} - {"", "none"}))
    norms = fields["relative_norm"]
    if isinstance(norms, str):
        fields["relative_norm"] = "layer_norm" in [norm.strip() for norm in norms.lower().split("|")]
    longest = fields["max_relative_positions"]
    if isinstance(longest, int) and longest < 1:  # as in the file: this and other numbers below 1
        fields["max_relative_positions"] = config["max_position_embeddings"]
    return fields | {"position_offset": 0}


def _check(architecture: Deberta, config: Mapping[str, Json], where: str) -> None:
    a, remedy = architecture, "use the config.json of the weights"
    check_activation(a, ACTIVATIONS, where)
    least = {"embedding_size": 1, "max_relative_positions": 1, "position_buckets": -MOST_ROWS, "conv_groups": 1}
    for field in dataclasses.fields(Deberta):
        value = getattr(a, field.name)
        valid = type(value).__name__ == field.type
        if field.type == "int":
            valid = valid and least.get(field.name, 0) <= value <= MOST_ROWS
        elif field.type == "float":
            valid = type(value) in (int, float) and 0 <= value <= 1
        if not valid:
            raise UserError(f"{field.name} {value!r} is not possible", where, remedy)
    for term in filter(None, a.pos_att_type.split("|")):
        if term not in TERMS:
            _refuse("pos_att_type", term, where, f"one of {', '.join(TERMS)}, or both")
    for name in ("pooler_hidden_act", "conv_act"):
        if getattr(a, name) not in OTHER_ACTIVATIONS:
            _refuse(name, getattr(a, name), where, f"one of {', '.join(OTHER_ACTIVATIONS)}")
    for name, size in (("pooler_hidden_size", a.hidden_size), ("attention_head_size", a.hidden_size // a.heads)):
        if config.get(name) not in (None, size):
            _refuse(name, config[name], where, f"only {size}, as the other sizes say")
    middle = a.position_buckets // 2
    reached = a.positions - 1 > middle >= a.max_relative_positions - 1
    if a.relative_attention and a.position_buckets > 0 and (not middle or reached):
        what = f"{a.position_buckets} position_buckets cannot divide {a.max_relative_positions} relative positions"
        raise UserError(what, where, remedy)
    if a.conv_kernel_size and (a.conv_kernel_size % 2 == 0 or a.hidden_size % a.conv_groups):
        what = f"a convolution of {a.conv_kernel_size} positions in {a.conv_groups} groups is not possible"
        raise UserError(what, where, remedy)
    if not a.legacy and a.embedding_size != a.hidden_size:
        what = f"embedding_size {a.embedding_size} does not fit the masked-LM head of legacy=false"
        raise UserError(what, where, remedy)


def _refuse(name: str, value: Json, where: str, remedy: str) -> None:
    raise UserError(f"{name} {value!r} is not supported", where, remedy)


def _write(form: Form, architecture: Deberta) -> dict[str, Json]:
    fields = form.write_fields(architecture)
    terms = fields["pos_att_type"]
    return fields | {
        "norm_rel_ebd": "layer_norm" if fields["norm_rel_ebd"] else "none",
        "pos_att_type": terms.split("|") if isinstance(terms, str) and terms else [],
        "pooler_hidden_size": architecture.hidden_size,
    }


def _choose_form(form: Form, architecture: Deberta) -> Form:
    """Returns the form with the masked-LM head that `transformers` builds for this config.json."""
    return form if architecture.legacy else _WITH_LM_PREDICTIONS


_SAME_NAME = ("embedding_size", "position_biased_input", "relative_attention", "pos_att_type", "share_att_key")
_FORM = Form(
    classes="DebertaV2",
    prefix="deberta.",
    modules={
        "embeddings/words": "embeddings.word_embeddings",
        "embeddings/positions": "embeddings.position_embeddings",
        "embeddings/types": "embeddings.token_type_embeddings",
        "embeddings/projection": "embeddings.embed_proj",
        "embeddings/norm": "embeddings.LayerNorm",
        "embeddings/relative": "encoder.rel_embeddings",
        "embeddings/relative_norm": "encoder.LayerNorm",
        "embeddings/convolution": "encoder.conv.conv",
        "embeddings/convolution_norm": "encoder.conv.LayerNorm",
    },
    layers="encoder.layer.{}.",
    layer={
        "query": "attention.self.query_proj",
        "key": "attention.self.key_proj",
        "value": "attention.self.value_proj",
        "position_key": "attention.self.pos_key_proj",
        "position_query": "attention.self.pos_query_proj",
        "output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm": "output.LayerNorm",
    },
    heads={
        "span": {"output": "qa_outputs"},
        "classifier": {"dense": "pooler.dense", "output": "classifier"},
        "masked_lm": bert.BERT_MASKED_LM,
    },
    config={
        "hidden_size": ("hidden_size", NEEDED),
        "layers": ("num_hidden_layers", NEEDED),
        "heads": ("num_attention_heads", NEEDED),
        "intermediate_size": ("intermediate_size", NEEDED),
        "types": ("type_vocab_size", 0),
        "norm_eps": ("layer_norm_eps", 1e-7),
        "dropout": ("hidden_dropout_prob", 0.1),
        "attention_dropout": ("attention_probs_dropout_prob", 0.1),
        "classifier_dropout": ("cls_dropout", None),  # None: the rate of the layers
        "activation": ("hidden_act", "gelu"),
        "embedding_size": ("embedding_size", None),  # None: the hidden size
        "relative_norm": ("norm_rel_ebd", "none"),
        **{
            field.name: (field.name, field.default)
            for field in dataclasses.fields(Deberta)
            if field.name not in ("embedding_size", "relative_norm")
            and field.name not in {own.name for own in dataclasses.fields(Architecture)}
        },
        "max_relative_positions": ("max_relative_positions", -1),
    },
    body=("embeddings.", "encoder."),
    unused=("pooler.", "cls.", "lm_predictions.", "mask_predictions."),
    pad_id=0,
    decoders=("cls.predictions.decoder.weight",),
    # Some models keep a table of absolute positions that their settings leave out
    buffers=("embeddings.position_ids", "embeddings.position_embeddings.weight"),
)
_LM_PREDICTIONS = {
    "dense": "lm_predictions.lm_head.dense",
    "norm": "lm_predictions.lm_head.LayerNorm",
    "bias": "lm_predictions.lm_head",
}
_WITH_LM_PREDICTIONS = dataclasses.replace(_FORM, heads={**_FORM.heads, "masked_lm": _LM_PREDICTIONS})
FAMILY = Family(
    forms={"deberta-v2": _FORM},
    choose_form=_choose_form,
    architecture=Deberta,
    read=_read,
    write=_write,
    check=_check,
    init_embeddings=init_embeddings,
    init_layers=init_layers,
    embed=embed,
    prepare=prepare,
    run_layer=run_layer,
    heads={
        "span": bert.SPAN,
        "classifier": Head(bert.FAMILY.heads["classifier"].init, _apply_classifier),
        "masked_lm": Head(_init_masked_lm, _apply_masked_lm),
    },
    forward_flops=forward_flops,
)
