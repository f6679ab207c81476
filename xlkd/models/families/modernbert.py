# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""ModernBERT (mmBERT, Granite R2): rotary positions, local and global attention, gated feed-forward parts, pre-norm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray, Shaped

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models import layers, pooling, rows
from xlkd.models.attention import attend
from xlkd.models.dropout import dropout
from xlkd.models.family import (
    MOST_LAYERS,
    MOST_ROWS,
    NEEDED,
    Architecture,
    Family,
    Form,
    Head,
    Inits,
    Params,
    Slice,
    check_activation,
)
from xlkd.models.layers import (
    ATTENTION_OUTPUT,
    ATTENTION_WEIGHTS,
    EMBEDDINGS,
    FEED_FORWARD,
    HEAD,
    attention_bias,
    decode_tokens,
    dense,
    layer_norm,
    normal,
)
from xlkd.models.matmul import AnyArray

ACTIVATIONS = layers.ACTIVATIONS | {"silu": jax.nn.silu}
GLOBAL, LOCAL = "full_attention", "sliding_attention"  # types of layers in config.json
THETAS = {GLOBAL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}  # keys of transformers 4
MOST_THETA = 1e12
SPECIALS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")


@dataclasses.dataclass(frozen=True)
class ModernBert(Architecture):
    """The settings of this family; `dropout` is that of the embeddings, and the attention's is also its output's."""

    global_layers: tuple[bool, ...] = ()  # for each layer, whether each token attends to all others
    local_attention: int = 128  # the width of the window in the other layers
    global_theta: float = 160_000.0  # the base of the rotary positions' wavelengths
    local_theta: float = 10_000.0
    mlp_dropout: float = 0.0
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False
    classifier_bias: bool = False
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_activation: str = "gelu"

    @property
    def reach(self) -> int:
        """The largest distance of tokens that attend to each other in a local layer."""
        return self.local_attention // 2


class Prepared(NamedTuple):
    """Holds what all layers need: the attention bias, and the rotation of each position in local and global layers."""

    bias: Float[Array, "rows 1 1 length"]
    cos: Float[Array, "2 length frequencies"]
    sin: Float[Array, "2 length frequencies"]


def init_embeddings(key: PRNGKeyArray, architecture: ModernBert, scale: float) -> Params:
    """Returns fresh parameters of the embeddings: the table of words, whose scale is given, and a norm."""
    D = architecture.hidden_size
    return {"words": normal(key, (architecture.vocab_size, D), scale), "norm": _init_norm(architecture, (D,))}


def init_layers(key: PRNGKeyArray, architecture: ModernBert) -> Params:
    """Returns fresh parameters of all layers, stacked on axis 0; the first layer's attention norm is not used."""
    L, D, F = architecture.layers, architecture.hidden_size, architecture.intermediate_size
    keys = iter(jax.random.split(key, 7))
    attention = {
        name: _init_dense(next(keys), (L, D, D), architecture.attention_bias)
        for name in ("query", "key", "value", "output")
    }
    shapes = {"gate": (L, D, F), "up": (L, D, F), "down": (L, F, D)}
    mlp = {name: _init_dense(next(keys), shape, architecture.mlp_bias) for name, shape in shapes.items()}
    norms = {name: _init_norm(architecture, (L, D)) for name in ("attention_norm", "norm")}
    return attention | mlp | norms


def init_final(architecture: ModernBert) -> Params:
    """Returns fresh parameters of what follows the last layer."""
    return {"norm": _init_norm(architecture, (architecture.hidden_size,))}


def _init_dense(key: PRNGKeyArray, shape: tuple[int, ...], has_bias: bool) -> Params:
    kernel = {"kernel": normal(key, shape)}
    return kernel | {"bias": jnp.zeros((*shape[:-2], shape[-1]))} if has_bias else kernel


