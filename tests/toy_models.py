# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A tiny untrained model on disk, and commands run as a user runs them: in other processes."""

import os
import pathlib
import subprocess
import sys

import jax

from xlkd.data import sources
from xlkd.models import encoder as encoders
from xlkd.models import hf, tokenizers
from xlkd.models.family import Architecture
from xlkd.models.heads import SpanHead, init_head

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "encoders"
DATA = "atlas?split=validation&size=20&languages=en,de"


def find_golden(kind: str, head: str) -> pathlib.Path:
    """Returns the golden encoder of a kind that has this head: ModernBERT's heads need folders of their own."""
    return GOLDEN / kind / head if (GOLDEN / kind / head).is_dir() else GOLDEN / kind


def save_span_model(folder: pathlib.Path, record: dict | None = None, seed: int = 0) -> pathlib.Path:
    """Saves a model of 2 layers, 16 wide. Its logits are far apart, so that last bits do not decide answers."""
    texts = [text for row in sources.read(DATA, "qa") for text in (row.question, row.context)]
    tokenizers.train(folder / "tokenizer", texts, kind="bert", size=600)
    tokenizer = hf.load_tokenizer(folder / "tokenizer")
    architecture = Architecture(
        model_type="bert",
        vocab_size=len(tokenizer),
        hidden_size=16,
        layers=2,
        heads=2,
        intermediate_size=32,
        positions=128,
        types=2,
        pad_id=tokenizer.pad_token_id,
        position_offset=0,
    )
    keys = jax.random.split(jax.random.key(seed))
    span = jax.tree.map(lambda x: 100 * x, init_head(SpanHead(architecture), keys[1]))
    params = {"encoder": encoders.init(architecture, keys[0], embedding_scale=1.0), "span": span}
    return hf.save(folder / "model", architecture, jax.device_get(params), tokenizer=tokenizer, record=record)


RECORD = {"version": 1, "task": {"name": "qa", "max_length": 64, "doc_stride": 24}, "dtype": "float32"}


OPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "false", "XLA_FLAGS": ""}  # as users compile; see conftest.py


def run_command(
    name: str, *flags: str, cache: pathlib.Path, devices: int = 1, optimized: bool = False, **options
) -> subprocess.CompletedProcess:
    """Runs a command in another process, and returns its exit code and output."""
    environment = os.environ | {
        "XLKD_CACHE": str(cache),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    environment |= OPTIMIZED if optimized else {}
    command = [sys.executable, "-m", f"xlkd.{name}", *flags]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, **options)
