# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads what a stage learns from and is tested on: the examples that the config names, tokenized, in buckets."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from xlkd.data import cache, sampling, sources
from xlkd.data.batches import ByLanguage, Plan, Redrawn
from xlkd.data.blocks import Blocks
from xlkd.data.buckets import choose_edges, make_encoder_cost, measure_padding
from xlkd.errors import UserError, suggest_name
from xlkd.inputs import streams
from xlkd.inputs.weights import Weights
from xlkd.models.encoder import Architecture
from xlkd.runtime.log import Log
from xlkd.tasks import Features, Task

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


def read_training_data(config, weights: Weights, other: Weights | None, log: Log) -> Material:
    """Reads the training examples that the config names, tokenizes them and plans their batches."""
    rows, epochs = read_training_examples(config, log)
    task = build_task(config, weights, other)
    known = streams.sample(config, rows) if streams.wanted(config, rows) else rows
    features = load_features(task, known, log)
    task = fix_label_order(config, task, features, weights, other)
    plan = plan_batches(config, task, features, weights.architecture, other, windows_by_epoch(epochs, features))
    return Material(rows, known, task, features, plan)


def read_training_examples(config, log: Log) -> tuple[sources.Rows, list[np.ndarray]]:
    """Reads the examples that the config names; of aligned questions those pairs of languages that were drawn.

    Where pairs are drawn again for each epoch, also which rows belong to each.
    """
    rows = sources.read(config.data.train, kind_of_examples(config.task.name), config.data.on_bad_row)
    rows = streams.composed(config, rows)
    if config.data.get("ntl", -1) < 0:
        return rows, []
    if config.data.redraw not in ("never", "epoch"):
        raise UserError(f"redraw={config.data.redraw} is not possible", "config.data", "choose never or epoch")
    again = config.data.redraw == "epoch"
    number = max(1, round(config.budget.epochs)) if again else 1
    rule = {"n": config.data.ntl, "pivot": config.data.pivot, "seed": config.data.draw_seed}
    languages = sampling.group_languages(rows)
    draws = [sampling.draw_pairs(languages, epoch=epoch, **rule) for epoch in range(number)]
    counts = sampling.count_pairs(draws[0], config.data.pivot)
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


def fix_label_order(config, task: Task, features: Features, weights: Weights, other: Weights | None) -> Task:
    """Returns the task with the order of labels that its training examples decide."""
    if "labels" not in features or config.task.labels:
        return task
    config.task.labels = tuple(features["labels"].tolist())
    return build_task(config, weights, other)


def plan_batches(
    config,
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
    chosen = choose_edges(dearest, config.data.buckets, cost=make_encoder_cost(architecture.hidden_size))
    if config.data.pad_to:
        chosen = (max(config.data.pad_to, int(dearest.max())),)
    chosen = tuple(min(edge, architecture.max_length) for edge in chosen)
    common = {"batch": config.data.batch, "edges": chosen, "seed": config.seed}
    if config.data.get("exponent", 1.0) != 1 or not config.data.get("mix_rows", True):
        shares = {"exponent": config.data.exponent, "mixed": config.data.mix_rows}
        return ByLanguage(lengths, languages=features["language"], **shares, **common)
    if members is not None:
        return Redrawn(lengths, members=members, **common)
    return Plan(lengths, **common)


def check_lengths(lengths: dict[str, np.ndarray], architecture: Architecture) -> None:
    """Refuse rows that the encoder has no positions for."""
    longest = max(int(of.max()) for of in lengths.values())
    if longest > architecture.max_length:
        what = f"rows of {longest} tokens do not fit an encoder of {architecture.max_length} positions"
        raise UserError(what, "config.task.max_length", "choose a shorter one")


def read_evaluation_sets(config, task: Task, weights: Weights, log: Log) -> dict[str, Ready]:
    """Reads `config.data.eval` and `dev` for the stage's own task, the others for sentence vectors and word links."""
    ready = {}
    for name, other in SETS.items():
        if source := config.data.get(name, ""):
            of = load_module("tasks", other).build(config.task, weights.tokenizer) if other else task
            rows = sources.read(source, kind_of_examples(of.name), config.data.on_bad_row)
            ready[name] = Ready(of, rows, load_features(of, rows, log))
            check_lengths(of.lengths(ready[name].features), weights.architecture)
    return ready


def check_sources_exist(config) -> None:
    """Refuse sources that are not there, which is quick, before stages are trained that come first."""
    for name in ("train", *SETS):
        if source := config.data.get(name, ""):
            sources.present(source)


def iterate_examples(config) -> Iterator[Any]:
    """Yields every example that the encoder reads, in training and evaluation."""
    for name, other in ({"train": ""} | SETS).items():
        if source := config.data.get(name, ""):
            yield from sources.read(source, kind_of_examples(other or config.task.name), config.data.on_bad_row)


def load_features(task: Task, rows: sources.Rows, log: Log) -> Features:
    """Returns features from the cache, built first where it lacks them."""

    def build() -> Features:
        log(f"tokenizing {len(rows)} rows")
        return task.features(rows, lambda done, of: log.live(f"tokenized {done} of {of} texts"))

    name = cache.name_of(task.name, [task.identity(), *rows.identity()])
    return cache.arrays(name, build)


def resolve_budget(config, plan: Plan | Blocks) -> int:
    """Returns the steps of the budget; `config.budget` gets them, and where epochs begin, by which methods count."""
    redrawn = isinstance(plan, Redrawn)
    config.budget.epoch_steps = plan.steps_per_epoch
    whole = plan.steps if redrawn else round(config.budget.epochs * plan.steps_per_epoch)
    config.budget.steps = steps = config.budget.steps or whole
    config.budget.epoch_starts = plan.starts if redrawn else tuple(range(0, steps + 1, plan.steps_per_epoch))
    return steps


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


def build_task(config, weights: Weights, other: Weights | None) -> Task:
    """Builds the stage's task; one of two encoders reads with both tokenizers."""
    tokenizers = [of.tokenizer for of in (weights, other) if of]
    return load_module("tasks", config.task.name).build(config.task, *tokenizers)


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
