# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Predicts what a run needs, stage by stage, with the functions that the run itself calls; nothing is trained."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from xlkd.data.batches import Plan, Shape
from xlkd.data.blocks import Blocks
from xlkd.data.buckets import BASE_WIDTH, choose_edges, make_encoder_cost, measure_padding
from xlkd.inputs import data as inputs
from xlkd.inputs import streams, trimming
from xlkd.inputs.data import EvaluationSet, TrainingData
from xlkd.inputs.weights import (
    Weights,
    locate_model,
    override_dropout,
    read_folder_architecture,
    resolve_teacher,
    resolve_weights,
)
from xlkd.languages import normalise_tag
from xlkd.methods import Method
from xlkd.models.encoder import forward_flops, scan_by_device
from xlkd.models.family import Architecture
from xlkd.planning.machine import Machine
from xlkd.planning.program import Batches, Program, Record, Speed
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import Log
from xlkd.spec.stage import AnySettings, AnyStage, StageSpec, list_starts
from xlkd.spec.tasks import Classify

WORTHWHILE = 0.1  # share of a step's time from which on a plan tries to divide the update
ADAMW = 28  # bytes that AdamW moves for each parameter in a step: four float32 values read, three written


@dataclasses.dataclass
class Planner:
    """Plans the stages of a run in their order: a later stage can start from an earlier one."""

    machine: Machine
    log: Log
    scratch: pathlib.Path  # a folder for tokenizers that have to be trained
    weights: dict[str, Weights] = dataclasses.field(default_factory=dict)  # by stage
    speeds: dict[str, Speed] = dataclasses.field(default_factory=dict)  # measured, by shape of the program

    def plan_stage(self, settings: AnySettings) -> Record:
        """Returns the record of one stage in the JSON of a plan, which docs/plan.md describes."""
        # A mesh that does not fit the devices is refused here, before anything is read
        meshes.build_mesh(settings.mesh, self.machine.devices, self.machine.slices)
        weights = self.weights[settings.name] = self._resolve_weights(settings)
        if settings.encoder.trim_vocab:
            weights = trimming.trim_weights(weights, inputs.iterate_examples(settings), self.log)
        teacher = resolve_teacher(settings)
        settings = inputs.resolve_tile(settings, self.machine.platform)
        data = inputs.read_training_data(settings, weights, teacher, self.log)
        sets = inputs.read_evaluation_sets(settings, data.task, weights, self.log)
        plan = _plan_all_rows(settings, data, weights)
        scanned = scan_by_device() or self.machine.accelerator is not None
        spec = inputs.resolve_stage(settings, data, plan, scanned=scanned)
        steps = spec.horizon.steps
        program = Program(spec, data, weights, teacher, self.machine)
        batches = _list_batches(data.plan, steps, program.layout.rows)
        figures: Record = {
            "stage": spec.name,
            "method": spec.method.name,
            "start": spec.weights_from,
            "dtype": spec.encoder.dtype,
            "steps": steps,
            "parameters": program.count_parameters(),
            "data": _describe_data(data, sets),
            "batch": dataclasses.asdict(program.layout) | {"shown": program.layout.describe()},
            "buckets": _count_bucket_steps(batches, steps),
            "flops": _count_flops(program.method, batches, data, steps),
            "memory": self._predict_memory(program, plan.shapes) if steps else {},
            "traffic": {},
            "checkpoint_bytes": program.checkpoint_bytes() if steps else 0,
        }
        if steps and figures["memory"]["fits"]:
            figures["traffic"] = program.measure_traffic(max(plan.shapes, key=_sum_lengths))
        figures["teacher"] = _describe_teacher(spec, data, program, figures["flops"], self.weights) if steps else {}
        figures["time"] = self._predict_time(
            spec, program, batches, figures, _count_evaluation_flops(spec, program, sets, steps)
        )
        if self.machine.accelerator and "step_seconds" in figures["time"]:
            largest = max(plan.shapes, key=_sum_lengths)
            figures["divided_update"] = self._try_divided_update(program, largest, figures["time"]["step_seconds"])
        return figures

    def _resolve_weights(self, settings: AnySettings) -> Weights:
        """Resolves a stage's weights; the weights of an earlier stage have the shapes that it started from."""
        start = next((name for name in list_starts(settings.start) if name in self.weights), None)
        if start is None:
            return resolve_weights(settings, {}, self.scratch / settings.name)
        earlier = self.weights[start]
        architecture = override_dropout(earlier.architecture, settings.encoder)
        return dataclasses.replace(earlier, architecture=architecture)

    def _predict_memory(self, program: Program, shapes: Iterable[Shape]) -> Record:
        """Predicts the memory of the largest shape: the record of `Program.measure_memory`, and `shape`, `of`, `fits`.

        Where it does not fit, `tried` has the same with each of some settings that need less.
        """
        largest = max(shapes, key=_sum_lengths).with_rows(program.layout.rows)
        self.log.live(f"compiling {largest}")
        memory = program.measure_memory(largest)
        memory |= {"shape": str(largest), "of": self.machine.memory, "fits": memory["total"] <= self.machine.memory}
        if not memory["fits"]:
            changes = program.suggest_changes(memory["total"] / self.machine.memory)
            memory["tried"] = [self._try_change(program, largest, change) for change in changes]
        return memory

    def _try_change(self, program: Program, shape: Shape, change: Mapping[str, Any]) -> Record:
        flags = " ".join(f"config.{name}={value}" for name, value in change.items())
        self.log.live(f"compiling {shape} with {flags}")
        total = program.with_settings(change).measure_memory(shape)["total"]
        return {"change": flags, "total": total, "fits": total <= self.machine.memory}

    def _predict_time(
        self,
        spec: AnyStage,
        program: Program,
        batches: Batches,
        figures: Record,
        evaluation_flops: float,
    ) -> Record:
        """Predicts `seconds` and their `parts`, and if there are steps `step_seconds`, `mfu` and `mfu_padded`.

        It is empty where the program does not fit, or no speed is known.
        """
        if figures["memory"] and not figures["memory"]["fits"]:
            return {}
        speed = self._find_speed(spec, program, batches)
        if not speed:
            return {}
        flops, teacher, steps = figures["flops"], figures["teacher"], figures["steps"]
        training = speed.fixed * steps + flops["step_padded"] / speed.rate
        live, once = teacher.get("live", 0.0), teacher.get("once", 0.0)
        parts = {"training": training + live / speed.rate, "teacher": once / speed.rate}
        parts["evaluation"] = evaluation_flops / speed.rate
        times = {"seconds": sum(parts.values()), "parts": parts}
        if steps:
            peak = self.machine.find_peak(spec.encoder.dtype) * parts["training"]
            teacher_flops = flops["teacher"] if live else 0.0
            times |= {"step_seconds": parts["training"] / steps, "mfu": (flops["step"] + teacher_flops) / peak}
            times["mfu_padded"] = (flops["step_padded"] + live) / peak
        return times

    def _find_speed(self, spec: AnyStage, program: Program, batches: Batches) -> Speed | None:
        """Returns the speed of a step: on accelerators by the table, on CPUs timed once for each shape of program."""
        if self.machine.accelerator:
            traffic = self._count_adamw_seconds(program)
            recomputed = 4 / 3 if spec.encoder.remat == "full" else 1.0  # the forward pass a second time
            return Speed(traffic, self.machine.assume_speed(spec.encoder.dtype) / recomputed)
        batch = f"{program.layout.rows} / {program.layout.micro_batches}"
        key = f"{program.architecture} {spec.encoder} {spec.method.name} {batch}"
        if key not in self.speeds and batches:
            self.log.live("timing a few steps")
            self.speeds[key] = program.time_steps(batches)
        return self.speeds.get(key) or next(iter(self.speeds.values()), None)

    def _count_adamw_seconds(self, program: Program) -> float:
        """Returns the seconds of an update on an accelerator: the device that has the moments updates the values."""
        assert self.machine.accelerator
        return ADAMW / 8 * program.bytes["moments"] / self.machine.accelerator.bandwidth

    def _try_divided_update(self, program: Program, shape: Shape, step_seconds: float) -> Record:
        """Compiles the stage with moments divided over devices, if the update takes a tenth of a step and more.

        Returns the `change`, the seconds of an update `before` and `after` it, and what a device sends then.
        """
        layout, before = program.find_layout(), self._count_adamw_seconds(program)
        if not layout or before < WORTHWHILE * step_seconds:
            return {}
        change = layout | {"mesh.fsdp_shards": "moments"}
        flags = " ".join(f"config.{name}={value}" for name, value in change.items())
        self.log.live(f"compiling {shape} with {flags}")
        divided = program.with_settings(change)
        if divided.measure_memory(shape)["total"] > self.machine.memory:
            return {}
        after, sent = self._count_adamw_seconds(divided), divided.measure_traffic(shape)["total"]
        return {"change": flags, "before": before, "after": after, "sent": sent}


