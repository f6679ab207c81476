# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the logits of classifiers, each with its own tokenizer and length, for the examples of their language.

Teacher and student share only the logits of an example, in the order of the task's labels, and no tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from xlkd.data import cache
from xlkd.data.batches import PAD, PlannedBatch, Shape
from xlkd.data.share import Share
from xlkd.data.targets import TargetStore, Values
from xlkd.errors import UserError
from xlkd.evaluation.evaluator import Evaluator
from xlkd.inputs.identity import hash_weights
from xlkd.inputs.weights import locate_model, reject_branch_folder
from xlkd.languages import normalise_tag
from xlkd.methods import Batch, Classifiers, State, Tree
from xlkd.metrics.labels import confusion_matrix
from xlkd.models import hf
from xlkd.models.encoder import Encoder, scan_by_device
from xlkd.models.family import Architecture
from xlkd.models.outputs import class_outputs
from xlkd.runtime import distributed, shared_cache
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import Log
from xlkd.spec.stage import AnyStage
from xlkd.tasks import Features, Task
from xlkd.tasks.classify import NONE, Classify, match_labels
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.train.targets.audit import SAMPLE, check_targets

EDGES = (32, 64, 96, 128, 192, 256, 384, 512)  # padded lengths: fixed, so that logits do not depend on other examples
CHECKED, MARGIN = 200, 0.2  # examples to judge the order of labels by, and how much better another order must be


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A teacher of one language; `order` puts its logits into the order of the task's labels."""

    name: str
    folder: pathlib.Path
    architecture: Architecture
    params: dict[str, Any]
    task: Classify
    labels: tuple[str, ...]  # in its own order
    order: np.ndarray


class ClassifierTargets:
    """Targets of all feature rows, computed before the first step; those of padding are 0."""

    def __init__(self, values: Values, mesh: Mesh) -> None:
        self._values, self._mesh = values, mesh

    def compile(self, shape: Shape, batch: Batch, state: State) -> Tree:
        padding = PlannedBatch(np.full(shape.rows, PAD), shape)
        return meshes.place_batch(self._mesh, self.for_batch(padding, {}), shape.rows)

    def fill_cache(self, first: int) -> None:
        pass

    def for_batch(self, planned: PlannedBatch, features: Features) -> Values:
        index = meshes.select_local_rows(self._mesh, planned.index)
        batch = {name: value[np.maximum(index, 0)] for name, value in self._values.items()}
        for value in batch.values():
            value[index < 0] = 0
        return batch

    def ask_teacher(self, shape: Shape, batch: Batch, state: State | None) -> Tree:
        raise AssertionError("all targets are known")


def compute_logits(
    spec: AnyStage,
    classifiers: Classifiers,
    rows: Sequence[Any],
    features: Features,
    task: Task,
    earlier: Mapping[str, pathlib.Path],
    log: Log,
) -> Values:
    """Returns `teacher` [rows, labels], the mean logits of the teachers of each row's language, and `taught` [rows].

    `taught` is 1 for rows that have a teacher, and 0 for the others.
    """
    assert isinstance(task, Classify)
    labels = task.labels or tuple(features["labels"].tolist())
    languages = features["languages"][features["language"]]
    logits = np.zeros((len(languages), len(labels)), np.float32)
    taught = np.zeros(len(languages), np.float32)
    for tag, names in sorted(spec.teachers.items()):
        indices = np.flatnonzero(languages == normalise_tag(tag, "config.teachers"))
        if not names:
            continue
        if not len(indices):
            log(f"teacher of {tag}: no training example is in this language")
            continue
        examples = [rows[int(i)] for i in indices]
        keys, gold = features["keys"][indices], features["label"][indices]
        answers = []
        for name in split_names(names):
            teacher = load_classifier(classifiers, tag, name, labels, earlier)
            answers.append(read_or_compute(teacher, examples, keys, spec, log)[:, teacher.order])
            _log_accuracy(teacher, tag, answers[-1], gold, labels, log)
        logits[indices], taught[indices] = np.mean(answers, axis=0), 1
        if len(answers) > 1:
            log(f"teachers of {tag}, the mean of their logits: {_describe_accuracy(logits[indices], gold)}")
    if untaught := sorted(set(languages[taught == 0].tolist())):
        count = int((taught == 0).sum())
        log(f"{count} examples without a teacher ({', '.join(untaught)}) learn from their labels alone")
    return {"teacher": logits, "taught": taught}


