# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads trained models: `xlkd.load(DIR)` gives hidden states, logits, answers and labels.

model = xlkd.load("runs/finetune-1a2b3c4d/stages/01-finetune/export")
model.answer("Who went?", "It was Anna who went.")["answer"]
states = model.apply(ids, mask)  # embeddings, layer 1, …, layer L: each [rows, length, D]
model.outputs(ids, mask)["span"]  # the logits of starts and of ends, each [rows, length]

model = xlkd.load("runs/mblm-1a2b3c4d/stages/07-mblm/export/branches")
model.classify("Anna ging fort.", "Anna blieb.", language="de")["label"]  # no language: the mixture of all branches
model.branch("de").apply(ids, mask)  # one branch as an ordinary encoder
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import jax
import numpy as np
from jax.typing import ArrayLike

from xlkd import settings, spec
from xlkd.errors import UserError
from xlkd.evaluation.evaluator import Evaluator
from xlkd.export import branch_checkpoint
from xlkd.inputs.data import load_module
from xlkd.inputs.weights import locate_model, read_folder_architecture
from xlkd.languages import UNKNOWN, normalise_tag
from xlkd.methods import Inference, Tree
from xlkd.models import branches, heads, hf
from xlkd.models.encoder import Encoder, scan_by_device
from xlkd.models.families import find_family
from xlkd.models.family import Architecture
from xlkd.models.outputs import OutputFn, class_outputs, span_outputs
from xlkd.rows import Labelled, Question, make_key
from xlkd.runtime import mesh as meshes
from xlkd.runtime.devices import prepare_devices
from xlkd.spec.stage import Data, Mesh
from xlkd.spec.tasks import Classify as ClassifySettings
from xlkd.spec.tasks import QuestionAnswering, Task
from xlkd.tasks import Features, Outputs, qa
from xlkd.tasks import Task as TaskOfModel
from xlkd.tasks.classify import ROUTE, Classify
from xlkd.tasks.nulls import Threshold, read_threshold
from xlkd.tasks.spans import Candidate, Predictions, add_null
from xlkd.tasks.tokenization import TextTokenizer

_VERSION = 1  # of xlkd.json


def load(name: str | pathlib.Path, revision: str = "") -> Model:
    """Loads the model of a folder, a hub id or `package:NAME`."""
    prepare_devices()
    folder, commit = locate_export(str(name), revision)
    record = read_record(folder)
    branched = (folder / branch_checkpoint.WEIGHTS).exists()
    checkpoint = branch_checkpoint.load(folder) if branched else hf.load(folder)
    return Model(
        folder=folder,
        revision=commit,
        architecture=checkpoint.architecture,
        params=checkpoint.params,
        tokenizer=hf.load_tokenizer(folder, architecture=checkpoint.architecture),
        labels=checkpoint.labels or (),
        record=record,
    )


def locate_export(name: str, revision: str = "") -> tuple[pathlib.Path, str | None]:
    """Returns the folder of a model, and the commit of a hub id; refuses the work directory of a run."""
    folder, commit = locate_model(name, revision or None)
    exports = sorted(str(file.parent) for file in folder.glob(f"**/{hf.RECORD}") if file.parent != folder)
    if exports and not any((folder / weights).exists() for weights in ("model.safetensors", branch_checkpoint.WEIGHTS)):
        raise UserError("a run's folder, not a model", str(folder), f"give what it exported: {', '.join(exports)}")
    return folder, commit


def find_task(name: str, revision: str = "") -> str:
    """Returns the task that a model was trained for, `qa` or `classify`, without reading its weights."""
    folder, _ = locate_export(name, revision)
    recorded = read_record(folder).get("task", {}).get("name")
    if recorded or not (folder / "config.json").exists():
        return recorded or "qa"
    classes = hf.read_json(folder / "config.json").get("architectures")
    first = str(classes[0]) if isinstance(classes, list) and classes else ""
    return "classify" if first.endswith("ForSequenceClassification") else "qa"


