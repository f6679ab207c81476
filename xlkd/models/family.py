# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines what the code needs of a family of encoders: its arithmetic, and its form in `transformers`.

A family is one module of `models/families/` with a `FAMILY`. Its parameters are trees of arrays: `embeddings`, `layers`
(stacked on axis 0) and, where something follows the last layer, `final`. In a layer the kernels `query`, `key`,
`value`, `gate`, `up`, `position_query` and `position_key` are divided over devices by their outputs, `output` and
`down` by their inputs; the table of words is `embeddings/words`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models.matmul import AnyArray

Params = dict[str, Any]  # parameters by name: a tree of arrays, or of their shapes
Own = Any  # an architecture of the family's own class
Inits = dict[str, Callable[[PRNGKeyArray], Any]]  # functions of a key that draw the parameters of each name

NEEDED = object()  # in place of a default: a key that config.json must have
MOST_LAYERS, MOST_ROWS = 1000, 2**24


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The settings that determine the shapes and the arithmetic of an encoder; families may add their own."""

    model_type: str  # of config.json
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    positions: int  # rows of the position table, as in the file; without a table, the longest row
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

    @property
    def word_size(self) -> int:
        """The width of the table of words."""
        return self.hidden_size


class Slice(NamedTuple):
    """A part of a tensor that holds the outputs of several linear maps of equal size."""

    module: str
    number: int
    count: int


@dataclasses.dataclass(frozen=True)
class Form:
    """The names of a model type's classes, modules and settings in `transformers`, by our names.

    A module of ours may be deeper in our tree: its path is then joined by slashes.
    """

    classes: str
    prefix: str  # of the encoder's tensors in a model with a head
    modules: Mapping[str, str]  # of `embeddings` and `final`
    layers: str  # the prefix of a layer's modules, with {} for its number
    layer: Mapping[str, str | Slice]
    heads: Mapping[str, Mapping[str, str]]
    config: Mapping[str, tuple[str, Any]]  # the key in config.json, and the value where it is absent
    body: tuple[str, ...]  # beginnings of the names of all tensors of the encoder
    unused: tuple[str, ...]  # beginnings of those that pre-trained models have beside it
    pad_id: int  # where config.json has none
    decoders: tuple[str, ...]  # names of the table of words in a masked-LM head that is not tied to it
    prefixed_heads: tuple[str, ...] = ()  # beginnings of the names of head tensors that have the prefix as well
    buffers: tuple[str, ...] = ()  # tensors without parameters
    other_prefixes: tuple[str, ...] = ()  # that some models have in place of `prefix`

    @property
    def words(self) -> str:
        """The name of the table of words."""
        return f"{self.modules['embeddings/words']}.weight"

    def simplify_name(self, name: str) -> str:
        """Returns a tensor's name without the prefix, with weight and bias for the older gamma and beta."""
        prefixes = (self.prefix, *self.other_prefixes)
        name = next((name.removeprefix(prefix) for prefix in prefixes if name.startswith(prefix)), name)
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def read_fields(self, config: Mapping[str, Json]) -> dict[str, Any]:
        """Returns the fields of `config` by our names; raises KeyError where a needed one is absent."""
        return {
            field: config[key] if default is NEEDED else config.get(key, default)
            for field, (key, default) in self.config.items()
        }

    def write_fields(self, architecture: Architecture) -> dict[str, Json]:
        """Returns the fields of `config` by the names of config.json."""
        return {key: getattr(architecture, field) for field, (key, _) in self.config.items()}


@dataclasses.dataclass(frozen=True)
class Head:
    """A head: its parameters, and its logits as a function of them."""

    init: Callable[[Own, int], Inits]  # (architecture, number of labels)
    apply: Callable[..., Float[Array, " ..."]]  # see models/heads.py for the arguments of each head


def pool_first(
    architecture: Architecture, hidden: Float[Array, "rows length hidden"], mask: Shaped[AnyArray, "rows length"]
) -> Float[Array, "rows hidden"]:
    """Returns the hidden states of the first tokens."""
    return hidden[:, 0]


def keep_hidden(architecture: Architecture, final: Params, hidden: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Returns the hidden states of the last layer as they are."""
    return hidden


def has_every_module(architecture: Architecture, layer: int, module: str) -> bool:
    """Returns True: each layer has all modules."""
    return True


def keep_fields(architecture: Architecture, layers: int) -> dict[str, Any]:
    """Returns no changes: an encoder of fewer layers has the same fields otherwise."""
    return {}


def keep_form(form: Form, architecture: Architecture) -> Form:
    """Returns the form of the model type, which all its encoders have."""
    return form


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of encoders as pure functions of architecture and parameters."""

    forms: Mapping[str, Form]  # by model type
    architecture: type[Architecture]
    read: Callable[[Form, Mapping[str, Json], int], dict[str, Any]]  # (…, config.json, pad_id) -> fields
    check: Callable[[Own, Mapping[str, Json], str], None]  # refuses what is not computed here
    init_embeddings: Callable[[PRNGKeyArray, Own, float], Params]  # the number scales the words
    init_layers: Callable[[PRNGKeyArray, Own], Params]
    embed: Callable[..., Float[Array, "rows length hidden"]]  # (architecture, tables, ids, types, *, dtype, key)
    prepare: Callable[..., Any]  # (architecture, tables, mask, dtype) -> what all layers need beside hidden states
    run_layer: Callable[..., Float[Array, "rows length hidden"]]  # (…, params, hidden, prepared, *, dtype, key, number)
    heads: Mapping[str, Head]  # span, classifier, masked_lm
    forward_flops: Callable[[Own, float, float], float]  # of all layers, for tokens in rows
    choose_form: Callable[[Form, Own], Form] = keep_form  # of an encoder, from that of its model type
    write: Callable[[Form, Own], dict[str, Json]] = Form.write_fields  # keys of config.json
    init_final: Callable[[Own], Params] = lambda architecture: {}
    finish: Callable[..., Float[Array, "rows length hidden"]] = keep_hidden  # after the last layer
    pool: Callable[..., Float[Array, "rows hidden"]] = pool_first  # what the classifier reads
    has_module: Callable[[Own, int, str], bool] = has_every_module
    select_layers: Callable[[Own, int], dict[str, Any]] = keep_fields  # changed fields with fewer layers


def check_activation(architecture: Architecture, known: Mapping[str, Any], where: str) -> None:
    """Refuses an activation that is not one of the known ones."""
    if architecture.activation not in known:
        what = f"activation {architecture.activation!r} is not supported"
        raise UserError(what, where, f"one of {', '.join(known)}")


def count_stacked(stacked: Params) -> int:
    """Returns the number of stacked layers, or branches."""
    return jax.tree.leaves(stacked)[0].shape[0]
