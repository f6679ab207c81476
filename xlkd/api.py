# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trained models in Python: `xlkd.load(DIR)` gives hidden states, logits, answers and labels.

model = xlkd.load("runs/finetune-1a2b3c4d/stages/01-finetune/export")
model.answer("Who went?", "It was Anna who went.")["answer"]
states = model.apply(ids, mask)  # embeddings, layer 1, …, layer L: each [rows, length, D]
model.outputs(ids, mask)["span"]  # the logits of starts and of ends, each [rows, length]

model = xlkd.load("runs/mblm-1a2b3c4d/stages/07-mblm/export/branches")
model.classify("Anna ging fort.", "Anna blieb.", language="de")["label"]  # no language: all branches together
model.branch("de").apply(ids, mask)  # one of them as an ordinary encoder
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax

from xlkd import settings
from xlkd.errors import UserError
from xlkd.evaluation.evaluator import Evaluator
from xlkd.export import branch_checkpoint
from xlkd.inputs.data import load_module
from xlkd.inputs.weights import locate_model, read_folder_architecture
from xlkd.languages import UNKNOWN, normalise_tag
from xlkd.methods import Inference
from xlkd.models import branches, heads, hf
from xlkd.models.encoder import Architecture, Encoder, scan_by_device
from xlkd.models.outputs import OutputFn, class_outputs, span_outputs
from xlkd.rows import Labelled, Question, make_key
from xlkd.runtime import mesh as meshes
from xlkd.runtime.devices import prepare_devices
from xlkd.spec.stage import Data, Mesh
from xlkd.spec.tasks import Classify as ClassifySettings
from xlkd.spec.tasks import QuestionAnswering, Task
from xlkd.tasks import Features, qa
from xlkd.tasks.classify import ROUTE, Classify
from xlkd.tasks.spans import Candidate, Predictions
from xlkd.tasks.tokenization import TextTokenizer

_VERSION = 1  # of xlkd.json


def load(name: str | pathlib.Path, revision: str = "") -> Model:
    """Loads the model of a folder, a hub id or `package:NAME`."""
    prepare_devices()
    folder, commit = locate(str(name), revision)
    record = recorded(folder)
    branched = (folder / branch_checkpoint.WEIGHTS).exists()
    checkpoint = branch_checkpoint.load(folder) if branched else hf.load(folder)
    return Model(
        folder=folder,
        revision=commit,
        architecture=checkpoint.architecture,
        params=checkpoint.params,
        tokenizer=hf.load_tokenizer(folder),
        labels=checkpoint.labels or (),
        record=record,
    )


def locate(name: str, revision: str = "") -> tuple[pathlib.Path, str | None]:
    """The folder of a model, and its commit where it came from the hub; a run's own folder is told from its exports."""
    folder, commit = locate_model(name, revision or None)
    exports = sorted(str(file.parent) for file in folder.glob(f"**/{hf.RECORD}") if file.parent != folder)
    if exports and not any((folder / weights).exists() for weights in ("model.safetensors", branch_checkpoint.WEIGHTS)):
        raise UserError("a run's folder, not a model", str(folder), f"give what it exported: {', '.join(exports)}")
    return folder, commit


def task_of(name: str, revision: str = "") -> str:
    """What a model was made for, before its weights are read: `qa` or `classify`."""
    folder, _ = locate(name, revision)
    known = recorded(folder).get("task", {}).get("name")
    if known or not (folder / "config.json").exists():
        return known or "qa"
    kinds = hf.read_json(folder / "config.json").get("architectures") or ("",)
    return "classify" if kinds[0].endswith("ForSequenceClassification") else "qa"


def architecture_of(folder: pathlib.Path) -> Architecture:
    """What fixes the shapes, before any weights are read."""
    if (folder / branch_checkpoint.WEIGHTS).exists():
        return branch_checkpoint.architecture_of(recorded(folder), folder / hf.RECORD)
    return read_folder_architecture(folder)


def recorded(folder: pathlib.Path) -> dict[str, Any]:
    """What a run wrote beside its model: `task`, its settings, and `dtype`; empty where another system made it."""
    path = folder / hf.RECORD
    if not path.exists():
        return {}
    record = hf.read_json(path)
    if record.get("version") != _VERSION or not isinstance(record.get("task"), dict) or not _sound(record):
        raise UserError(f"not a record of version {_VERSION}", str(path), "export the model again, or remove the file")
    return record


def _sound(record: dict[str, Any]) -> bool:
    """Returns whether what commands read of it is of the kinds that a run writes."""
    seen = record.get("seen", {})
    tags = itertools.chain.from_iterable(seen.values()) if isinstance(seen, dict) and _lists(seen.values()) else [None]
    lists = [record["task"].get(name, []) for name in ("labels", "languages")]
    known = record.get("dtype", "float32") in ("float32", "bfloat16", "float16")
    return known and _lists(lists) and all(isinstance(one, str) for one in itertools.chain(tags, *lists))