def read_model_architecture(folder: pathlib.Path) -> Architecture:
    """Reads the architecture of a model, also of one with branches, without its weights."""
    if (folder / branch_checkpoint.WEIGHTS).exists():
        return branch_checkpoint.read_architecture(read_record(folder), folder / hf.RECORD)
    return read_folder_architecture(folder)


def read_record(folder: pathlib.Path) -> dict[str, Any]:
    """Reads the record that a run exports beside its model (`task`, `dtype`, …); empty for models of other software."""
    path = folder / hf.RECORD
    if not path.exists():
        return {}
    record = hf.read_json(path)
    if record.get("version") != _VERSION or not isinstance(record.get("task"), dict) or not _is_valid(record):
        raise UserError(f"not a record of version {_VERSION}", str(path), "export the model again, or remove the file")
    return record


def _is_valid(record: dict[str, Any]) -> bool:
    """Returns whether the values of a record that commands read are of the right types."""
    seen = record.get("seen", {})
    if not isinstance(seen, dict):
        return False
    lists = [*seen.values(), *(record["task"].get(name, []) for name in ("labels", "languages"))]
    known_dtype = record.get("dtype", "float32") in ("float32", "bfloat16", "float16")
    return known_dtype and all(
        isinstance(values, list) and all(isinstance(value, str) for value in values) for values in lists
    )


class Answer(TypedDict):
    """A span of the context, or an empty text where there is no answer; positions are characters."""

    answer: str
    start: int
    end: int
    probability: float
    null_odds: NotRequired[float]  # the score of "no answer" minus that of the best span, where there may be no answer
    n_best: list[dict[str, Any]]  # the best spans, each with text, probability, start and end; "no answer" is empty


