# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the examples that a stage trains and is evaluated on: tokenized, in buckets."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from xlkd.data import cache, sampling, sources
from xlkd.data.batches import LanguagePlan, Plan, RedrawnPlan
from xlkd.data.blocks import Blocks
from xlkd.data.buckets import choose_edges, make_encoder_cost, measure_padding
from xlkd.errors import UserError, suggest_name
from xlkd.inputs import streams
from xlkd.inputs.weights import Weights
from xlkd.models.encoder import Architecture
from xlkd.runtime.log import Log
from xlkd.spec.optim import Budget, Horizon
from xlkd.spec.stage import Data as DataSettings
from xlkd.spec.stage import StageSettings, StageSpec
from xlkd.spec.tasks import Classify
from xlkd.spec.tasks import Task as TaskSettings
from xlkd.tasks import Features, Task

Settings = StageSettings[Any, Any]
Spec = StageSpec[Any, Any]

SETS = {"eval": "", "dev": "", "retrieval": "parallel", "alignment": "alignment"}  # their tasks, where not the stage's


class Material(NamedTuple):
    """The training examples of a stage; of a streamed corpus `known` is a sample, by which lengths are judged."""

    rows: sources.Rows
    known: sources.Rows
    task: Task
    features: Features
    plan: Plan

    @property
    def streamed(self) -> bool:
        return self.known is not self.rows


class Ready(NamedTuple):
    """An evaluation set with its features."""

    task: Task
    rows: sources.Rows
    features: Features


def read_training_data(settings: Settings, weights: Weights, other: Weights | None, log: Log) -> Material:
    """Reads the training examples that the settings name, tokenizes them and plans their batches."""
    rows, epochs = read_training_examples(settings, log)
    task = build_task(settings.task, weights, other)
    known = streams.sample(settings, rows) if streams.wanted(settings, rows) else rows
    features = load_features(task, known, log)
    labels = find_labels(settings.task, features)
    if labels:
        task = build_task(dataclasses.replace(settings.task, labels=labels), weights, other)
    members = windows_by_epoch(epochs, features)
    plan = plan_batches(settings.data, settings.seed, task, features, weights.architecture, other, members)
    return Material(rows, known, task, features, plan)


def read_training_examples(settings: Settings, log: Log) -> tuple[sources.Rows, list[np.ndarray]]:
    """Reads the examples that the settings name; of aligned questions those pairs of languages that were drawn.

    Where pairs are drawn again for each epoch, also which rows belong to each.
    """
    data = settings.data
    rows = sources.read(data.train, kind_of_examples(settings.task.name), data.on_bad_row)
    rows = streams.composed(settings, rows)
    if data.ntl < 0:
        return rows, []
    again = data.redraw == "epoch"
    number = max(1, round(settings.budget.epochs)) if again else 1
    rule = {"n": data.ntl, "pivot": data.pivot, "seed": data.draw_seed}
    languages = sampling.group_languages(rows)
    draws = [sampling.draw_pairs(languages, epoch=epoch, **rule) for epoch in range(number)]
    counts = sampling.count_pairs(draws[0], data.pivot)
    log("drawn: " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items()))
    every = sampling.join_draws(draws)
    place = {example: i for i, example in enumerate(every.examples)}
    epochs = [np.array([place[example] for example in drawn.examples]) for drawn in draws]
    undrawn = sampling.list_undrawable(rows)
    if undrawn:
        log(f"warning: {len(undrawn)} rows have no part in the draw; data_report.json names them")
    return sources.Rows(
        (sampling.make_crossed_examples(rows, every),), (*rows.dropped, *undrawn)
    ), epochs if again else []


def windows_by_epoch(epochs: list[np.ndarray], features: Features) -> tuple[np.ndarray, ...] | None:
    """Returns the windows of each epoch's examples; None where all epochs have the same."""
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
    other: Weights | None = None,
    members: tuple[np.ndarray, ...] | None = None,
) -> Plan:
    """Chooses buckets from the lengths at hand, as many as shapes may be compiled."""
    lengths = task.lengths(features)
    for view, values in lengths.items():
        check_lengths({view: values}, other.architecture if other and view == "teacher" else architecture)
    dearest = next(iter(lengths.values()))
    chosen = choose_edges(dearest, data.buckets, cost=make_encoder_cost(architecture.hidden_size))
    if data.pad_to:
        chosen = (max(data.pad_to, int(dearest.max())),)
    chosen = tuple(min(edge, architecture.max_length) for edge in chosen)
    common = {"batch": data.batch, "edges": chosen, "seed": seed}
    if data.exponent != 1 or not data.mix_rows:
        shares = {"exponent": data.exponent, "mixed": data.mix_rows}
        return LanguagePlan(lengths, languages=features["language"], **shares, **common)
    if members is not None:
        return RedrawnPlan(lengths, members=members, **common)
    return Plan(lengths, **common)


def check_lengths(lengths: dict[str, np.ndarray], architecture: Architecture) -> None:
    """Refuse rows that the encoder has no positions for."""
    longest = max(int(of.max()) for of in lengths.values())
    if longest > architecture.max_length:
        what = f"rows of {longest} tokens do not fit an encoder of {architecture.max_length} positions"
        raise UserError(what, "config.task.max_length", "choose a shorter one")


