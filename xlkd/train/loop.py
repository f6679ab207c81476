# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The training loop of all methods: restores or creates the state, takes the steps, evaluates, saves and logs."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from xlkd import cli
from xlkd.data.batches import Plan, PlannedBatch, Shape
from xlkd.data.blocks import Blocks
from xlkd.data.draw import format_keys
from xlkd.errors import NotFinite, Stopped, UserError
from xlkd.methods import Batch, Method, Start, State, Teacher, Tree, Variables, key_for
from xlkd.models.attention import has_fused_attention
from xlkd.runtime import devices, distributed
from xlkd.runtime import mesh as meshes
from xlkd.runtime.hosts import HostComparison
from xlkd.runtime.log import Clock, Log, Metrics, NoMetrics, format_duration, time_values
from xlkd.runtime.profiling import Profiler
from xlkd.runtime.signals import Signals
from xlkd.spec import stage as spec
from xlkd.spec.optim import Optim
from xlkd.tasks import Draw, Features, Task
from xlkd.train.checkpoint import Checkpoints, make_abstract
from xlkd.train.optim import make_optimizer, make_schedule
from xlkd.train.state import create_state, shard_state
from xlkd.train.step import Report, make_step
from xlkd.train.targets import Targets, choose_targets

Advance = Callable[[int, State], State]  # (step, state) -> the state in which the step is taken
Compiled = jax.stages.Compiled


@dataclasses.dataclass
class Job:
    """The inputs of the training of one stage.

    `evaluate(step, variables, stop)` evaluates what has not been evaluated at that step yet, and calls `stop` between
    two sets.
    """

    method: Method
    start: Callable[[], Start]
    task: Task
    features: Features  # of all examples; of a sample if the plan reads them in blocks
    plan: Plan | Blocks
    steps: int
    schedule_steps: int  # of the learning rate; more than `steps` where training stops early
    seed: int
    optim: Optim
    save_every: int
    evaluate_every: int
    evaluate_start: bool
    log_every: int
    evaluate: Callable[[int, Variables, Callable[[], None]], None]
    is_evaluated: Callable[[int], bool]  # whether the scores of a step are on disk
    checkpoints: Checkpoints
    publish: Callable[[], None]  # makes the stage's files safe before a checkpoint that depends on them
    metrics: Callable[[int], Metrics | NoMetrics]
    log: Log
    mesh: Mesh
    peak_flops: float
    track: Callable[[str, int, Mapping[str, float]], None] = lambda group, step, values: None  # sends to the trackers
    track_goodput: Callable[[int], None] = lambda step: None
    known_targets: Targets | None = None  # those that no teacher of the method computes: of classifiers, or of a file
    teacher_cache: str = "auto"  # or off, or tolerant
    teacher_dtype: str = "float32"  # in which the teacher computes
    profiler: Profiler = dataclasses.field(default_factory=Profiler)
    sharding: spec.Mesh = dataclasses.field(default_factory=spec.Mesh)  # what the axes of the mesh divide

    @functools.cached_property
    def layout(self) -> meshes.BatchLayout:
        """Returns how the rows of a batch are divided over the devices."""
        return meshes.fit_batch(self.mesh, self.plan.batch, self.optim.micro_batches)

    def evaluates_at(self, step: int) -> bool:
        """Returns whether the state at a step is evaluated."""
        return step == self.steps or (step % self.evaluate_every == 0 and (step > 0 or self.evaluate_start))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Returns the shapes that are compiled: those of the plan, with rows for every device."""
        return tuple(shape.with_rows(self.layout.rows) for shape in self.plan.shapes)

    def batch_at(self, step: int) -> PlannedBatch:
        """Returns the examples of a step, padded to rows for every device."""
        return self.plan.at(step).pad_rows(self.layout.rows)

    def features_at(self, step: int) -> Features:
        """Returns the features that the indices of a step's batch refer to."""
        return self.plan.features(step) if isinstance(self.plan, Blocks) else self.features

    def count_tokens(self, step: int, index: np.ndarray) -> int:
        """Counts the tokens of rows of a step, in the first view, which is the most expensive one."""
        if isinstance(self.plan, Blocks):
            lengths = next(iter(self.task.lengths(self.features_at(step)).values()))
        else:
            lengths = self.plan.lengths[self.plan.view]
        return int(lengths[index[index >= 0]].sum())


