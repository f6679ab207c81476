# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves and loads a student with all its branches, which has no format in `transformers`: safetensors and a record."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xlkd.errors import UserError
from xlkd.files import Json, replace_folder
from xlkd.models import hf, layout
from xlkd.models.encoder import Architecture, Params

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
        save_file({name: np.ascontiguousarray(x) for name, x in _flatten(params)}, draft / WEIGHTS)
        hf.write_side_files(draft, tokenizer=tokenizer, card=card, record=record)


def load(folder: pathlib.Path) -> BranchCheckpoint:
    """Loads a folder that `save` wrote."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    record = hf.read_json(folder / hf.RECORD)
    if missing := {"architecture", "labels", "method", "task"} - set(record):
        raise UserError(f"lacks {', '.join(sorted(missing))}", str(folder / hf.RECORD), "export the model again")
    try:
        flat = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"unreadable weights ({error})", str(folder / WEIGHTS), "copy the folder again") from error
    params: Params = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    labels = record["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError("the labels are not a list of names", str(folder / hf.RECORD), "export the model again")
    return BranchCheckpoint(read_architecture(record, folder / hf.RECORD), params, tuple(labels))


def read_architecture(record: dict[str, Json], file: pathlib.Path) -> Architecture:
    """Returns the encoder's architecture from the record of a folder; an error names the record's file."""
    try:
        architecture = Architecture(**record["architecture"])
    except (KeyError, TypeError) as error:
        raise UserError(f"describes no architecture ({error})", str(file), "export the model again") from error
    layout.check(architecture, {}, str(file))
    return architecture


def _flatten(tree: Params, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of a tree of parameters, each with its path, joined by slashes."""
    for name, inner in tree.items():
        if isinstance(inner, dict):
            yield from _flatten(inner, f"{prefix}{name}/")
        else:
            yield prefix + name, np.asarray(inner)
