# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains one stage: gives the loop its weights, data, method and evaluation sets, and exports the trained models."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from xlkd.data.batches import Plan
from xlkd.data.blocks import Blocks
from xlkd.errors import UserError
from xlkd.evaluation import provenance, reference, selection, thresholds
from xlkd.evaluation.sets import EvaluationSet, SetEvaluator
from xlkd.export import cards
from xlkd.export.folder import write_export
from xlkd.inputs import data as inputs
from xlkd.inputs import identity, streams, trimming
from xlkd.inputs.data import TrainingData
from xlkd.inputs.weights import Weights, build_encoder, resolve_teacher, resolve_weights
from xlkd.methods import Method, Start, State, Variables
from xlkd.models import hf
from xlkd.models.encoder import Encoder, scan_by_device
from xlkd.reports import goodput
from xlkd.reports.files import STAGE_RECORD, find_stage_record
from xlkd.runtime import distributed, mesh
from xlkd.runtime.devices import peak_flops
from xlkd.runtime.log import Log, Metrics, NoMetrics
from xlkd.runtime.profiling import Profiler
from xlkd.runtime.signals import Signals
from xlkd.runtime.trackers import Place, Trackers
from xlkd.runtime.workdir import INPUTS, WorkDirectory, has_trained
from xlkd.spec import to_plain
from xlkd.spec.stage import AnySettings, AnyStage
from xlkd.spec.tasks import Classify, QuestionAnswering
from xlkd.tasks.nulls import read_threshold
from xlkd.tasks.parallel import Parallel
from xlkd.train import finished, loop
from xlkd.train.checkpoint import Checkpoints, make_abstract
from xlkd.train.targets import Targets, classifiers
from xlkd.train.targets.vectors import VectorTargets


class Prepared(NamedTuple):
    """The inputs of a stage, read before its method is built."""

    weights: Weights
    other: Weights | None  # of the teacher encoder, if the method has one
    data: TrainingData
    plan: Plan | Blocks
    spec: AnyStage
    sets: dict[str, EvaluationSet]
    keep: selection.Rule
    threshold_rule: thresholds.ThresholdRule
    ceilings: dict[str, Any]
    prior: dict[str, Any]  # the record of the training before this stage
    contamination: dict[str, Any]  # by evaluation set the examples that occur in the training data

    def load_start(self, seed: int) -> Start:
        """Loads the arrays that the stage starts from."""
        return self.weights.load(seed)._replace(other=self.other.load(0).encoder if self.other else ())


def train(
    settings: AnySettings,
    workdir: WorkDirectory,
    folder: pathlib.Path,
    earlier: dict[str, pathlib.Path],
    log: Log,
    signals: Signals,
    write_report: Callable[[], None],
) -> None:
    """Trains a stage to its end, exports it, and marks it done."""
    devices = mesh.build_mesh(settings.mesh)
    prepared = prepare_stage(settings, workdir, folder, earlier, log)
    spec = prepared.spec
    encoders = [build_encoder(spec.encoder, part.architecture) for part in (prepared.weights, prepared.other) if part]
    method = inputs.load_module("methods", spec.method.name).build(spec, *encoders)
    distributed.barrier("data read")  # another process may need longer for its data than a collective operation waits
    ready = add_reference_vectors(prepared, method.reference_pooling, encoders[-1], devices)
    rules = prepared.keep, prepared.threshold_rule
    place = Place(folder, workdir.path.name, spec.name, to_plain(settings))
    track = Trackers(spec.log.to if distributed.is_primary() else (), folder, place, log, workdir.check)
    sets = SetEvaluator(workdir, folder, ready, *rules, method, devices, spec, log, track.send)
    distributed.broadcast_from_primary("damaged scores", sets.set_aside_damaged)
    checkpoints = Checkpoints(workdir.locate_checkpoints(folder), sets.choose_step, workdir.check)

    def evaluate(step: int, variables: Any, stop: Callable[[], None]) -> None:
        sets.evaluate(step, variables, stop)
        write_report()

    def track_goodput(step: int) -> None:
        if distributed.is_primary() and (measured := goodput.measure(workdir.path)):
            track.send("goodput", step, goodput.list_values(measured))

    job = loop.Job(
        method=method,
        start=functools.cache(functools.partial(prepared.load_start, spec.seed)),
        task=prepared.data.task,
        features=prepared.data.features,
        plan=prepared.plan,
        steps=spec.horizon.steps,
        schedule_steps=spec.horizon.schedule_steps,
        seed=spec.seed,
        optim=spec.optim,
        save_every=spec.save.every,
        evaluate_every=spec.eval.every or spec.horizon.steps,
        evaluate_start=spec.eval.start,
        log_every=spec.log.every,
        evaluate=evaluate,
        is_evaluated=sets.is_evaluated,
        checkpoints=checkpoints,
        publish=workdir.upload,
        metrics=lambda step: (
            Metrics(folder, step, workdir.check, log, spec.log.every) if distributed.is_primary() else NoMetrics()
        ),
        log=log,
        mesh=devices,
        peak_flops=peak_flops(spec.encoder.dtype),
        track=track.send,
        track_goodput=track_goodput,
        known_targets=find_known_targets(spec, method, prepared.data, earlier, devices, log),
        teacher_cache=spec.teacher.cache,
        teacher_dtype=spec.encoder.dtype,
        profiler=Profiler(clip_profile(spec, log), folder, workdir.write_own_file, log),
        sharding=spec.mesh,
    )
    try:
        state, seconds = loop.train(job, signals)
        state = restore_selected(state, prepared.keep, sets, checkpoints, log)
    finally:
        checkpoints.close()
        track.close()
        if isinstance(prepared.plan, Blocks):
            prepared.plan.close()
    variables = distributed.gather_to_host(state.variables) if distributed.has_several_processes() else state.variables
    if distributed.is_primary():
        export_stage(workdir, folder, prepared, method, variables, sets, int(state.step), seconds, log)