def train(job: Job, signals: Signals) -> tuple[State, float]:
    """Trains a stage to its last step, saving and evaluating on the way.

    Returns the last state, and the seconds that this process spent on training steps. Raises Stopped after saving where
    a signal came, and NotFinite after a step whose loss or gradient is not finite.
    """
    clock, waited = Clock(job.log.event), []
    clock.switch_to("begin")

    def stop_before_training() -> None:
        if signals.asked:
            raise Stopped(f"{signals.asked}: nothing was trained; the same command resumes")

    state, shardings, advance, source = _restore_or_create(job, stop_before_training)
    first = int(state.step)
    compiled = _compile_steps(job, state, shardings, source, clock) if first < job.steps else {}
    if compiled:
        # Before the first save: this import replaces the import function of all threads, and saves import in a thread
        importlib.import_module("grain")
        clock.switch_to("teacher")
        source.fill_cache(first)
    metrics, pending, meter = job.metrics(first), [], _Meter(job, first, clock)
    warned: set[str] = set()
    saved, hosts = set(job.checkpoints.list_steps()), HostComparison(first)
    clock.switch_to("train", step=first)
    job.log.show(step=first, steps=job.steps)

    def save(at: int, *, wait: bool = False) -> None:
        _check_finite(job, state)
        if at not in saved:
            former = clock.switch_to("save", step=at)
            metrics.flush()
            job.publish()
            job.checkpoints.save(at, state, wait=wait)
            saved.add(at)
            clock.switch_to(former)

    def stop(at: int) -> None:
        if signals.asked:
            save(at, wait=True)
            raise Stopped(f"{signals.asked}: saved at step {at}; the same command resumes from there")

    def evaluate_and_save_if_due(at: int) -> None:
        """Evaluates and saves what is due at a step; at the last step, both."""
        evaluated = job.evaluates_at(at)
        if evaluated:
            _check_finite(job, state)
            former = clock.switch_to("evaluate", step=at)
            job.evaluate(at, state.variables, lambda: stop(at))
            clock.switch_to(former)
        due = evaluated or (at and at % job.save_every == 0)  # a checkpoint that was evaluated may be the best
        if due:
            save(at, wait=at == job.steps)
            devices.release_memory()

    try:
        evaluate_and_save_if_due(first)
        for at, (batch, targets, shape, examples, tokens) in zip(
            range(first, job.steps), time_values(_iterate_batches(job, first, source), waited), strict=True
        ):
            job.profiler.start_if_due(at + 1, state)
            state = advance(at, state)
            with jax.transfer_guard("disallow"), job.profiler.annotate_step(at + 1):
                is_live = targets is None
                if is_live:
                    targets = source.ask_teacher(shape, batch, state)
                new, report = compiled[shape].take_step(state, batch, targets)
                state = new._replace(teacher=state.teacher)
            pending.append(report)
            meter.add(examples, tokens, is_live)
            done = at + 1
            job.profiler.stop_if_due(done, state)
            job.log.show(step=done)
            if done % job.log_every == 0 or done == job.steps:
                values = _average_reports(pending)
                pending.clear()
                if line := hosts.compare(done, clock.seconds("train"), waited):
                    job.log(line)
                job.log.event("train", step=done, waited=round(sum(waited), 4))
                waited.clear()
                if not values.pop("ok"):
                    _check_finite(job, state)
                if (teacher := job.method.teacher) and teacher.evolves:
                    values["generation"] = float(teacher.generation(at))
                metrics.write(done, values)
                if (warning := job.method.warn(values)) and warning not in warned:
                    warned.add(warning)
                    job.log(warning)
                meter.report(done, values)
                if done % (10 * job.log_every) == 0 or done == job.steps:
                    job.log(meter.format_line(done, values))
                    job.track_goodput(done)
            evaluate_and_save_if_due(done)
            stop(done)
    finally:
        job.profiler.close()
        metrics.close()
        clock.switch_to("finish")
    return state, clock.seconds("train")


