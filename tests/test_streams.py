# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A streamed parallel corpus end to end: blocks, a corrupt line, and a bit-identical resume after a kill."""

import json
import signal
import time

import jax
import numpy as np
import pytest
from toy_models import run_command

from xlkd.data import sources
from xlkd.models import encoder as encoders
from xlkd.models import hf, tokenizers
from xlkd.models.family import Architecture

PAIRS = 120


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Writes a student, a teacher and a corpus with line 41 not UTF-8; returns the flags and the folder."""
    folder = tmp_path_factory.mktemp("streams")
    rows = list(sources.read(f"atlas?split=train&size={PAIRS}&languages=en,de&facts=1", "parallel"))
    for name, texts in (
        ("student", [t for r in rows for t in (r.source, r.target)]),
        ("teacher", [r.source for r in rows]),
    ):
        tokenizers.train(folder / f"{name}-t", texts, kind="bert", size=500)
        tokenizer = hf.load_tokenizer(folder / f"{name}-t")
        sizes = {"hidden_size": 8, "layers": 1, "heads": 2, "intermediate_size": 16, "positions": 64, "types": 2}
        fixed = {"vocab_size": len(tokenizer), "pad_id": tokenizer.pad_token_id, "position_offset": 0}
        architecture = Architecture(model_type="bert", **sizes, **fixed)
        params = {"encoder": encoders.init(architecture, jax.random.key(0))}
        hf.save(folder / name, architecture, jax.device_get(params), tokenizer=tokenizer)
    lines = {"en": [r.source.encode() for r in rows], "de": [r.target.encode() for r in rows]}
    lines["de"][40] = b"\xff\xfe"
    for language, texts in lines.items():
        (folder / f"corpus.{language}").write_bytes(b"\n".join(texts) + b"\n")
    return [
        "--config=configs/mmkd.py:own",
        f"--config.encoder.path={folder / 'student'}",
        f"--config.teacher.path={folder / 'teacher'}",
        f"--config.data.train=moses:{folder / 'corpus'}?languages=en,de",
        "--config.data.batch=8",
        "--config.data.block=48",
        "--config.data.buckets=1",
        "--config.task.max_length=64",
        "--config.method.head_output=4",
        "--config.optim.lr=0.001",
        "--config.budget.epochs=2",
        "--config.save.every=10",
        "--config.log.every=1",
    ], folder


def run(flags, workdir, *more, **options):
    return run_command("main", *flags[0], f"--workdir={workdir}", *more, cache=flags[1] / "cache", **options)


@pytest.fixture(scope="module")
def whole(flags):
    process = run(flags, flags[1] / "whole", "--config.data.on_bad_row=skip")
    assert process.returncode == 0, process.stdout + process.stderr
    return flags[1] / "whole", process.stdout + process.stderr


def test_a_corrupt_line_stops_the_run_by_name(flags):
    process = run(flags, flags[1] / "stopped")
    assert process.returncode == 2
    assert "corpus.de: line 41" in process.stderr
    assert process.stderr.endswith("; fix the row or set config.data.on_bad_row=skip\n")
    assert "Traceback" not in process.stderr


@pytest.mark.long
def test_a_skipped_line_is_reported_and_the_rest_is_read_in_blocks(whole):
    folder, output = whole
    assert "blocks of 48 rows" in output
    report = json.loads((folder / "stages" / "01-full" / "data_report.json").read_text())["train"]
    assert any("line 41" in dropped["where"] for dropped in report["dropped"])
    rows = report["rows"]
    assert rows == 2 * (PAIRS - 1), "each remaining pair, and its English side paired with itself"
    results = json.loads((folder / "stages" / "01-full" / "stage.json").read_text())
    assert results["steps"] == 2 * -(-rows // 8)


@pytest.mark.long
def test_a_run_killed_between_blocks_resumes_bit_identically(flags, whole, monkeypatch):
    from safetensors.numpy import load_file

    workdir = flags[1] / "killed"
    process = start_run(flags, workdir)
    while read_last_step(workdir) < 13 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run must have died"
    resumed = run(flags, workdir, "--config.data.on_bad_row=skip")
    assert resumed.returncode == 0, resumed.stderr
    assert "restored step" in resumed.stdout + resumed.stderr
    a, b = (
        load_file(run_folder / "stages" / "01-full" / "export" / "model.safetensors")
        for run_folder in (whole[0], workdir)
    )
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)


def start_run(flags, workdir):
    import os
    import subprocess
    import sys

    environment = os.environ | {"XLKD_CACHE": str(flags[1] / "cache"), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "xlkd.main", *flags[0], f"--workdir={workdir}", "--config.data.on_bad_row=skip"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read_last_step(workdir):
    try:
        return json.loads((workdir / "stages" / "01-full" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, IndexError, json.JSONDecodeError):
        return -1
