# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains one stage: puts weights, data, method and sets together for the loop, and exports what comes out."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from xlkd.data.batches import Plan
from xlkd.data.blocks import Blocks
from xlkd.evaluation import provenance, reference, selection
from xlkd.evaluation.sets import EvaluationSet, SetEvaluator
from xlkd.export import cards
from xlkd.export.folder import write_export
from xlkd.inputs import data as inputs
from xlkd.inputs import streams, trimming
from xlkd.inputs.data import TrainingData
from xlkd.inputs.weights import Weights, build_encoder, resolve_teacher, resolve_weights
from xlkd.methods import Method, Start, State, Variables
from xlkd.models import hf
from xlkd.models.encoder import Encoder, scan_by_device
from xlkd.reports.files import STAGE_RECORD, find_stage_record
from xlkd.runtime import distributed, mesh
from xlkd.runtime.devices import peak_flops
from xlkd.runtime.log import Log, Metrics, NoMetrics
from xlkd.runtime.signals import Signals
from xlkd.runtime.workdir import WorkDirectory
from xlkd.spec.stage import AnySettings, AnyStage
from xlkd.spec.tasks import Classify
from xlkd.train import loop
from xlkd.train.checkpoint import Checkpoints, abstract
from xlkd.train.targets import Targets


class Prepared(NamedTuple):
    """All that is known before a method is built: weights, examples, sets, and which test examples training touches."""

    weights: Weights
    other: Weights | None  # of another encoder than the student's, where the method asks for one
    data: TrainingData
    plan: Plan | Blocks
    spec: AnyStage
    sets: dict[str, EvaluationSet]
    keep: selection.Rule
    ceilings: dict[str, Any]
    before: dict[str, Any]  # what earlier training has seen and met
    met: dict[str, Any]  # test rows that training touches

    def start(self, seed: int) -> Start:
        return self.weights.load(seed)._replace(other=self.other.load(0).encoder if self.other else ())


def train(
    settings: AnySettings,
    workdir: WorkDirectory,
    folder: pathlib.Path,
    earlier: dict[str, pathlib.Path],
    log: Log,
    signals: Signals,
    tell: Callable[[], None],
) -> None:
    """Train a stage to its end, export it, and mark it done."""
    devices = mesh.build_mesh(settings.mesh)
    stage = prepare_stage(settings, workdir, folder, earlier, log)
    spec = stage.spec
    encoders = [build_encoder(spec.encoder, part.architecture) for part in (stage.weights, stage.other) if part]
    method = inputs.load_module("methods", spec.method.name).build(spec, *encoders)
    distributed.barrier("data read")  # collectives give up sooner than another process may need for this
    ready = add_reference_vectors(stage, method.reference_pooling, encoders[-1], devices)
    sets = SetEvaluator(workdir, folder, ready, stage.keep, method, devices, spec, log)
    checkpoints = Checkpoints(folder / "checkpoints", sets.choose_step, workdir.check)

    def evaluate(step: int, variables: Any, stop: Callable[[], None]) -> None:
        sets.evaluate(step, variables, stop)
        tell()

    job = loop.Job(
        method=method,
        start=functools.cache(functools.partial(stage.start, spec.seed)),
        task=stage.data.task,
        features=None if stage.data.streamed else stage.data.features,
        plan=stage.plan,
        steps=spec.horizon.steps,
        seed=spec.seed,
        optim=spec.optim,
        save_every=spec.save.every,
        evaluate_every=spec.eval.every or spec.horizon.steps,
        evaluate_start=spec.eval.start,
        log_every=spec.log.every,
        evaluate=evaluate,
        checkpoints=checkpoints,
        metrics=lambda step: Metrics(folder, step, workdir.check) if distributed.is_primary() else NoMetrics(),
        log=log,
        mesh=devices,
        peak_flops=peak_flops(),
        computed=compute_targets(spec, method, stage.data, earlier, devices, log),
        teacher_cache=spec.teacher.cache,
        teacher_dtype=spec.encoder.dtype,
    )
    try:
        state, seconds = loop.train(job, signals)
        state = restore_selected(state, stage.keep, sets, checkpoints, log)
    finally:
        checkpoints.close()
        if stage.data.streamed:
            stage.plan.close()
    variables = distributed.gather_to_host(state.variables) if distributed.has_several_processes() else state.variables
    if distributed.is_primary():
        export_stage(workdir, folder, stage, method, variables, sets, int(state.step), seconds, log)


def prepare_stage(
    settings: AnySettings,
    workdir: WorkDirectory,
    folder: pathlib.Path,
    earlier: dict[str, pathlib.Path],
    log: Log,
) -> Prepared:
    """Reads weights and examples as the settings name them, and writes what they are before anything is trained."""
    workdir.check()
    weights = resolve_weights(settings, earlier, folder / "tokenizer")
    if settings.encoder.trim_vocab:
        weights = trimming.trim_weights(weights, inputs.iterate_examples(settings))
        log(f"vocabulary: {len(weights.kept_tokens)} of {weights.untrimmed.architecture.vocab_size} tokens")
    other = resolve_teacher(settings)
    data = inputs.read_training_data(settings, weights, other, log)
    sets = inputs.read_evaluation_sets(settings, data.task, weights, log)
    named = settings.task.languages if isinstance(settings.task, Classify) else ()
    supervised = named or provenance.find_labelled_languages(data.tokenized)
    keep = selection.build_rule(settings, sets, supervised)
    data_reports = inputs.report_all_data(
        {"train": EvaluationSet(data.task, data.rows, data.features), **sets}, data.plan, log
    )
    workdir.make_folder(folder)
    workdir.write_json(folder / "data_report.json", data_reports)
    tasks = {name: data_reports[name]["task"] for name in sets}
    ceilings = {name: report["ceilings"] for name, report in tasks.items() if "ceilings" in report}
    plan = data.plan
    if data.streamed:
        plan = streams.plan_blocks(settings, data.task, data.rows, data.features, plan.edges, weights.architecture)
        log(
            f"read in {plan.blocks_per_epoch} blocks of {plan.block} rows; lengths above: {len(data.tokenized)} of them"
        )
    before = load_prior_training(weights)
    met = provenance.describe_contamination(data.tokenized, sets, before.get("contamination", {}))
    warn_of_contamination(met, log)
    write_text_sample(workdir, sets)
    spec = inputs.resolve_stage(settings, data, plan, scanned=scan_by_device())
    return Prepared(weights, other, data, plan, spec, sets, keep, ceilings, before, met)