def _lists(values: Iterable[Any]) -> bool:
    return all(isinstance(value, list) for value in values)


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """An encoder and the heads that stand on it; `params` has `encoder`, and `span` or `classifier` where there.

    A student with several branches has `trunk`, `branches` and `classifier`.
    """

    folder: pathlib.Path
    revision: str | None
    architecture: Architecture
    params: dict[str, Any]
    tokenizer: Any
    labels: tuple[str, ...]
    record: dict[str, Any]

    def apply(self, ids, mask, types=None) -> tuple[jax.Array, ...]:
        """Hidden states of [rows, length] arrays: embeddings, layer 1, …, layer L, each [rows, length, D]."""
        self._one_encoder()
        return self._apply(self.params["encoder"], ids, mask, types)

    def outputs(self, ids, mask, types=None) -> dict[str, Any]:
        """Logits by head: `span` gives starts and ends [rows, length] each, `classifier` [rows, labels]."""
        self._one_encoder()
        return self._outputs(self.params, ids, mask, types)

    def answer(self, question: str, context: str) -> dict[str, Any]:
        """The best span of the context: `answer`, `start`, `end`, `probability`, and the `n_best` behind it."""
        return self._reader.answers([(question, context)])[0]

    def classify(self, text: str, second: str | None = None, *, language: str = "", route: str = "") -> dict[str, Any]:
        """`label`, `probability`, the `probabilities` of all labels, and the `route` of the text through the model.

        Without a language all branches answer together; `route` (a language, or `mixture`) forces the way.
        """
        return self._labeller.labels([(text, second, language)], route)[0]

    def branch(self, language: str) -> Model:
        """The ordinary model that trunk, one branch and head are."""
        self._labels_texts()
        tag = normalise_tag(language)
        exports = self._labeller.inference.exports(self.params) if self._labeller.inference else {}
        if tag not in exports:
            known = ", ".join(name for name in exports if name and name != branches.WHOLE)
            raise UserError(f"no branch for {tag!r}", str(self.folder), f"branches: {known or 'none'}")
        params = {"encoder": exports[tag].encoder, **exports[tag].heads}
        return dataclasses.replace(self, params=jax.device_get(params))

    def task(self, name: str = "qa", flags: dict[str, str] | None = None) -> Task:
        """Returns the settings of a task as the model was trained with them, changed by flags."""
        chosen = settings.read_task(name, self.record.get("task", {}), flags or {})
        if flags and "labels" in flags and isinstance(chosen, ClassifySettings):
            labels = tuple(label.strip() for label in flags["labels"].split(","))
            return dataclasses.replace(chosen, labels=labels)
        return chosen

    @functools.cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.architecture, dtype=self.record.get("dtype", "float32"), scan=scan_by_device())

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda params, *batch: self.encoder.apply({"params": params}, *batch))

    @functools.cached_property
    def _outputs(self):
        known = {"span": heads.SpanHead(self.architecture)}
        if "classifier" in self.params:
            count = self.params["classifier"]["output"]["bias"].shape[-1]
            known["classifier"] = heads.ClassifierHead(self.architecture, labels=count)

        def outputs(params, *batch):
            last = self.encoder.apply({"params": params["encoder"]}, *batch)[-1]
            return {name: head.apply({"params": params[name]}, last) for name, head in known.items() if name in params}

        return jax.jit(outputs)

    @functools.cached_property
    def _reader(self) -> Reader:
        return Reader(self, self.task(), batch=4, fixed=True)

    @functools.cached_property
    def _labeller(self) -> Labeller:
        return Labeller(self, self.task("classify"), batch=4, fixed=True)

    def _one_encoder(self) -> None:
        if "branches" in self.params:
            raise UserError("has several branches", str(self.folder), 'choose one: model.branch("en")')

    def _labels_texts(self) -> None:
        if "classifier" not in self.params:
            remedy = f"train one: --config=configs/finetune.py:classify --config.encoder.path={self.folder}"
            raise UserError("has no head for labels", str(self.folder), remedy)


class Reader:
    """A model that answers questions on all devices; `fixed` keeps to four padded lengths whatever is asked."""

    def __init__(self, model: Model, task: QuestionAnswering, *, batch: int = 64, fixed: bool = False) -> None:
        if "span" not in model.params:
            remedy = f"train one: --config=configs/finetune.py --config.encoder.path={model.folder}"
            raise UserError("has no head that marks answers", str(model.folder), remedy)
        self.task = qa.build(task, model.tokenizer)
        params = {name: model.params[name] for name in ("encoder", "span")}
        outputs = span_outputs(model.encoder, task)
        self._forward = Forward(model, params, outputs, task, batch=batch, fixed=fixed)

    def predictions(self, features: Features) -> Predictions:
        """Answers to the rows that the features were made from."""
        return self.task.decode(self._forward.outputs(self.task, features), features)

    def answers(self, asked: Sequence[tuple[str, str]], n_best: int = 5) -> list[dict[str, Any]]:
        """For each question and context the best answer, and the best few."""
        found = self.predictions(self.task.features([_row(i, *pair) for i, pair in enumerate(asked)]))
        return [_answer(candidates, n_best) for candidates in found.candidates]


