# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Exports: a loaded export equals the saved model, its card names its origin, and it is never incomplete."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from qa_toys import make_word_tokenizer

from xlkd import files, settings, spec
from xlkd.errors import UserError
from xlkd.export import cards
from xlkd.export.folder import write_export
from xlkd.inputs.weights import Weights
from xlkd.methods import Export
from xlkd.models import encoder as encoders
from xlkd.models import hf
from xlkd.models.family import Architecture
from xlkd.models.heads import SpanHead, init_head
from xlkd.train import stage

SEEN = {"training": ["en"], "selection": [], "teacher": []}
RESULTS = {
    "eval": {"main": "f1", "step": 40, "mean": 61.25, "cells": {"en": {"f1": 80.0, "em": 70.0}, "de": {"f1": 42.5}}}
}


def read_stage(name="configs/finetune.py", *flags):
    read = settings.apply_flags(settings.read_config(name), list(flags))
    return settings.read_stage(read, read.stages[0])


def make_model(seed=0):
    tokenizer = make_word_tokenizer([*"abcdefgh"])
    architecture = Architecture("bert", len(tokenizer), 8, 2, 2, 16, positions=16, types=2, pad_id=0, position_offset=0)
    keys = jax.random.split(jax.random.key(seed))
    heads = {"span": init_head(SpanHead(architecture), keys[1])}
    return Export(architecture, encoders.init(architecture, keys[0]), heads), tokenizer


def write_model(folder, seed=0, stage=None):
    exported, tokenizer = make_model(seed)
    write_export(folder, exported, tokenizer, read_stage() if stage is None else stage, RESULTS, SEEN)
    return exported


@pytest.mark.parametrize("name", ["stage.json", "results.json"])  # the second: version 0.1
@pytest.mark.parametrize("inner", ["export", "export/de"])
def test_the_training_record_of_a_run_is_found_from_each_of_its_exports(tmp_path, inner, name):
    """The export may also be one of several branches."""
    known = {"seen": SEEN, "contamination": {"eval": {"keys": {"exact": ["a", "b"]}}}}
    folder = tmp_path / "run" / "stages" / "01-one" / inner
    folder.mkdir(parents=True)
    (tmp_path / "run" / "stages" / "01-one" / name).write_text(json.dumps(known))
    assert stage.load_prior_training(Weights(None, None, folder, None)) == known


def test_the_training_of_models_whose_weights_are_averaged_is_that_of_all(tmp_path):
    records = [
        {"seen": {"training": ["en"], "teacher": ["en"]}, "contamination": {"eval": {"keys": {"exact": ["b"]}}}},
        {"seen": {"training": ["en", "de"]}, "contamination": {"eval": {"keys": {"exact": ["a"], "near": ["b"]}}}},
    ]
    folders = [tmp_path / "stages" / f"0{number}-one" / "export" for number in range(2)]
    for folder, record in zip(folders, records, strict=True):
        folder.mkdir(parents=True)
        (folder.parent / "stage.json").write_text(json.dumps(record))
    assert stage.load_prior_training(Weights(None, None, folders[0], None, averaged_with=(folders[1],))) == {
        "seen": {"training": ["de", "en"], "teacher": ["en"]},
        "contamination": {"eval": {"keys": {"exact": ["a", "b"], "near": ["b"]}}},
    }


def test_a_loaded_export_equals_the_saved_model(tmp_path):
    exported = write_model(tmp_path / "export")
    loaded = hf.load(tmp_path / "export")
    assert loaded.architecture == exported.architecture
    jax.tree.map(np.testing.assert_array_equal, loaded.params["encoder"], exported.encoder)
    jax.tree.map(np.testing.assert_array_equal, loaded.params["span"], exported.heads["span"])
    tokenizer = hf.load_tokenizer(tmp_path / "export")
    assert tokenizer("a b", "c")["input_ids"] == make_model()[1]("a b", "c")["input_ids"]
    assert tokenizer.pad_token == "[PAD]"


