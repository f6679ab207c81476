# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Compiles a stage's training step for shapes instead of arrays, and measures its memory and its speed."""

from __future__ import annotations

import collections
import dataclasses
import functools
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
from xlkd.methods import Method, Start, State, Teacher, Tree
from xlkd.models import encoder as encoders
from xlkd.models.family import Architecture
from xlkd.planning import traffic
from xlkd.planning.machine import Machine
from xlkd.runtime import mesh as meshes
from xlkd.spec.optim import Optim
from xlkd.spec.stage import AnyStage
from xlkd.tasks import Draw
from xlkd.train import loop
from xlkd.train.checkpoint import make_abstract
from xlkd.train.optim import make_optimizer
from xlkd.train.state import create_state, shard_state

CHECKPOINTS = 3  # that a run keeps: the best and the last two
TIMING_SECONDS = 10.0  # no step is timed after these
Record = dict[str, Any]
Batches = Mapping[Shape, list[PlannedBatch]]


class Speed(NamedTuple):
    """The speed of a step: its seconds are fixed + FLOPs / rate."""

    fixed: float
    rate: float


class Program:
    """A stage's training step for shapes, with the state and the teacher that it works on."""

    def __init__(
        self,
        spec: AnyStage,
        data: inputs.TrainingData,
        weights: Weights,
        teacher: Weights | None,
        machine: Machine,
    ) -> None:
        self._arguments, self._data, self._machine = (data, weights, teacher, machine), data, machine
        self._programs: dict[Shape, Any] = {}
        self._spec, self._task, self._features = spec, data.task, data.features
        self.architecture = weights.architecture
        encoders_of_stage = [build_encoder(spec.encoder, part.architecture) for part in (weights, teacher) if part]
        self.method: Method = inputs.load_module("methods", spec.method.name).build(spec, *encoders_of_stage)
        self.mesh = meshes.build_mesh(spec.mesh, machine.devices, machine.slices)
        self.layout = meshes.fit_batch(self.mesh, spec.data.batch, spec.optim.micro_batches)
        encoder = jax.eval_shape(
            functools.partial(meshes.pad_vocabulary, self.mesh), _shape_encoder(weights.architecture)
        )
        start = Start(weights.architecture, encoder, {})
        start = start._replace(other=_shape_encoder(teacher.architecture) if teacher else ())
        state, fixed_teacher = _shape_state(self.method, start, spec.optim)
        self._shardings = shard_state(self.mesh, state, spec.mesh)
        self._state = make_abstract(state, self._shardings)
        self._teacher = self._state.teacher
        if fixed_teacher is not None:
            axes = meshes.list_parameter_axes(spec.mesh)
            self._teacher = make_abstract(fixed_teacher, meshes.make_shardings(self.mesh, fixed_teacher, axes))
        variables = self._state.variables
        self.bytes = {  # on a device
            "parameters": _count_device_bytes(variables.params),
            "not trained": _count_device_bytes((variables.frozen, variables.statistics)),
            "moments": _count_device_bytes(self._state.optimizer),
            "teacher": _count_device_bytes(self._teacher),
        }

    def count_parameters(self) -> dict[str, int]:
        """Counts the trained values by part of the model."""
        counts: dict[str, int] = collections.Counter()
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._state.variables.params):
            names = [part.key for part in path]
            counts[names[1] if names[0] in ("encoder", "trunk") else names[0]] += leaf.size
        return dict(counts)

    def checkpoint_bytes(self) -> int:
        """Returns the bytes on disk of all checkpoints that a run keeps."""
        return CHECKPOINTS * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self._state))

    def measure_memory(self, shape: Shape) -> Record:
        """Returns the bytes on a device as the compiler counts them: of the `program`, in `total`, and by `parts`.

        The rows of the shape do not matter: those of the stage's batches are taken.
        """
        shape = shape.with_rows(self.layout.rows)
        state = self.bytes["parameters"] + self.bytes["not trained"] + self.bytes["moments"]
        try:
            program = loop.measure_memory(self._get_compiled(shape))
        except jax.errors.JaxRuntimeError as error:
            program = parse_needed_bytes(str(error))
            if not program:
                raise
        rest = max(program - state, 0)
        gradients = min(self.bytes["parameters"], rest)
        parts = self.bytes | {"gradients": gradients, "batch and activations": rest - gradients}
        return {"program": program, "total": sum(parts.values()), "parts": parts}

    def measure_traffic(self, shape: Shape) -> Record:
        """Returns what a device sends in a step, as `describe_traffic`; nothing for one device.

        `unused` is the share of the vocabulary that the training examples do not have.
        """
        if self.mesh.size == 1:
            return {}
        params = self._state.variables.params
        encoder = params["trunk"] if "trunk" in params else params["encoder"]
        vocabulary = encoder["embeddings"]["words"].shape[0]
        program = self._get_compiled(shape.with_rows(self.layout.rows)).as_text()
        own = [ids for name, ids in self._features.items() if name.endswith("ids") and not name.startswith("teacher")]
        seen = len(np.unique(np.concatenate(own)))
        record = traffic.describe_traffic(program, self.mesh.size, vocabulary)
        return record | {"unused": max(1 - seen / self.architecture.vocab_size, 0.0)}

    def suggest_changes(self, over: float) -> list[dict[str, Any]]:
        """Returns settings that may make a program fit which needs `over` times the memory, least costly first."""
        now = self.layout.micro_batches
        tries: list[dict[str, Any]] = [{"encoder.remat": "full"}] if self._spec.encoder.remat != "full" else []
        if layout := self.find_layout():
            tries += [layout | {"mesh.fsdp_shards": "moments"}, layout]
        most = self.layout.rows // meshes.count_row_shards(self.mesh)
        parts = [n for n in range(now + 1, most + 1) if most % n == 0]
        enough = [n for n in parts if n > 1.3 * over * now] or parts[-1:]
        return tries + [{"optim.micro_batches": n} for n in enough[:1]]

    def find_layout(self) -> dict[str, Any]:
        """Returns settings with the largest `fsdp` of a slice that fills a TPU's tiles; none where it is set."""
        if self.mesh.shape["fsdp"] > 1:
            return {}
        spread, tile = self.mesh.shape["data"] // self._machine.slices, meshes.find_tile(self.mesh)
        width = self.architecture.hidden_size
        sizes = [n for n in range(2, spread + 1) if spread % n == 0 and width % n == 0 and width // n % tile == 0]
        if not sizes:
            return {}
        layout = {"mesh.fsdp": sizes[-1]}
        return layout if self._spec.mesh.data == -1 else {"mesh.data": self.mesh.shape["data"] // sizes[-1]} | layout

    def with_settings(self, change: Mapping[str, Any]) -> Program:
        """Returns the program of the same stage with changed settings, named as `encoder.remat`."""
        spec = self._spec
        for name, value in change.items():
            block, key = name.split(".")
            spec = dataclasses.replace(spec, **{block: dataclasses.replace(getattr(spec, block), **{key: value})})
        return Program(spec, *self._arguments)

    def forward_flops(self, tokens: int, rows: int) -> float:
        """Returns the FLOPs of a forward pass of the encoder alone."""
        return encoders.forward_flops(self.architecture, tokens, rows)

    def count_target_bytes(self, teacher: Teacher) -> float:
        """Returns the bytes on disk of the teacher's targets for all training examples, without padding."""
        plan = self._data.plan
        batch = self._shape_batch(plan.shapes[-1].with_rows(self.layout.rows))
        targets = jax.eval_shape(teacher.forward, self._teacher, batch)
        lengths, total = plan.lengths[plan.view], 0.0
        for name, x in targets.items():
            ragged = name in teacher.ragged
            values = lengths.sum() * math.prod(x.shape[2:]) if ragged else len(lengths) * math.prod(x.shape[1:])
            total += float(values) * x.dtype.itemsize
        return total * len(self._data.rows) / len(self._data.tokenized)

    def time_steps(self, batches: Batches) -> Speed:
        """Measures the speed of steps of the smallest and of the largest shape, with random parameters."""
        random = np.random.default_rng(0)

        def draw_like(x: jax.ShapeDtypeStruct) -> jax.Array:
            """Draws an array of this shape; integers are 1."""
            floating = np.issubdtype(x.dtype, np.floating)
            value = (
                0.02 * np.abs(random.standard_normal(x.shape, np.float32)) if floating else np.ones(x.shape, x.dtype)
            )
            return jax.device_put(value.astype(x.dtype), x.sharding)

        times = {}
        smallest, *_, largest = (*batches, *batches)
        for shape in dict.fromkeys((smallest, largest)):
            state = jax.tree.map(draw_like, self._state._replace(teacher=()))
            arrays = self._task.arrays(self._features, batches[shape][0].index, dict(shape.lengths), Draw(0, 0))
            batch = meshes.place_batch(self.mesh, arrays, shape.rows)
            targets = jax.tree.map(draw_like, self._shape_targets(shape))
            compiled = self._get_compiled(shape)
            seconds = []
            while len(seconds) < 3 and sum(seconds) < TIMING_SECONDS:
                since = time.perf_counter()
                state, _ = jax.block_until_ready(compiled(state, batch, targets))
                seconds.append(time.perf_counter() - since)
            times[3 * self.method.flops(shape.rows * shape.lengths[0][1], shape.rows)] = min(seconds)
        return fit_speed(times)

    def _get_compiled(self, shape: Shape) -> Any:
        if shape not in self._programs:
            self._programs[shape] = self._compile(shape)
        return self._programs[shape]

    def _compile(self, shape: Shape) -> Any:
        spec = self._spec
        jitted = loop.jit_step(
            self.method,
            spec.optim,
            spec.horizon.schedule_steps,
            spec.seed,
            self.mesh,
            self._shardings,
            micro_batches=self.layout.micro_batches,
            sharding=spec.mesh,
        )
        batch, targets = self._shape_batch(shape), self._shape_targets(shape)
        return jitted.lower(self._state._replace(teacher=()), batch, targets).compile()

    def _shape_batch(self, shape: Shape) -> Any:
        arrays = self._task.arrays(self._features, np.full(shape.rows, -1), dict(shape.lengths), Draw(0, 0))
        return self._shard_over_rows(arrays)

    def _shape_targets(self, shape: Shape) -> Any:
        """Returns the shapes of the targets that the step takes."""
        targets, prepare = self._shape_teacher_targets(shape), loop.jit_prepare(self.method, self.mesh)
        return jax.eval_shape(prepare, self._shape_batch(shape), targets) if prepare else targets

    def _shape_teacher_targets(self, shape: Shape) -> Any:
        """Returns the shapes of the targets of the teacher, or of classifiers whose logits are cached."""
        if self._spec.teachers and self.method.classifiers:
            labels = np.zeros((shape.rows, len(self._spec.task.labels)), np.float32)
            return self._shard_over_rows({"teacher": labels, "taught": labels[:, 0]})
        if self.method.learns_vectors:
            return self._shard_over_rows({"vectors": np.zeros((shape.rows, self._spec.vector_width), np.float32)})
        if not self.method.teacher:
            return ()
        return self._shard_over_rows(
            jax.eval_shape(self.method.teacher.forward, self._teacher, self._shape_batch(shape))
        )

    def _shard_over_rows(self, tree: Any) -> Any:
        def with_sharding(x: Any) -> jax.ShapeDtypeStruct:
            dtype = jax.dtypes.canonicalize_dtype(x.dtype)
            return jax.ShapeDtypeStruct(x.shape, dtype, sharding=meshes.row_sharding(self.mesh))

        return jax.tree.map(with_sharding, tree)


def parse_needed_bytes(message: str) -> int:
    """Returns the bytes that a program needs, by the message with which a TPU's compiler refuses it; 0 for others."""
    match = re.search(r"\(([\d.]+)([KMGT])\) exceeds available", message)
    return int(float(match[1]) * 2 ** (10 * "KMGT".index(match[2]) + 10)) if match else 0


def fit_speed(seconds: Mapping[float, float]) -> Speed:
    """Fits a fixed time and a rate to the seconds of the least and of the most FLOPs."""
    (low, fast), (high, slow) = min(seconds.items()), max(seconds.items())
    if slow <= fast:  # only one shape, or noise
        return Speed(0.0, high / max(slow, 1e-9))
    fixed = max(fast - low * (slow - fast) / (high - low), 0.0)
    return Speed(fixed, high / (slow - fixed))


def _shape_encoder(architecture: Architecture) -> Tree:
    """Returns the shapes of an encoder's parameters."""
    return jax.eval_shape(lambda key: encoders.init(architecture, key), jax.random.key(0))


def _shape_state(method: Method, start: Start, settings: Optim) -> tuple[State, Tree | None]:
    """Returns the shapes of the state before step 0, and of a teacher that is not part of it."""
    teacher = method.teacher

    def create(encoder: Tree, other: Tree) -> State:
        return create_state(method, start._replace(encoder=encoder, other=other), make_optimizer(settings), 0)

    state = jax.eval_shape(create, start.encoder, start.other)
    if teacher is None or teacher.evolves:
        return state, None

    def init_teacher(encoder: Tree, other: Tree) -> Tree:
        arrays = start._replace(encoder=encoder, other=other)
        return teacher.init(method.init(jax.random.key(0), arrays), arrays)

    return state, jax.eval_shape(init_teacher, start.encoder, start.other)


def _count_device_bytes(tree: Any) -> int:
    """Returns the bytes of a sharded tree on one device, with the padding of its tiles."""
    return sum(
        meshes.count_tiled_values(x.sharding.mesh, x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )
