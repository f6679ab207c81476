# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run would take, before anything is trained: stage by stage, by the functions that the run itself calls."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xlkd.data.batches import Shape
from xlkd.data.buckets import choose_edges, measure_padding
from xlkd.inputs import data as inputs
from xlkd.inputs import streams, trimming
from xlkd.inputs.data import TrainingData
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
from xlkd.planning.machine import Machine
from xlkd.planning.program import Batches, Program, Record, Speed
from xlkd.runtime import mesh as meshes
from xlkd.runtime.log import Log
from xlkd.spec.stage import StageSettings, StageSpec

ADAMW = 28  # bytes of memory traffic a parameter and step: four values read, three written


@dataclasses.dataclass
class Planner:
    """Plans the stages of a run in their order: a later one starts from what an earlier one will have left."""

    machine: Machine
    log: Log
    scratch: pathlib.Path  # for tokenizers that have to be trained
    known: dict[str, Weights] = dataclasses.field(default_factory=dict)
    timed: dict[str, Speed] = dataclasses.field(default_factory=dict)

    def stage(self, settings: StageSettings[Any, Any]) -> Record:
        """Returns all figures of one stage."""
        meshes.build_mesh(
            settings.mesh, self.machine.devices, self.machine.slices
        )  # or refused, before anything is read
        weights = self.known[settings.name] = self._weights(settings)
        if settings.encoder.trim_vocab:
            weights = trimming.trim_weights(weights, inputs.iterate_examples(settings))
        other = resolve_teacher(settings)
        data = inputs.read_training_data(settings, weights, other, self.log)
        sets = inputs.read_evaluation_sets(settings, data.task, weights, self.log)
        plan = _whole(settings, data, weights)
        scanned = scan_by_device() or self.machine.accelerator is not None
        spec = inputs.resolve_stage(settings, data, plan, scanned=scanned)
        steps = spec.horizon.steps
        program = Program(spec, data, weights, other, self.machine)
        batches = _batches(data.plan, steps, program.layout.rows)
        found: Record = {
            "stage": spec.name,
            "method": spec.method.name,
            "start": spec.weights_from,
            "dtype": spec.encoder.dtype,
            "steps": steps,
            "parameters": program.parameters(),
            "data": _data(data, sets),
            "batch": dataclasses.asdict(program.layout) | {"shown": program.layout.describe()},
            "buckets": _buckets(batches, steps),
            "flops": _flops(program.method, batches, data, steps),
            "memory": self._memory(program, plan.shapes) if steps else {},
            "checkpoint_bytes": program.checkpoint_bytes() if steps else 0,
        }
        evaluations = _evaluation_flops(spec, program, sets, steps)
        found["teacher"] = _teacher(spec, data, program, found["flops"], self.known) if steps else {}
        found["time"] = self._time(spec, program, data, batches, found, evaluations)
        return found

    def _weights(self, settings: StageSettings[Any, Any]) -> Weights:
        """Of a stage that is yet to come, what it starts from itself: training changes no shape."""
        if settings.start not in self.known:
            return resolve_weights(settings, {}, self.scratch / settings.name)
        earlier = self.known[settings.start]
        architecture = override_dropout(earlier.architecture, settings.encoder.dropout)
        return dataclasses.replace(earlier, architecture=architecture)

    def _memory(self, program: Program, shapes: Iterable[Shape]) -> Record:
        """Of the dearest shape; where it is too much, what would make it fit."""
        dearest = max(shapes, key=_size).with_rows(program.layout.rows)
        self.log.live(f"compiling {dearest}")
        found = program.memory(dearest)
        found |= {"shape": str(dearest), "of": self.machine.memory, "fits": found["total"] <= self.machine.memory}
        if not found["fits"]:
            changes = program.changes(found["total"] / self.machine.memory)
            found["tried"] = [self._tried(program, dearest, change) for change in changes]
        return found

    def _tried(self, program: Program, shape: Shape, change: Mapping[str, Any]) -> Record:
        told = " ".join(f"config.{name}={value}" for name, value in change.items())
        self.log.live(f"compiling {shape} with {told}")
        total = program.changed(change).memory(shape)["total"]
        return {"change": told, "total": total, "fits": total <= self.machine.memory}

    def _time(
        self,
        spec: StageSpec[Any, Any],
        program: Program,
        data: TrainingData,
        batches: Batches,
        found: Record,
        evaluations: float,
    ) -> Record:
        """Predicted seconds by part; nothing where the program would not fit."""
        if found["memory"] and not found["memory"]["fits"]:
            return {}
        speed = self._speed(spec, program, batches)
        if not speed:
            return {}
        flops, teacher, steps = found["flops"], found["teacher"], found["steps"]
        training = speed.fixed * steps + flops["step_padded"] / speed.rate
        live, once = teacher.get("live", 0.0), teacher.get("once", 0.0)
        parts = {"training": training + live / speed.rate, "teacher": once / speed.rate}
        parts["evaluation"] = evaluations / speed.rate
        told = {"seconds": sum(parts.values()), "parts": parts}
        if steps:
            most = self.machine.flops * parts["training"]
            asked = flops["teacher"] if live else 0.0
            told |= {"step_seconds": parts["training"] / steps, "mfu": (flops["step"] + asked) / most}
            told["mfu_padded"] = (flops["step_padded"] + live) / most
        return told

    def _speed(self, spec: StageSpec[Any, Any], program: Program, batches: Batches) -> Speed | None:
        """Timed on processors, once for all stages of the same shape; else from the table."""
        if self.machine.accelerator:
            traffic = ADAMW / 4 * program.share["parameters"] / self.machine.accelerator.bandwidth
            again = 4 / 3 if spec.encoder.remat == "full" else 1.0
            return Speed(traffic, self.machine.speed(spec.encoder.dtype) / again)
        batch = f"{program.layout.rows} / {program.layout.micro_batches}"
        key = f"{program.architecture} {spec.encoder} {spec.method.name} {batch}"
        if key not in self.timed and batches:
            self.log.live("timing a few steps")
            self.timed[key] = program.timed(batches)
        return self.timed.get(key) or next(iter(self.timed.values()), None)


