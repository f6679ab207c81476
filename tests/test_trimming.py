# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run with only the tokens of its own texts: the outputs are the same, and the export has all tokens again."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import toy_models
from stages import make_spec

from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.inputs import trimming
from xlkd.inputs.weights import Weights, resolve_weights
from xlkd.methods import Export
from xlkd.models import hf
from xlkd.models.encoder import Encoder
from xlkd.spec.stage import Data
from xlkd.tasks.tokenization import TextTokenizer

FEW = "atlas?split=train&size=6&languages=en&facts=2"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_models.save_span_model(tmp_path_factory.mktemp("toy"), toy_models.RECORD)


@pytest.fixture(scope="module")
def pair(model):
    """Returns the full and the trimmed weights."""
    full = resolve_weights(make_spec(start=str(model), data=Data(train=FEW)), {}, model / "none")
    return full, trimming.trim_weights(full, sources.read(FEW, "qa"), log=print)


def test_every_output_is_the_same_on_the_texts_of_the_run(pair):
    states = []
    for weights in pair:
        encoded = TextTokenizer(weights.tokenizer).encode([row.context for row in sources.read(FEW, "qa")])
        ids = np.zeros((4, 64), np.int32) + weights.architecture.pad_id
        for row, text in zip(ids, encoded, strict=False):
            row[: len(text.ids[:64])] = text.ids[:64]
        mask = (ids != weights.architecture.pad_id).astype(np.int32)
        params = {"params": weights.load(0).encoder}
        states.append(Encoder(weights.architecture).apply(params, ids, mask))
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_trimmed_table_has_fewer_rows(pair):
    full, trimmed = pair
    table = trimmed.load(0).encoder["embeddings"]["words"]
    assert len(table) == trimmed.architecture.vocab_size == len(trimmed.kept_tokens) == len(trimmed.tokenizer)
    assert len(table) < 0.8 * full.architecture.vocab_size
    assert trimmed.load(0).heads.keys() == full.load(0).heads.keys()


def make_trained_export(weights: Weights, below: bool) -> Export:
    """Returns an export whose embeddings are raised by 1; with `below`, they are in the trunk of branches."""
    loaded = weights.load(0)
    encoder = loaded.encoder | {"embeddings": jax.tree.map(lambda x: x + 1, loaded.encoder["embeddings"])}
    heads = {"masked_lm": {"bias": np.full(weights.architecture.vocab_size, 2.0, np.float32)}}
    return Export(weights.architecture, {"trunk": encoder, "branches": {}} if below else encoder, heads)


@pytest.mark.parametrize("below", [False, True])
def test_the_export_has_every_token_and_unused_tokens_keep_their_embeddings(pair, below):
    full, trimmed = pair
    exported = trimming.restore_vocabulary(make_trained_export(trimmed, below), trimmed)
    before = full.load(0).encoder["embeddings"]["words"]
    words = (exported.encoder["trunk"] if below else exported.encoder)["embeddings"]["words"]
    others = np.setdiff1d(np.arange(len(before)), trimmed.kept_tokens)
    np.testing.assert_array_equal(words[others], before[others])
    np.testing.assert_array_equal(words[trimmed.kept_tokens], before[trimmed.kept_tokens] + 1)
    bias = exported.heads["masked_lm"]["bias"]
    assert (bias[trimmed.kept_tokens] == 2).all()
    assert not bias[others].any()
    assert exported.architecture == dataclasses.replace(trimmed.architecture, vocab_size=len(before), pad_id=0)
    assert ("branches" in exported.encoder) == below


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("number", [0, 1])
def test_the_export_has_no_tokens_that_were_appended_for_the_devices(pair, below, number):
    weights = pair[number]
    plain, padded = make_trained_export(weights, below), make_trained_export(weights, below)
    tables = (padded.encoder["trunk"] if below else padded.encoder)["embeddings"]
    tables["words"] = np.pad(tables["words"], ((0, 5), (0, 0)))
    restored = (trimming.restore_vocabulary(export, weights).encoder for export in (plain, padded))
    jax.tree.map(np.testing.assert_array_equal, *restored)


def test_without_trimming_nothing_is_restored(pair):
    full, _ = pair
    exported = make_trained_export(full, below=False)
    assert trimming.restore_vocabulary(exported, full) is exported


def test_a_new_encoder_cannot_be_trimmed(pair):
    with pytest.raises(UserError, match="trim_vocab"):
        trimming.trim_weights(dataclasses.replace(pair[0], folder=None), [], log=print)


@pytest.mark.long
def test_a_run_that_trims_exports_the_full_table(model, tmp_path):
    flags = ["--config=configs/gxlt.py", "--config.stages=ce", f"--config.start={model}", f"--workdir={tmp_path}/run"]
    flags += [f"--config.data.train={FEW}", f"--config.data.eval={FEW}", "--config.data.ntl=-1"]
    flags += ["--config.task.max_length=96", "--config.budget.steps=2", "--config.encoder.trim_vocab=True"]
    process = toy_models.run_command("main", *flags, cache=tmp_path / "cache")
    assert process.returncode == 0, process.stdout + process.stderr
    assert f" of {hf.load(model).architecture.vocab_size} tokens" in process.stdout
    export = tmp_path / "run" / "stages" / "01-ce" / "export"
    before, after = (hf.load(folder).params["encoder"]["embeddings"]["words"] for folder in (model, export))
    changed = (before != after).any(axis=1)
    assert 0.05 < changed.mean() < 0.8
    assert (export / "tokenizer.json").exists()
    assert len(hf.load_tokenizer(export)) == len(before)
    assert json.loads((export / "config.json").read_text())["vocab_size"] == len(before)
