# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trims the vocabulary to the tokens of a run's own texts, and restores it for the export."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from xlkd.errors import UserError
from xlkd.inputs.weights import Weights
from xlkd.methods import Export
from xlkd.models import hf, vocab
from xlkd.rows import list_texts
from xlkd.runtime import distributed


def trim_weights(weights: Weights, rows: Iterable[Any], log: Callable[[str], None]) -> Weights:
    """Returns the weights with only the tokens of these examples; for them all outputs stay the same."""
    if weights.folder is None:
        raise UserError("a new encoder has no tokens to trim", "config.encoder.trim_vocab", "set it to False")
    tokenizer = json.loads(weights.tokenizer.backend_tokenizer.to_str())
    texts = (text for row in rows for text in list_texts(row) if text)
    checkpoint, tokenizer, kept_tokens = vocab.trim_vocabulary(
        weights.load_checkpoint(), tokenizer, texts, distributed.open_share("vocabulary")
    )
    log(f"vocabulary: {len(kept_tokens)} of {weights.architecture.vocab_size} tokens")
    sizes = {"vocab_size": checkpoint.architecture.vocab_size, "pad_id": checkpoint.architecture.pad_id}
    architecture = dataclasses.replace(weights.architecture, **sizes)
    return dataclasses.replace(
        weights,
        architecture=architecture,
        tokenizer=hf.load_tokenizer(weights.folder, tokenizer, architecture),
        untrimmed=weights,
        kept_tokens=kept_tokens,
    )


def restore_vocabulary(exported: Export, weights: Weights) -> Export:
    """Restores the full vocabulary, without appended tokens; rows of unused tokens keep their pretrained values."""
    exported = _drop_appended_tokens(exported)
    if weights.untrimmed is None or weights.kept_tokens is None or weights.folder is None:
        return exported
    full = weights.load_checkpoint().params
    trained = exported.encoder.get("trunk", exported.encoder)  # a student with branches has its embeddings there
    words = vocab.restore_table(
        full["encoder"]["embeddings"]["words"], np.asarray(trained["embeddings"]["words"]), weights.kept_tokens
    )
    encoder = trained | {"embeddings": trained["embeddings"] | {"words": words}}
    heads = exported.heads
    if "bias" in heads.get("masked_lm", ()):
        before = full["masked_lm"]["bias"] if "masked_lm" in full else np.zeros(len(words), np.float32)
        bias = vocab.restore_table(before, np.asarray(heads["masked_lm"]["bias"]), weights.kept_tokens)
        heads = heads | {"masked_lm": heads["masked_lm"] | {"bias": bias}}
    untrimmed = weights.untrimmed.architecture
    return exported._replace(
        architecture=dataclasses.replace(
            exported.architecture, vocab_size=untrimmed.vocab_size, pad_id=untrimmed.pad_id
        ),
        encoder=exported.encoder | {"trunk": encoder} if "trunk" in exported.encoder else encoder,
        heads=heads,
    )


def _drop_appended_tokens(exported: Export) -> Export:
    """Drops the rows that were appended to the word embeddings so that the devices divide them."""
    is_branched = "trunk" in exported.encoder  # a student with branches has its embeddings there
    trained = exported.encoder["trunk"] if is_branched else exported.encoder
    words, size = trained["embeddings"]["words"], exported.architecture.vocab_size
    if len(words) == size:
        return exported
    trained = trained | {"embeddings": trained["embeddings"] | {"words": words[:size]}}
    return exported._replace(encoder=exported.encoder | {"trunk": trained} if is_branched else trained)
