# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Teachers of classes: any classifiers, each with its own tokenizer and length, asked once for rows of their language.

Teacher and student meet only in the logits of a row, in the order of the task's labels: never in pieces of text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from xlkd.data import cache
from xlkd.data.batches import PAD, PlannedBatch, Shape
from xlkd.data.targets import TargetStore
from xlkd.errors import UserError
from xlkd.evaluation.evaluator import Evaluator
from xlkd.inputs.weights import locate_model, read_folder_architecture, reject_branch_folder
from xlkd.languages import normalise_tag
from xlkd.methods import Classifiers
from xlkd.metrics.labels import confusion_matrix
from xlkd.models import hf
from xlkd.models.encoder import Architecture, Encoder, scan_by_device
from xlkd.models.outputs import class_outputs
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import Log
from xlkd.spec.stage import AnyStage
from xlkd.tasks import Features
from xlkd.tasks.classify import NONE, Classify, match_labels
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.train.targets.audit import SAMPLE, check_targets

EDGES = (32, 64, 96, 128, 192, 256, 384, 512)  # padded lengths: fixed, so that a row is computed alike in any company
CHECKED, MARGIN = 200, 0.2  # rows that show which order the labels have, and by how much another one must be better


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model that knows the task in one language; `order` puts its logits in the order of the task's labels."""

    name: str
    folder: pathlib.Path
    architecture: Architecture
    params: dict[str, Any]
    task: Classify
    labels: tuple[str, ...]  # its own order
    order: np.ndarray


class ComputedTargets:
    """Targets of all feature rows, known before the first step; padding has 0."""

    def __init__(self, values: dict[str, np.ndarray], mesh) -> None:
        self._values, self._mesh = values, mesh

    def example(self, shape: Shape, batch: Any, state: Any) -> Any:
        padding = PlannedBatch(np.full(shape.rows, PAD), shape)
        return meshes.place_batch(self._mesh, self.for_batch(padding), shape.rows)

    def prepare(self) -> None:
        pass

    def for_batch(self, planned: PlannedBatch) -> dict[str, np.ndarray]:
        index = meshes.select_local_rows(self._mesh, planned.index)
        batch = {name: value[np.maximum(index, 0)] for name, value in self._values.items()}
        for value in batch.values():
            value[index < 0] = 0
        return batch

    def ask(self, shape: Shape, batch: Any, state: Any) -> Any:
        raise AssertionError("all targets are known")


def targets(
    spec: AnyStage,
    reading: Classifiers,
    rows: Sequence[Any],
    features: Features,
    task: Any,
    earlier: Mapping[str, pathlib.Path],
    log: Log,
) -> dict[str, np.ndarray]:
    """`teacher` [rows, labels]: the mean logits of the teachers of each row's language; `taught` is 0 where none is."""
    labels = task.labels or tuple(features["labels"].tolist())
    languages = features["languages"][features["language"]]
    found = np.zeros((len(languages), len(labels)), np.float32)
    taught = np.zeros(len(languages), np.float32)
    for tag, names in sorted(spec.teachers.items()):
        mine = np.flatnonzero(languages == normalise_tag(tag, "config.teachers"))
        if not names:
            continue
        if not len(mine):
            log(f"teacher of {tag}: no training row is in this language")
            continue
        held = [rows[int(i)] for i in mine]
        answers = []
        for name in filter(None, map(str.strip, names.split("+"))):
            teacher = load(reading, tag, name, labels, earlier)
            answers.append(ask(teacher, held, features["keys"][mine], spec, log)[:, teacher.order])
            _judge(teacher, tag, answers[-1], features["label"][mine], labels, log)
        found[mine], taught[mine] = np.mean(answers, axis=0), 1
        if len(answers) > 1:
            log(f"teachers of {tag}, the mean of their logits: {_right(found[mine], features['label'][mine])}")
    without = sorted(set(languages[taught == 0].tolist()))
    if without:
        log(f"{int((taught == 0).sum())} rows without a teacher ({', '.join(without)}) learn from their labels alone")
    return {"teacher": found, "taught": taught}


def load(
    reading: Classifiers, tag: str, name: str, labels: Sequence[str], earlier: Mapping[str, pathlib.Path]
) -> Classifier:
    """The classifier of an earlier stage, a folder or a hub id."""
    folder = earlier[name] if name in earlier else locate_model(name)[0]
    where = f"{name} (config.teachers.{tag})"
    reject_branch_folder(folder)
    found = hf.load(folder)
    if "classifier" not in found.params:
        raise UserError("has no classification head", where, "name a model that was trained to classify")
    theirs = _labels(reading, tag, found, where)
    tokenizer = hf.load_tokenizer(folder)
    length = min(reading.max_length or found.architecture.max_length, found.architecture.max_length)
    task = Classify(TextTokenizer(tokenizer), length, labels=tuple(labels))
    return Classifier(name, folder, found.architecture, found.params, task, theirs, match_labels(theirs, labels, where))


