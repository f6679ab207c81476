# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds a student of 2 layers x 16 with three branches, its stage and its batches."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import stages
from stages import make_spec
from toy_models import save_span_model

from xlkd.export.folder import write_export
from xlkd.methods import Start, Variables, mblm
from xlkd.models import encoder as encoders
from xlkd.models import hf
from xlkd.models.family import Architecture
from xlkd.spec import read_block
from xlkd.spec.mblm import Method, check
from xlkd.spec.optim import Horizon
from xlkd.spec.stage import Mesh, StageSpec
from xlkd.spec.tasks import Classify

SEEN = {"training": ["de", "en"], "selection": [], "teacher": ["de", "en"]}
LABELS = ("entailment", "neutral", "contradiction")
METHOD = {
    "name": "mblm", "branches": "each", "branch_layers": 1, "head": "shared", "kd": "ce", "temperature": 1.0,
    "t_squared": False, "mix": "representation", "weights": "uniform", "alpha": 1.0, "own": False, "stop": "none",
    "weight_s": 1.0, "weight_z": 1.0, "warmup_z": 0.0, "weight_h": 0.5,
}  # fmt: skip


def make_architecture(layers=2, dropout=0.0, **changes) -> Architecture:
    rates = dict.fromkeys(("dropout", "attention_dropout", "classifier_dropout"), dropout)
    fields = {"positions": 16, "types": 2, "pad_id": 0, "position_offset": 0} | rates | changes
    return Architecture("bert", 40, 16, layers, 2, 32, **fields)


def make_stage(languages=("en", "de", "ru"), mesh=None, **method) -> StageSpec:
    """Returns the student's stage, resolved and checked as a config's would be."""
    task = Classify(labels=LABELS, languages=languages)
    settings = read_block(Method, METHOD | method, "method")
    spec = make_spec(task, settings, mesh=Mesh(**(mesh or {})), horizon=Horizon(100, 10, (0,)))
    check(spec)
    return spec


def make_student(layers=2, dropout=0.0, languages=("en", "de", "ru"), mesh=None, spread=True, **method):
    """Returns (method, variables); `spread` makes the branches differ, as training would."""
    encoder = encoders.Encoder(make_architecture(layers, dropout))
    built = mblm.build(make_stage(languages, mesh, **method), encoder)
    start = Start(encoder.architecture, encoders.init(encoder.architecture, jax.random.key(0), 1.0), {})
    variables = built.init(jax.random.key(1), start)
    if not spread:
        return built, variables
    params = dict(variables.params)
    params["classifier"] = jax.tree.map(lambda x: 10 * x, params["classifier"])
    params["branches"] = spread_branches(params["branches"])
    if "mixture" in params:
        params["mixture"] = np.array([0.1, 0.3, -0.2], np.float32)[: len(params["mixture"])]
    return built, variables._replace(params=params)


def spread_branches(stacked):
    """Adds random numbers that depend on the position, so that a branch is the same in a longer stack."""
    leaves, structure = jax.tree.flatten(stacked)
    changed = []
    for i, x in enumerate(leaves):
        random = [np.random.default_rng([i, k]).normal(0, 0.3, x.shape[1:]) for k in range(len(x))]
        changed.append(np.asarray(x) + np.array(random, np.float32))
    return jax.tree.unflatten(structure, changed)


def make_batch(rows=6, languages=3, length=8, seed=0):
    random = np.random.default_rng(seed)
    text = {
        "ids": random.integers(1, 40, (rows, length)).astype(np.int32),
        "mask": (np.arange(length) < random.integers(4, length + 1, (rows, 1))).astype(np.int32),
        "types": random.integers(0, 2, (rows, length)).astype(np.int32),
    }
    labels = random.integers(0, 3, rows).astype(np.int32)
    language = (np.arange(rows) % languages).astype(np.int32)
    ones = np.ones(rows, np.float32)
    arrays = {"text": text, "labels": labels, "labelled": ones, "language": language, "mask": ones}
    return jax.tree.map(jnp.asarray, arrays)


def make_targets(rows=6, seed=1):
    logits = np.random.default_rng(seed).normal(0, 2, (rows, 3)).astype(np.float32)
    return jax.tree.map(jnp.asarray, {"teacher": logits, "taught": np.ones(rows, np.float32)})


def compute_terms(method, variables, batch, targets, key=3, step=50):
    """Returns the loss terms by name, as a training step would add them."""
    variables = jax.tree.map(jnp.asarray, variables)
    prepared = method.prepare(batch, targets)
    return method.loss(variables, batch, prepared, jax.random.key(key), step).terms


def replace_arrays(batch, **arrays):
    return batch | {name: jnp.asarray(value) for name, value in arrays.items()}


def list_leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def export_student(folder: pathlib.Path) -> pathlib.Path:
    """Exports a student with the branches en and de as a stage does: all branches, and one folder per language."""
    base = save_span_model(folder)
    model = hf.load(base)
    task = Classify(labels=LABELS, languages=("en", "de"), max_length=96)
    settings = read_block(Method, METHOD | {"mix": "logits"}, "method")
    spec = stages.change(stages.resolve(stages.read_stage("configs/mblm.py", "mblm")), task=task, method=settings)
    method = mblm.build(spec, encoders.Encoder(model.architecture))
    start = Start(model.architecture, model.params["encoder"], {})
    params = dict(method.init(jax.random.key(0), start).params)
    params |= {
        "branches": spread_branches(params["branches"]),
        "classifier": jax.tree.map(lambda x: 30 * x, params["classifier"]),
    }
    for name, part in method.exports(Variables(params)).items():
        write_export(folder / "export" / name, part, hf.load_tokenizer(base), spec, {}, SEEN)
    return folder / "export"
