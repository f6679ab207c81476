# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves and loads a student with all its branches, which has no format in `transformers`: safetensors and a record."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xlkd.errors import UserError
from xlkd.files import Json, replace_folder
from xlkd.models import hf, layout
from xlkd.models.family import Architecture, Params
from xlkd.models.tensors import Tensors, check_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WEIGHTS = "branches.safetensors"  # not model.safetensors, which other software would read as one encoder


class BranchCheckpoint(NamedTuple):
    """The content of a folder: the parameters of all branches, as the method trains them, and their labels."""

    architecture: Architecture
    params: Params
    labels: tuple[str, ...]


def save(
    folder: pathlib.Path,
    architecture: Architecture,
    params: Params,
    labels: tuple[str, ...],
    record: dict[str, Json],
    *,
    tokenizer: PreTrainedTokenizerFast,
    card: str,
) -> None:
    """Writes the folder; after an error the former folder is unchanged."""
    from safetensors.numpy import save_file

    record = record | {"architecture": dataclasses.asdict(architecture), "labels": list(labels)}
    with replace_folder(folder) as draft:
        save_file({name: np.ascontiguousarray(np.asarray(x)) for name, x in _flatten(params)}, draft / WEIGHTS)
        hf.write_side_files(draft, tokenizer=tokenizer, card=card, record=record)


def load(folder: pathlib.Path) -> BranchCheckpoint:
    """Loads a folder that `save` wrote."""
    record = hf.read_json(folder / hf.RECORD)
    if missing := {"architecture", "labels", "method", "task"} - set(record):
        raise UserError(f"lacks {', '.join(sorted(missing))}", str(folder / hf.RECORD), "export the model again")
    params: Params = {}
    with Tensors([folder / WEIGHTS]) as tensors:
        check_adapters(tensors, folder)
        for name in tensors:
            if any(other.startswith(f"{name}/") for other in tensors):
                what = f"tensor {name} has the name of a group"
                raise UserError(what, str(folder / WEIGHTS), "copy the folder again")
            *parents, leaf = name.split("/")
            node = params
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = tensors[name]
    labels = record["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError("the labels are not a list of names", str(folder / hf.RECORD), "export the model again")
    return BranchCheckpoint(read_architecture(record, folder / hf.RECORD), params, tuple(labels))


def check_shapes(params: Params, expected: Params, folder: pathlib.Path) -> None:
    """Refuses parameters whose names or shapes are not those that the record of the folder asks for."""
    actual_shapes, expected_shapes = ({name: np.shape(x) for name, x in _flatten(tree)} for tree in (params, expected))
    for name in sorted(actual_shapes.keys() | expected_shapes.keys()):
        actual, wanted = actual_shapes.get(name, "absent"), expected_shapes.get(name, "absent")
        if actual != wanted:
            what = f"tensor {name} is {actual}, the record asks for {wanted}"
            raise UserError(what, str(folder / WEIGHTS), "copy the complete folder, or export the model again")


def read_architecture(record: dict[str, Json], file: pathlib.Path) -> Architecture:
    """Returns the encoder's architecture from the record of a folder; an error names the record's file."""
    try:
        fields = {name: tuple(x) if isinstance(x, list) else x for name, x in record["architecture"].items()}
        return layout.build_architecture(fields, {}, str(file))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"describes no architecture ({error})", str(file), "export the model again") from error


def _flatten(tree: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the arrays of a tree of parameters, each with its path, joined by slashes."""
    for name, inner in tree.items():
        if isinstance(inner, dict):
            yield from _flatten(inner, f"{prefix}{name}/")
        else:
            yield prefix + name, inner
