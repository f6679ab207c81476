# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Identifies the inputs of a stage by hashes, so that a stage never resumes with other data, tokenizers or weights."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping

from xlkd.data import sources
from xlkd.data.vectors import VectorFile
from xlkd.files import Json
from xlkd.inputs.weights import Weights, read_folder_architecture
from xlkd.runtime.workdir import read_object
from xlkd.tasks.tokenization import TextTokenizer

Identity = dict[str, Json]  # of one input: its SHA-256, and for data the number of examples


def identify_inputs(
    encoders: Mapping[str, Weights | None],
    data: Mapping[str, sources.Rows],
    classifiers: Mapping[str, pathlib.Path],
    vectors: VectorFile | None = None,
) -> dict[str, Identity]:
    """Returns the identity of every input: encoders with their tokenizers, data, classifiers' folders, vectors."""
    identities: dict[str, Identity] = {}
    for name, weights in encoders.items():
        if weights:
            identities[f"tokenizer of {name}"] = {"sha256": TextTokenizer(weights.tokenizer).identity}
            if weights.folders:
                hashes = [hash_weights(folder) for folder in weights.folders]
                identities[f"weights of {name}"] = {"sha256": " + ".join(hashes)}
    for name, rows in data.items():
        identities[f"config.data.{name}"] = {"examples": len(rows), "sha256": rows.compute_hash()}
    for name, folder in classifiers.items():
        identities[f"teacher {name}"] = {"sha256": hash_weights(folder)}
    if vectors:
        identities["config.teacher.vectors"] = {"sha256": vectors.sha256}
    return identities


def read_identities(file: pathlib.Path) -> dict[str, Identity] | None:
    """Reads the inputs that a stage has recorded; None where the file is missing or damaged."""
    inputs = (read_object(file) or {}).get("inputs")
    is_sound = isinstance(inputs, dict) and all(isinstance(identity, dict) for identity in inputs.values())
    return inputs if is_sound else None


def describe_changes(before: Mapping[str, Identity], now: Mapping[str, Identity]) -> str:
    """Names the inputs that differ; "" where none does."""
    changes = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old != new:
            counts = [identity.get("examples") for identity in (old or {}, new or {})]
            is_count = None not in counts and counts[0] != counts[1]
            changes.append(f"{name} ({counts[0]} examples then, {counts[1]} now)" if is_count else name)
    return ", ".join(changes)


def hash_weights(folder: pathlib.Path) -> str:
    """Returns the SHA-256 of the weights and the architecture of a model, without the names of its labels."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    digest.update(repr(read_folder_architecture(folder)).encode())
    return digest.hexdigest()
