# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes what a stage exports: a folder that transformers loads, with a card that says what it was trained on."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from xlkd import files, settings
from xlkd.export import branch_checkpoint, cards
from xlkd.methods import Export
from xlkd.models import hf, sentences

UNMARKED = (  # the files of version 0.1's exports, which have no marker
    *("config.json", "model.safetensors", branch_checkpoint.WEIGHTS, hf.RECORD, hf.CARD),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
)


def write_export(
    folder: pathlib.Path, exported: Export, tokenizer, config, results: dict[str, Any], seen: dict[str, Any]
) -> None:
    """Writes one export of a stage; a former one in its place is replaced, also that of version 0.1."""
    files.mark_export(folder, UNMARKED)
    place = cards.Place.of(folder)
    record = {"version": 1, "task": settings.plain(config.task), "dtype": config.encoder.dtype, "seen": seen}
    record |= {"base": cards.base_of(config, place)._asdict()}
    beside = {"tokenizer": tokenizer, "card": cards.card(config, results, seen, exported, place)}
    if "branches" in exported.encoder:
        record |= {"method": settings.plain(config.method)}
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
        files=vectors(exported, config.task.max_length),
        **beside,
        dtype=exported.dtype,
    )


def vectors(exported: Export, max_length: int) -> dict[str, Any]:
    """Returns the files that sentence-transformers needs, where the method trains vectors of texts."""
    return sentences.files(exported.architecture, exported.pooling, max_length) if exported.pooling else {}