def _plan_all_rows(settings: AnySettings, data: TrainingData, weights: Weights) -> Plan | Blocks:
    """Returns the plan of all rows; for a streamed corpus the one that reads it in blocks."""
    if not data.streamed:
        return data.plan
    plan = streams.plan_blocks(settings, data.task, data.rows, data.features, data.plan.edges, weights.architecture)
    plan.close()
    return plan


def _sum_lengths(shape: Shape) -> int:
    return sum(length for _, length in shape.lengths)


def _list_batches(plan: Plan, steps: int, rows: int) -> Batches:
    """Lists the batches of the first epoch by shape, smallest first, padded to `rows`; no more than the run has."""
    batches = collections.defaultdict(list)
    for step in range(min(steps, plan.steps_per_epoch)):
        planned = plan.at(step).pad_rows(rows)
        batches[planned.shape].append(planned)
    return {shape: batches[shape] for shape in sorted(batches, key=_sum_lengths)}


def _describe_data(data: TrainingData, sets: Mapping[str, EvaluationSet]) -> Record:
    """Returns `rows`, `windows`, `tokens` and padding of the training data, and sizes of sets and features."""
    plan = data.plan
    lengths = plan.lengths[plan.view]
    padding = measure_padding(lengths, [dict(shape.lengths)[plan.view] for shape in plan.shapes])
    all_features = [data.features, *(evaluated.features for evaluated in sets.values())]
    return {
        "rows": len(data.rows),
        "windows": None if data.streamed else len(lengths),
        "tokens": round(float(lengths.sum()) * len(data.rows) / len(data.tokenized)),
        "padding": padding.padding,
        "padding_at_longest": padding.padding_at_longest,
        "evaluated_rows": {name: len(evaluated.rows) for name, evaluated in sets.items()},
        "features_bytes": sum(array.nbytes for features in all_features for array in features.values()),
    }