def _whole(settings: StageSettings[Any, Any], data: TrainingData, weights: Weights):
    """The plan of all rows: of a streamed corpus the one that reads it by blocks."""
    if not data.streamed:
        return data.plan
    plan = streams.plan_blocks(settings, data.task, data.rows, data.features, data.plan.edges, weights.architecture)
    plan.close()
    return plan


def _size(shape: Shape) -> int:
    return sum(length for _, length in shape.lengths)


def _batches(plan, steps: int, rows: int) -> Batches:
    """Return the batches of the first epoch by shape, smallest first, padded to `rows`; no more than the run has."""
    found = collections.defaultdict(list)
    for step in range(min(steps, plan.steps_per_epoch)):
        planned = plan.at(step).pad_rows(rows)
        found[planned.shape].append(planned)
    return {shape: found[shape] for shape in sorted(found, key=_size)}


def _data(data: TrainingData, sets: Mapping[str, Any]) -> Record:
    """What goes in, and what its features take on disk."""
    plan = data.plan
    lengths = plan.lengths[plan.view]
    padding = measure_padding(lengths, [dict(shape.lengths)[plan.view] for shape in plan.shapes])
    every = [data.features, *(ready.features for ready in sets.values())]
    return {
        "rows": len(data.rows),
        "windows": None if data.streamed else len(lengths),
        "tokens": round(float(lengths.sum()) * len(data.rows) / len(data.tokenized)),
        "padding": padding.padding,
        "padding_at_longest": padding.padding_at_longest,
        "evaluated_rows": {name: len(ready.rows) for name, ready in sets.items()},
        "features_bytes": sum(array.nbytes for features in every for array in features.values()),
    }