def _restore_or_create(job: Job, stop: Callable[[], None]) -> tuple[State, Tree, Advance, Targets]:
    """Restores the state of the last checkpoint, or creates the state before step 0, on its devices.

    Returns it with its shardings, the function that changes an evolving teacher, and the source of the targets.
    """
    optimizer, teacher = make_optimizer(job.optim), job.method.teacher
    start = job.start()
    arrays = (start.encoder, start.heads, start.other)
    if distributed.has_several_processes():
        arrays = jax.device_get(arrays)  # jit refuses arrays that are on a device of this process alone

    def with_arrays(encoder: Tree, heads: dict[str, Tree], other: Tree) -> Start:
        return start._replace(encoder=meshes.pad_vocabulary(job.mesh, encoder), heads=heads, other=other)

    def create(*arrays: Tree) -> State:
        return create_state(job.method, with_arrays(*arrays), optimizer, job.seed)

    shapes = jax.eval_shape(create, *arrays)
    shardings = shard_state(job.mesh, shapes, job.sharding)
    abstract = make_abstract(shapes, shardings)
    # Jitted, so that each leaf gets a buffer of its own: a tree with the same buffer twice cannot be donated
    create_state_on_devices = functools.partial(jax.jit(create, out_shardings=shardings), *arrays)
    _evaluate_lost_steps(job, abstract, create_state_on_devices, stop)
    state = job.checkpoints.restore_last(abstract, job.log)
    if state is None:
        state = create_state_on_devices()

    def advance(step: int, state: State) -> State:
        return state

    if teacher is None or not teacher.evolves:
        return state, shardings, advance, choose_targets(job, _create_teacher(job, teacher, with_arrays, arrays))
    return state, shardings, _make_advance(job, teacher, with_arrays, arrays, shardings), choose_targets(job, ())


def _evaluate_lost_steps(
    job: Job, abstract: State, create_state_on_devices: Callable[[], State], stop: Callable[[], None]
) -> None:
    """Evaluates earlier steps again whose scores were damaged: that before training, and those that are saved."""
    saved = job.checkpoints.list_steps()
    for step in sorted({0, *saved[:-1]}) if saved and saved[-1] else ():
        if job.evaluates_at(step) and not job.is_evaluated(step):
            state = job.checkpoints.restore_if_sound(step, abstract) if step in saved else None
            if state is None and step == 0:
                state = create_state_on_devices()
            if state is not None:
                job.evaluate(step, state.variables, stop)


def _create_teacher(
    job: Job, teacher: Teacher | None, with_arrays: Callable[..., Start], arrays: tuple[Tree, ...]
) -> Tree:
    """Creates the variables of a teacher that stays the same, on their devices."""
    if teacher is None:
        return ()

    def create(*arrays: Tree) -> Tree:
        variables = job.method.init(key_for(job.seed, "init"), with_arrays(*arrays))
        return teacher.init(variables, with_arrays(*arrays))

    axes = meshes.list_parameter_axes(job.sharding)
    shardings = meshes.make_shardings(job.mesh, jax.eval_shape(create, *arrays), axes)
    return jax.jit(create, out_shardings=shardings)(*arrays)


def _make_advance(
    job: Job, teacher: Teacher, with_arrays: Callable[..., Start], arrays: tuple[Tree, ...], shardings: Tree
) -> Advance:
    """Makes the function that replaces the teacher in the state where a generation begins."""

    # Donated: without this, an average at every step would need a second copy of the whole state
    @functools.partial(jax.jit, out_shardings=shardings, donate_argnums=0)
    def replace_teacher(state: State, *arrays: Tree) -> State:
        return teacher.advance(state, with_arrays(*arrays), key_for(job.seed, "advance", state.step))

    def advance(step: int, state: State) -> State:
        begins = step > 0 and teacher.generation(step) != teacher.generation(step - 1)
        return replace_teacher(state, *arrays) if begins else state

    return advance


class _Programs(NamedTuple):
    """The compiled programs of a shape: the step, and what prepares its targets, if the method does."""

    step: Compiled
    prepare: Compiled | None

    def take_step(self, state: State, batch: Batch, targets: Tree) -> tuple[State, Report]:
        """Takes a step from a state, of which all but the teacher is donated."""
        targets = self.prepare(batch, targets) if self.prepare else targets
        return self.step(state._replace(teacher=()), batch, targets)


