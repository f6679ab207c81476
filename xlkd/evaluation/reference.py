# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the teacher's vectors of the English sides of a retrieval set, with which the student's are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from xlkd.evaluation.evaluator import Evaluator
from xlkd.inputs.weights import Weights
from xlkd.models.encoder import Encoder
from xlkd.models.outputs import text_vectors
from xlkd.rows import Pair
from xlkd.spec.stage import AnyStage
from xlkd.tasks import parallel


def english(
    spec: AnyStage, pooling: str, encoder: Encoder, weights: Weights, rows: Sequence[Pair], mesh: Mesh
) -> np.ndarray:
    """Returns vectors [rows, D], pooled as the method pools the teacher."""
    task = parallel.build(spec.task, weights.tokenizer)
    texts = {row.source if row.source_language == "en" else row.target: row for row in rows}
    alone = [dataclasses.replace(row, source=text, target="") for text, row in texts.items()]

    outputs = text_vectors(encoder, pooling)
    evaluator = Evaluator(outputs, mesh, batch=spec.eval.batch, buckets=spec.data.buckets)
    vectors = evaluator.outputs({"encoder": weights.load(0).encoder}, task, task.features(alone))["vectors"]
    place = {text: i for i, text in enumerate(texts)}
    return vectors[[place[row.source if row.source_language == "en" else row.target] for row in rows]]
