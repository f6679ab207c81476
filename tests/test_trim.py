# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that trims a vocabulary."""

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


def trim(*flags):
    return subprocess.run([sys.executable, "-m", "xlkd.trim", *map(str, flags)], capture_output=True, text=True)


def vectors(folder, text):
    found = hf.load(folder)
    ids = np.array([hf.load_tokenizer(folder).encode(text)])
    encoder = Encoder(found.architecture)
    return ids, encoder.apply({"params": found.params["encoder"]}, ids, np.ones_like(ids))[-1]


def test_outputs_stay_on_the_texts(model, tmp_path):
    text = "Which country is the neighbouring country?"
    (tmp_path / "texts.txt").write_text(text + "\n", encoding="utf-8")
    found = trim(f"--model={model}", f"--texts={tmp_path / 'texts.txt'}", f"--out={tmp_path / 'small'}")
    assert found.returncode == 0, found.stderr
    before, after = vectors(model, text), vectors(tmp_path / "small", text)
    assert before[0].shape == after[0].shape
    np.testing.assert_array_equal(before[1], after[1])
    sizes = [json.loads((folder / "config.json").read_text())["vocab_size"] for folder in (model, tmp_path / "small")]
    assert sizes[1] < sizes[0]


def test_the_lowest_layers_give_the_states_of_their_height(model, tmp_path):
    found = trim(f"--model={model}", "--layers=1", f"--out={tmp_path / 'low'}")
    assert found.returncode == 0, found.stderr
    whole, low = hf.load(model), hf.load(tmp_path / "low")
    ids, mask = np.array([[1, 2, 3]]), np.ones((1, 3), np.int32)
    expected = Encoder(whole.architecture).apply({"params": whole.params["encoder"]}, ids, mask)[1]
    found = Encoder(low.architecture).apply({"params": low.params["encoder"]}, ids, mask)
    assert len(found) == 2
    np.testing.assert_allclose(found[-1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "says"),
    [((), "nothing to trim"), (("--layers=99",), "exceeds the 2 layers"), (("--layers=0",), "whole number")],
)
def test_what_cannot_be_is_refused(model, tmp_path, flags, says):
    with pytest.raises(UserError, match=says):
        trimmer.main([f"--model={model}", *flags, f"--out={tmp_path / 'small'}"])
    assert not (tmp_path / "small").exists()


def test_a_missing_file_is_one_line_and_leaves_nothing(model, tmp_path):
    found = trim(f"--model={model}", "--texts=nowhere.txt", f"--out={tmp_path / 'small'}")
    assert found.returncode == 2
    assert found.stderr.startswith("error: nowhere.txt: cannot be read")
    assert not (tmp_path / "small").exists()