def _init_norm(architecture: ModernBert, shape: tuple[int, ...]) -> Params:
    scale = {"scale": jnp.ones(shape)}
    return scale | {"bias": jnp.zeros(shape)} if architecture.norm_bias else scale


def embed(
    architecture: ModernBert,
    tables: Params,
    ids: Integer[AnyArray, "rows length"],
    types: Integer[AnyArray, "rows length"] | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "rows length hidden"]:
    """Returns the input of the first layer: words, normalised."""
    hidden = layer_norm(tables["norm"], rows.look_up(tables["words"], ids), architecture.norm_eps).astype(dtype)
    return dropout(hidden, architecture.dropout, key, EMBEDDINGS)


def prepare(
    architecture: ModernBert, tables: Params, mask: Shaped[AnyArray, "rows length"], dtype: DTypeLike
) -> Prepared:
    """Returns the bias of the attention scores, and the rotary positions."""
    width = architecture.hidden_size // architecture.heads
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    thetas = np.array([[architecture.local_theta], [architecture.global_theta]], np.float32)
    angles = jnp.arange(mask.shape[-1], dtype=jnp.float32)[:, None] * (1 / thetas**exponents)[:, None]
    return Prepared(attention_bias(mask), jnp.cos(angles), jnp.sin(angles))


def run_layer(
    architecture: ModernBert,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    prepared: Prepared,
    *,
    dtype: DTypeLike = jnp.float32,
    key: PRNGKeyArray | None = None,
    number: Int[Array, ""] | int = 0,
) -> Float[Array, "rows length hidden"]:
    """Runs one layer, which normalises the input of each of its two parts; the embeddings are normalised already."""
    hidden = rows.shard_rows(hidden)
    normed = layer_norm(params["attention_norm"], hidden, architecture.norm_eps).astype(dtype)
    if not isinstance(number, int):
        normed = jnp.where(number == 0, hidden, normed)
    elif number == 0:
        normed = hidden
    attended = _run_attention(architecture, params, normed, prepared, dtype, key, number)
    hidden = rows.shard_rows(hidden + dropout(attended, architecture.attention_dropout, key, ATTENTION_OUTPUT, number))
    normed = layer_norm(params["norm"], hidden, architecture.norm_eps).astype(dtype)
    gate = ACTIVATIONS[architecture.activation](dense(params["gate"], normed, dtype))
    inner = gate * dense(params["up"], normed, dtype)
    return hidden + dense(params["down"], dropout(inner, architecture.mlp_dropout, key, FEED_FORWARD, number), dtype)


