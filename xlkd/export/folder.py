# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes what a stage exports: a folder that transformers loads, with a card that says what it was trained on."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from xlkd import files, spec
from xlkd.export import branch_checkpoint, cards
from xlkd.methods import Export
from xlkd.models import hf, sentences
from xlkd.spec.stage import AnySettings

UNMARKED = (  # the files of version 0.1's exports, which have no marker
    *("config.json", "model.safetensors", branch_checkpoint.WEIGHTS, hf.RECORD, hf.CARD),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
)


def write_export(
    folder: pathlib.Path,
    exported: Export,
    tokenizer: Any,
    settings: AnySettings,
    results: dict[str, Any],
    seen: dict[str, Any],
    teacher: str = "",
) -> None:
    """Writes one export of a stage; a former one in its place is replaced, also that of version 0.1."""
    files.mark_export(folder, UNMARKED)
    place = cards.Place.of(folder)
    record = {"version": 1, "task": spec.to_plain(settings.task), "dtype": settings.encoder.dtype, "seen": seen}
    record |= {"base": cards.base_of(settings, place)._asdict()}
    beside = {"tokenizer": tokenizer, "card": cards.card(settings, results, seen, exported, place, teacher)}
    if "branches" in exported.encoder:
        record |= {"method": spec.to_plain(settings.method)}
        branch_checkpoint.save(
            folder, exported.architecture, jax.device_get(exported.encoder), exported.labels, record, **beside
        )
        return
    params = jax.device_get({"encoder": exported.encoder, **exported.heads})
    hf.save(
        folder,
        exported.architecture,
        params,
        labels=exported.labels or None,
        record=record,
        files=vectors(exported, settings.task.max_length),
        **beside,
        dtype=exported.dtype,
    )


def vectors(exported: Export, max_length: int) -> dict[str, Any]:
    """Returns the files that sentence-transformers needs, where the method trains vectors of texts."""
    return sentences.pooling_files(exported.architecture, exported.pooling, max_length) if exported.pooling else {}