def split_names(names: str) -> list[str]:
    """Returns the names of a language's teachers, which are joined with +."""
    return [name for name in map(str.strip, names.split("+")) if name]


def locate_classifier(name: str, earlier: Mapping[str, pathlib.Path]) -> pathlib.Path:
    """Returns the folder of a classifier by the name of an earlier stage, a folder or a hub id."""
    folder = earlier[name] if name in earlier else locate_model(name)[0]
    reject_branch_folder(folder)
    return folder


def load_classifier(
    classifiers: Classifiers, tag: str, name: str, labels: Sequence[str], earlier: Mapping[str, pathlib.Path]
) -> Classifier:
    """Loads a classifier by the name of an earlier stage, a folder or a hub id."""
    folder = locate_classifier(name, earlier)
    where = f"{name} (config.teachers.{tag})"
    checkpoint = hf.load(folder)
    if "classifier" not in checkpoint.params:
        raise UserError("has no classification head", where, "name a model that was trained to classify")
    own_labels = _read_labels(classifiers, tag, checkpoint, where)
    tokenizer = hf.load_tokenizer(folder)
    architecture = checkpoint.architecture
    length = min(classifiers.max_length or architecture.max_length, architecture.max_length)
    task = Classify(TextTokenizer(tokenizer), length, labels=tuple(labels))
    remedy = f"state the task's names in the order of its logits: --config.method.teacher_labels.{tag}=…"
    order = match_labels(own_labels, labels, where, remedy)
    return Classifier(name, folder, architecture, checkpoint.params, task, own_labels, order)


def read_or_compute(teacher: Classifier, rows: Sequence[Any], keys: np.ndarray, spec: AnyStage, log: Log) -> np.ndarray:
    """Reads the logits [rows, its labels] of a teacher from the cache, and computes those that are missing."""
    compute, share = _make_compute(teacher, spec, log), distributed.open_share("classifier cache")
    store = TargetStore(_make_cache_name(teacher, spec))
    _audit(store, rows, keys, compute, spec.seed, share)
    # All processes compute together, and their caches may differ
    missing = np.flatnonzero(distributed.any_process(store.find_missing(keys)))
    if len(missing):
        logits, writes = compute([rows[int(i)] for i in missing]), shared_cache.writes()

        def add() -> None:
            if writes:
                store.add(keys[missing], {"logits": logits}, np.zeros(len(missing), np.int64))

        shared_cache.call_on_all(share, add)
        store.refresh()
    if len(missing) < len(rows):
        log(f"teacher {teacher.name}: {len(rows) - len(missing)} examples from the cache")
    values = store.take(keys, 0)
    assert values is not None, "all keys were added"
    return values["logits"]


def check_order(counts: np.ndarray, teacher: Classifier, labels: Sequence[str], where: str) -> None:
    """Refuses a teacher whose accuracy shows that its labels have another order than it states.

    `counts` [gold, predicted] are counted over training examples.
    """
    if len(labels) > 5 or counts.sum() < CHECKED:
        return
    orders = list(itertools.permutations(range(len(labels))))
    accuracies = [sum(counts[gold, order[gold]] for gold in range(len(labels))) / counts.sum() for order in orders]
    best = int(np.argmax(accuracies))
    if accuracies[best] > accuracies[0] + MARGIN:
        actual = {teacher.order[column]: labels[gold] for gold, column in enumerate(orders[best])}
        what = (
            f"correct for {accuracies[0]:.0%} of {int(counts.sum())} examples if its labels are "
            f"{', '.join(teacher.labels)}, "
            f"for {accuracies[best]:.0%} if they are {', '.join(actual[i] for i in range(len(labels)))}"
        )
        raise UserError(what, where, "state the order of its logits in config.method.teacher_labels")


def _log_accuracy(
    teacher: Classifier, tag: str, logits: np.ndarray, gold: np.ndarray, labels: Sequence[str], log: Log
) -> None:
    """Logs the accuracy of a teacher on the training examples, and checks the order of its labels by it."""
    log(f"teacher of {tag}, {teacher.name}: {_describe_accuracy(logits, gold)}")
    is_labelled = gold != NONE
    if is_labelled.any():
        counts = confusion_matrix(gold[is_labelled], logits[is_labelled].argmax(-1), len(labels))
        check_order(counts, teacher, labels, f"{teacher.name} (config.teachers.{tag})")


