# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the teacher's vectors of the English texts of a retrieval set, which the student's are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from xlkd.evaluation.evaluator import Evaluator
from xlkd.inputs.weights import Weights
from xlkd.languages import is_english
from xlkd.models.encoder import Encoder
from xlkd.models.outputs import text_vectors
from xlkd.rows import Pair
from xlkd.runtime import distributed
from xlkd.spec.stage import AnyStage
from xlkd.tasks import parallel


def compute_english_vectors(
    spec: AnyStage, pooling: str, encoder: Encoder, weights: Weights, rows: Sequence[Pair], mesh: Mesh
) -> np.ndarray:
    """Returns the vector of the English side of each pair, [rows, hidden], computed by the teacher's encoder.

    `pooling` is the pooling of the method's teacher. A text that several pairs share is computed once.
    """
    task = parallel.build(spec.task, weights.tokenizer)
    english = [row.source if is_english(row.source_language) else row.target for row in rows]
    row_of = dict(zip(english, rows, strict=True))
    examples = [dataclasses.replace(row, source=text, target="") for text, row in row_of.items()]

    outputs = text_vectors(encoder, pooling)
    evaluator = Evaluator(outputs, mesh, batch=spec.eval.batch, buckets=spec.data.buckets)
    params = {"encoder": weights.load(0).encoder}
    features = task.features(examples, share=distributed.open_share("reference"))
    vectors = evaluator.compute_outputs(params, task, features)["vectors"]
    place = {text: i for i, text in enumerate(row_of)}
    return vectors[[place[text] for text in english]]
