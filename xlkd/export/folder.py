# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the exported models of a stage: folders that transformers loads, each with a model card."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import jax

from xlkd import files, spec
from xlkd.export import branch_checkpoint, cards
from xlkd.files import Json
from xlkd.methods import Export
from xlkd.models import hf, sentences
from xlkd.spec.stage import AnySettings
from xlkd.tasks.nulls import Threshold

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNMARKED = (  # the files of exports by version 0.1, which wrote no marker into the folder
    *("config.json", "model.safetensors", branch_checkpoint.WEIGHTS, hf.RECORD, hf.CARD),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
)


def write_export(
    folder: pathlib.Path,
    exported: Export,
    tokenizer: PreTrainedTokenizerFast,
    settings: AnySettings,
    results: dict[str, Json],
    seen: Mapping[str, Sequence[str]],
    teacher: str = "",
    threshold: Threshold | None = None,
    contamination: Mapping[str, Json] = MappingProxyType({}),
) -> None:
    """Writes one exported model of a stage with its card; an earlier export in the folder is replaced.

    `results` has the scores by evaluation set, `seen` the languages whose labels were seen, and `teacher` names the
    teacher where the settings do not. `threshold` is that of the null odds, if the model gives no answer to some
    questions. `contamination` has by evaluation set the examples that occur in the training data.
    """
    files.mark_export(folder, UNMARKED)
    place = cards.Place.find(folder)
    record: dict[str, Json] = {
        "version": 1,
        "task": spec.to_plain(settings.task),
        "dtype": settings.encoder.dtype,
        "seen": seen,
    }
    record |= {"base": cards.find_base(settings, place)._asdict()}
    record |= {"null_threshold": threshold._asdict()} if threshold else {}
    card = cards.write_card(settings, results, seen, exported, place, teacher, threshold, contamination)
    if "branches" in exported.encoder:
        record |= {"method": spec.to_plain(settings.method)}
        branch_checkpoint.save(
            folder,
            exported.architecture,
            jax.device_get(exported.encoder),
            exported.labels,
            record,
            tokenizer=tokenizer,
            card=card,
        )
        return
    pooling_files = {}
    if exported.pooling:
        pooling_files = sentences.pooling_files(exported.architecture, exported.pooling, settings.task.max_length)
    params = jax.device_get({"encoder": exported.encoder, **exported.heads})
    hf.save(
        folder,
        exported.architecture,
        params,
        labels=exported.labels or None,
        record=record,
        files=pooling_files,
        tokenizer=tokenizer,
        card=card,
        dtype=exported.dtype,
    )