def _describe_accuracy(logits: np.ndarray, gold: np.ndarray) -> str:
    is_labelled = gold != NONE
    if not is_labelled.any():
        return f"asked for {len(gold)} examples without a label"
    accuracy = float((logits.argmax(-1) == gold)[is_labelled].mean())
    return f"accuracy {accuracy:.1%} on {int(is_labelled.sum())} training examples"


def _read_labels(classifiers: Classifiers, tag: str, checkpoint: hf.Checkpoint, where: str) -> tuple[str, ...]:
    """Reads the labels of a classifier's logits, and refuses one that does not state them."""
    count = len(checkpoint.params["classifier"]["output"]["bias"])
    remedy = f"state the order of its logits: --config.method.teacher_labels.{tag}=…"
    if count == 1 or checkpoint.config.get("problem_type") == "regression":
        raise UserError("a regression head, not a classification head", where, "name a classifier")
    stated = classifiers.labels.get(tag, ())
    labels = stated or checkpoint.labels or tuple(f"LABEL_{i}" for i in range(count))
    if len(labels) != count:
        raise UserError(f"{len(labels)} labels for a head of {count}", where, remedy)
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        raise UserError(f"its labels have no names ({', '.join(labels)})", where, remedy)
    return labels


class Compute(Protocol):
    """Computes the logits of examples, each independent of the others."""

    def __call__(self, rows: Sequence[Any], *, quietly: bool = False) -> np.ndarray: ...


def _make_compute(teacher: Classifier, spec: AnyStage, log: Log) -> Compute:
    """Makes the function that computes the logits of a teacher."""
    outputs = class_outputs(Encoder(teacher.architecture, scan=scan_by_device()), len(teacher.labels))
    mesh, length = meshes.build_mesh(spec.mesh), teacher.task.max_length
    edges = (*(edge for edge in EDGES if edge < length), length)
    evaluator = Evaluator(outputs, mesh, batch=spec.eval.batch, buckets=edges)

    def compute(rows: Sequence[Any], *, quietly: bool = False) -> np.ndarray:
        params = {name: teacher.params[name] for name in ("encoder", "classifier")}
        params = jax.device_put(params, meshes.make_shardings(mesh, params))
        features = teacher.task.features(rows, share=distributed.open_share("classifier"))
        cut = float((features["lost"] > 0).mean())
        if not quietly:
            log(f"asking teacher {teacher.name} for {len(rows)} examples; {cut:.1%} are cut at {length} of its tokens")
        return evaluator.compute_outputs(params, teacher.task, features)["logits"].astype(np.float32)

    return compute


def _audit(
    store: TargetStore, rows: Sequence[Any], keys: np.ndarray, compute: Compute, seed: int, share: Share | None
) -> None:
    """Computes a sample of the cached logits again, and stops if one differs."""
    sample = set(store.sample(np.random.default_rng(seed), per_shard=SAMPLE))
    places = np.flatnonzero(distributed.any_process(np.array([key in sample for key in keys.tolist()], bool)))
    if not len(places):
        return
    logits = compute([rows[int(place)] for place in places], quietly=True)

    def check() -> None:
        stored = store.contains(keys[places])  # of several processes each may have others
        own = keys[places][stored]
        if (cached := store.take(own, 0) if len(own) else None) is not None:
            check_targets(own, cached, {"logits": logits[stored]}, (), np.zeros(len(own), np.int64))

    shared_cache.call_on_all(share, check)


def _make_cache_name(teacher: Classifier, spec: AnyStage) -> str:
    """Makes a name from everything that a logit depends on except its example."""
    mesh = {axis: getattr(spec.mesh, axis) for axis in sorted((*meshes.AXES, "dcn_data"))}
    reads = f"{teacher.task.max_length} {EDGES} {spec.eval.batch} {mesh} {jax.device_count()}"
    return cache.make_name("teacher", [hash_weights(teacher.folder), teacher.task.identity(), reads, jax.__version__])