def ask(teacher: Classifier, rows: Sequence[Any], keys: np.ndarray, spec: AnyStage, log: Log) -> np.ndarray:
    """Returns its logits [rows, its labels] in its own order: those that the cache lacks are computed."""
    compute = _computer(teacher, spec, log)
    if jax.process_count() > 1:  # all compute together; what one finds in its cache another may not
        return compute(rows)
    store = TargetStore(_cache_name(teacher, spec))
    _audit(store, rows, keys, compute, spec.seed)
    missing = np.flatnonzero(store.find_missing(keys))
    if len(missing):
        logits = compute([rows[i] for i in missing])
        store.add(keys[missing], {"logits": logits}, np.zeros(len(missing), np.int64))
    if len(missing) < len(rows):
        log(f"teacher {teacher.name}: {len(rows) - len(missing)} rows from the cache")
    return store.take(keys, 0)["logits"]


def check_order(counts: np.ndarray, teacher: Classifier, labels: Sequence[str], where: str) -> None:
    """Stop where `counts` [gold, predicted] say that the teacher's labels stand in another order than it says."""
    if len(labels) > 5 or counts.sum() < CHECKED:
        return
    orders = list(itertools.permutations(range(len(labels))))
    right = [sum(counts[gold, order[gold]] for gold in range(len(labels))) / counts.sum() for order in orders]
    best = int(np.argmax(right))
    if right[best] > right[0] + MARGIN:
        meant = {teacher.order[column]: labels[gold] for gold, column in enumerate(orders[best])}
        what = (
            f"right in {right[0]:.0%} of {int(counts.sum())} rows with its labels as {', '.join(teacher.labels)}, "
            f"in {right[best]:.0%} as {', '.join(meant[i] for i in range(len(labels)))}"
        )
        raise UserError(what, where, "state the order of its logits in config.method.teacher_labels")


def _judge(teacher: Classifier, tag: str, logits: np.ndarray, gold: np.ndarray, labels, log: Log) -> None:
    log(f"teacher of {tag}, {teacher.name}: {_right(logits, gold)}")
    there = gold != NONE
    if there.any():
        counts = confusion_matrix(gold[there], logits[there].argmax(-1), len(labels))
        check_order(counts, teacher, labels, f"{teacher.name} (config.teachers.{tag})")


def _right(logits: np.ndarray, gold: np.ndarray) -> str:
    there = gold != NONE
    if not there.any():
        return f"asked for {len(gold)} rows without a label"
    accuracy = float((logits.argmax(-1) == gold)[there].mean())
    return f"accuracy {accuracy:.1%} on {int(there.sum())} training rows"


def _labels(reading: Classifiers, tag: str, found: hf.Checkpoint, where: str) -> tuple[str, ...]:
    """The names of its logits: never guessed."""
    count = len(found.params["classifier"]["output"]["bias"])
    remedy = f"state the order of its logits: --config.method.teacher_labels.{tag}=…"
    if count == 1 or found.config.get("problem_type") == "regression":
        raise UserError("a regression head, not a classification head", where, "name a classifier")
    stated = reading.labels.get(tag, ())
    labels = stated or found.labels or tuple(f"LABEL_{i}" for i in range(count))
    if len(labels) != count:
        raise UserError(f"{len(labels)} labels for a head of {count}", where, remedy)
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        raise UserError(f"its labels have no names ({', '.join(labels)})", where, remedy)
    return labels


class Compute(Protocol):
    """Computes the logits of rows, each as if it were read alone."""

    def __call__(self, rows: Sequence[Any], *, quietly: bool = False) -> np.ndarray: ...


def _computer(teacher: Classifier, spec: AnyStage, log: Log) -> Compute:
    outputs = class_outputs(Encoder(teacher.architecture, scan=scan_by_device()), len(teacher.labels))
    mesh, length = meshes.build_mesh(spec.mesh), teacher.task.max_length
    edges = (*(edge for edge in EDGES if edge < length), length)
    evaluator = Evaluator(outputs, mesh, batch=spec.eval.batch, buckets=edges)

    def compute(rows: Sequence[Any], *, quietly: bool = False) -> np.ndarray:
        params = {name: teacher.params[name] for name in ("encoder", "classifier")}
        params = jax.device_put(params, meshes.make_shardings(mesh, params))
        features = teacher.task.features(rows)
        cut = float((features["lost"] > 0).mean())
        if not quietly:
            log(f"asking teacher {teacher.name} for {len(rows)} rows; {cut:.1%} are cut at {length} of its tokens")
        return evaluator.compute_outputs(params, teacher.task, features)["logits"].astype(np.float32)

    return compute


def _audit(store: TargetStore, rows: Sequence[Any], keys: np.ndarray, compute: Compute, seed: int) -> None:
    """Computes a sample of the rows that the cache holds again."""
    sample = set(store.sample(np.random.default_rng(seed), per_shard=SAMPLE))
    places = [place for place, key in enumerate(keys.tolist()) if key in sample]
    if places:
        fresh = {"logits": compute([rows[place] for place in places], quietly=True)}
        check_targets(keys[places], store.take(keys[places], 0), fresh, (), np.zeros(len(places), np.int64))


def _cache_name(teacher: Classifier, spec: AnyStage) -> str:
    """Names all that a logit depends on but its row."""
    mesh = dict(sorted(dataclasses.asdict(spec.mesh).items()))
    reads = f"{teacher.task.max_length} {EDGES} {spec.eval.batch} {mesh} {jax.device_count()}"
    return cache.make_name("teacher", [_digest(teacher.folder), teacher.task.identity(), reads, jax.__version__])


def _digest(folder: pathlib.Path) -> str:
    """sha256 over the weights and what fixes their arithmetic; label names are no part of it."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    digest.update(repr(read_folder_architecture(folder)).encode())
    return digest.hexdigest()
