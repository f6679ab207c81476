# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trained models in Python: `xlkd.load(DIR)` gives hidden states, logits and answers.

model = xlkd.load("runs/finetune-1a2b3c4d/stages/01-finetune/export")
model.answer("Who went?", "It was Anna who went.")["answer"]
states = model.apply(ids, mask)  # embeddings, layer 1, …, layer L: each [rows, length, D]
model.outputs(ids, mask)["span"]  # the logits of starts and of ends, each [rows, length]
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from xlkd import settings
from xlkd.configs.base import base
from xlkd.errors import UserError
from xlkd.methods import Variables, finetune
from xlkd.models import heads, hf
from xlkd.models.encoder import Architecture, Encoder, scan_by_device
from xlkd.rows import Question, key_of
from xlkd.tasks import Features, qa
from xlkd.tasks.spans import Candidate, Predictions
from xlkd.train import mesh as meshes
from xlkd.train import runtime, start
from xlkd.train.evaluation import Evaluator

_VERSION = 1  # of xlkd.json


def load(name: str | pathlib.Path, revision: str = "") -> Model:
    """The model of a folder, a hub id or `package:NAME`."""
    runtime.prepare()
    folder, commit = locate(str(name), revision)
    found = hf.load(folder)
    return Model(
        folder=folder,
        revision=commit,
        architecture=found.architecture,
        params=found.params,
        tokenizer=hf.tokenizer(folder),
        labels=found.labels or (),
        record=recorded(folder),
    )


def locate(name: str, revision: str = "") -> tuple[pathlib.Path, str | None]:
    """The folder of a model, and its commit where it came from the hub; a run's own folder is told from its exports."""
    folder, commit = start.locate(name, revision or None)
    exports = sorted({str(file.parent) for file in folder.glob("**/export/**/config.json")})
    if exports and not (folder / "model.safetensors").exists():
        raise UserError("a run's folder, not a model", str(folder), f"give what it exported: {', '.join(exports)}")
    return folder, commit


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """What a run wrote beside its model: `task`, its settings, and `dtype`; empty where another system made it."""
    path = folder / hf.RECORD
    if not path.exists():
        return {}
    record = hf.read_json(path)
    if record.get("version") != _VERSION or not isinstance(record.get("task"), dict):
        raise UserError(f"not a record of version {_VERSION}", str(path), "export the model again, or remove the file")
    return record


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """An encoder and the heads that stand on it; `params` has `encoder`, and `span` or `classifier` where there."""

    folder: pathlib.Path
    revision: str | None
    architecture: Architecture
    params: dict[str, Any]
    tokenizer: Any
    labels: tuple[str, ...]
    record: dict[str, Any]

    def apply(self, ids, mask, types=None) -> tuple[jax.Array, ...]:
        """Hidden states of [rows, length] arrays: embeddings, layer 1, …, layer L, each [rows, length, D]."""
        return self._apply(self.params["encoder"], ids, mask, types)

    def outputs(self, ids, mask, types=None) -> dict[str, Any]:
        """Logits by head: `span` gives starts and ends [rows, length] each, `classifier` [rows, labels]."""
        return self._outputs(self.params, ids, mask, types)

    def answer(self, question: str, context: str) -> dict[str, Any]:
        """The best span of the context: `answer`, `start`, `end`, `probability`, and the `n_best` behind it."""
        return self._reader.answers([(question, context)])[0]

    def task(self, name: str = "qa", flags: dict[str, str] | None = None):
        """The settings of a task as the model was trained with them, changed by flags."""
        return settings.task(name, self.record.get("task", {}), flags or {})

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.architecture, dtype=self.record.get("dtype", "float32"), scan=scan_by_device())

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda params, *batch: self.encoder.apply({"params": params}, *batch))

    @functools.cached_property
    def _outputs(self):
        span, classifier = (
            heads.SpanHead(self.architecture),
            heads.ClassifierHead(self.architecture, labels=len(self.labels)),
        )
        known = {"span": span, "classifier": classifier}

        def outputs(params, *batch):
            last = self.encoder.apply({"params": params["encoder"]}, *batch)[-1]
            return {name: head.apply({"params": params[name]}, last) for name, head in known.items() if name in params}

        return jax.jit(outputs)

    @functools.cached_property
    def _reader(self) -> Reader:
        return Reader(self, self.task(), batch=4, fixed=True)


class Reader:
    """A model that answers questions on all devices; `fixed` keeps to four padded lengths whatever is asked."""

    def __init__(self, model: Model, settings, *, batch: int = 64, fixed: bool = False) -> None:
        if "span" not in model.params:
            remedy = f"train one: --config=configs/finetune.py --config.encoder.path={model.folder}"
            raise UserError("has no head that marks answers", str(model.folder), remedy)
        self.task = qa.build(settings, model.tokenizer)
        self._longest = model.architecture.max_length
        stage = base()
        stage.task = settings
        mesh = meshes.build({"data": -1, "fsdp": 1, "tensor": 1})
        params = {name: model.params[name] for name in ("encoder", "span")}
        self._variables = Variables(jax.device_put(params, meshes.shardings(mesh, params)))
        buckets = _quarters(min(settings.max_length, self._longest)) if fixed else stage.data.buckets
        self._evaluator = Evaluator(finetune.build(stage, model.encoder), mesh, batch=batch, buckets=buckets)

    def predictions(self, features: Features) -> Predictions:
        """Answers to the rows that the features were made from."""
        longest = self.task.lengths(features)["text"].max()
        if longest > self._longest:
            what = f"windows of {longest} tokens do not fit a model of {self._longest} positions"
            raise UserError(what, "--max_length", f"give {self._longest} or less")
        outputs = self._evaluator.outputs(self._variables, self.task, features)
        return self.task.decode(outputs, features)

    def answers(self, asked: Sequence[tuple[str, str]], n_best: int = 5) -> list[dict[str, Any]]:
        """For each question and context the best answer, and the best few."""
        found = self.predictions(self.task.features([_row(i, *pair) for i, pair in enumerate(asked)]))
        return [_answer(candidates, n_best) for candidates in found.candidates]


def _quarters(length: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(min(length, -(-length * part // 64) * 16) for part in (1, 2, 3, 4)))


def _row(number: int, question: str, context: str) -> Question:
    key = key_of(number, question, context)
    return Question(str(number), key, key, "asked", question, context, (), "und", "und")


def _answer(candidates: Sequence[Candidate], n_best: int) -> dict[str, Any]:
    best = candidates[0]
    return {
        "answer": best.text,
        "start": best.start,
        "end": best.end,
        "probability": best.probability,
        "n_best": [
            {"text": one.text, "probability": one.probability, "start": one.start, "end": one.end}
            for one in candidates[:n_best]
        ],
    }
