# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One stage: weights, data, method and task put together for the loop, and what it leaves behind."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import json
import pathlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from xlkd.data import cache, sampling, sources
from xlkd.data.batches import ByLanguage, Plan, Redrawn
from xlkd.data.blocks import Blocks
from xlkd.data.buckets import edges, encoder_cost, saved
from xlkd.errors import UserError
from xlkd.models import hf
from xlkd.models.encoder import Architecture, Encoder, scan_by_device
from xlkd.tasks import Features, Task
from xlkd.train import (
    distributed,
    export,
    loop,
    mesh,
    provenance,
    reference,
    runtime,
    selection,
    start,
    streams,
    trimming,
)
from xlkd.train.checkpoint import Checkpoints, abstract
from xlkd.train.progress import Log, Metrics, Unwritten, write_json, write_lines
from xlkd.train.sets import Ready, Sets
from xlkd.train.signals import Signals


def train(
    config,
    folder: pathlib.Path,
    earlier: dict[str, pathlib.Path],
    log: Log,
    signals: Signals,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Train a stage to its end, export it, and mark it done."""
    weights = start.weights(config, earlier, folder / "tokenizer")
    if config.encoder.trim_vocab:
        weights = trimming.trimmed(weights, every_row(config))
        log(f"vocabulary: {len(weights.kept)} of {weights.whole.architecture.vocab_size} pieces")
    other = start.other(config)
    rows, known, task, features, plan = material(config, weights, other, log)
    streamed = known is not rows
    sets = evaluation_sets(config, task, weights, log)
    keep = selection.rule(config, sets, config.task.get("languages", ()) or provenance.labelled_languages(known))
    told = report_data(folder, {"train": Ready(task, rows, features), **sets}, plan, log)
    if streamed:
        plan = streams.blocks(config, task, rows, features, plan.edges, weights.architecture)
        log(f"read in {plan.blocks_per_epoch} blocks of {plan.block} rows; lengths above are of {len(known)} of them")
    before = begun(config, earlier, weights)
    met = provenance.met(known, sets, before.get("contamination", {}))
    warn(met, log)
    remember_texts(folder.parent.parent / "texts", sets)
    steps = spend(config, plan)
    encoders = [encoder_of(config, of.architecture) for of in (weights, other) if of]
    method = named("methods", config.method.name).build(config, *encoders)
    chosen_by = keep.looked_at(sets[keep.set].rows if keep.set in sets else ())
    seen = provenance.seen(config, known, chosen_by, before.get("seen", {}), teaches=method.teacher is not None)
    devices = mesh.build(config.mesh)
    mesh.check_rows(devices, config.data.batch, config.optim.micro_batches)
    distributed.together("data read")  # collectives give up sooner than another process may need for this
    if other and "retrieval" in sets:
        vectors = reference.english(config, encoders[-1], other, sets["retrieval"].rows, devices)
        compared = dataclasses.replace(sets["retrieval"].task, reference=vectors)
        sets["retrieval"] = sets["retrieval"]._replace(task=compared)
    sets = Sets(folder, sets, keep, method, devices, config, log)
    checkpoints = Checkpoints(folder / "checkpoints", sets.best)

    def evaluate(step: int, variables: Any, stop: Callable[[], None]) -> None:
        sets.evaluate(step, variables, stop)
        tell()

    job = loop.Job(
        method=method,
        start=functools.cache(lambda: weights.load(config.seed)._replace(other=other.load(0).encoder if other else ())),
        task=task,
        features=None if streamed else features,
        plan=plan,
        steps=steps,
        seed=config.seed,
        optim=config.optim,
        save_every=config.save.every,
        evaluate_every=config.eval.every or steps,
        evaluate_start=config.eval.start,
        log_every=config.log.every,
        evaluate=evaluate,
        checkpoints=checkpoints,
        metrics=lambda step: Metrics(folder, step) if distributed.first() else Unwritten(),
        log=log,
        mesh=devices,
        peak_flops=runtime.peak_flops(),
        targets=targets_of(config, rows, features, task, earlier, devices, log),
        teacher_cache=config.teacher.cache,
        teacher_identity=f"{(other or weights).tokenizer.name_or_path} {config.encoder.dtype}",
    )
    try:
        state, seconds = loop.train(job, signals)
        best = sets.best() if keep.name != "last" else None
        if best is not None:
            log(f"keeping step {best}, the best on config.data.{keep.set} (rule {keep.name})")
            state = checkpoints.restore(best, abstract(state, jax.tree.map(lambda x: x.sharding, state)))
    finally:
        checkpoints.close()
        if streamed:
            plan.close()
    variables = distributed.on_host(state.variables) if distributed.several() else state.variables
    if not distributed.first():
        return
    results = sets.of(int(state.step))
    for line in sets.changes(int(state.step)):
        log(line)
    sets.keep(int(state.step), folder / "rows")
    for name, exported in method.exports(variables).items():
        exported, tokenizer = trimming.restored(exported, weights), (weights.whole or weights).tokenizer
        export.write(folder / "export" / name, exported, tokenizer, config, results, seen)
    written = {
        "version": 1,
        "stage": config.stage,
        "method": config.method.name,
        "task": config.task.name,
        "start": config.start if config.start != "encoder" else config.encoder.path,
        "steps": steps,
        "rows": len(rows) if steps else 0,
        "lr": config.optim.lr,
        "seconds": round(seconds, 1),
        "parameters": sum(x.size for x in jax.tree.leaves(variables.params)),
        "sets": results,
        "seen": seen,
        "contamination": met,
        "ceilings": {name: told[name]["task"]["ceilings"] for name in results if "ceilings" in told[name]["task"]},
    }
    write_json(folder / "results.json", written)
    (folder / "done").touch()


SETS = {"eval": "", "dev": "", "retrieval": "parallel", "alignment": "alignment"}  # their tasks, where not the stage's


class Material(NamedTuple):
    """What a stage learns from; of a streamed corpus `known` is a sample, by which lengths are judged."""

    rows: sources.Rows
    known: sources.Rows
    task: Task
    features: Features
    plan: Plan


def material(config, weights: start.Weights, other: start.Weights | None, log: Log) -> Material:
    """The training rows that the config names, tokenized, in buckets."""
    rows, epochs = training_rows(config, log)
    task = task_of(config, weights, other)
    known = streams.sample(config, rows) if streams.wanted(config, rows) else rows
    features = features_of(task, known, log)
    task = settled(config, task, features, weights, other)
    plan = plan_of(config, task, features, weights.architecture, other, windows_of(epochs, features))
    return Material(rows, known, task, features, plan)


def spend(config, plan: Plan | Blocks) -> int:
    """The steps of the budget; `config.budget` gets them and what methods count by: where epochs begin."""
    redrawn = isinstance(plan, Redrawn)
    config.budget.epoch_steps = plan.steps_per_epoch
    whole = plan.steps if redrawn else round(config.budget.epochs * plan.steps_per_epoch)
    config.budget.steps = steps = config.budget.steps or whole
    config.budget.epoch_starts = plan.starts if redrawn else tuple(range(0, steps + 1, plan.steps_per_epoch))
    return steps


def begun(config, earlier: dict[str, pathlib.Path], weights: start.Weights) -> dict[str, Any]:
    """What is known of the training before this stage: of an earlier stage all, of a folder what its record says."""
    if config.start in earlier:
        return json.loads((earlier[config.start].parent / "results.json").read_text(encoding="utf-8"))
    if config.start != "encoder" and (path := pathlib.Path(config.start).expanduser().parent / "results.json").exists():
        return hf.read_json(path)  # the export of another run of ours
    record = weights.folder / hf.RECORD if weights.folder else None
    return {"seen": hf.read_json(record).get("seen", {})} if record and record.exists() else {}


def training_rows(config, log: Log) -> tuple[sources.Rows, list[np.ndarray]]:
    """The rows that the config names; of aligned questions those pairs of languages that were drawn.

    Where pairs are drawn again for each epoch, also which rows belong to each.
    """
    rows = sources.read(config.data.train, kind_of(config.task.name), config.data.on_bad_row)
    rows = streams.composed(config, rows)
    if config.data.get("ntl", -1) < 0:
        return rows, []
    if config.data.redraw not in ("never", "epoch"):
        raise UserError(f"redraw={config.data.redraw} is not possible", "config.data", "choose never or epoch")
    again = config.data.redraw == "epoch"
    number = max(1, round(config.budget.epochs)) if again else 1
    rule = {"n": config.data.ntl, "pivot": config.data.pivot, "seed": config.data.draw_seed}
    languages = sampling.languages_of(rows)
    draws = [sampling.ntl(languages, epoch=epoch, **rule) for epoch in range(number)]
    counts = sampling.counts(draws[0], config.data.pivot)
    log("drawn: " + ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items()))
    every = sampling.joined(draws)
    place = {example: i for i, example in enumerate(every.examples)}
    epochs = [np.array([place[example] for example in drawn.examples]) for drawn in draws]
    return sources.Rows((sampling.crossed(rows, every),), rows.dropped), epochs if again else []


def windows_of(epochs: list[np.ndarray], features: Features) -> tuple[np.ndarray, ...] | None:
    """The windows of each epoch's rows."""
    return tuple(np.flatnonzero(np.isin(features["row_of"], rows)) for rows in epochs) or None


def targets_of(config, rows, features: Features, task: Task, earlier, devices, log: Log):
    """Targets by feature row from classifiers that were asked once, where the config names any."""
    if not config.teachers:
        return None
    from xlkd.train import classifiers

    held = classifiers.targets(config, rows, features, task, earlier, log)

    def of(planned):
        index = mesh.own_rows(devices, planned.index)
        there = index >= 0
        return {name: np.where(_as(there, value), value[np.maximum(index, 0)], 0) for name, value in held.items()}

    return of


def _as(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def warn(met: dict[str, Any], log: Log) -> None:
    """Evaluation rows that training touched are no test of what was not seen."""
    for name, found in met.items():
        if found["flagged"]:
            kinds = ", ".join(f"{kind} {count}" for kind, count in found["kinds"].items() if count)
            log(f"warning: {found['flagged']} of {found['rows']} rows of {name} were met in training ({kinds})")


def remember_texts(folder: pathlib.Path, sets: dict[str, Ready]) -> None:
    """A sample of the evaluation rows, for the report; sets of other stages that have the same name are joined."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in provenance.texts(sets).items():
        path = folder / f"{name}.jsonl"
        there = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        known = {row["key"] for row in there}
        write_lines(path, there + [row for row in rows if row["key"] not in known])


def task_of(config, weights: start.Weights, other: start.Weights | None) -> Task:
    """A task of two encoders reads with both tokenizers."""
    tokenizers = [of.tokenizer for of in (weights, other) if of]
    return named("tasks", config.task.name).build(config.task, *tokenizers)


def settled(config, task: Task, features: Features, weights: start.Weights, other: start.Weights | None) -> Task:
    """The task with what its training rows decide for all that follows: the order of the labels."""
    if "labels" not in features or config.task.labels:
        return task
    config.task.labels = tuple(features["labels"].tolist())
    return task_of(config, weights, other)


def named(room: str, name: str):
    """The module of a task or a method: adding one is adding a file."""
    package = importlib.import_module(f"xlkd.{room}")
    known = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise UserError(f"no {room.rstrip('s')} {name!r}", f"config.{room.rstrip('s')}.name", hint)
    return importlib.import_module(f"xlkd.{room}.{name}")


def evaluation_sets(config, task: Task, weights: start.Weights, log: Log) -> dict[str, Ready]:
    """`config.data.eval` and `dev` for the stage's own task, the others for sentence vectors and for links of words."""
    ready = {}
    for name, other in SETS.items():
        if source := config.data.get(name, ""):
            of = named("tasks", other).build(config.task, weights.tokenizer) if other else task
            rows = sources.read(source, kind_of(of.name), config.data.on_bad_row)
            ready[name] = Ready(of, rows, features_of(of, rows, log))
            fit(of.lengths(ready[name].features), weights.architecture)
    return ready


def every_row(config) -> Iterator[Any]:
    """What the encoder reads, in training and evaluation."""
    for name, other in ({"train": ""} | SETS).items():
        if source := config.data.get(name, ""):
            yield from sources.read(source, kind_of(other or config.task.name), config.data.on_bad_row)


def kind_of(task: str) -> str:
    """The rows that sources give to a task: its own kind, unless its module names another."""
    return getattr(named("tasks", task), "ROWS", task)


def features_of(task: Task, rows: sources.Rows, log: Log) -> Features:
    """Features from the cache, built first where they are not there."""

    def build() -> Features:
        log(f"tokenizing {len(rows)} rows")
        return task.features(rows, lambda done, of: log.live(f"tokenized {done} of {of} texts"))

    name = cache.name_of(task.name, [task.identity(), *rows.identity()])
    return cache.arrays(name, build)


def plan_of(
    config,
    task: Task,
    features: Features,
    architecture: Architecture,
    other: start.Weights | None = None,
    members: tuple[np.ndarray, ...] | None = None,
) -> Plan:
    """Buckets chosen from the lengths at hand under the budget of compiled shapes."""
    lengths = task.lengths(features)
    for view, values in lengths.items():
        fit({view: values}, other.architecture if other and view == "teacher" else architecture)
    dearest = next(iter(lengths.values()))
    chosen = edges(dearest, config.data.buckets, cost=encoder_cost(architecture.hidden_size))
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


def fit(lengths: dict[str, np.ndarray], architecture: Architecture) -> None:
    """Refuse rows that the encoder has no positions for."""
    longest = max(int(of.max()) for of in lengths.values())
    if longest > architecture.max_length:
        what = f"rows of {longest} tokens do not fit an encoder of {architecture.max_length} positions"
        raise UserError(what, "config.task.max_length", "choose a shorter one")


def encoder_of(config, architecture: Architecture) -> Encoder:
    scan = {"auto": scan_by_device(), "scanned": True, "unrolled": False}
    if config.encoder.layers_as not in scan:
        raise UserError(f"layers_as={config.encoder.layers_as}", "config.encoder", f"choose one of {', '.join(scan)}")
    return Encoder(
        architecture, dtype=config.encoder.dtype, scan=scan[config.encoder.layers_as], remat=config.encoder.remat
    )


def report_data(folder: pathlib.Path, sets: dict[str, Ready], plan: Plan, log: Log) -> dict[str, Any]:
    """What went in, what was left out, what tokens and windows lost, what buckets save."""
    reports = {"train": data_report(sets["train"].task, sets["train"].features, sets["train"].rows, plan)}
    for name, ready in sets.items():
        report = reports.get(name) or {"rows": len(ready.rows), "task": ready.task.report(ready.features, ready.rows)}
        reports[name] = report
        log(f"{name}: {report['rows']} rows ({len(ready.rows.dropped)} left out); {report['task']['shown']}")
    train = reports["train"]
    buckets, one = ", ".join(train["buckets"]), train["padding_at_longest"]
    log(f"{train['windows']} windows, {train['tokens']} tokens in buckets {buckets}")
    log(f"{train['padding']:.0%} of the positions are padding, {one:.0%} at one length")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "data_report.json", reports)
    return reports


def data_report(task: Task, features: Features, rows: sources.Rows, plan: Plan) -> dict[str, Any]:
    """What went in, what was left out, and what the buckets save."""
    lengths = next(iter(plan.lengths.values()))
    padding = saved(lengths, [dict(shape.lengths)[plan.view] for shape in plan.shapes])
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
