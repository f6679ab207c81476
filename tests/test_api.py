# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The Python interface: `xlkd.load`, and metrics that need nothing but numpy."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from toy_models import RECORD, save_span_model

import xlkd
from xlkd.errors import UserError
from xlkd.models import hf


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_span_model(tmp_path_factory.mktemp("api"), RECORD)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, folder):
    monkeypatch.setenv("XLKD_CACHE", str(folder.parent / "cache"))


@pytest.fixture
def model(folder):
    return xlkd.load(folder)


def test_hidden_states_and_logits(model):
    batch = model.tokenizer(["who went?"], ["It was Anna."], return_tensors="np")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    types = (np.arange(ids.shape[1]) > 8)[None].astype(np.int32)
    states = model.apply(ids, mask, types)
    assert [state.shape for state in states] == [(1, ids.shape[1], 16)] * (model.architecture.layers + 1)
    start, end = model.outputs(ids, mask, types)["span"]
    kernel, bias = model.params["span"]["output"]["kernel"], model.params["span"]["output"]["bias"]
    expected = np.asarray(states[-1])[0] @ kernel + bias
    assert not np.allclose(states[0], model.apply(ids, mask)[0])
    np.testing.assert_allclose(np.stack([start[0], end[0]], -1), expected, atol=1e-3)


def test_ids_and_types_without_a_row_are_refused(model):
    ids = np.full((1, 4), 5)
    for wrong, types in ((ids + 10**4, None), (-ids, None), (ids, ids), (ids, ids - 6)):
        for compute in (model.apply, model.outputs):
            with pytest.raises(UserError, match=r"(ids|types) from -?\d+ to -?\d+ for a table of \d+ rows"):
                compute(wrong, ids > 0, types)
    model.apply(ids, ids > 0, ids - 4)
    jax.eval_shape(lambda ids: model.apply(ids, ids > 0), ids)  # where the values are not known


def test_an_answer_is_a_span_of_the_context(model):
    context = "It was Anna who went. " * 40  # several windows
    answer = model.answer("who?", context)
    assert context[answer["start"] : answer["end"]] == answer["answer"] != ""
    assert answer["n_best"][0]["text"] == answer["answer"]
    assert model.answer("who?", context) == answer


def test_settings_recorded_by_the_run_are_used(model):
    assert (model.question_settings().max_length, model.question_settings().n_best) == (64, 20)
    assert model.question_settings({"max_length": "32"}).max_length == 32
    assert model.encoder.dtype == "float32"
    assert model.labels == ()


def test_a_classifier_gives_logits_and_labels(folder, tmp_path):
    from xlkd.models.heads import ClassifierHead, init_head

    base = hf.load(folder)
    head = init_head(ClassifierHead(base.architecture, labels=3), jax.random.key(1))
    params = {"encoder": base.params["encoder"], "classifier": jax.device_get(head)}
    hf.save(tmp_path / "model", base.architecture, params, labels=("a", "b", "c"), tokenizer=folder)
    model = xlkd.load(tmp_path / "model")
    assert model.labels == ("a", "b", "c")
    assert model.outputs(np.ones((2, 5), np.int32), np.ones((2, 5), np.int32))["classifier"].shape == (2, 3)
    with pytest.raises(UserError, match="no question answering head"):
        model.answer("who?", "Anna.")
    hf.save(tmp_path / "nameless", base.architecture, params, tokenizer=folder)
    unnamed = xlkd.load(tmp_path / "nameless")
    assert unnamed.outputs(np.ones((2, 5), np.int32), np.ones((2, 5), np.int32))["classifier"].shape == (2, 3)


@pytest.mark.parametrize("record", ['{"version": 2, "task": {}}', '{"version": 1}', "[]", "{"])
def test_a_record_that_cannot_be_read_is_refused(model, tmp_path, record):
    base = hf.load(model.folder)
    hf.save(tmp_path / "model", base.architecture, base.params, tokenizer=model.folder)
    (tmp_path / "model" / "xlkd.json").write_text(record)
    with pytest.raises(UserError, match=r"xlkd\.json"):
        xlkd.load(tmp_path / "model")


def test_unknown_attributes_and_encoders_are_refused():
    with pytest.raises(AttributeError, match="lod"):
        xlkd.lod  # noqa: B018
    with pytest.raises(UserError, match="no such encoder in the package"):
        xlkd.load("package:none")


def test_importing_the_package_and_its_metrics_does_not_import_jax():
    code = (
        "import sys, xlkd, xlkd.metrics.squad as squad, xlkd.metrics.mlqa, xlkd.metrics.averages; "
        "assert squad.f1('the Anna', ['Anna']) == 1; "
        "assert not {'jax', 'flax', 'transformers', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