class Label(TypedDict):
    """The label of a text."""

    label: str
    probability: float
    probabilities: dict[str, float]  # of all labels
    route: str | None  # the branch, or `mixture`; None where the model has no branches


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained encoder with its heads.

    `params` has `encoder`, and of the heads `span` or `classifier`; those of a student with several branches have
    `trunk`, `branches` and `classifier`.
    """

    folder: pathlib.Path
    revision: str | None
    architecture: Architecture
    params: dict[str, Any]
    tokenizer: Any
    labels: tuple[str, ...]
    record: dict[str, Any]

    def apply(self, ids: ArrayLike, mask: ArrayLike, types: ArrayLike | None = None) -> tuple[jax.Array, ...]:
        """Returns hidden states for [rows, length] arrays: embeddings, layer 1, …, layer L, each [rows, length, D]."""
        self._check_has_one_encoder()
        self._check_ids(ids, types)
        return self._apply(self.params["encoder"], ids, mask, types)

    def outputs(self, ids: ArrayLike, mask: ArrayLike, types: ArrayLike | None = None) -> dict[str, Any]:
        """Returns logits by head: `span` gives starts and ends [rows, length] each, `classifier` [rows, labels]."""
        self._check_has_one_encoder()
        self._check_ids(ids, types)
        return self._compute_outputs(self.params, ids, mask, types)

    def answer(self, question: str, context: str) -> Answer:
        """Answers a question by the best span of the context, or by an empty text if the model knows it has none."""
        return self._reader.answer_questions([(question, context)])[0]

    def classify(self, text: str, second: str | None = None, *, language: str = "", route: str = "") -> Label:
        """Labels a text, or a pair of texts.

        A model with branches uses the branch of the language, else the mixture of all; `route` (a language, or
        `mixture`) overrides that.
        """
        return self._labeller.label_texts([(text, second, language)], route)[0]

    def branch(self, language: str) -> Model:
        """Returns the branch of a language as an ordinary model: the trunk, its own layers, and a head."""
        self._check_has_classifier()
        tag = normalise_tag(language)
        exports = self._labeller.inference.exports(self.params) if self._labeller.inference else {}
        if tag not in exports:
            known = ", ".join(name for name in exports if name and name != branches.WHOLE)
            raise UserError(f"no branch for {tag!r}", str(self.folder), f"branches: {known or 'none'}")
        params = {"encoder": exports[tag].encoder, **exports[tag].heads}
        return dataclasses.replace(self, params=jax.device_get(params))

    def question_settings(self, flags: Mapping[str, str] | None = None) -> QuestionAnswering:
        """Returns the settings of question answering that the model was trained with, changed by flags."""
        return settings.read_task("qa", self.record.get("task", {}), flags or {})

    def null_threshold(self, flags: Mapping[str, str] | None = None) -> Threshold | None:
        """Returns the threshold of the null odds of a model that knows unanswerable questions, or that of the flag."""
        if flags and "null_threshold" in flags:
            value = settings.parse_flag("--null_threshold", 0.0, flags["null_threshold"])
            return Threshold(value, "--null_threshold")
        return read_threshold(self.record, str(self.folder / hf.RECORD))

    def label_settings(self, flags: Mapping[str, str] | None = None) -> ClassifySettings:
        """Returns the settings of classification that the model was trained with, changed by flags."""
        recorded = settings.read_task("classify", self.record.get("task", {}), flags or {})
        if not flags or "labels" not in flags:
            return recorded
        named = [label.strip() for label in flags["labels"].split(",")]
        values = spec.to_plain(recorded) | {"labels": named}
        return spec.read_block(ClassifySettings, values, "task", lambda path: "--labels")

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Returns the encoder's forward pass, in the dtype that the record names."""
        return Encoder(self.architecture, dtype=self.record.get("dtype", "float32"), scan=scan_by_device())

    @functools.cached_property
    def _apply(self) -> Callable[..., tuple[jax.Array, ...]]:
        return jax.jit(lambda params, *batch: self.encoder.apply({"params": params}, *batch))

    @functools.cached_property
    def _compute_outputs(self) -> Callable[..., dict[str, Any]]:
        known: dict[str, heads.SpanHead | heads.ClassifierHead] = {"span": heads.SpanHead(self.architecture)}
        if "classifier" in self.params:
            count = self.params["classifier"]["output"]["bias"].shape[-1]
            known["classifier"] = heads.ClassifierHead(self.architecture, labels=count)

        def outputs(params: Tree, *batch: Any) -> dict[str, Any]:
            last = self.encoder.apply({"params": params["encoder"]}, *batch)[-1]
            pooled = find_family(self.architecture).pool(self.architecture, last, batch[1])
            inputs = {"span": last, "classifier": pooled}
            return {
                name: head.apply({"params": params[name]}, inputs[name])
                for name, head in known.items()
                if name in params
            }

        return jax.jit(outputs)

    @functools.cached_property
    def _reader(self) -> Reader:
        return Reader(self, self.question_settings(), batch=4, fixed=True, threshold=self.null_threshold())

    @functools.cached_property
    def _labeller(self) -> Labeller:
        return Labeller(self, self.label_settings(), batch=4, fixed=True)

    def _check_has_one_encoder(self) -> None:
        if "branches" in self.params:
            raise UserError("has several branches", str(self.folder), 'choose one: model.branch("en")')

    def _check_ids(self, ids: ArrayLike, types: ArrayLike | None) -> None:
        """Refuses ids without a row in the tables, which the device would replace silently; traced ones are unknown."""
        tables: dict[str, tuple[ArrayLike | None, int]] = {"ids": (ids, self.architecture.vocab_size)}
        if self.architecture.types > 1:
            tables["types"] = (types, self.architecture.types)
        for name, (values, rows) in tables.items():
            if values is None or isinstance(values, jax.core.Tracer) or not np.size(values):
                continue
            least, largest = np.min(values), np.max(values)
            if least < 0 or largest >= rows:
                what = f"{name} from {least} to {largest} for a table of {rows} rows"
                raise UserError(what, str(self.folder), "use the model's own tokenizer")

    def _check_has_classifier(self) -> None:
        if "classifier" not in self.params:
            remedy = f"train one: --config=configs/finetune.py:classify --config.encoder.path={self.folder}"
            raise UserError("has no classification head", str(self.folder), remedy)