def _compile_steps(job: Job, state: State, shardings: Tree, source: Targets, clock: Clock) -> dict[Shape, _Programs]:
    """Compiles the step for each bucket shape before the first step, and logs the memory that it needs."""
    former = clock.switch_to("compile")
    parts = job.layout.micro_batches
    jitted = jit_step(
        job.method,
        job.optim,
        job.schedule_steps,
        job.seed,
        job.mesh,
        shardings,
        micro_batches=parts,
        sharding=job.sharding,
    )
    if line := job.layout.describe():
        job.log(line)
    compiled = {}
    for shape in job.shapes:
        example = job.task.arrays(
            job.features_at(int(state.step)),
            meshes.select_local_rows(job.mesh, np.full(shape.rows, -1)),
            dict(shape.lengths),
            Draw(0, 0),
        )
        batch = meshes.place_batch(job.mesh, example, shape.rows)
        targets = source.compile(shape, batch, state)
        prepare = jit_prepare(job.method, job.mesh)
        prepared = jax.eval_shape(prepare, batch, targets) if prepare else targets
        step = jitted.lower(state._replace(teacher=()), batch, prepared).compile()
        compiled[shape] = _Programs(step, prepare.lower(batch, targets).compile() if prepare else None)
        needed = measure_memory(step)
        job.log(f"compiled {shape}: {needed / 2**20:.0f} MiB per device{_describe_attention(step)}")
        if (
            job.mesh.devices.flat[0].platform == "cpu" and needed > cli.available_memory_bytes()
        ):  # which Linux would kill
            what = f"a step of {shape} needs {needed / 2**30:.0f} GiB, more than this machine has"
            raise UserError(what, "config.data.batch", "lower it, or raise optim.micro_batches")
        devices.release_memory()
    clock.switch_to(former)
    distributed.barrier("compiled")
    return compiled


def _describe_attention(compiled: Compiled) -> str:
    """Says for a GPU's program whether it has cuDNN's fused attention."""
    if jax.default_backend() != "gpu":
        return ""
    return ", attention by cuDNN" if has_fused_attention(compiled.as_text() or "") else ", attention by products"


def jit_step(
    method: Method,
    settings: Optim,
    steps: int,
    seed: int,
    mesh: Mesh,
    shardings: Tree,
    *,
    micro_batches: int,
    sharding: spec.Mesh,
) -> jax.stages.Wrapped:
    """Jits the step of a method: the state except the teacher is donated and keeps its shardings."""
    rate = make_schedule(settings, method.period or steps)
    moments = optax.tree.get(shardings.optimizer, "mu")
    layout = meshes.lay_out_gradient(mesh, sharding, shardings.variables.params, moments)
    options = {"clip_norm": settings.clip, "micro_batches": micro_batches, "layout": layout}
    function = make_step(method, make_optimizer(settings), rate, seed=seed, **options)
    report = meshes.replicated_sharding(mesh)  # every process reads the complete report
    return jax.jit(
        meshes.trace_with_mesh(mesh, function), donate_argnums=0, out_shardings=(shardings._replace(teacher=()), report)
    )


def jit_prepare(method: Method, mesh: Mesh) -> jax.stages.Wrapped | None:
    """Jits what makes the targets of a step from those of the teacher; None if the step takes them as they are."""
    if method.prepare is None:
        return None
    return jax.jit(meshes.trace_with_mesh(mesh, method.prepare), out_shardings=meshes.row_sharding(mesh))


def measure_memory(compiled: Compiled) -> int:
    """Returns the bytes that a compiled function needs on a device.

    They are added up from the parts, because the peak that the CPU compiler reports leaves the temporaries out.
    """
    parts = compiled.memory_analysis()
    assert parts is not None, "the CPU, GPU and TPU compilers report the memory"
    arrays = parts.argument_size_in_bytes + parts.output_size_in_bytes - parts.alias_size_in_bytes
    return arrays + parts.temp_size_in_bytes


def _iterate_batches(job: Job, first: int, source: Targets) -> Iterator[tuple[Batch, Tree | None, Shape, int, int]]:
    """Yields the batches from step `first` on, placed on the devices and built by threads ahead of the loop.

    Each comes with its targets (None if the teacher has to be asked), its shape, and the numbers of its examples and
    of their tokens.
    """
    import grain

    def build(step: int) -> tuple[Batch, Tree | None, Shape, int, int]:
        planned, features = job.batch_at(step), job.features_at(step)
        local_rows = meshes.select_local_rows(job.mesh, planned.index)
        arrays = job.task.arrays(features, local_rows, dict(planned.shape.lengths), Draw(job.seed, step))
        tokens = job.count_tokens(step, planned.index)
        return arrays, source.for_batch(planned, features), planned.shape, planned.examples, tokens

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    steps = grain.MapDataset.range(first, job.steps)
    for arrays, known, shape, examples, tokens in steps.map(build).to_iter_dataset(ahead):
        targets = None if known is None else meshes.place_batch(job.mesh, known, shape.rows)
        yield meshes.place_batch(job.mesh, arrays, shape.rows), targets, shape, examples, tokens