def prepare_stage(
    settings: AnySettings,
    workdir: WorkDirectory,
    folder: pathlib.Path,
    earlier: dict[str, pathlib.Path],
    log: Log,
) -> Prepared:
    """Reads the weights and the examples that the settings name, and writes a report on the examples."""
    workdir.check()
    weights = resolve_weights(settings, earlier, folder / "tokenizer", workdir.share)
    if settings.encoder.trim_vocab:
        weights = trimming.trim_weights(weights, inputs.iterate_examples(settings), log)
    other = resolve_teacher(settings)
    settings = inputs.resolve_tile(settings, jax.default_backend())
    data = inputs.read_training_data(settings, weights, other, log)
    sets = inputs.read_evaluation_sets(settings, data.task, weights, log)
    named = settings.task.languages if isinstance(settings.task, Classify) else ()
    supervised = named or provenance.find_labelled_languages(data.tokenized)
    keep = selection.build_rule(settings, sets, supervised)
    data_reports = inputs.report_all_data(
        {"train": EvaluationSet(data.task, data.rows, data.features), **sets}, data.plan, log
    )
    record_inputs(settings, workdir, folder, identify_stage_inputs(settings, weights, other, data, sets, earlier), log)
    workdir.write_json(folder / "data_report.json", data_reports)
    tasks = {name: data_reports[name]["task"] for name in sets}
    ceilings = {name: report["ceilings"] for name, report in tasks.items() if "ceilings" in report}
    plan = data.plan
    if data.streamed:
        plan = streams.plan_blocks(settings, data.task, data.rows, data.features, plan.edges, weights.architecture)
        log(
            f"read in {plan.blocks_per_epoch} blocks of {plan.block} rows; lengths above: {len(data.tokenized)} of them"
        )
    prior = load_prior_training(weights)
    contamination = provenance.describe_contamination(data.tokenized, sets, prior.get("contamination", {}))
    warn_of_contamination(contamination, log)
    write_text_sample(workdir, sets, log)
    spec = inputs.resolve_stage(settings, data, plan, scanned=scan_by_device())
    trained = data.tokenized if spec.horizon.steps else ()
    is_qa = isinstance(settings.task, QuestionAnswering)
    threshold_rule = thresholds.build_rule(
        sets, keep, trained, read_threshold(prior, str(weights.folder)) if is_qa else None
    )
    return Prepared(weights, other, data, plan, spec, sets, keep, threshold_rule, ceilings, prior, contamination)


def identify_stage_inputs(
    settings: AnySettings,
    weights: Weights,
    other: Weights | None,
    data: TrainingData,
    sets: dict[str, EvaluationSet],
    earlier: dict[str, pathlib.Path],
) -> dict[str, identity.Identity]:
    """Returns the identities of the weights, the tokenizers, the data and the classifiers that a stage reads."""
    rows = {"train": data.rows, **{name: evaluation_set.rows for name, evaluation_set in sets.items()}}
    names = {name for names in settings.teachers.values() for name in classifiers.split_names(names)}
    folders = {name: classifiers.locate_classifier(name, earlier) for name in sorted(names)}
    encoders = {"the encoder": weights.untrimmed or weights, "the teacher": other}
    return identity.identify_inputs(encoders, rows, folders, data.vectors)