class Reader:
    """Answers questions with a model on all devices; with `fixed` only four padded lengths are ever compiled.

    A question gets no answer where its null odds exceed the threshold; without a threshold each gets its best span.
    """

    def __init__(
        self,
        model: Model,
        task: QuestionAnswering,
        *,
        batch: int = 64,
        fixed: bool = False,
        threshold: Threshold | None = None,
    ) -> None:
        if "span" not in model.params:
            remedy = f"train one: --config=configs/finetune.py --config.encoder.path={model.folder}"
            raise UserError("has no question answering head", str(model.folder), remedy)
        self.task, self._threshold = qa.build(task, model.tokenizer), threshold
        params = {name: model.params[name] for name in ("encoder", "span")}
        outputs = span_outputs(model.encoder, task)
        self._forward = Forward(model, params, outputs, task, batch=batch, fixed=fixed)

    def predict(self, features: Features) -> Predictions:
        """Predicts the best spans of the examples that the features were made from."""
        return self.task.decode(self._forward.compute_outputs(self.task, features), features)

    def answer_questions(self, pairs: Sequence[tuple[str, str]], n_best: int = 5) -> list[Answer]:
        """Answers pairs of question and context; each answer lists the `n_best` candidates."""
        predictions = self.predict(self.task.features([_make_question(i, *pair) for i, pair in enumerate(pairs)]))
        if self._threshold is None:
            return [_make_answer(candidates[0], candidates[:n_best]) for candidates in predictions.candidates]
        numbers = zip(predictions.null_scores.tolist(), predictions.null_odds.tolist(), strict=True)
        return [
            self._decide(candidates, score, odds, n_best)
            for candidates, (score, odds) in zip(predictions.candidates, numbers, strict=True)
        ]

    def _decide(self, spans: Sequence[Candidate], score: float, odds: float, n_best: int) -> Answer:
        """Returns the best span, or no answer; the latter is always listed, after the best spans if need be."""
        assert self._threshold is not None
        candidates = add_null(spans, score, self.task.settings.n_best)
        null = next(each for each in candidates if not each.text)
        best = next((each for each in candidates if each.text), null)
        listed = candidates[:n_best] if null in candidates[:n_best] else (*candidates[:n_best], null)
        answer = _make_answer(null if odds > self._threshold.value else best, listed)
        answer["null_odds"] = odds
        return answer


