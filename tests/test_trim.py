# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that trims vocabularies and layers."""

import json
import subprocess
import sys

import numpy as np
import pytest
from toy_models import save_span_model

from xlkd import trim as trimmer
from xlkd.errors import UserError
from xlkd.models import hf
from xlkd.models.encoder import Encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_span_model(tmp_path_factory.mktemp("model"))


def run_trim(*flags):
    return subprocess.run([sys.executable, "-m", "xlkd.trim", *map(str, flags)], capture_output=True, text=True)


def compute_states(folder, text):
    checkpoint = hf.load(folder)
    ids = np.array([hf.load_tokenizer(folder).encode(text)])
    encoder = Encoder(checkpoint.architecture)
    return ids, encoder.apply({"params": checkpoint.params["encoder"]}, ids, np.ones_like(ids))[-1]


def test_outputs_are_unchanged_on_the_given_texts(model, tmp_path):
    text = "Which country is the neighbouring country?"
    (tmp_path / "texts.txt").write_text(text + "\n", encoding="utf-8")
    process = run_trim(f"--model={model}", f"--texts={tmp_path / 'texts.txt'}", f"--out={tmp_path / 'small'}")
    assert process.returncode == 0, process.stderr
    before, after = compute_states(model, text), compute_states(tmp_path / "small", text)
    assert before[0].shape == after[0].shape
    np.testing.assert_array_equal(before[1], after[1])
    sizes = [json.loads((folder / "config.json").read_text())["vocab_size"] for folder in (model, tmp_path / "small")]
    assert sizes[1] < sizes[0]


def test_the_lowest_layers_give_the_states_of_the_full_model(model, tmp_path):
    process = run_trim(f"--model={model}", "--layers=1", f"--out={tmp_path / 'low'}")
    assert process.returncode == 0, process.stderr
    full, low = hf.load(model), hf.load(tmp_path / "low")
    ids, mask = np.array([[1, 2, 3]]), np.ones((1, 3), np.int32)
    expected = Encoder(full.architecture).apply({"params": full.params["encoder"]}, ids, mask)[1]
    states = Encoder(low.architecture).apply({"params": low.params["encoder"]}, ids, mask)
    assert len(states) == 2
    np.testing.assert_allclose(states[-1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [((), "nothing to trim"), (("--layers=99",), "exceeds the 2 layers"), (("--layers=0",), "whole number")],
)
def test_impossible_trimming_is_refused(model, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        trimmer.main([f"--model={model}", *flags, f"--out={tmp_path / 'small'}"])
    assert not (tmp_path / "small").exists()


def test_a_missing_file_is_refused_in_one_line_and_nothing_is_written(model, tmp_path):
    process = run_trim(f"--model={model}", "--texts=nowhere.txt", f"--out={tmp_path / 'small'}")
    assert process.returncode == 2
    assert process.stderr.startswith("error: nowhere.txt: cannot be read")
    assert not (tmp_path / "small").exists()
