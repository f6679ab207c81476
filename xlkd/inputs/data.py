# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the examples that a stage trains and is evaluated on, tokenizes them, and plans batches in buckets."""

from __future__ import annotations

import dataclasses
import importlib
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xlkd import files, hub
from xlkd.data import cache, composition, sampling, sources
from xlkd.data.batches import LanguagePlan, Plan, RedrawnPlan
from xlkd.data.blocks import Blocks
from xlkd.data.buckets import choose_edges, find_tile, make_encoder_cost, measure_padding
from xlkd.data.vectors import VectorFile, check_exists, hash_texts
from xlkd.errors import UserError
from xlkd.inputs import streams
from xlkd.inputs.weights import Weights
from xlkd.languages import normalise_tag
from xlkd.models.family import Architecture
from xlkd.runtime import distributed
from xlkd.runtime.log import Log
from xlkd.spec.optim import MOST_STEPS, Budget, Horizon
from xlkd.spec.source import Value
from xlkd.spec.stage import AnySettings, AnyStage, StageSpec
from xlkd.spec.stage import Data as DataSettings
from xlkd.spec.tasks import Classify
from xlkd.spec.tasks import Task as TaskSettings
from xlkd.tasks import Features, Task
from xlkd.tasks.views import put_english_first

# The evaluation sets in `config.data`, and the task of each; "" is the stage's own task
SETS = {"eval": "", "dev": "", "retrieval": "parallel", "alignment": "alignment"}


_SMALL_BATCH = 1024  # that may be padded: a larger one has to have examples
_LOOKED_UP = 8192  # examples whose texts are looked up at a time


class TrainingData(NamedTuple):
    """The training examples of a stage, and those that `features` has: a sample where a corpus is streamed."""

    rows: sources.Rows
    tokenized: sources.Rows
    task: Task
    features: Features
    plan: Plan
    vectors: VectorFile | None = None  # of the teacher

    @property
    def streamed(self) -> bool:
        """Returns whether the corpus is read in blocks while it is trained on."""
        return self.tokenized is not self.rows


class EvaluationSet(NamedTuple):
    """An evaluation set with its features."""

    task: Task
    rows: sources.Rows
    features: Features


def resolve_tile(settings: AnySettings, platform: str) -> AnySettings:
    """Resolves `data.tile=0` by the kind of the devices."""
    if settings.data.tile:
        return settings
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, tile=find_tile(platform)))


def read_training_data(settings: AnySettings, weights: Weights, teacher: Weights | None, log: Log) -> TrainingData:
    """Reads the training examples that the settings name, tokenizes them and plans their batches.

    Of a corpus that is read in blocks while it is trained on, only a sample is tokenized here.
    """
    rows, epochs = read_training_examples(settings, log)
    vectors = load_vectors(settings, rows)
    task = build_task(settings.task, weights, teacher)
    tokenized = streams.sample_examples(settings, rows) if streams.reads_in_blocks(settings, rows) else rows
    features = load_features(task, tokenized, log)
    labels = find_labels(settings.task, features)
    if labels:
        labelled = dataclasses.replace(settings.task, labels=labels)
        labelled.check()
        task = build_task(labelled, weights, teacher)
    examples = len(rows) if tokenized is not rows else len(features["keys"])
    if settings.data.batch > max(examples, _SMALL_BATCH):
        what = f"a batch of {settings.data.batch} is more than the {examples} training examples"
        raise UserError(what, "config.data.batch", "lower it")
    windows = list_epoch_windows(epochs, features)
    plan = plan_batches(settings.data, settings.seed, task, features, weights.architecture, teacher, windows)
    return TrainingData(rows, tokenized, task, features, plan, vectors)