def add_reference_vectors(stage: Prepared, pooling: str, teacher: Encoder, devices: Mesh) -> dict[str, EvaluationSet]:
    """Returns the sets; where another encoder teaches, retrieval gets its English vectors to compare with."""
    if not stage.other or "retrieval" not in stage.sets:
        return stage.sets
    retrieval = stage.sets["retrieval"]
    vectors = reference.compute_english_vectors(stage.spec, pooling, teacher, stage.other, retrieval.rows, devices)
    task = dataclasses.replace(retrieval.task, reference=vectors)
    return stage.sets | {"retrieval": retrieval._replace(task=task)}


def restore_selected(
    state: State, keep: selection.Rule, sets: SetEvaluator, checkpoints: Checkpoints, log: Log
) -> State:
    """Returns the last state, or that of the step which the rule chooses."""
    best = sets.choose_step() if keep.name != "last" else None
    if best is None:
        return state
    log(f"keeping step {best}, the best on config.data.{keep.set} (rule {keep.name})")
    return checkpoints.restore(best, abstract(state, jax.tree.map(lambda x: x.sharding, state)))


def export_stage(
    workdir: WorkDirectory,
    folder: pathlib.Path,
    stage: Prepared,
    method: Method,
    variables: Variables,
    sets: SetEvaluator,
    step: int,
    seconds: float,
    log: Log,
) -> None:
    """Writes the exported models, the scores and the record of the stage."""
    spec, results = stage.spec, sets.read_scores(step)
    for line in sets.describe_changes(step):
        log(line)
    sets.keep_rows(step, folder / "rows")
    chosen_by = stage.keep.select_examples(stage.sets[stage.keep.set].rows if stage.keep.set in stage.sets else ())
    teaches = method.teacher is not None
    seen = provenance.collect_seen_languages(
        spec, stage.data.tokenized, chosen_by, stage.before.get("seen", {}), has_teacher=teaches
    )
    tokenizer = (stage.weights.untrimmed or stage.weights).tokenizer
    teacher = method.teacher.origin if method.teacher else ""
    for name, exported in method.exports(variables).items():
        exported = trimming.restore_vocabulary(exported, stage.weights)
        workdir.check()
        write_export(folder / "export" / name, exported, tokenizer, spec, results, seen, teacher)
    written = {
        "version": 1,
        "stage": spec.name,
        "method": spec.method.name,
        "task": spec.task.name,
        "start": spec.weights_from,
        "steps": spec.horizon.steps,
        "rows": len(stage.data.rows) if spec.horizon.steps else 0,
        "lr": spec.optim.lr,
        "seconds": round(seconds, 1),
        "parameters": sum(x.size for x in jax.tree.leaves(variables.params)),
        "sets": results,
        "seen": seen,
        "contamination": stage.met,
        "ceilings": {name: stage.ceilings[name] for name in results if name in stage.ceilings},
    }
    workdir.write_json(folder / STAGE_RECORD, written)
    workdir.check()
    (folder / "done").touch()


def load_prior_training(weights: Weights) -> dict[str, Any]:
    """Returns what is known of the training before this stage: of a stage all, of a folder what its record says."""
    place = cards.Place.find(weights.folder).stage if weights.folder else None
    if place and (record := find_stage_record(place)):  # of this run, or of another of ours
        return hf.read_json(record)
    record = weights.folder / hf.RECORD if weights.folder else None
    return {"seen": hf.read_json(record).get("seen", {})} if record and record.exists() else {}


def compute_targets(
    spec: AnyStage,
    method: Method,
    data: TrainingData,
    earlier: dict[str, pathlib.Path],
    devices: Mesh,
    log: Log,
) -> Targets | None:
    """Asks the classifiers of `config.teachers`, where the method learns from them, for all training examples."""
    if not spec.teachers or method.classifiers is None:
        return None
    from xlkd.train.targets import classifiers

    values = classifiers.targets(spec, method.classifiers, data.rows, data.features, data.task, earlier, log)
    return classifiers.ComputedTargets(values, devices)


def warn_of_contamination(met: dict[str, Any], log: Log) -> None:
    """Warns of evaluation examples that training touched: they test nothing unseen."""
    for name, found in met.items():
        if found["flagged"]:
            kinds = ", ".join(f"{kind} {count}" for kind, count in found["kinds"].items() if count)
            log(f"warning: {found['flagged']} of {found['rows']} rows of {name} were met in training ({kinds})")


def write_text_sample(workdir: WorkDirectory, sets: dict[str, EvaluationSet]) -> None:
    """Writes a sample of the evaluation examples for the report; sets of the same name in other stages are joined."""
    folder = workdir.path / "texts"
    workdir.make_folder(folder)
    for name, rows in provenance.sample_texts(sets).items():
        path = folder / f"{name}.jsonl"
        there = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        known = {row["key"] for row in there}
        workdir.write_lines(path, there + [row for row in rows if row["key"] not in known])
