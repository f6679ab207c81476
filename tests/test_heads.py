# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Logits of every head of every architecture against golden values; dropout and initial values of heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_models import find_golden

from xlkd.models import hf
from xlkd.models.families import find_family
from xlkd.models.family import Architecture
from xlkd.models.heads import ClassifierHead, MaskedLMHead, SpanHead, init_head

KINDS = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "modernbert", "deberta-v2"]
TINY = Architecture("bert", 300, 32, 1, 2, 24, 12, 2, 0, 0)


@functools.cache
def read_case(kind, head):
    """Returns a checkpoint with a head, its golden values, and the golden last hidden state."""
    values = dict(np.load(find_golden(kind, head) / "golden.npz"))
    return hf.load(find_golden(kind, head)), values, jnp.asarray(values["hidden"][-1])


@pytest.fixture(params=KINDS)
def read(request):
    """Returns a function that reads the case of a head."""
    return functools.partial(read_case, request.param)


def pool(checkpoint, values, last):
    architecture = checkpoint.architecture
    return find_family(architecture).pool(architecture, last, jnp.asarray(values["attention_mask"]))


def test_span_logits_equal_golden_values(read):
    checkpoint, values, last = read("span")
    start, end = SpanHead(checkpoint.architecture).apply({"params": checkpoint.params["span"]}, last)
    np.testing.assert_allclose(start, values["start"], atol=1e-5)
    np.testing.assert_allclose(end, values["end"], atol=1e-5)


def test_class_logits_equal_golden_values(read):
    checkpoint, values, last = read("classifier")
    head, params = ClassifierHead(checkpoint.architecture, 3), {"params": checkpoint.params["classifier"]}
    logits = head.apply(params, pool(checkpoint, values, last))
    np.testing.assert_allclose(logits, values["classes"], atol=1e-5)


def test_masked_lm_logits_equal_golden_values_at_all_and_at_gathered_positions(read):
    checkpoint, values, last = read("masked_lm")
    head, params = MaskedLMHead(checkpoint.architecture), {"params": checkpoint.params["masked_lm"]}
    words = checkpoint.params["encoder"]["embeddings"]["words"]
    np.testing.assert_allclose(head.apply(params, last, words), values["words"], atol=1e-5)
    np.testing.assert_allclose(head.apply(params, last[:, 1:3], words), values["words"][:, 1:3], atol=1e-5)


def test_the_masked_lm_decoder_shares_the_word_embeddings(read):
    checkpoint, _, last = read("masked_lm")
    words = checkpoint.params["encoder"]["embeddings"]["words"]

    def loss(words):
        head = MaskedLMHead(checkpoint.architecture)
        return jnp.square(head.apply({"params": checkpoint.params["masked_lm"]}, last, words)).sum()

    assert np.abs(jax.grad(loss)(words)).min() > 0


def test_tokens_appended_to_the_table_get_no_probability(read):
    checkpoint, _, last = read("masked_lm")
    head, params = MaskedLMHead(checkpoint.architecture), {"params": checkpoint.params["masked_lm"]}
    words = checkpoint.params["encoder"]["embeddings"]["words"]
    logits, padded = (head.apply(params, last, np.pad(words, ((0, n), (0, 0)))) for n in (0, 3))
    probabilities = jax.nn.softmax(padded)
    np.testing.assert_allclose(probabilities[..., : len(words)], jax.nn.softmax(logits), rtol=1e-6)
    assert not np.asarray(probabilities[..., len(words) :]).any()


def test_classifier_dropout_depends_on_the_key(read):
    checkpoint, _, last = read("classifier")
    head, params = ClassifierHead(checkpoint.architecture, 3), {"params": checkpoint.params["classifier"]}
    runs = [head.apply(params, last[:, 0], train=True, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3
    with pytest.raises(ValueError, match="key"):
        head.apply(params, last[:, 0], train=True)


def test_logits_are_float32_also_in_bfloat16():
    hidden = jnp.ones((2, 3, 32), jnp.bfloat16)
    span = SpanHead(TINY, dtype=jnp.bfloat16)
    words = MaskedLMHead(TINY, dtype=jnp.bfloat16)
    assert span.apply({"params": init_head(span, jax.random.key(0))}, hidden)[0].dtype == jnp.float32
    variables = {"params": init_head(words, jax.random.key(0))}
    assert words.apply(variables, hidden, jnp.ones((300, 32))).dtype == jnp.float32


def test_new_heads_are_small_and_depend_on_their_key():
    for head in (SpanHead(TINY), ClassifierHead(TINY, 3), MaskedLMHead(TINY)):
        first, same, other = (jax.tree.leaves(init_head(head, jax.random.key(seed))) for seed in (0, 0, 1))
        assert all(np.array_equal(x, y) for x, y in zip(first, same, strict=True))
        assert not all(np.array_equal(x, y) for x, y in zip(first, other, strict=True))
    kernel = init_head(ClassifierHead(TINY, 3), jax.random.key(0))["dense"]["kernel"]
    assert abs(float(kernel.std()) - 0.02) < 0.002
    assert init_head(MaskedLMHead(TINY), jax.random.key(0))["bias"].shape == (300,)