def record_inputs(
    settings: AnySettings,
    workdir: WorkDirectory,
    folder: pathlib.Path,
    inputs_now: dict[str, identity.Identity],
    log: Log,
) -> None:
    """Records the inputs of a stage when it begins; refuses other ones once it has trained, naming what differs."""

    def record() -> dict[str, identity.Identity]:
        before = identity.read_identities(folder / INPUTS)
        if before is None and has_trained(folder):
            log(f"warning: {folder / INPUTS} is missing or damaged: nothing says that the inputs are those of before")
        changes = identity.describe_changes(before, inputs_now) if before is not None else ""
        if changes and has_trained(folder):
            what = f"this stage was trained with other inputs than these: {changes}"
            raise UserError(what, str(folder), "restore them, or choose another --workdir")
        if changes:
            log(f"other inputs than at the last start, before training: {changes}; the stage begins again")
            workdir.delete_beginning(folder)
        workdir.make_folder(folder)
        workdir.write_json(folder / INPUTS, {"version": 1, "config": settings.run, "inputs": inputs_now})
        return inputs_now

    primary_inputs = distributed.broadcast_from_primary(f"inputs of {folder.name}", record)
    if changes := identity.describe_changes(primary_inputs, inputs_now):
        raise UserError(f"not the same inputs as on process 0: {changes}", "this host", "give all hosts the same files")


def add_reference_vectors(
    prepared: Prepared, pooling: str, teacher: Encoder, devices: Mesh
) -> dict[str, EvaluationSet]:
    """Returns the sets; that of retrieval gets the vectors of a teacher encoder, if there is one, to compare with."""
    if not prepared.other or "retrieval" not in prepared.sets:
        return prepared.sets
    retrieval = prepared.sets["retrieval"]
    vectors = reference.compute_english_vectors(
        prepared.spec, pooling, teacher, prepared.other, retrieval.rows, devices
    )
    assert isinstance(retrieval.task, Parallel)
    task = dataclasses.replace(retrieval.task, reference=vectors)
    return prepared.sets | {"retrieval": retrieval._replace(task=task)}


def clip_profile(spec: AnyStage, log: Log) -> range:
    """Returns the steps to profile that the stage has, and logs which they are if it lacks some of the window."""
    window = spec.log.profiled_steps
    steps = range(window.start, min(window.stop, spec.horizon.steps + 1))
    if len(steps) < len(window):
        rest = f"steps {steps[0]} to {steps[-1]} are" if steps else "nothing is"
        log(f"config.log.profile={spec.log.profile}: the stage has {spec.horizon.steps} steps; {rest} profiled")
    return steps


def restore_selected(
    state: State, keep: selection.Rule, sets: SetEvaluator, checkpoints: Checkpoints, log: Log
) -> State:
    """Returns the last state, or restores the state of the step that the rule selects."""
    best = sets.choose_step() if keep.name != "last" else None
    if best is None:
        return state
    log(f"exporting step {best}, the best on config.data.{keep.evaluation_set} (rule {keep.name})")
    return checkpoints.restore(best, make_abstract(state, jax.tree.map(lambda x: x.sharding, state)))


