# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A stage's training step over shapes instead of arrays: what it holds on a device, what compiling it says."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from xlkd.data.batches import PlannedBatch, Shape
from xlkd.inputs import data as inputs
from xlkd.inputs.weights import Weights, build_encoder
from xlkd.methods import Method, Start
from xlkd.models import encoder as encoders
from xlkd.planning.machine import Machine
from xlkd.runtime import mesh as meshes
from xlkd.spec.optim import Optim
from xlkd.spec.stage import StageSpec
from xlkd.tasks import Draw
from xlkd.train import loop, optim
from xlkd.train import state as states
from xlkd.train.checkpoint import abstract

KEPT = 3  # checkpoints: the best and the last two
LONG = 10.0  # seconds of timing after which no more steps are made
Record = dict[str, Any]
Batches = Mapping[Shape, list[PlannedBatch]]


class Speed(NamedTuple):
    """Seconds of a step = fixed + FLOPs / rate."""

    fixed: float
    rate: float


class Program:
    """A stage's step over shapes: what it holds, and what compiling it says."""

    def __init__(
        self,
        spec: StageSpec[Any, Any],
        data: inputs.TrainingData,
        weights: Weights,
        other: Weights | None,
        machine: Machine,
    ) -> None:
        self._arguments, self._data, self._machine = (data, weights, other, machine), data, machine
        self._programs: dict[Shape, Any] = {}
        self._spec, self._task, self._features = spec, data.task, data.features
        self.architecture = weights.architecture
        encoders_of_stage = [build_encoder(spec.encoder, part.architecture) for part in (weights, other) if part]
        self.method: Method = inputs.load_module("methods", spec.method.name).build(spec, *encoders_of_stage)
        self.mesh = meshes.build_mesh(spec.mesh, machine.devices, machine.slices)
        self.layout = meshes.fit_batch(self.mesh, spec.data.batch, spec.optim.micro_batches)
        begun = Start(weights.architecture, _encoder(weights.architecture), {})
        begun = begun._replace(other=_encoder(other.architecture) if other else ())
        state, fixed = _state(self.method, begun, spec.optim)
        self._shardings = meshes.make_shardings(self.mesh, state)
        self._state = abstract(state, self._shardings)
        teacher = self._state.teacher if fixed is None else abstract(fixed, meshes.make_shardings(self.mesh, fixed))
        self._teacher = teacher
        variables = self._state.variables
        self.share = {  # bytes a device
            "parameters": _share(variables.params),
            "not trained": _share((variables.frozen, variables.statistics)),
            "moments": _share(self._state.optimizer),
            "teacher": _share(teacher),
        }

    def parameters(self) -> dict[str, int]:
        """Trained values by part."""
        found: dict[str, int] = collections.Counter()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._state.variables.params):
            names = [part.key for part in path]
            found[names[1] if names[0] in ("encoder", "trunk") else names[0]] += leaf.size
        return dict(found)

    def checkpoint_bytes(self) -> int:
        """Of all that are kept."""
        return KEPT * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self._state))

    def memory(self, shape: Shape) -> Record:
        """Count bytes a device by part, for a shape of any rows; gradients are among what the program itself holds."""
        shape = shape.with_rows(self.layout.rows)
        held = self.share["parameters"] + self.share["not trained"] + self.share["moments"]
        try:
            program = loop.memory(self._compiled(shape))
        except jax.errors.JaxRuntimeError as error:
            program = needed(str(error))
            if not program:
                raise
        rest = max(program - held, 0)
        gradients = min(self.share["parameters"], rest)
        parts = self.share | {"gradients": gradients, "batch and activations": rest - gradients}
        return {"program": program, "total": sum(parts.values()), "parts": parts}

    def changes(self, over: float) -> list[dict[str, Any]]:
        """Name what may make a program fit that needs `over` times the memory, least costly first."""
        slices, now = self._machine.slices, self.layout.micro_batches
        tries: list[dict[str, Any]] = [{"encoder.remat": "full"}] if self._spec.encoder.remat != "full" else []
        spread = self.mesh.shape["data"] * self.mesh.shape["fsdp"] // slices
        if spread > self.mesh.shape["fsdp"]:
            tries.append({"mesh.data": slices, "mesh.fsdp": spread})
        most = self.layout.rows // meshes.count_row_shards(self.mesh)
        parts = [n for n in range(now + 1, most + 1) if most % n == 0]
        enough = [n for n in parts if n > 1.3 * over * now] or parts[-1:]
        return tries + [{"optim.micro_batches": n} for n in enough[:1]]

    def changed(self, change: Mapping[str, Any]) -> Program:
        """Returns the program of the same stage with changed settings, named as `encoder.remat`."""
        changed = self._spec
        for name, value in change.items():
            block, key = name.split(".")
            changed = dataclasses.replace(
                changed, **{block: dataclasses.replace(getattr(changed, block), **{key: value})}
            )
        return Program(changed, *self._arguments)

    def forward_flops(self, tokens: int, rows: int) -> float:
        """Of the encoder alone."""
        return encoders.forward_flops(self.architecture, tokens, rows)

    def target_bytes(self) -> float:
        """Of what the teacher says of all training rows, on disk: ragged answers without padding."""
        plan = self._data.plan
        batch = self._batch(plan.shapes[-1].with_rows(self.layout.rows))
        targets = jax.eval_shape(self.method.teacher.forward, self._teacher, batch)
        lengths, total = plan.lengths[plan.view], 0.0
        for name, x in targets.items():
            ragged = name in self.method.teacher.ragged
            values = lengths.sum() * math.prod(x.shape[2:]) if ragged else len(lengths) * math.prod(x.shape[1:])
            total += float(values) * x.dtype.itemsize
        return total * len(self._data.rows) / len(self._data.tokenized)

    def timed(self, batches: Batches) -> Speed:
        """From steps of the smallest and of the largest shape, with numbers that mean nothing."""
        random = np.random.default_rng(0)

        def drawn(x):
            zero = not np.issubdtype(x.dtype, np.floating)
            value = np.ones(x.shape, x.dtype) if zero else 0.02 * np.abs(random.standard_normal(x.shape, np.float32))
            return jax.device_put(value.astype(x.dtype), x.sharding)

        found = {}
        smallest, *_, largest = (*batches, *batches)
        for shape in dict.fromkeys((smallest, largest)):
            state = jax.tree.map(drawn, self._state._replace(teacher=()))
            arrays = self._task.arrays(self._features, batches[shape][0].index, dict(shape.lengths), Draw(0, 0))
            batch = meshes.place_batch(self.mesh, arrays, shape.rows)
            targets = jax.tree.map(drawn, self._targets(shape))
            compiled = self._compiled(shape)
            seconds = []
            while len(seconds) < 3 and sum(seconds) < LONG:
                since = time.perf_counter()
                state, _ = jax.block_until_ready(compiled(state, batch, targets))
                seconds.append(time.perf_counter() - since)
            found[3 * self.method.flops(shape.rows * shape.lengths[0][1], shape.rows)] = min(seconds)
        return fitted(found)

    def _compiled(self, shape: Shape) -> Any:
        if shape not in self._programs:
            self._programs[shape] = self._compile(shape)
        return self._programs[shape]

    def _compile(self, shape: Shape) -> Any:
        spec = self._spec
        jitted = loop.jitted_step(
            self.method,
            spec.optim,
            spec.horizon.steps,
            spec.seed,
            self._shardings,
            micro_batches=self.layout.micro_batches,
        )
        lowered = jitted.lower(self._state._replace(teacher=()), self._batch(shape), self._targets(shape))
        return lowered.compile()

    def _batch(self, shape: Shape) -> Any:
        arrays = self._task.arrays(self._features, np.full(shape.rows, -1), dict(shape.lengths), Draw(0, 0))
        return self._over_rows(arrays)

    def _targets(self, shape: Shape) -> Any:
        """As the teacher, or the classifiers that were asked before, give them."""
        if self._spec.teachers and self.method.classifiers:
            labels = np.zeros((shape.rows, len(self._spec.task.labels)), np.float32)
            return self._over_rows({"teacher": labels, "taught": labels[:, 0]})
        if not self.method.teacher:
            return ()
        return self._over_rows(jax.eval_shape(self.method.teacher.forward, self._teacher, self._batch(shape)))

    def _over_rows(self, tree: Any) -> Any:
        def placed(x):
            dtype = jax.dtypes.canonicalize_dtype(x.dtype)
            return jax.ShapeDtypeStruct(x.shape, dtype, sharding=meshes.row_sharding(self.mesh))

        return jax.tree.map(placed, tree)


