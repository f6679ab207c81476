# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command that compares with transformers: what it prints, and its exit codes."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from toy_models import run_command

from xlkd import parity
from xlkd.errors import UserError

GOLDEN = pathlib.Path(__file__).parent / "golden" / "encoders"
KINDS = ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "deberta-v2"]


CASES = {kind: ("start", "end", "classes", "words") for kind in KINDS}
CASES |= {"modernbert": ("start", "end"), "modernbert/classifier": ("classes",), "modernbert/masked_lm": ("words",)}


@pytest.mark.torch
@pytest.mark.parametrize("kind", CASES)
def test_every_part_is_within_tolerance(kind, capsys):
    pytest.importorskip("torch")
    assert parity.main([f"--model={GOLDEN / kind}"]) == 0
    parts = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    outputs = ["hidden 0", "hidden 1", "hidden 2", *CASES[kind]]
    assert parts == [*outputs, "gradient of embeddings", "gradient of layers", "gradient of heads"]


@pytest.mark.torch
def test_a_difference_beyond_tolerance_gives_exit_code_1(capsys):
    pytest.importorskip("torch")
    assert parity.main([f"--model={GOLDEN / 'bert'}", "--tolerance=1e-12"]) == 1
    assert "beyond" in capsys.readouterr().out


@pytest.mark.torch
def test_a_wrong_layer_differs_in_its_line_and_in_the_gradient(monkeypatch):
    pytest.importorskip("torch")
    from xlkd.models import layers

    monkeypatch.setitem(layers.ACTIVATIONS, "gelu", layers.ACTIVATIONS["relu"])
    differences = parity.compare(str(GOLDEN / "distilbert"))
    assert differences["hidden 0"] < 1e-5
    assert differences["hidden 1"] > 1e-2
    assert differences["gradient of layers"] > 1e-2


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.shared
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "multilingual-e5-small"])
def test_real_encoders_are_within_tolerance(shared, name, tmp_path):
    """The command compiles with optimizations, as for a user."""
    pytest.importorskip("torch")
    process = run_command("parity", f"--model={shared / 'models' / name}", cache=tmp_path, optimized=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "gradient of layers" in process.stdout


def test_not_a_number_is_beyond_every_tolerance(monkeypatch, capsys):
    monkeypatch.setattr(parity, "compare", lambda name: {"hidden 0": float("nan")})
    assert parity.main(["--model=x"]) == 1


def test_a_row_of_padding_does_not_count():
    mask = np.array([[1, 0]])
    assert parity._find_largest_difference(np.array([[[1.0], [np.inf]]]), np.array([[[1.5], [0.0]]]), mask) == 0.5


@pytest.mark.parametrize(
    "arguments", [[], ["--model=x", "--tolerance=none"], ["--model=x", "--tolerance=-1"], ["--modle=x"]]
)
def test_bad_flags_are_refused(arguments):
    with pytest.raises(UserError):
        parity.main(arguments)


def test_the_command_reports_errors_in_one_line_and_imports_without_jax(tmp_path):
    pytest.importorskip("torch")
    shutil.copytree(GOLDEN / "bert", tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").rename(tmp_path / "bert" / "pytorch_model.bin")
    command = [sys.executable, "-m", "xlkd.parity", f"--model={tmp_path / 'bert'}"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert (process.returncode, len(process.stderr.splitlines())) == (2, 1)
    assert "pickle" in process.stderr
    program = "import sys, xlkd.parity; print([m for m in ('jax', 'torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"