def _average_reports(pending: list[Report]) -> dict[str, float]:
    """Averages the reports of several steps: sums and counts are added first, and divided once."""
    reports = jax.device_get(pending)
    values: dict[str, float] = {}
    for name in reports[-1]["terms"]:
        total, count = (sum(float(r["terms"][name][i]) for r in reports) for i in (0, 1))
        values[name] = total / count if count else 0.0
    last = reports[-1]
    values |= {"loss": float(np.mean([r["loss"] for r in reports])), "lr": float(last["lr"])}
    return values | {"grad_norm": float(last["grad_norm"]), "ok": bool(last["ok"])}


def _check_finite(job: Job, state: State) -> None:
    """Refuses to save or evaluate a state after a step that was not finite."""
    if not bool(jax.device_get(state.ok)):
        step = int(state.step)
        index = job.plan.at(step).index
        raise NotFinite(step, format_keys(job.features_at(step)["keys"][index[index >= 0]]))


class _Meter:
    """Measures the speed since the start of this process, without compiling, evaluating and saving."""

    def __init__(self, job: Job, first: int, clock: Clock) -> None:
        self._job, self._first, self._clock = job, first, clock
        self._examples = self._tokens = 0
        self._flops = 0.0

    def add(self, examples: int, tokens: int, is_live: bool) -> None:
        """Counts a step without its padding; `is_live` says that the teacher computed its targets in this step."""
        method = self._job.method
        self._examples += examples
        self._tokens += tokens
        self._flops += 3 * method.flops(tokens, examples)
        if is_live and method.teacher:
            self._flops += method.teacher.flops(tokens, examples)

    def report(self, done: int, values: dict[str, float]) -> None:
        """Sends the values and the speed after a step to the trackers, and shows them."""
        speed = self._measure(done)
        tags = {f"train/{name}": value for name, value in (values | speed.list_values()).items()}
        memory = {f"system/{name}": value for name, value in devices.measure_memory().items()}
        self._job.track("train", done, tags | memory)
        self._job.log.show(values=_format_values(values), speed=str(speed), eta=format_duration(speed.seconds_left))

    def format_line(self, done: int, values: dict[str, float]) -> str:
        """Formats the progress line after a step."""
        speed = self._measure(done)
        progress = f"step {done}/{self._job.steps}  {_format_values(values)}"
        return f"{progress}  {speed}  ETA {format_duration(speed.seconds_left)}"

    def _measure(self, done: int) -> _Speed:
        seconds = max(self._clock.seconds("train"), 1e-9)
        left = (self._job.steps - done) * seconds / max(done - self._first, 1)
        mfu = compute_mfu(self._flops, seconds, self._job.peak_flops)
        return _Speed(self._examples / seconds, self._tokens / seconds, mfu, left)


def compute_mfu(flops: float, seconds: float, peak_flops: float) -> float:
    """Returns the share of the peak rate that was reached; NaN without FLOPs, or above a peak that was measured low."""
    share = flops / seconds / peak_flops
    return share if 0 < share <= 1 else math.nan


class _Speed(NamedTuple):
    """The speed of a stage since the start of this process; `mfu` is NaN where it is not known."""

    examples_per_second: float
    tokens_per_second: float
    mfu: float
    seconds_left: float

    def __str__(self) -> str:
        """Returns the speed as the progress line has it."""
        utilisation = "" if math.isnan(self.mfu) else f"  MFU {self.mfu:.0%}"
        return f"{self.examples_per_second:.0f} examples/s  {self.tokens_per_second:.0f} tokens/s{utilisation}"

    def list_values(self) -> dict[str, float]:
        """Returns the values for trackers."""
        values = {"examples_per_second": self.examples_per_second, "tokens_per_second": self.tokens_per_second}
        return values if math.isnan(self.mfu) else values | {"mfu": self.mfu}


def _format_values(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "grad_norm")