def needed(refusal: str) -> int:
    """Bytes that a program would have needed, by the words in which a TPU's compiler refuses it; 0 for other words."""
    found = re.search(r"\(([\d.]+)([KMGT])\) exceeds available", refusal)
    return int(float(found[1]) * 2 ** (10 * "KMGT".index(found[2]) + 10)) if found else 0


def fitted(seconds: Mapping[float, float]) -> Speed:
    """From the seconds of the least and the most FLOPs: what is paid whatever the size, and the rate of the rest."""
    (low, fast), (high, slow) = min(seconds.items()), max(seconds.items())
    if slow <= fast:  # one shape, or noise
        return Speed(0.0, high / max(slow, 1e-9))
    fixed = max(fast - low * (slow - fast) / (high - low), 0.0)
    return Speed(fixed, high / (slow - fixed))


def _encoder(architecture: encoders.Architecture) -> Any:
    return jax.eval_shape(lambda key: encoders.init(architecture, key), jax.random.key(0))


def _state(method: Method, begun: Start, settings: Optim) -> tuple[states.State, Any]:
    """The shapes of the state before step 0, and of a teacher that stays outside it."""
    teacher = method.teacher

    def create(encoder, other):
        return states.create(method, begun._replace(encoder=encoder, other=other), optim.optimizer(settings), 0)

    def teach(encoder, other):
        given = begun._replace(encoder=encoder, other=other)
        return teacher.variables(method.init(jax.random.key(0), given), given)

    fixed = jax.eval_shape(teach, begun.encoder, begun.other) if teacher and not teacher.evolves else None
    return jax.eval_shape(create, begun.encoder, begun.other), fixed


def _share(tree: Any) -> int:
    """Bytes on a device."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
