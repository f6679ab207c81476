# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves and loads a student with all its branches: safetensors and a record; `transformers` has no form for it."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

from xlkd.errors import UserError
from xlkd.files import replace_folder
from xlkd.models import hf, layout
from xlkd.models.encoder import Architecture

WEIGHTS = "branches.safetensors"  # not model.safetensors, which other software would read as one encoder


class Whole(NamedTuple):
    """Parameters as the method trains them, and what they are."""

    architecture: Architecture
    params: dict[str, Any]
    labels: tuple[str, ...]


def save(
    folder: pathlib.Path, architecture: Architecture, params, labels, record: dict[str, Any], *, tokenizer, card: str
) -> None:
    """Saves the folder, whole or not at all."""
    from safetensors.numpy import save_file

    record = record | {"architecture": dataclasses.asdict(architecture), "labels": list(labels)}
    with replace_folder(folder) as draft:
        save_file({name: np.ascontiguousarray(x) for name, x in _flat(params)}, draft / WEIGHTS)
        hf.write_side_files(draft, tokenizer=tokenizer, card=card, record=record)


def load(folder: pathlib.Path) -> Whole:
    """Loads what `save` wrote."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    record = hf.read_json(folder / hf.RECORD)
    if missing := {"architecture", "labels", "method", "task"} - set(record):
        raise UserError(f"lacks {', '.join(sorted(missing))}", str(folder / hf.RECORD), "export the model again")
    try:
        flat = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise UserError(f"unreadable weights ({error})", str(folder / WEIGHTS), "copy the folder again") from error
    params: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    labels = record["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise UserError("its labels are no list of names", str(folder / hf.RECORD), "export the model again")
    return Whole(architecture_of(record, folder / hf.RECORD), params, tuple(labels))


def architecture_of(record: dict[str, Any], where: pathlib.Path) -> Architecture:
    """Reads the architecture from the record."""
    try:
        found = Architecture(**record["architecture"])
    except (KeyError, TypeError) as error:
        raise UserError(f"names no architecture ({error})", str(where), "export the model again") from error
    layout.check(found, {}, str(where))
    return found


def _flat(tree: dict[str, Any], prefix: str = ""):
    for name, inner in tree.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{name}/")
        else:
            yield prefix + name, np.asarray(inner)
