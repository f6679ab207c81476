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
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from xlkd.data import cache
from xlkd.errors import UserError
from xlkd.evaluation.evaluator import Evaluator
from xlkd.inputs.weights import locate_model, read_folder_architecture, reject_branch_folder
from xlkd.languages import normalise
from xlkd.metrics.labels import confusion
from xlkd.models import hf
from xlkd.models.encoder import Architecture, Encoder, scan_by_device
from xlkd.models.outputs import class_outputs
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import Log
from xlkd.tasks import Features
from xlkd.tasks.classify import NONE, Classify, permutation
from xlkd.tasks.text import Template

EDGES = (32, 64, 96, 128, 192, 256, 384, 512)  # padded lengths: fixed, so that a row is computed alike in any company
AUDIT, CLOSE = 8, 1e-5  # rows computed again where the cache had them; how far they may be off
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


def targets(
    config, rows: Sequence[Any], features: Features, task: Any, earlier: Mapping[str, pathlib.Path], log: Log
) -> dict[str, np.ndarray]:
    """`teacher` [rows, labels]: the mean logits of the teachers of each row's language; `taught` is 0 where none is."""
    labels = task.labels or tuple(features["labels"].tolist())
    languages = features["languages"][features["language"]]
    found = np.zeros((len(languages), len(labels)), np.float32)
    taught = np.zeros(len(languages), np.float32)
    for tag, names in sorted(config.teachers.items()):
        mine = np.flatnonzero(languages == normalise(tag, "config.teachers"))
        if not names:
            continue
        if not len(mine):
            log(f"teacher of {tag}: no training row is in this language")
            continue
        held = [rows[int(i)] for i in mine]
        answers = []
        for name in filter(None, map(str.strip, names.split("+"))):
            teacher = load(config, tag, name, labels, earlier)
            answers.append(ask(teacher, held, features["keys"][mine], config, log)[:, teacher.order])
            _judge(teacher, tag, answers[-1], features["label"][mine], labels, log)
        found[mine], taught[mine] = np.mean(answers, axis=0), 1
        if len(answers) > 1:
            log(f"teachers of {tag}, the mean of their logits: {_right(found[mine], features['label'][mine])}")
    without = sorted(set(languages[taught == 0].tolist()))
    if without:
        log(f"{int((taught == 0).sum())} rows without a teacher ({', '.join(without)}) learn from their labels alone")
    return {"teacher": found, "taught": taught}


def load(config, tag: str, name: str, labels: Sequence[str], earlier: Mapping[str, pathlib.Path]) -> Classifier:
    """The classifier of an earlier stage, a folder or a hub id."""
    folder = earlier[name] if name in earlier else locate_model(name)[0]
    where = f"{name} (config.teachers.{tag})"
    reject_branch_folder(folder)
    found = hf.load(folder)
    if "classifier" not in found.params:
        raise UserError("has no head for labels", where, "name a model that was trained to classify")
    theirs = _labels(config, tag, found, where)
    tokenizer = hf.tokenizer(folder)
    length = min(config.method.get("teacher_length", 0) or found.architecture.max_length, found.architecture.max_length)
    task = Classify(Template(tokenizer), length, labels=tuple(labels))
    return Classifier(name, folder, found.architecture, found.params, task, theirs, permutation(theirs, labels, where))


def ask(teacher: Classifier, rows: Sequence[Any], keys: np.ndarray, config, log: Log) -> np.ndarray:
    """Its logits [rows, its labels] in its own order: from the cache, where a sample of them is computed again."""
    sort = np.argsort(keys, kind="stable")  # the entry is the same however the rows are shuffled
    placed = np.empty(len(keys), np.int64)
    placed[sort] = np.arange(len(keys))
    ordered = [rows[i] for i in sort]
    compute = _computer(teacher, config, log)
    if jax.process_count() > 1:  # all compute together; what one finds in its cache another may not
        return compute(ordered)[placed]
    name = _entry(teacher, keys[sort], config)
    held = cache.held(name)
    if held is None:
        held = cache.arrays(name, lambda: {"logits": compute(ordered)})
    else:
        _audit(teacher, held["logits"], ordered, compute, config.seed)
        log(f"teacher {teacher.name}: {len(rows)} rows from the cache")
    return np.asarray(held["logits"])[placed]


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
        counts = confusion(gold[there], logits[there].argmax(-1), len(labels))
        check_order(counts, teacher, labels, f"{teacher.name} (config.teachers.{tag})")