class Labeller:
    """Labels texts with a model on all devices; a model with branches has a route for each language."""

    def __init__(self, model: Model, task: ClassifySettings, *, batch: int = 64, fixed: bool = False) -> None:
        model._check_has_classifier()
        labels = task.labels or model.labels
        count = model.params["classifier"]["output"]["bias"].shape[-1]
        if len(labels) != count:
            raise UserError(
                f"{len(labels)} labels for {count} logits", "--labels", "name each in the order of the logits"
            )
        task = dataclasses.replace(task, labels=labels)
        self.task = Classify(TextTokenizer(model.tokenizer), task.max_length, labels=labels, languages=task.languages)
        self.inference = load_inference(model, task) if "branches" in model.params else None
        params, outputs = model.params, class_outputs(model.encoder, len(labels))
        if self.inference:
            outputs = self.inference.outputs
        else:
            params = {name: params[name] for name in ("encoder", "classifier")}
        self.routes = self.inference.routes if self.inference else {}
        self._where = str(model.folder)
        self._forward = Forward(model, params, outputs, task, batch=batch, fixed=fixed)

    def compute_outputs(self, features: Features, route: str = "") -> Outputs:
        """Computes `logits` of the examples that the features were made from, and the logits of each route.

        `route` takes the logits of one route for all examples.
        """
        outputs = self._forward.compute_outputs(self.task, features)
        return outputs | {"logits": outputs[ROUTE + self.resolve_route(route)]} if route else outputs

    def resolve_route(self, name: str) -> str:
        """Resolves the name of a route, or of a language that shares a branch."""
        if name == branches.MIXTURE and self.routes:
            return name
        tag = normalise_tag(name, "--route")
        if tag not in self.routes:
            known = ", ".join([*self.routes, branches.MIXTURE]) if self.routes else "it has none"
            raise UserError(f"no route {name!r}", self._where, f"routes: {known}")
        return self.routes[tag]

    def find_route(self, language: str, forced: str = "") -> str:
        """Returns the route of texts in a language; empty where the model has no branches."""
        if not self.routes:
            return ""
        return self.resolve_route(forced) if forced else self.routes.get(language, branches.MIXTURE)

    def label_texts(self, texts: Sequence[tuple[str, str | None, str]], route: str = "") -> list[Label]:
        """Labels triples of text, second text or None, and language, which may be empty."""
        rows = [_make_labelled(i, *text) for i, text in enumerate(texts)]
        features = self.task.features(rows)
        predictions = self.task.decode(self.compute_outputs(features, route), features)
        return [
            {
                "label": predicted.label,
                "probability": predicted.probabilities[predicted.label],
                "probabilities": predicted.probabilities,
                "route": self.find_route(row.language, route) or None,
            }
            for row, predicted in zip(rows, predictions, strict=True)
        ]


def load_inference(model: Model, task: ClassifySettings) -> Inference:
    """Loads the inference functions of a student with branches, from the method that its record names."""
    method = settings.read_method(model.record["method"])
    inference = load_module("methods", method.name).infer(method, task, model.encoder)
    branch_checkpoint.check_shapes(model.params, inference.shapes, model.folder)
    return inference


class Forward:
    """Computes the outputs of any number of examples with a model's parameters, on all devices."""

    def __init__(self, model: Model, params: Tree, outputs: OutputFn, task: Task, *, batch: int, fixed: bool) -> None:
        self._longest = model.architecture.max_length
        mesh = meshes.build_mesh(Mesh())
        self._params = jax.device_put(params, meshes.make_shardings(mesh, params))
        buckets = _list_eighths(min(task.max_length, self._longest)) if fixed else Data().buckets
        self._evaluator = Evaluator(outputs, mesh, batch=batch, buckets=buckets)

    def compute_outputs(self, task: TaskOfModel, features: Features) -> Outputs:
        """Computes the outputs of all feature rows; refuses those that are longer than the model has positions."""
        longest = task.lengths(features)["text"].max()
        if longest > self._longest:
            what = f"windows of {longest} tokens do not fit a model of {self._longest} positions"
            raise UserError(what, "--max_length", f"give {self._longest} or less")
        return self._evaluator.compute_outputs(self._params, task, features)


def _make_labelled(number: int, text: str, second: str | None, language: str) -> Labelled:
    key = make_key(number, text, second)
    tag = UNKNOWN if language in ("", UNKNOWN) else normalise_tag(language, "language")
    return Labelled(str(number), key, key, "asked", text, second, None, tag)


def _list_eighths(length: int) -> tuple[int, ...]:
    """Lists the eighths of a length, rounded up to multiples of 16, the length itself among them."""
    return tuple(dict.fromkeys(min(length, -(-length * part // 128) * 16) for part in range(1, 9)))


def _make_question(number: int, question: str, context: str) -> Question:
    key = make_key(number, question, context)
    return Question(str(number), key, key, "asked", question, context, (), UNKNOWN, UNKNOWN)


def _make_answer(best: Candidate, listed: Sequence[Candidate]) -> Answer:
    return {
        "answer": best.text,
        "start": best.start,
        "end": best.end,
        "probability": best.probability,
        "n_best": [
            {"text": span.text, "probability": span.probability, "start": span.start, "end": span.end}
            for span in listed
        ],
    }
