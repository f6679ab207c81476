# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Training with the pieces of a run's own texts alone, and the whole vocabulary again in what is exported."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from xlkd.errors import UserError
from xlkd.inputs.weights import Weights
from xlkd.methods import Export
from xlkd.models import hf, vocab
from xlkd.rows import Labelled, Pair, Question

TEXTS = {Question: ("question", "context"), Labelled: ("text", "second"), Pair: ("source", "target")}


def trimmed(weights: Weights, rows: Iterable[Any]) -> Weights:
    """The weights with the pieces that these rows are made of: on them the outputs are the same."""
    if weights.folder is None:
        raise UserError("a new encoder has no pieces to leave out", "config.encoder.trim_vocab", "set it to False")
    spec = json.loads(weights.tokenizer.backend_tokenizer.to_str())
    texts = (text for row in rows for name in TEXTS[type(row)] if (text := getattr(row, name)))
    found, spec, kept = vocab.trim(hf.load(weights.folder), spec, texts)
    sizes = {"vocab_size": found.architecture.vocab_size, "pad_id": found.architecture.pad_id}
    return dataclasses.replace(
        weights,
        architecture=dataclasses.replace(weights.architecture, **sizes),
        tokenizer=hf.tokenizer(weights.folder, spec),
        whole=weights,
        kept=kept,
    )


def restored(exported: Export, weights: Weights) -> Export:
    """With all rows of the table: those of pieces that no text has are as they came."""
    if weights.whole is None:
        return exported
    full = hf.load(weights.folder).params
    below = exported.encoder.get("trunk", exported.encoder)  # of branches their trunk has the table
    words = vocab.restore(
        full["encoder"]["embeddings"]["words"], np.asarray(below["embeddings"]["words"]), weights.kept
    )
    below = below | {"embeddings": below["embeddings"] | {"words": words}}
    heads = exported.heads
    if "masked_lm" in heads:
        before = full["masked_lm"]["bias"] if "masked_lm" in full else np.zeros(len(words), np.float32)
        bias = vocab.restore(before, np.asarray(heads["masked_lm"]["bias"]), weights.kept)
        heads = heads | {"masked_lm": heads["masked_lm"] | {"bias": bias}}
    whole = weights.whole.architecture
    return exported._replace(
        architecture=dataclasses.replace(exported.architecture, vocab_size=whole.vocab_size, pad_id=whole.pad_id),
        encoder=exported.encoder | {"trunk": below} if "trunk" in exported.encoder else below,
        heads=heads,
    )