def read_training_examples(settings: AnySettings, log: Log) -> tuple[sources.Rows, list[np.ndarray]]:
    """Reads the training examples, and lists those of each epoch; the list is empty where all epochs have the same.

    With `data.ntl` pairs of languages are drawn for aligned questions, and each drawn pair is an example.
    """
    data = settings.data
    rows = _read_source(data.train, settings.task.name, data)
    rows = streams.compose_corpora(settings, rows)
    if data.ntl < 0:
        return rows, []
    redraws = data.redraw == "epoch"
    languages = sampling.group_languages(rows)
    pivot = data.pivot if data.pivot == "none" else normalise_tag(data.pivot, "config.data.pivot")
    draws = [
        sampling.draw_pairs(languages, n=data.ntl, pivot=pivot, seed=data.draw_seed, epoch=epoch)
        for epoch in range(max(1, round(settings.budget.epochs)) if redraws else 1)
    ]
    counts = sampling.count_pairs(draws[0], pivot)
    log("drawn: " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items()))
    joined = sampling.join_draws(draws)
    numbers = {example: i for i, example in enumerate(joined.examples)}
    epochs = [np.array([numbers[example] for example in drawn.examples]) for drawn in draws]
    undrawn = sampling.list_undrawable(rows)
    if undrawn:
        log(f"warning: {len(undrawn)} rows have no part in the draw; data_report.json names them")
    examples = sampling.make_crossed_examples(rows, joined)
    return sources.Rows((examples,), (*rows.dropped, *undrawn), rows.notes), epochs if redraws else []


def load_vectors(settings: AnySettings, rows: sources.Rows) -> VectorFile | None:
    """Loads the file of `config.teacher.vectors`, if any; refuses one that lacks English texts of the examples."""
    if not settings.teacher.vectors:
        return None
    vectors = VectorFile(files.expand_path(settings.teacher.vectors))
    joined, missing, example = composition.JoinedRows(rows.parts), 0, ""
    for start in range(0, len(joined), _LOOKED_UP):
        pairs = joined.read_many(np.arange(start, min(start + _LOOKED_UP, len(joined))))
        texts = [put_english_first(pair)[0] for pair in pairs]
        absent = np.flatnonzero(~vectors.contains(hash_texts(texts)))
        example = example or next((texts[i] for i in absent), "")
        missing += len(absent)
    if missing:
        what = f"no vector for the English text of {missing} of {len(joined)} examples, such as {example[:80]!r}"
        raise UserError(what, str(vectors.path), "write a vector for each text: docs/own-teacher.md shows how")
    return vectors


def list_epoch_windows(epochs: list[np.ndarray], features: Features) -> tuple[np.ndarray, ...] | None:
    """Lists the windows of each epoch's examples; None where all epochs have the same."""
    return tuple(np.flatnonzero(np.isin(features["row_of"], rows)) for rows in epochs) or None


def find_labels(task: TaskSettings, features: Features) -> tuple[str, ...]:
    """Returns the labels in the order that the training examples decide; empty where the settings name them."""
    if not isinstance(task, Classify) or task.labels:
        return ()
    return tuple(features["labels"].tolist())


def plan_batches(
    data: DataSettings,
    seed: int,
    task: Task,
    features: Features,
    architecture: Architecture,
    teacher: Weights | None = None,
    epoch_windows: tuple[np.ndarray, ...] | None = None,
) -> Plan:
    """Plans batches in `data.buckets` lengths, chosen for the least padding of the task's first view."""
    lengths = task.lengths(features)
    for view, values in lengths.items():
        reader = teacher.architecture if teacher and view in task.teacher_views else architecture
        check_lengths({view: values}, reader)
    first_view = next(iter(lengths.values()))
    edges = choose_edges(first_view, data.buckets, cost=make_encoder_cost(architecture.hidden_size, data.tile or 1))
    if data.pad_to:
        edges = (max(data.pad_to, int(first_view.max())),)
    edges = tuple(min(edge, architecture.max_length) for edge in edges)
    if data.exponent != 1 or not data.mix_rows:
        return LanguagePlan(
            lengths,
            languages=features["language"],
            exponent=data.exponent,
            mixed=data.mix_rows,
            batch=data.batch,
            edges=edges,
            seed=seed,
        )
    if epoch_windows is not None:
        return RedrawnPlan(lengths, members=epoch_windows, batch=data.batch, edges=edges, seed=seed)
    return Plan(lengths, batch=data.batch, edges=edges, seed=seed)