def read_evaluation_sets(settings: Settings, task: Task, weights: Weights, log: Log) -> dict[str, Ready]:
    """Reads `data.eval` and `dev` for the stage's own task, the others for sentence vectors and word links."""
    ready = {}
    for name, other in SETS.items():
        if source := getattr(settings.data, name):
            set_task = load_module("tasks", other).build(settings.task, weights.tokenizer) if other else task
            rows = sources.read(source, kind_of_examples(set_task.name), settings.data.on_bad_row)
            ready[name] = Ready(set_task, rows, load_features(set_task, rows, log))
            check_lengths(set_task.lengths(ready[name].features), weights.architecture)
    return ready


def check_sources_exist(settings: Settings) -> None:
    """Refuses sources that do not exist, which is quick, before the stages are trained that come first."""
    for name in ("train", *SETS):
        if source := getattr(settings.data, name):
            sources.check_sources_exist(source)


def iterate_examples(settings: Settings) -> Iterator[Any]:
    """Yields every example that the encoder reads, in training and evaluation."""
    for name, other in ({"train": ""} | SETS).items():
        if source := getattr(settings.data, name):
            yield from sources.read(source, kind_of_examples(other or settings.task.name), settings.data.on_bad_row)


def load_features(task: Task, rows: sources.Rows, log: Log) -> Features:
    """Returns features from the cache, built first where it lacks them."""

    def build() -> Features:
        log(f"tokenizing {len(rows)} rows")
        return task.features(rows, lambda done, of: log.live(f"tokenized {done} of {of} texts"))

    name = cache.make_name(task.name, [task.identity(), *rows.identity()])
    return cache.load_or_build(name, build)


def resolve(settings: Settings, data: Material, plan: Plan | Blocks, *, scanned: bool) -> Spec:
    """Resolves a stage by its data, and `layers_as=auto` by the machine: `scanned` is what it would choose."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    values["horizon"] = find_horizon(settings.budget, plan)
    if labels := find_labels(settings.task, data.features):
        values["task"] = dataclasses.replace(settings.task, labels=labels)
    if settings.encoder.layers_as == "auto":
        layers_as = "scanned" if scanned else "unrolled"
        values["encoder"] = dataclasses.replace(settings.encoder, layers_as=layers_as)
    return StageSpec(**values)


def find_horizon(budget: Budget, plan: Plan | Blocks) -> Horizon:
    """Returns the steps of a budget, and where its epochs begin."""
    redrawn = isinstance(plan, RedrawnPlan)
    steps = budget.steps or (plan.steps if redrawn else round(budget.epochs * plan.steps_per_epoch))
    starts = plan.starts if redrawn else tuple(range(0, steps + 1, plan.steps_per_epoch))
    return Horizon(steps, plan.steps_per_epoch, starts)


def report_all_data(sets: dict[str, Ready], plan: Plan, log: Log) -> dict[str, Any]:
    """Returns the data report of every set, and logs its lines."""
    reports = {"train": report_data(sets["train"].task, sets["train"].features, sets["train"].rows, plan)}
    for name, ready in sets.items():
        report = reports.get(name) or {"rows": len(ready.rows), "task": ready.task.report(ready.features, ready.rows)}
        reports[name] = report
        log(f"{name}: {report['rows']} rows ({len(ready.rows.dropped)} left out); {report['task']['shown']}")
    train = reports["train"]
    buckets, one = ", ".join(train["buckets"]), train["padding_at_longest"]
    log(f"{train['windows']} windows, {train['tokens']} tokens in buckets {buckets}")
    log(f"{train['padding']:.0%} of the positions are padding, {one:.0%} at one length")
    return reports


def report_data(task: Task, features: Features, rows: sources.Rows, plan: Plan) -> dict[str, Any]:
    """Returns what went in, what was left out, and what the buckets save."""
    lengths = next(iter(plan.lengths.values()))
    padding = measure_padding(lengths, [dict(shape.lengths)[plan.view] for shape in plan.shapes])
    return {
        "rows": len(rows),
        "dropped": [{"where": where, "reason": reason} for where, reason in rows.dropped],
        "windows": len(lengths),
        "tokens": int(lengths.sum()),
        "buckets": [str(shape) for shape in plan.shapes],
        "padding": round(padding.padding, 4),
        "padding_at_longest": round(padding.padding_at_longest, 4),
        "task": task.report(features, rows),
    }


def build_task(settings: TaskSettings, weights: Weights, other: Weights | None) -> Task:
    """Builds a stage's task; with a second encoder it reads with both tokenizers."""
    tokenizers = [encoder.tokenizer for encoder in (weights, other) if encoder]
    return load_module("tasks", settings.name).build(settings, *tokenizers)


def kind_of_examples(task: str) -> str:
    """Returns the kind of examples that a task reads: its own, unless its module names another."""
    return getattr(load_module("tasks", task), "ROWS", task)


def load_module(room: str, name: str):
    """Loads the module of a task or a method by its name: adding one is adding a file."""
    package = importlib.import_module(f"xlkd.{room}")
    known = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if name not in known:
        remedy = suggest_name(name, known, f"known: {', '.join(known)}")
        raise UserError(f"no {room.rstrip('s')} {name!r}", f"config.{room.rstrip('s')}.name", remedy)
    return importlib.import_module(f"xlkd.{room}.{name}")
