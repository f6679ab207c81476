# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The teacher encoder's vectors of English sentences, with which retrieval is compared."""

import jax.numpy as jnp
import numpy as np
import pytest
import toy_models
from stages import make_spec

from xlkd.evaluation import reference
from xlkd.inputs.weights import resolve_weights
from xlkd.models.encoder import Encoder
from xlkd.rows import Pair
from xlkd.runtime.mesh import build_mesh
from xlkd.spec.stage import Data, Mesh
from xlkd.spec.tasks import Views
from xlkd.tasks.tokenization import TextTokenizer

TEXTS = (
    ("a train", "ein Zug", "en"),
    ("das Haus am See", "the house by the lake", "de"),
    ("a train", "un treno", "en"),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = toy_models.save_span_model(tmp_path_factory.mktemp("teacher"))
    return resolve_weights(make_spec(start=str(folder), data=Data(train="atlas")), {}, folder / "none")


def make_pair(source, target, source_language):
    target_language = "en" if source_language == "de" else "de"
    return Pair("1", "1", "1", "toy", source, target, source_language, target_language)


def encode_alone(weights, text):
    """Returns the last hidden states of one text without padding, [length, hidden]."""
    tokenizer = TextTokenizer(weights.tokenizer)
    ids = jnp.array([tokenizer.join(tokenizer.encode([text])[0].ids, 64).ids])
    encoder = Encoder(weights.architecture)
    return encoder.apply({"params": weights.load(0).encoder}, ids, jnp.ones_like(ids), jnp.zeros_like(ids))[-1][0]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_each_pair_gets_the_vector_of_its_english_side(weights, pooling):
    """English is the source or the target; two pairs share a text."""
    rows = [make_pair(*texts) for texts in TEXTS]
    spec, mesh = make_spec(task=Views(max_length=64)), build_mesh(Mesh())
    encoder = Encoder(weights.architecture)
    vectors = reference.compute_english_vectors(spec, pooling, encoder, weights, rows, mesh)
    train, house = (encode_alone(weights, text) for text in ("a train", "the house by the lake"))
    expected = [states.mean(0) if pooling == "mean" else states[0] for states in (train, house, train)]
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3, "texts differ by far more than the tolerance"