def _right(logits: np.ndarray, gold: np.ndarray) -> str:
    there = gold != NONE
    if not there.any():
        return f"asked for {len(gold)} rows without a label"
    accuracy = float((logits.argmax(-1) == gold)[there].mean())
    return f"accuracy {accuracy:.1%} on {int(there.sum())} training rows"


def _labels(config, tag: str, found: hf.Checkpoint, where: str) -> tuple[str, ...]:
    """The names of its logits: never guessed."""
    count = len(found.params["classifier"]["output"]["bias"])
    remedy = f"state the order of its logits: --config.method.teacher_labels.{tag}=…"
    if count == 1 or found.config.get("problem_type") == "regression":
        raise UserError("a head for a number, not for labels", where, "name a classifier")
    stated = tuple(config.method.get("teacher_labels", ConfigDict()).get(tag, ()))
    labels = stated or found.labels or tuple(f"LABEL_{i}" for i in range(count))
    if len(labels) != count:
        raise UserError(f"{len(labels)} labels for a head of {count}", where, remedy)
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        raise UserError(f"its labels have no names ({', '.join(labels)})", where, remedy)
    return labels


def _computer(teacher: Classifier, config, log: Log):
    """A function that gives the logits of rows, each as if it were read alone."""
    outputs = class_outputs(Encoder(teacher.architecture, scan=scan_by_device()), len(teacher.labels))
    mesh, length = meshes.build(config.mesh), teacher.task.max_length
    edges = (*(edge for edge in EDGES if edge < length), length)
    evaluator = Evaluator(outputs, mesh, batch=config.eval.batch, buckets=edges)

    def compute(rows: Sequence[Any]) -> np.ndarray:
        params = {name: teacher.params[name] for name in ("encoder", "classifier")}
        params = jax.device_put(params, meshes.shardings(mesh, params))
        features = teacher.task.features(rows)
        cut = float((features["lost"] > 0).mean())
        if len(rows) > AUDIT:
            log(f"asking teacher {teacher.name} for {len(rows)} rows; {cut:.1%} are cut at {length} of its tokens")
        return evaluator.outputs(params, teacher.task, features)["logits"].astype(np.float32)

    return compute


def _audit(teacher: Classifier, held: np.ndarray, rows: Sequence[Any], compute, seed: int) -> None:
    some = np.random.default_rng(seed).choice(len(rows), min(AUDIT, len(rows)), replace=False)
    fresh = compute([rows[i] for i in some])
    off = np.abs(held[some] - fresh).max()
    if not off <= CLOSE * max(1.0, float(np.abs(fresh).max())):
        what = f"what the cache holds of this teacher is not what it says now (off by {off:.2g})"
        raise UserError(what, teacher.name, "empty the cache: python -m xlkd.caches --delete_all")


def _entry(teacher: Classifier, keys: np.ndarray, config) -> str:
    """Named by all that a logit depends on."""
    rows = hashlib.sha256(np.ascontiguousarray(keys).tobytes()).hexdigest()
    reads = f"{teacher.task.max_length} {EDGES} {config.eval.batch} {dict(config.mesh)} {jax.device_count()}"
    return cache.name_of("teacher", [_digest(teacher.folder), teacher.task.identity(), reads, jax.__version__, rows])


def _digest(folder: pathlib.Path) -> str:
    """sha256 over the weights and what fixes their arithmetic; label names are no part of it."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    digest.update(repr(read_folder_architecture(folder)).encode())
    return digest.hexdigest()
