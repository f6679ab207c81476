# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Maps our parameters and settings to the tensors and the config.json of `transformers`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models import encoder, heads
from xlkd.models.encoder import Architecture, Params


@dataclasses.dataclass(frozen=True)
class Family:
    """The names of a model type's classes, modules and settings in `transformers`, by our names."""

    classes: str
    prefix: str
    layers: str
    layer: dict[str, str]
    heads: dict[str, dict[str, str]]
    config: dict[str, tuple[str, Any]]  # the key in config.json, and the value where it is absent


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of `transformers`: its name, its path in our tree, and whether it is transposed there."""

    name: str
    path: tuple[str, ...]
    layer: int | None
    transposed: bool


EMBEDDINGS = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
WORDS = f"{EMBEDDINGS['words']}.weight"
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
_BERT_HEADS = {
    "span": {"output": "qa_outputs"},
    "classifier": {"dense": "pooler.dense", "output": "classifier"},
    "masked_lm": {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "bias": "cls.predictions",
    },
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
_NEEDED = object()
_BERT_CONFIG = {
    "hidden_size": ("hidden_size", _NEEDED),
    "layers": ("num_hidden_layers", _NEEDED),
    "heads": ("num_attention_heads", _NEEDED),
    "intermediate_size": ("intermediate_size", _NEEDED),
    "types": ("type_vocab_size", 2),
    "norm_eps": ("layer_norm_eps", 1e-12),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "classifier_dropout": ("classifier_dropout", None),  # None: the rate of the layers
    "activation": ("hidden_act", "gelu"),
}
_DISTILBERT_CONFIG = {
    "hidden_size": ("dim", _NEEDED),
    "layers": ("n_layers", _NEEDED),
    "heads": ("n_heads", _NEEDED),
    "intermediate_size": ("hidden_dim", _NEEDED),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "classifier_dropout": ("seq_classif_dropout", 0.2),
    "activation": ("activation", "gelu"),
}
_BERT = ("encoder.layer.{}.", _BERT_LAYER)
FAMILIES = {
    "bert": Family("Bert", "bert.", *_BERT, _BERT_HEADS, _BERT_CONFIG),
    "roberta": Family("Roberta", "roberta.", *_BERT, _ROBERTA_HEADS, _BERT_CONFIG),
    "xlm-roberta": Family("XLMRoberta", "roberta.", *_BERT, _ROBERTA_HEADS, _BERT_CONFIG),
    "camembert": Family("Camembert", "roberta.", *_BERT, _ROBERTA_HEADS, _BERT_CONFIG),
    "distilbert": Family(
        "DistilBert", "distilbert.", "transformer.layer.{}.", _DISTILBERT_LAYER, _DISTILBERT_HEADS, _DISTILBERT_CONFIG
    ),
}
CLASSES = {"span": "ForQuestionAnswering", "classifier": "ForSequenceClassification", "masked_lm": "ForMaskedLM"}
MOST_LAYERS, MOST_ROWS = 1000, 2**24
DECODERS = ("cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight")
_BODY = ("embeddings.", "encoder.", "transformer.", "pooler.")  # modules with the prefix


def canonical_name(name: str) -> str:
    """Returns a tensor's name without its model's prefix, with weight and bias for the older gamma and beta."""
    prefixes = {family.prefix for family in FAMILIES.values()} | {"camembert."}
    name = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def list_entries(architecture: Architecture, part: str, tree: Params) -> Iterator[Entry]:
    """Yields the tensors of one part (`encoder` or a head) with the structure of `tree`, by canonical name."""
    family = FAMILIES[architecture.model_type]
    if part != "encoder":
        yield from _list_modules(family.heads[part], tree)
        return
    for entry in _list_modules(EMBEDDINGS, tree["embeddings"]):
        yield dataclasses.replace(entry, path=("embeddings", *entry.path))
    for i in range(architecture.layers):
        for entry in _list_modules(family.layer, tree["layers"]):
            name = family.layers.format(i) + entry.name
            yield dataclasses.replace(entry, name=name, path=("layers", *entry.path), layer=i)


def _list_modules(names: dict[str, str], tree: Params) -> Iterator[Entry]:
    for module, leaves in tree.items():
        paths = [(module, leaf) for leaf in leaves] if isinstance(leaves, dict) else [(module,)]
        for path in paths:
            leaf = "bias" if path[-1] == "bias" else "weight"
            yield Entry(f"{names[module]}.{leaf}", path, None, transposed=path[-1] == "kernel")


def to_tensors(architecture: Architecture, params: Params) -> dict[str, np.ndarray]:
    """Returns parameters (or gradients) with the names and the layout of `transformers`, each array contiguous."""
    # `transformers` too saves an encoder without a head without the prefix
    prefix = FAMILIES[architecture.model_type].prefix if len(params) > 1 else ""
    tensors = {}
    for part, tree in params.items():
        for entry in list_entries(architecture, part, tree):
            leaf = tree
            for step in entry.path:
                leaf = leaf[step]
            value = np.asarray(leaf if entry.layer is None else leaf[entry.layer])
            name = prefix + entry.name if entry.name.startswith(_BODY) else entry.name
            # safetensors writes the memory as it is: a transposed view would be saved as garbage
            tensors[name] = np.ascontiguousarray(value.T if entry.transposed else value)
    return tensors


@functools.lru_cache(maxsize=16)  # a run loads the same model several times
def list_shapes(architecture: Architecture, labels: int) -> Params:
    """Returns trees of shapes of the encoder and of every head, which must not be changed."""
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    modules = {
        "span": heads.SpanHead(architecture),
        "classifier": heads.ClassifierHead(architecture, labels),
        "masked_lm": heads.MaskedLMHead(architecture),
    }
    trees = {"encoder": jax.eval_shape(lambda k: encoder.init(architecture, k), key)}
    for part, module in modules.items():
        trees[part] = jax.eval_shape(lambda k, module=module: heads.init_head(module, k), key)
    return trees


def read_architecture(config: dict[str, Json], where: str | os.PathLike[str] = "config.json") -> Architecture:
    """Reads the architecture from config.json; refuses encoders that this code cannot compute."""
    kind, where = config.get("model_type"), str(where)
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(f"model_type {kind!r} is not supported", where, f"supported: {', '.join(FAMILIES)}")
    try:
        values = _read_values(config, kind)
        pad = config.get("pad_token_id")
        pad = (0 if kind in heads.OLD else 1) if pad is None else pad
        offset = 0 if kind in heads.OLD else pad + 1
        architecture = Architecture(
            model_type=kind,
            vocab_size=config["vocab_size"],
            positions=config["max_position_embeddings"],
            pad_id=pad,
            position_offset=offset,
            **values,
        )
    except KeyError as error:
        raise UserError(f"{error} is missing", where, "use the config.json that belongs to the weights") from error
    except TypeError as error:
        raise UserError("pad_token_id is not a whole number", where, "use the config.json of the weights") from error
    check(architecture, config, where)
    return architecture


def _read_values(config: dict[str, Json], kind: str) -> dict[str, Any]:
    """Reads the fields whose keys differ between families."""
    values: dict[str, Any] = {"types": 0}
    for field, (key, default) in FAMILIES[kind].config.items():
        values[field] = config[key] if default is _NEEDED else config.get(key, default)
    if values["classifier_dropout"] is None and kind != "distilbert":
        values["classifier_dropout"] = values["dropout"]
    return values


def check(architecture: Architecture, config: dict[str, Json], where: str) -> None:
    """Refuses impossible encoders, and those that this code does not compute."""
    _check_numbers(architecture, where)
    _check_supported(architecture, config, where)


def _check_numbers(architecture: Architecture, where: str) -> None:
    """Refuses numbers that no encoder has: of another type, too low or too high."""
    for field in dataclasses.fields(architecture):
        value = getattr(architecture, field.name)
        if field.type == "int":
            least = 0 if field.name in ("types", "pad_id", "position_offset") else 1
            valid = type(value) is int and least <= value <= (MOST_LAYERS if field.name == "layers" else MOST_ROWS)
        elif field.type == "float":
            valid = type(value) in (int, float) and 0 <= value <= 1
        else:
            valid = isinstance(value, str)
        if not valid:
            raise UserError(f"{field.name} {value!r} is not possible", where, "use the config.json of the weights")
    if architecture.max_length < 1 or architecture.pad_id >= architecture.vocab_size:
        what = f"padding {architecture.pad_id} does not fit its {architecture.positions} positions or its tokens"
        raise UserError(what, where, "use the config.json of the weights")


def _check_supported(architecture: Architecture, config: dict[str, Json], where: str) -> None:
    kind = config.get("position_embedding_type") or "absolute"
    activation, D, heads_ = architecture.activation, architecture.hidden_size, architecture.heads
    if activation not in encoder.ACTIVATIONS:
        raise UserError(
            f"activation {activation!r} is not supported", where, f"one of {', '.join(encoder.ACTIVATIONS)}"
        )
    if kind != "absolute":
        raise UserError(
            f"position_embedding_type {kind!r} is not supported", where, "use an encoder with absolute positions"
        )
    if config.get("is_decoder"):
        raise UserError("is_decoder is set", where, "use an encoder")
    if D % heads_:
        raise UserError(
            f"{heads_} heads do not divide a hidden size of {D}", where, "use the config.json of the weights"
        )


def write_config(architecture: Architecture, params: Params, labels: tuple[str, ...] | None) -> dict[str, Json]:
    """Returns the config.json of an export."""
    kind = architecture.model_type
    head = next((CLASSES[name] for name in CLASSES if name in params), "Model")
    config: dict[str, Json] = {
        "architectures": [FAMILIES[kind].classes + head],
        "model_type": kind,
        "dtype": "float32",
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.positions,
        "pad_token_id": architecture.pad_id,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    }
    config |= {key: getattr(architecture, field) for field, (key, _) in FAMILIES[kind].config.items()}
    if "classifier" in params:
        count = np.shape(params["classifier"]["output"]["bias"])[0]
        labels = labels or tuple(f"LABEL_{i}" for i in range(count))
        if len(labels) != count:
            raise ValueError(f"{len(labels)} labels for a head of {count}")
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    return config