def _run_attention(
    architecture: ModernBert,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    prepared: Prepared,
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
    number: Int[Array, ""] | int,
) -> Float[Array, "rows length hidden"]:
    rows, length, D = hidden.shape
    split = (rows, length, architecture.heads, D // architecture.heads)
    is_global = _is_global(architecture, number)
    cos, sin = prepared.cos[jnp.int32(is_global)], prepared.sin[jnp.int32(is_global)]
    q, k, v = (dense(params[name], hidden, dtype).reshape(split) for name in ("query", "key", "value"))
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)

    def attend_globally(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend(q, k, v, prepared.bias, architecture.attention_dropout, key, ATTENTION_WEIGHTS, number)

    def attend_locally(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        place, window = (ATTENTION_WEIGHTS, number), architecture.reach
        return attend(q, k, v, prepared.bias, architecture.attention_dropout, key, *place, window=window)

    if architecture.reach >= length - 1:
        context = attend_globally(q, k, v)
    elif isinstance(is_global, bool):
        context = attend_globally(q, k, v) if is_global else attend_locally(q, k, v)
    else:
        context = jax.lax.cond(is_global, attend_globally, attend_locally, q, k, v)
    return dense(params["output"], context.reshape(rows, length, D), dtype)


def _is_global(architecture: ModernBert, number: Int[Array, ""] | int) -> Bool[Array, ""] | bool:
    """Says whether a layer is global, without an array where that is known before the program runs."""
    if isinstance(number, int):
        return architecture.global_layers[number]
    if len(set(architecture.global_layers)) == 1:
        return architecture.global_layers[0]
    return jnp.asarray(architecture.global_layers)[number]


def _rotate(
    x: Float[Array, "rows length heads head_size"],
    cos: Float[Array, "length frequencies"],
    sin: Float[Array, "length frequencies"],
) -> Float[Array, "rows length heads head_size"]:
    """Rotates the plane of each value of the first half and its counterpart in the second half."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def finish(
    architecture: ModernBert, final: Params, hidden: Float[Array, "rows length hidden"]
) -> Float[Array, "rows length hidden"]:
    """Normalises the output of the last layer."""
    return layer_norm(final["norm"], hidden, architecture.norm_eps).astype(hidden.dtype)


def pool(
    architecture: ModernBert, hidden: Float[Array, "rows length hidden"], mask: Shaped[AnyArray, "rows length"]
) -> Float[Array, "rows hidden"]:
    """Returns the hidden states of the first tokens, or the mean of all tokens, as config.json says."""
    return pooling.pool(hidden, jnp.asarray(mask), architecture.classifier_pooling).astype(hidden.dtype)


def forward_flops(architecture: ModernBert, tokens: float, rows: float) -> float:
    """Returns the operations of all layers: linear maps, and attention over the mean length or the window."""
    D, F = architecture.hidden_size, architecture.intermediate_size
    mean_length = tokens / max(rows, 1)
    window = min(mean_length, 2.0 * architecture.reach + 1)
    keys = sum(mean_length if is_global else window for is_global in architecture.global_layers)
    return tokens * (architecture.layers * (8.0 * D**2 + 6.0 * D * F) + 4.0 * keys * D)


def has_module(architecture: ModernBert, layer: int, module: str) -> bool:
    """Returns whether a layer has a module: only the first one lacks the norm before its attention."""
    return layer > 0 or module != "attention_norm"


def select_layers(architecture: ModernBert, count: int) -> dict[str, Any]:
    """Returns which of the lowest layers are global."""
    return {"global_layers": architecture.global_layers[:count]}


def _init_transform(architecture: ModernBert) -> Inits:
    """Returns what every head begins with: a linear map and a norm."""
    D = architecture.hidden_size
    return {
        "dense": lambda key: _init_dense(key, (D, D), architecture.classifier_bias),
        "norm": lambda key: _init_norm(architecture, (D,)),
    }


def _transform(
    architecture: ModernBert, params: Params, hidden: Float[Array, "*axes hidden"], dtype: DTypeLike
) -> Float[Array, "*axes hidden"]:
    inner = ACTIVATIONS[architecture.classifier_activation](dense(params["dense"], hidden, dtype))
    return layer_norm(params["norm"], inner, architecture.norm_eps).astype(dtype)


def _init_labels(architecture: ModernBert, labels: int) -> Inits:
    output = {"output": lambda key: _init_dense(key, (architecture.hidden_size, labels), True)}
    return _init_transform(architecture) | output


def _apply_span(
    architecture: ModernBert,
    params: Params,
    hidden: Float[Array, "rows length hidden"],
    *,
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
) -> Float[Array, "rows length 2"]:
    hidden = dropout(_transform(architecture, params, hidden, dtype), architecture.classifier_dropout, key, HEAD)
    return dense(params["output"], hidden, dtype).astype(jnp.float32)


def _apply_classifier(
    architecture: ModernBert,
    params: Params,
    pooled: Float[Array, "rows hidden"],
    *,
    dtype: DTypeLike,
    key: PRNGKeyArray | None,
    groups: int,
) -> Float[Array, "rows classes"]:
    pooled = _transform(architecture, params, pooled, dtype)
    pooled = dropout(pooled, architecture.classifier_dropout, key, HEAD, groups=groups)
    return dense(params["output"], pooled, dtype).astype(jnp.float32)


def _init_masked_lm(architecture: ModernBert, labels: int) -> Inits:
    bias: Inits = {"bias": lambda key: jnp.zeros(architecture.vocab_size)} if architecture.decoder_bias else {}
    return _init_transform(architecture) | bias


def _apply_masked_lm(
    architecture: ModernBert,
    params: Params,
    hidden: Float[Array, "*axes hidden"],
    words: Float[AnyArray, "#vocabulary hidden"],
    *,
    dtype: DTypeLike,
) -> Float[Array, "*axes vocabulary"]:
    bias = params["bias"] if architecture.decoder_bias else jnp.zeros(architecture.vocab_size)
    return decode_tokens(bias, _transform(architecture, params, hidden, dtype), words, dtype)


def _read(form: Form, config: Mapping[str, Json], pad_id: int) -> dict[str, Any]:
    return form.read_fields(config) | {
        "types": 0,
        "position_offset": 0,
        "global_layers": _read_global_layers(config),
        "global_theta": _read_theta(config, GLOBAL),
        "local_theta": _read_theta(config, LOCAL),
    }


def _read_global_layers(config: Mapping[str, Json]) -> tuple[bool, ...] | None:
    """Returns which layers are global, by their list in transformers 5 or their period in 4; None if neither is one."""
    types = config.get("layer_types")
    if isinstance(types, list) and all(kind in (GLOBAL, LOCAL) for kind in types):
        return tuple(kind == GLOBAL for kind in types)
    count, period = config["num_hidden_layers"], config.get("global_attn_every_n_layers", 3)
    if types is not None or type(count) is not int or count > MOST_LAYERS or type(period) is not int or period < 1:
        return None
    return _list_periodic(count, period)


def _list_periodic(count: int, period: int) -> tuple[bool, ...]:
    return tuple(i % period == 0 for i in range(count))


def _read_theta(config: Mapping[str, Json], kind: str) -> Json:
    ropes = config.get("rope_parameters")
    rope = ropes.get(kind) if isinstance(ropes, dict) else None
    theta = rope.get("rope_theta") if isinstance(rope, dict) else None
    return config.get(*THETAS[kind]) if theta is None else theta


def _write(form: Form, architecture: ModernBert) -> dict[str, Json]:
    """Returns the keys of transformers 5, and those of 4, which has only periodic layers."""
    thetas = {GLOBAL: architecture.global_theta, LOCAL: architecture.local_theta}
    config = form.write_fields(architecture) | {
        "layer_types": [GLOBAL if is_global else LOCAL for is_global in architecture.global_layers],
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
    }
    config |= {old: thetas[kind] for kind, (old, _) in THETAS.items()}
    config |= dict.fromkeys(SPECIALS)  # otherwise transformers takes those of ModernBERT's own vocabulary
    count = architecture.layers
    for period in range(1, count + 1):
        if _list_periodic(count, period) == architecture.global_layers:
            config["global_attn_every_n_layers"] = period
    return config


def _check(architecture: ModernBert, config: Mapping[str, Json], where: str) -> None:
    _check_ropes(config, where)
    for field in dataclasses.fields(ModernBert):
        value = getattr(architecture, field.name)
        if not _is_possible(architecture, field.name, str(field.type), value):
            raise UserError(f"{field.name} {value!r} is not possible", where, "use the config.json of the weights")
    check_activation(architecture, ACTIVATIONS, where)
    D, heads = architecture.hidden_size, architecture.heads
    if D % heads == 0 and D // heads % 2:
        what = f"heads of {D // heads} values have no rotary positions, which need an even number"
        raise UserError(what, where, "use the config.json of the weights")


def _is_possible(architecture: ModernBert, name: str, kind: str, value: Any) -> bool:
    """Says whether a field of this family has a possible value."""
    if kind == "bool":
        return type(value) is bool
    if kind == "float":
        least, most = (1, MOST_THETA) if name.endswith("theta") else (0, 1)
        return type(value) in (int, float) and least <= value <= most
    if name == "local_attention":
        return type(value) is int and 1 <= value <= MOST_ROWS
    if name == "global_layers":
        return type(value) is tuple and list(map(type, value)) == [bool] * architecture.layers
    known = {"classifier_pooling": ("cls", "mean"), "classifier_activation": tuple(ACTIVATIONS)}
    return name not in known or value in known[name]


def _check_ropes(config: Mapping[str, Json], where: str) -> None:
    """Refuses rotary positions that are scaled for longer rows."""
    ropes = config.get("rope_parameters") or {}
    for rope in (config.get("rope_scaling"), *(ropes.values() if isinstance(ropes, dict) else [ropes])):
        kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
        if kind not in (None, "default"):
            raise UserError(f"rope {kind!r} is not supported", where, "use an encoder with unscaled rotary positions")


_HEAD = {"dense": "head.dense", "norm": "head.norm"}
FAMILY = Family(
    forms={
        "modernbert": Form(
            classes="ModernBert",
            prefix="model.",
            modules={
                "embeddings/words": "embeddings.tok_embeddings",
                "embeddings/norm": "embeddings.norm",
                "final/norm": "final_norm",
            },
            layers="layers.{}.",
            layer={
                "attention_norm": "attn_norm",
                "query": Slice("attn.Wqkv", 0, 3),
                "key": Slice("attn.Wqkv", 1, 3),
                "value": Slice("attn.Wqkv", 2, 3),
                "output": "attn.Wo",
                "norm": "mlp_norm",
                "gate": Slice("mlp.Wi", 0, 2),
                "up": Slice("mlp.Wi", 1, 2),
                "down": "mlp.Wo",
            },
            heads={
                "span": _HEAD | {"output": "classifier"},
                "classifier": _HEAD | {"output": "classifier"},
                "masked_lm": _HEAD | {"bias": "decoder"},
            },
            config={
                "hidden_size": ("hidden_size", NEEDED),
                "layers": ("num_hidden_layers", NEEDED),
                "heads": ("num_attention_heads", NEEDED),
                "intermediate_size": ("intermediate_size", NEEDED),
                "norm_eps": ("norm_eps", 1e-5),
                "dropout": ("embedding_dropout", 0.0),
                "attention_dropout": ("attention_dropout", 0.0),
                "mlp_dropout": ("mlp_dropout", 0.0),
                "classifier_dropout": ("classifier_dropout", 0.0),
                "activation": ("hidden_activation", "gelu"),
                "local_attention": ("local_attention", 128),
                "attention_bias": ("attention_bias", False),
                "mlp_bias": ("mlp_bias", False),
                "norm_bias": ("norm_bias", False),
                "classifier_bias": ("classifier_bias", False),
                "decoder_bias": ("decoder_bias", True),
                "classifier_pooling": ("classifier_pooling", "cls"),
                "classifier_activation": ("classifier_activation", "gelu"),
            },
            body=("embeddings.", "layers.", "final_norm."),
            unused=("head.", "decoder."),
            pad_id=50283,
            decoders=("decoder.weight",),
        )
    },
    architecture=ModernBert,
    read=_read,
    check=_check,
    init_embeddings=init_embeddings,
    init_layers=init_layers,
    embed=embed,
    prepare=prepare,
    run_layer=run_layer,
    heads={
        "span": Head(_init_labels, _apply_span),
        "classifier": Head(_init_labels, _apply_classifier),
        "masked_lm": Head(_init_masked_lm, _apply_masked_lm),
    },
    forward_flops=forward_flops,
    write=_write,
    init_final=init_final,
    finish=finish,
    pool=pool,
    has_module=has_module,
    select_layers=select_layers,
)