def _buckets(batches: Batches, steps: int) -> list[Record]:
    """Each shape with its share of the steps and of padding."""
    counted = sum(map(len, batches.values()))
    return [{"shape": str(shape), "steps": round(len(of) * steps / counted)} for shape, of in batches.items()]


def _flops(method: Method, batches: Batches, data: TrainingData, steps: int) -> Record:
    """Of the whole stage: of real tokens as the run's MFU counts them, and of all positions; the teacher's forward
    passes apart, as if each step asked."""
    found = dict.fromkeys(("step", "step_padded", "teacher", "teacher_padded"), 0.0)
    lengths, counted = data.plan.lengths[data.plan.view], sum(map(len, batches.values()))
    functions = {"step": lambda *of: 3 * method.flops(*of)}
    if method.teacher:
        functions["teacher"] = method.teacher.flops
    for shape, planned in batches.items():
        for name, flops in functions.items():
            real = sum(flops(int(lengths[step.index[step.index >= 0]].sum()), step.examples) for step in planned)
            found[name] += real * steps / counted
            padded = flops(shape.rows * shape.lengths[0][1], shape.rows)
            found[f"{name}_padded"] += padded * len(planned) * steps / counted
    return found


def _evaluation_flops(spec: StageSpec[Any, Any], program: Program, sets: Mapping[str, Any], steps: int) -> float:
    """Of all evaluations: before the first step, at every so many, after the last."""
    every = spec.eval.every or steps
    times = len({steps, *range(every, steps, every)} | ({0} if spec.eval.start else set())) if steps else 1
    total = 0.0
    for ready in sets.values():
        own = ready.task.name == spec.task.name
        for lengths in ready.task.lengths(ready.features).values():
            tokens = measure_padding(lengths, choose_edges(lengths, spec.data.buckets)).bucketed_tokens
            total += program.method.flops(tokens, len(lengths)) if own else program.forward_flops(tokens, len(lengths))
    return times * total


def _teacher(
    spec: StageSpec[Any, Any], data: TrainingData, program: Program, flops: Record, known: Mapping[str, Weights]
) -> Record:
    """Who teaches, what asking costs, whether answers can be kept: `live` FLOPs within steps, `once` before them."""
    if spec.teachers and program.method.classifiers:
        return {"kind": "once", **_classifiers(spec, data, known)}
    teacher = program.method.teacher
    if not teacher:
        return {}
    asked, step = flops["teacher_padded"], flops["step_padded"]
    told = {"uses": teacher.uses, "share": asked / step, "bytes": program.target_bytes()}
    if teacher.evolves:
        return told | {"kind": "evolves", "uses": 1.0, "live": asked}
    if spec.teacher.cache == "off" or teacher.uses <= 1:
        return told | {"kind": "off" if teacher.uses > 1 else "used once", "live": asked}
    once = asked / teacher.uses
    return told | {"kind": "kept", "once": once, "gain": (step + asked) / (step + once)}


def _classifiers(spec, data: TrainingData, known: Mapping[str, Weights]) -> Record:
    """Teachers of classes: asked once for the rows of their language."""
    features, lengths = data.features, data.plan.lengths[data.plan.view]
    languages = np.asarray(features["languages"])[features["language"]]
    total = rows = 0.0
    for tag, names in spec.teachers.items():
        mine = lengths[languages == normalise_tag(tag, "config.teachers")]
        for name in filter(None, map(str.strip, names.split("+"))):
            total += forward_flops(_architecture(name, known), int(mine.sum()), len(mine))
            rows += len(mine)
    return {"once": total, "bytes": rows * 4.0 * len(spec.task.labels), "uses": float(spec.budget.epochs)}


def _architecture(name: str, known: Mapping[str, Weights]):
    return known[name].architecture if name in known else read_folder_architecture(locate_model(name)[0])