def export_stage(
    workdir: WorkDirectory,
    folder: pathlib.Path,
    prepared: Prepared,
    method: Method,
    variables: Variables,
    sets: SetEvaluator,
    step: int,
    seconds: float,
    log: Log,
) -> None:
    """Writes the exported models, the scores and the record of the stage."""
    spec, results = prepared.spec, sets.read_scores(step)
    for line in sets.describe_changes(step):
        log(line)
    sets.move_rows(step, folder / "rows")
    chosen_on = prepared.sets.get(prepared.keep.evaluation_set)
    chosen_by = prepared.keep.select_examples(chosen_on.rows if chosen_on else ())
    if thresholds.DEV in prepared.sets:
        chosen_by += prepared.threshold_rule.select_examples(prepared.sets[thresholds.DEV].rows)
    threshold = sets.find_threshold(step)
    has_teacher = method.teacher is not None
    seen = provenance.collect_seen_languages(
        spec, prepared.data.tokenized, chosen_by, prepared.prior.get("seen", {}), has_teacher=has_teacher
    )
    tokenizer = (prepared.weights.untrimmed or prepared.weights).tokenizer
    teacher = method.teacher.origin if method.teacher else ""
    for name, exported in method.exports(variables).items():
        exported = trimming.restore_vocabulary(exported, prepared.weights)
        workdir.check()
        write_export(
            folder / "export" / name,
            exported,
            tokenizer,
            spec,
            results,
            seen,
            teacher,
            threshold,
            prepared.contamination,
        )
    record = {
        "version": 1,
        "stage": spec.name,
        "method": spec.method.name,
        "task": spec.task.name,
        "start": spec.weights_from,
        **({"commit": prepared.weights.revision} if prepared.weights.revision else {}),
        "steps": spec.horizon.steps,
        "rows": len(prepared.data.rows) if spec.horizon.steps else 0,
        "lr": spec.optim.lr,
        "seconds": round(seconds, 1),
        "parameters": sum(x.size for x in jax.tree.leaves(variables.params)),
        "sets": results,
        "seen": seen,
        "contamination": prepared.contamination,
        **({"null_threshold": threshold._asdict()} if threshold else {}),
        "ceilings": {name: prepared.ceilings[name] for name in results if name in prepared.ceilings},
    }
    workdir.write_json(folder / STAGE_RECORD, record)
    finished.mark_finished(workdir, folder, list(provenance.sample_texts(prepared.sets)))


def load_prior_training(weights: Weights) -> dict[str, Any]:
    """Returns what the training before this stage saw: languages by kind, and examples of the evaluation sets.

    Of several models, whose weights are averaged, the last one's threshold of no answer counts.
    """
    seen: dict[str, set[str]] = collections.defaultdict(set)
    matches: dict[tuple[str, str], set[str]] = collections.defaultdict(set)  # by evaluation set and kind
    threshold: dict[str, Any] = {}
    for folder in weights.folders:
        record = find_stage_record(place) if (place := cards.Place.find(folder).stage) else None
        if record is None and (folder / hf.RECORD).exists():
            record = folder / hf.RECORD
        training = hf.read_json(record) if record else {}
        if "null_threshold" in training:
            threshold = {"null_threshold": training["null_threshold"]}
        for kind, tags in training.get("seen", {}).items():
            seen[kind].update(tags)
        for name, counts in training.get("contamination", {}).items():
            for kind, keys in counts.get("keys", {}).items():
                matches[name, kind].update(keys)
    contamination: dict[str, Any] = {}
    for (name, kind), keys in matches.items():
        contamination.setdefault(name, {"keys": {}})["keys"][kind] = sorted(keys)
    languages = {kind: sorted(tags) for kind, tags in seen.items()}
    return {"seen": languages, "contamination": contamination} | threshold


def find_known_targets(
    spec: AnyStage,
    method: Method,
    data: TrainingData,
    earlier: dict[str, pathlib.Path],
    devices: Mesh,
    log: Log,
) -> Targets | None:
    """Returns the targets that no teacher of the method computes: vectors of a file, or the logits of classifiers.

    The logits of all training examples are computed here.
    """
    if method.learns_vectors and data.vectors:
        return VectorTargets(data.vectors, devices)
    if not spec.teachers or method.classifiers is None:
        return None
    values = classifiers.compute_logits(spec, method.classifiers, data.rows, data.features, data.task, earlier, log)
    return classifiers.ClassifierTargets(values, devices)


def warn_of_contamination(contamination: dict[str, Any], log: Log) -> None:
    """Warns of evaluation examples that occur in the training data."""
    for name, counts in contamination.items():
        if counts["flagged"]:
            kinds = ", ".join(f"{kind} {count}" for kind, count in counts["kinds"].items() if count)
            flagged = f"{counts['flagged']} of {counts['rows']} examples of {name}"
            log(f"warning: {flagged} occur in the training data ({kinds})")


def write_text_sample(workdir: WorkDirectory, sets: dict[str, EvaluationSet], log: Log) -> None:
    """Writes a sample of the evaluation examples for the report, and keeps those that other stages wrote."""
    folder = workdir.path / "texts"
    workdir.make_folder(folder)
    for name, rows in provenance.sample_texts(sets).items():
        path = folder / f"{name}.jsonl"
        old = finished.read_lines(path) or []
        if path.exists() and not old:
            log(f"{path} is damaged and is written again")
        known = {row["key"] for row in old}
        workdir.write_lines(path, old + [row for row in rows if row["key"] not in known])