def _count_bucket_steps(batches: Batches, steps: int) -> list[Record]:
    """Returns for each shape `shape`, as text, and the number of `steps` that have it."""
    total = sum(map(len, batches.values()))
    return [{"shape": str(shape), "steps": round(len(some) * steps / total)} for shape, some in batches.items()]


def _count_flops(method: Method, batches: Batches, data: TrainingData, steps: int) -> Record:
    """Counts the FLOPs of all steps: `step` of real tokens, as the run's MFU does, and `step_padded` of all positions.

    `teacher` and `teacher_padded` are those of a forward pass of the teacher in every step.
    """
    totals = dict.fromkeys(("step", "step_padded", "teacher", "teacher_padded"), 0.0)
    lengths, counted = data.plan.lengths[data.plan.view], sum(map(len, batches.values()))
    functions: dict[str, Callable[[int, int], float]] = {"step": lambda tokens, rows: 3 * method.flops(tokens, rows)}
    if method.teacher:
        functions["teacher"] = method.teacher.flops
    for shape, planned in batches.items():
        for name, flops in functions.items():
            real = sum(flops(int(lengths[step.index[step.index >= 0]].sum()), step.examples) for step in planned)
            totals[name] += real * steps / counted
            padded = flops(shape.rows * shape.lengths[0][1], shape.rows)
            totals[f"{name}_padded"] += padded * len(planned) * steps / counted
    return totals


