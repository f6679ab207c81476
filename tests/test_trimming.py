# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run with the pieces of its own texts: what it computes is the same, and what it hands on has all pieces again."""

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
from xlkd.tasks.tokenization import TextTokenizer

FEW = "atlas?split=train&size=6&languages=en&facts=2"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_models.save_span_model(tmp_path_factory.mktemp("toy"), toy_models.RECORD)


@pytest.fixture(scope="module")
def pair(model):
    """(whole, trimmed) weights."""
    whole = resolve_weights(make_spec(start=str(model)), {}, model / "none")
    return whole, trimming.trim_weights(whole, sources.read(FEW, "qa"), log=print)


def test_on_the_runs_own_texts_every_output_is_the_same(pair):
    states = []
    for weights in pair:
        encoded = TextTokenizer(weights.tokenizer).encode([row.context for row in sources.read(FEW, "qa")])
        ids = np.zeros((4, 64), np.int32) + weights.architecture.pad_id
        for row, of in zip(ids, encoded, strict=False):
            row[: len(of.ids[:64])] = of.ids[:64]
        mask = (ids != weights.architecture.pad_id).astype(np.int32)
        params = {"params": weights.load(0).encoder}
        states.append(Encoder(weights.architecture).apply(params, ids, mask))
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)


def test_fewer_rows_are_trained(pair):
    whole, few = pair
    table = few.load(0).encoder["embeddings"]["words"]
    assert len(table) == few.architecture.vocab_size == len(few.kept_tokens) == len(few.tokenizer)
    assert len(table) < 0.8 * whole.architecture.vocab_size
    assert few.load(0).heads.keys() == whole.load(0).heads.keys()


def trained(of: Weights, below: bool) -> Export:
    """As a method gives it, every word a little higher; `below`: in the trunk of branches."""
    given = of.load(0)
    encoder = given.encoder | {"embeddings": jax.tree.map(lambda x: x + 1, given.encoder["embeddings"])}
    heads = {"masked_lm": {"bias": np.full(of.architecture.vocab_size, 2.0, np.float32)}}
    return Export(of.architecture, {"trunk": encoder, "branches": {}} if below else encoder, heads)


@pytest.mark.parametrize("below", [False, True])
def test_what_is_exported_has_every_piece_and_those_of_no_text_are_untouched(pair, below):
    whole, few = pair
    found = trimming.restore_vocabulary(trained(few, below), few)
    before = whole.load(0).encoder["embeddings"]["words"]
    words = (found.encoder["trunk"] if below else found.encoder)["embeddings"]["words"]
    others = np.setdiff1d(np.arange(len(before)), few.kept_tokens)
    np.testing.assert_array_equal(words[others], before[others])
    np.testing.assert_array_equal(words[few.kept_tokens], before[few.kept_tokens] + 1)
    bias = found.heads["masked_lm"]["bias"]
    assert (bias[few.kept_tokens] == 2).all()
    assert not bias[others].any()
    assert found.architecture == dataclasses.replace(few.architecture, vocab_size=len(before), pad_id=0)
    assert ("branches" in found.encoder) == below


def test_without_trimming_nothing_is_restored(pair):
    whole, _ = pair
    exported = trained(whole, below=False)
    assert trimming.restore_vocabulary(exported, whole) is exported


def test_a_new_encoder_has_nothing_to_leave_out(pair):
    with pytest.raises(UserError, match="trim_vocab"):
        trimming.trim_weights(dataclasses.replace(pair[0], folder=None), [], log=print)


@pytest.mark.long
def test_a_run_that_trims_hands_on_the_whole_table(model, tmp_path):
    flags = ["--config=configs/gxlt.py", "--config.stages=ce", f"--config.start={model}", f"--workdir={tmp_path}/run"]
    flags += [f"--config.data.train={FEW}", f"--config.data.eval={FEW}", "--config.data.ntl=-1"]
    flags += ["--config.task.max_length=96", "--config.budget.steps=2", "--config.encoder.trim_vocab=True"]
    done = toy_models.run_command("main", *flags, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f" of {hf.load(model).architecture.vocab_size} pieces" in done.stdout
    export = tmp_path / "run" / "stages" / "01-ce" / "export"
    before, after = (hf.load(folder).params["encoder"]["embeddings"]["words"] for folder in (model, export))
    changed = (before != after).any(axis=1)
    assert 0.05 < changed.mean() < 0.8
    assert (export / "tokenizer.json").exists()
    assert len(hf.load_tokenizer(export)) == len(before)
    assert json.loads((export / "config.json").read_text())["vocab_size"] == len(before)
