# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Maps our parameters and settings to the tensors and the config.json of `transformers`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models import encoder, heads
from xlkd.models.families import find_family, find_form, list_families
from xlkd.models.family import MOST_LAYERS, MOST_ROWS, Architecture, Params, Slice

CLASSES = {"span": "ForQuestionAnswering", "classifier": "ForSequenceClassification", "masked_lm": "ForMaskedLM"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of `transformers`, or a slice of one: its name, its path in our tree, whether it is transposed there."""

    name: str
    path: tuple[str, ...]
    layer: int | None
    transposed: bool
    number: int = 0  # of the slice
    count: int = 1

    def cut(self, tensor: np.ndarray) -> np.ndarray:
        """Returns this slice of the tensor; an uneven rest belongs to the last one, whose shape is then refused."""
        rows = len(tensor) // self.count if self.count > 1 else 0
        end = None if self.number == self.count - 1 else rows * (self.number + 1)
        return tensor[rows * self.number : end] if self.count > 1 else tensor


def list_entries(architecture: Architecture, part: str, tree: Params) -> Iterator[Entry]:
    """Yields the tensors of one part (`encoder` or a head) with the structure of `tree`, by simplified name."""
    family, form = find_family(architecture), find_form(architecture)
    if part != "encoder":
        yield from _list_modules(form.heads[part], tree)
        return
    yield from _list_modules(form.modules, {name: tree[name] for name in tree if name != "layers"})
    for i in range(architecture.layers):
        for entry in _list_modules(form.layer, tree["layers"]):
            if family.has_module(architecture, i, entry.path[0]):
                name = form.layers.format(i) + entry.name
                yield dataclasses.replace(entry, name=name, path=("layers", *entry.path), layer=i)


def _list_modules(names: Mapping[str, str | Slice], tree: Params, path: tuple[str, ...] = ()) -> Iterator[Entry]:
    """Yields the tensors of a tree; `names` has the modules by path, or the tensor itself where the path is a leaf."""
    for key, value in tree.items():
        inner = (*path, key)
        if isinstance(value, dict):
            yield from _list_modules(names, value, inner)
            continue
        module = names.get("/".join(inner)) or names["/".join(path)]
        part = module if isinstance(module, Slice) else Slice(module, 0, 1)
        leaf = "bias" if key == "bias" else "weight"
        yield Entry(f"{part.module}.{leaf}", inner, None, key == "kernel", part.number, part.count)


def to_tensors(architecture: Architecture, params: Params) -> dict[str, np.ndarray]:
    """Returns parameters (or gradients) with the names and the layout of `transformers`, each array contiguous."""
    form = find_form(architecture)
    # `transformers` too saves an encoder without a head without the prefix
    prefix = form.prefix if len(params) > 1 else ""
    slices: dict[str, dict[int, np.ndarray]] = {}
    for part, tree in params.items():
        for entry in list_entries(architecture, part, tree):
            leaf = tree
            for step in entry.path:
                leaf = leaf[step]
            value = np.asarray(leaf if entry.layer is None else leaf[entry.layer])
            has_prefix = entry.name.startswith(form.body + form.prefixed_heads)
            name = prefix + entry.name if has_prefix else entry.name
            if entry.number in slices.setdefault(name, {}):
                raise ValueError(f"{name} is a tensor of several heads; save one of them")
            slices[name][entry.number] = value.T if entry.transposed else value
    # safetensors writes the memory as it is: a transposed view would be saved as garbage
    return {
        name: np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate([parts[i] for i in sorted(parts)]))
        for name, parts in slices.items()
    }


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
    kind, where, families = config.get("model_type"), str(where), list_families()
    if not isinstance(kind, str) or kind not in families:
        raise UserError(f"model_type {kind!r} is not supported", where, f"supported: {', '.join(families)}")
    form = families[kind].forms[kind]
    pad = form.pad_id if config.get("pad_token_id") is None else config["pad_token_id"]
    if not isinstance(pad, int):
        raise UserError("pad_token_id is not a whole number", where, "use the config.json of the weights")
    try:
        fields = {
            "model_type": kind,
            "vocab_size": config["vocab_size"],
            "positions": config["max_position_embeddings"],
            "pad_id": pad,
            **families[kind].read(form, config, pad),
        }
    except KeyError as error:
        raise UserError(f"{error} is missing", where, "use the config.json that belongs to the weights") from error
    return build_architecture(fields, config, where)


def build_architecture(fields: dict[str, Any], config: dict[str, Json], where: str) -> Architecture:
    """Builds an architecture; refuses impossible encoders, and those that this code does not compute."""
    _check_numbers(fields, where)
    family = list_families()[fields["model_type"]]
    architecture = family.architecture(**fields)
    if architecture.max_length < 1 or architecture.pad_id >= architecture.vocab_size:
        what = f"padding {architecture.pad_id} does not fit its {architecture.positions} positions or its tokens"
        raise UserError(what, where, "use the config.json of the weights")
    family.check(architecture, config, where)
    D, heads_ = architecture.hidden_size, architecture.heads
    if config.get("is_decoder"):
        raise UserError("is_decoder is set", where, "use an encoder")
    if D % heads_:
        raise UserError(
            f"{heads_} heads do not divide a hidden size of {D}", where, "use the config.json of the weights"
        )
    return architecture


def _check_numbers(fields: dict[str, Any], where: str) -> None:
    """Refuses numbers that no encoder has: of another type, too low or too high."""
    for field in dataclasses.fields(Architecture):  # a family checks its own
        if field.name not in fields:
            continue
        value = fields[field.name]
        if field.type == "int":
            least = 0 if field.name in ("types", "pad_id", "position_offset") else 1
            valid = type(value) is int and least <= value <= (MOST_LAYERS if field.name == "layers" else MOST_ROWS)
        elif field.type == "float":
            valid = type(value) in (int, float) and 0 <= value <= 1
        else:
            valid = isinstance(value, str)
        if not valid:
            raise UserError(f"{field.name} {value!r} is not possible", where, "use the config.json of the weights")


def write_config(architecture: Architecture, params: Params, labels: tuple[str, ...] | None) -> dict[str, Json]:
    """Returns the config.json of an export."""
    family, form = find_family(architecture), find_form(architecture)
    head = next((CLASSES[name] for name in CLASSES if name in params), "Model")
    config: dict[str, Json] = {
        "architectures": [form.classes + head],
        "model_type": architecture.model_type,
        "dtype": "float32",
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.positions,
        "pad_token_id": architecture.pad_id,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
    }
    config |= family.write(form, architecture)
    if "classifier" in params:
        count = np.shape(params["classifier"]["output"]["bias"])[0]
        labels = labels or tuple(f"LABEL_{i}" for i in range(count))
        if len(labels) != count:
            raise ValueError(f"{len(labels)} labels for a head of {count}")
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
    return config