def test_the_record_says_how_it_was_trained(tmp_path):
    write_model(tmp_path / "export")
    record = hf.read_json(tmp_path / "export" / hf.RECORD)
    assert record["task"] == spec.to_plain(read_stage().task)
    assert record["dtype"] == "float32"


def test_an_export_is_saved_in_its_dtype(tmp_path):
    from safetensors.numpy import load_file

    exported, tokenizer = make_model()
    half = exported._replace(dtype="float16")
    write_export(tmp_path / "export", half, tokenizer, read_stage("configs/pretrain.py"), RESULTS, SEEN)

    assert {str(t.dtype) for t in load_file(tmp_path / "export" / "model.safetensors").values()} == {"float16"}


def test_the_card_says_what_it_was_trained_on(tmp_path):
    flags = ["--config.data.train=squad:mine/train.json", "--config.encoder.path=some/encoder", "--config.seed=17"]
    stage = read_stage("configs/finetune.py", *flags)
    write_model(tmp_path / "export", stage=stage)
    card = (tmp_path / "export" / "README.md").read_text()
    for text in ("squad:mine/train.json", stage.data.eval, "some/encoder", "seed 17", "`finetune`"):
        assert text in card
    assert "eval: f1 at step 40" in card
    assert "| de | 42.5 | " in card
    assert "| mean | 61.2 | " in card
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_the_card_names_the_stage_that_training_started_from(tmp_path):
    read = settings.read_config("configs/pretrain.py:multilingual-tlm")
    card = cards.write_card(settings.read_stage(read, "all"), {}, SEEN, make_model()[0], cards.Place(None, None))
    assert "| start | `one` |" in card


@pytest.mark.parametrize("where", [(hf, "_save_tokenizer"), (hf, "_write_json"), (files, "_publish")])
def test_a_failed_export_leaves_the_former_one(tmp_path, monkeypatch, where):
    former = write_model(tmp_path / "export", seed=1)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*where, fails)
    with pytest.raises(UserError, match="No space"):
        write_model(tmp_path / "export", seed=2)
    with pytest.raises(UserError, match="No space"):
        write_model(tmp_path / "other", seed=2)
    assert [p.name for p in tmp_path.iterdir()] == ["export"]
    jax.tree.map(np.testing.assert_array_equal, hf.load(tmp_path / "export").params["encoder"], former.encoder)


def test_an_export_of_version_0_1_is_replaced_in_a_run_and_foreign_files_remain(tmp_path):
    """A run that was killed before its stage was complete exports again; version 0.1 wrote no marker."""
    write_model(tmp_path / "export", seed=1)
    (tmp_path / "export" / files.MARKER).unlink()
    with pytest.raises(UserError, match="which no export wrote"):
        files.check_folder(tmp_path / "export")
    (tmp_path / "export" / "notes.txt").write_text("mine")
    now = write_model(tmp_path / "export", seed=2)
    jax.tree.map(np.testing.assert_array_equal, hf.load(tmp_path / "export").params["encoder"], now.encoder)
    write_model(tmp_path / "export", seed=3)
    assert (tmp_path / "export" / "notes.txt").read_text() == "mine"


KILLED = """
import os, sys, pathlib
sys.path.insert(0, sys.argv[1])
import test_export
from xlkd.models import hf
hf._save_tokenizer = lambda *_: os.kill(os.getpid(), 9)
test_export.write_model(pathlib.Path(sys.argv[2]) / "export")
"""


def test_a_kill_during_an_export_leaves_no_export(tmp_path):
    command = [sys.executable, "-c", KILLED, os.path.dirname(__file__), str(tmp_path)]
    root = pathlib.Path(__file__).parents[1]
    killed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "export").exists()
    assert list(tmp_path.iterdir()), "the draft remains beside it"
    write_model(tmp_path / "export")
    assert [p.name for p in tmp_path.iterdir()] == ["export"], "the draft of the killed process is deleted"
    assert hf.load(tmp_path / "export").params.keys() >= {"encoder", "span"}