class Labeller:
    """A model that labels texts on all devices; of one with branches also by which route."""

    def __init__(self, model: Model, task: ClassifySettings, *, batch: int = 64, fixed: bool = False) -> None:
        model._labels_texts()
        labels = task.labels or model.labels
        count = model.params["classifier"]["output"]["bias"].shape[-1]
        if len(labels) != count:
            raise UserError(
                f"{len(labels)} labels for {count} logits", "--labels", "name each in the order of the logits"
            )
        task = dataclasses.replace(task, labels=labels)
        self.task = Classify(TextTokenizer(model.tokenizer), task.max_length, labels=labels, languages=task.languages)
        self.inference = None
        if "branches" in model.params:
            self.inference, params = load_inference(model, task), model.params
            outputs = self.inference.outputs
        else:
            params = {name: model.params[name] for name in ("encoder", "classifier")}
            outputs = class_outputs(model.encoder, len(labels))
        self.branches = self.inference.routes if self.inference else {}
        self._where = str(model.folder)
        self._forward = Forward(model, params, outputs, task, batch=batch, fixed=fixed)

    def outputs(self, features: Features, route: str = "") -> dict[str, Any]:
        """`logits` of the rows that the features were made from, and of each route; `route` forces one."""
        chosen = self.route(route) if route else ""
        found = self._forward.outputs(self.task, features)
        return found | ({"logits": found[ROUTE + chosen]} if chosen else {})

    def route(self, name: str) -> str:
        """A route by its name, or by one of the languages that share a branch."""
        if name == branches.MIXTURE and self.branches:
            return name
        tag = normalise_tag(name, "--route")
        if tag not in self.branches:
            known = ", ".join([*self.branches, branches.MIXTURE]) if self.branches else "it has none"
            raise UserError(f"no route {name!r}", self._where, f"routes: {known}")
        return self.branches[tag]

    def route_of(self, language: str, forced: str = "") -> str:
        """The way of a text in a language; empty where a model has but one."""
        if not self.branches:
            return ""
        return self.route(forced) if forced else self.branches.get(language, branches.MIXTURE)

    def labels(self, asked: Sequence[tuple[str, str | None, str]], route: str = "") -> list[dict[str, Any]]:
        """For each text, second text or None, and language or nothing."""
        rows = [_labelled(i, *one) for i, one in enumerate(asked)]
        features = self.task.features(rows)
        found = self.task.decode(self.outputs(features, route), features)
        return [
            {
                "label": one.label,
                "probability": one.probabilities[one.label],
                "probabilities": one.probabilities,
                "route": self.route_of(row.language, route) or None,
            }
            for row, one in zip(rows, found, strict=True)
        ]


def load_inference(model: Model, task: ClassifySettings) -> Inference:
    """Returns the inference of a student with branches, by the method that its record names."""
    method = settings.read_method(model.record["method"])
    return load_module("methods", method.name).infer(method, task, model.encoder)


class Forward:
    """An output function over rows of any number, by a model's parameters."""

    def __init__(self, model: Model, params: Any, outputs: OutputFn, task: Task, *, batch: int, fixed: bool) -> None:
        self._longest = model.architecture.max_length
        mesh = meshes.build_mesh(Mesh())
        self._params = jax.device_put(params, meshes.make_shardings(mesh, params))
        buckets = _quarters(min(task.max_length, self._longest)) if fixed else Data().buckets
        self._evaluator = Evaluator(outputs, mesh, batch=batch, buckets=buckets)

    def outputs(self, task, features: Features) -> dict[str, Any]:
        longest = task.lengths(features)["text"].max()
        if longest > self._longest:
            what = f"windows of {longest} tokens do not fit a model of {self._longest} positions"
            raise UserError(what, "--max_length", f"give {self._longest} or less")
        return self._evaluator.outputs(self._params, task, features)


def _labelled(number: int, text: str, second: str | None, language: str) -> Labelled:
    key = make_key(number, text, second)
    tag = UNKNOWN if language in ("", UNKNOWN) else normalise_tag(language, "language")
    return Labelled(str(number), key, key, "asked", text, second, None, tag)


def _quarters(length: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(min(length, -(-length * part // 64) * 16) for part in (1, 2, 3, 4)))


def _row(number: int, question: str, context: str) -> Question:
    key = make_key(number, question, context)
    return Question(str(number), key, key, "asked", question, context, (), UNKNOWN, UNKNOWN)


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