def _count_evaluation_flops(spec: AnyStage, program: Program, sets: Mapping[str, EvaluationSet], steps: int) -> float:
    """Counts the FLOPs of all evaluations: before the first step, every `eval.every` steps, after the last."""
    interval = spec.eval.every or steps
    times = len({steps, *range(interval, steps, interval)} | ({0} if spec.eval.start else set())) if steps else 1
    total, cost = 0.0, make_encoder_cost(BASE_WIDTH, spec.data.tile)
    for evaluated in sets.values():
        own = evaluated.task.name == spec.task.name
        for lengths in evaluated.task.lengths(evaluated.features).values():
            tokens = measure_padding(lengths, choose_edges(lengths, spec.data.buckets, cost=cost)).bucketed_tokens
            total += program.method.flops(tokens, len(lengths)) if own else program.forward_flops(tokens, len(lengths))
    return times * total


def _describe_teacher(
    spec: AnyStage, data: TrainingData, program: Program, flops: Record, weights: Mapping[str, Weights]
) -> Record:
    """Describes the teacher's cost: FLOPs that are `live`, at every step, or `once`, before them, if they are cached.

    `kind` says why. Of each target, `uses` is how often it is needed; `bytes` is the size of all.
    """
    if spec.teachers and program.method.classifiers:
        return {"kind": "once", **_describe_classifiers(spec, data, weights)}
    if program.method.learns_vectors and data.vectors:
        return {"kind": "vectors", "bytes": data.vectors.path.stat().st_size, "uses": float(spec.budget.epochs)}
    teacher = program.method.teacher
    if not teacher:
        return {}
    live, step = flops["teacher_padded"], flops["step_padded"]
    figures = {"uses": teacher.uses, "share": live / step, "bytes": program.count_target_bytes(teacher)}
    if teacher.evolves:
        return figures | {"kind": "evolves", "uses": 1.0, "live": live}
    if spec.teacher.cache == "off" or teacher.uses <= 1:
        return figures | {"kind": "off" if teacher.uses > 1 else "used once", "live": live}
    once = live / teacher.uses
    return figures | {"kind": "kept", "once": once, "gain": (step + live) / (step + once)}


def _describe_classifiers(spec: StageSpec[Any, Classify], data: TrainingData, weights: Mapping[str, Weights]) -> Record:
    """Describes the cost of the classifiers of `config.teachers`: their FLOPs (`once`), and `bytes` and `uses`."""
    features, lengths = data.features, data.plan.lengths[data.plan.view]
    languages = np.asarray(features["languages"])[features["language"]]
    total = rows = 0.0
    for tag, names in spec.teachers.items():
        of_language = lengths[languages == normalise_tag(tag, "config.teachers")]
        for name in filter(None, map(str.strip, names.split("+"))):
            architecture = _find_architecture(name, weights)
            total += forward_flops(architecture, int(of_language.sum()), len(of_language))
            rows += len(of_language)
    return {"once": total, "bytes": rows * 4.0 * len(spec.task.labels), "uses": float(spec.budget.epochs)}


def _find_architecture(name: str, weights: Mapping[str, Weights]) -> Architecture:
    """Returns the architecture of a stage's weights, or of a folder or hub id."""
    return weights[name].architecture if name in weights else read_folder_architecture(locate_model(name)[0])