def check_lengths(lengths: Mapping[str, np.ndarray], architecture: Architecture) -> None:
    """Refuses rows that are longer than the encoder has positions."""
    longest = max(int(values.max()) for values in lengths.values())
    if longest > architecture.max_length:
        what = f"rows of {longest} tokens do not fit an encoder of {architecture.max_length} positions"
        raise UserError(what, "config.task.max_length", "choose a shorter one")


def read_evaluation_sets(settings: AnySettings, task: Task, weights: Weights, log: Log) -> dict[str, EvaluationSet]:
    """Reads `data.eval` and `data.dev` for the stage's own task, and the sets of other tasks that `SETS` names."""
    sets = {}
    for name, task_name in SETS.items():
        if source := getattr(settings.data, name):
            set_task = load_module("tasks", task_name).build(settings.task, weights.tokenizer) if task_name else task
            rows = _read_source(source, set_task.name, settings.data)
            sets[name] = EvaluationSet(set_task, rows, load_features(set_task, rows, log))
            check_lengths(set_task.lengths(sets[name].features), weights.architecture)
    return sets


def _read_source(source: Value, task_name: str, data: DataSettings) -> sources.Rows:
    """Reads the rows of a source for a task; the error of a bad row names the key of the config that skips it."""
    return sources.read(source, find_example_kind(task_name), data.on_bad_row, "config.data.on_bad_row")


def check_sources_exist(settings: AnySettings) -> None:
    """Refuses sources that do not exist: a quick check, made before any stage is trained.

    Process 0 resolves the revisions of data sets of the hub, and all processes read the same commits.
    """
    for name in ("train", *SETS):
        if text := getattr(settings.data, name):
            sources.check_sources_exist(text)
            for source in sources.list_hub_sources(text):
                _resolve_on_hub(source)
    if settings.teacher.vectors:
        check_exists(files.expand_path(settings.teacher.vectors))


def _resolve_on_hub(source: sources.Source) -> None:
    """Records the commit of a data set of the hub, which process 0 resolves."""
    from xlkd.data.sources import hf  # imports pyarrow

    commit = distributed.broadcast_from_primary(str(source), lambda: hf.resolve_commit(source))
    hub.record_commit(hf.get_repository(source), commit)


def iterate_examples(settings: AnySettings) -> Iterator[Any]:
    """Yields every example that the encoder reads, in training and evaluation."""
    for name, task_name in ({"train": ""} | SETS).items():
        if source := getattr(settings.data, name):
            yield from _read_source(source, task_name or settings.task.name, settings.data)


def load_features(task: Task, rows: sources.Rows, log: Log) -> Features:
    """Loads features from the cache; builds them first where the cache does not have them.

    Where the cache of any process lacks them, all processes build them, each from its share of the texts.
    """
    name, share = cache.make_name(task.name, [task.identity(), *rows.identity()]), distributed.open_share("features")

    def build() -> Features:
        log(f"tokenizing {len(rows)} rows")
        return task.features(rows, lambda done, total: log.live(f"tokenized {done} of {total} texts"), share)

    if share is None:
        return cache.load_or_build(name, build)
    stored = cache.load(name)
    everywhere = all(share.gather(lambda: b"" if stored is None else b"stored"))
    if stored is not None and everywhere:
        return stored
    built, written = build(), {}

    def write() -> bytes:
        written.update(cache.load_or_build(name, lambda: built, upload=distributed.is_primary()))
        return b""

    share.gather(write)  # an error on one host, such as a full disk, ends all of them
    return written


def resolve_stage(settings: AnySettings, data: TrainingData, plan: Plan | Blocks, *, scanned: bool) -> AnyStage:
    """Resolves a stage by its data: steps, labels, and `layers_as=auto`, which `scanned` decides."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    values["horizon"] = find_horizon(settings.budget, plan).stop_after(settings.budget.stop_after)
    if labels := find_labels(settings.task, data.features):
        values["task"] = dataclasses.replace(settings.task, labels=labels)
    if data.vectors:
        values["vector_width"] = data.vectors.width
    if settings.encoder.layers_as == "auto":
        layers_as = "scanned" if scanned else "unrolled"
        values["encoder"] = dataclasses.replace(settings.encoder, layers_as=layers_as)
    return StageSpec(**values)


def find_horizon(budget: Budget, plan: Plan | Blocks) -> Horizon:
    """Returns the steps of a budget's whole schedule, and where its epochs begin."""
    if isinstance(plan, RedrawnPlan):
        return Horizon(budget.steps or plan.steps, plan.steps_per_epoch, plan.starts)
    steps = budget.steps or round(budget.epochs * plan.steps_per_epoch)
    if steps > MOST_STEPS:
        what = f"{budget.epochs:g} epochs of {plan.steps_per_epoch} steps are more than {MOST_STEPS} steps"
        raise UserError(what, "config.budget.epochs", "lower it")
    return Horizon(steps, plan.steps_per_epoch, tuple(range(0, steps + 1, plan.steps_per_epoch)))


def report_all_data(sets: Mapping[str, EvaluationSet], plan: Plan, log: Log) -> dict[str, Any]:
    """Returns the data report of every set, and logs its lines; the set `train` is the one that `plan` is for."""
    reports = {"train": report_data(sets["train"].task, sets["train"].features, sets["train"].rows, plan)}
    for name, (task, rows, features) in sets.items():
        report = reports.get(name) or {
            "rows": len(rows),
            "notes": list(rows.notes),
            "task": task.report(features, rows),
        }
        reports[name] = report
        log(f"{name}: {report['rows']} rows ({len(rows.dropped)} left out); {report['task']['shown']}")
        for note in rows.notes:
            log(f"{name}: note: {note}")
    train = reports["train"]
    log(f"{train['windows']} windows, {train['tokens']} tokens in buckets {', '.join(train['buckets'])}")
    log(
        f"{train['padding']:.0%} of the positions are padding, "
        f"{train['padding_at_longest']:.0%} if all were padded to one length"
    )
    return reports


def report_data(task: Task, features: Features, rows: sources.Rows, plan: Plan) -> dict[str, Any]:
    """Returns the entry of training examples in `data_report.json`: counts, examples left out, buckets and padding."""
    lengths = next(iter(plan.lengths.values()))
    padding = measure_padding(lengths, [dict(shape.lengths)[plan.view] for shape in plan.shapes])
    return {
        "rows": len(rows),
        "dropped": [{"where": where, "reason": reason} for where, reason in rows.dropped],
        "notes": list(rows.notes),
        "windows": len(lengths),
        "tokens": int(lengths.sum()),
        "buckets": [str(shape) for shape in plan.shapes],
        "padding": round(padding.padding, 4),
        "padding_at_longest": round(padding.padding_at_longest, 4),
        "task": task.report(features, rows),
    }


def build_task(settings: TaskSettings, weights: Weights, teacher: Weights | None) -> Task:
    """Builds a stage's task; where a teacher has an encoder of its own, the task gets both tokenizers."""
    tokenizers = [encoder.tokenizer for encoder in (weights, teacher) if encoder]
    return load_module("tasks", settings.name).build(settings, *tokenizers)


def find_example_kind(task: str) -> str:
    """Returns the kind of examples that a task reads from sources, which its module names."""
    return load_module("tasks", task).ROWS


def load_module(folder: str, name: str) -> types.ModuleType:
    """Loads the module of a task or a method (`folder` is "tasks" or "methods"); the settings refused other names."""
    return importlib.import_module(f"xlkd.{folder}.{name}")
