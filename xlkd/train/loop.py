# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The one loop: restore or begin; for each step a batch, targets, a step; evaluate, save and print where due."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from xlkd.data.batches import Plan, PlannedBatch, Shape
from xlkd.data.blocks import Blocks
from xlkd.data.draw import format_keys
from xlkd.errors import NotFinite, Stopped
from xlkd.methods import Method, Start, key_for
from xlkd.runtime import distributed
from xlkd.runtime import mesh as meshes
from xlkd.runtime.devices import release_memory
from xlkd.runtime.log import Clock, Log, Metrics, format_duration, time_values
from xlkd.runtime.signals import Signals
from xlkd.spec.optim import Optim
from xlkd.tasks import Draw, Features, Task
from xlkd.train import optim, step
from xlkd.train import state as states
from xlkd.train.checkpoint import Checkpoints, abstract
from xlkd.train.targets import Targets, choose_targets


@dataclasses.dataclass
class Job:
    """All that training a stage needs; `evaluate(step, variables, stop)` does what of its files is not there yet."""

    method: Method
    start: Callable[[], Start]
    task: Task
    features: Features | None  # None: of each block when it is entered
    plan: Plan | Blocks
    steps: int
    seed: int
    optim: Optim
    save_every: int
    evaluate_every: int
    evaluate_start: bool
    log_every: int
    evaluate: Callable[[int, Any, Callable[[], None]], None]
    checkpoints: Checkpoints
    metrics: Callable[[int], Metrics]
    log: Log
    mesh: Any
    peak_flops: float
    computed: Targets | None = None  # of classifiers that were asked before
    teacher_cache: str = "auto"  # or off
    teacher_dtype: str = "float32"  # of its computation

    @functools.cached_property
    def layout(self) -> meshes.BatchLayout:
        return meshes.fit_batch(self.mesh, self.plan.batch, self.optim.micro_batches)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Return the shapes that are compiled: those of the plan, with rows for every device."""
        return tuple(shape.with_rows(self.layout.rows) for shape in self.plan.shapes)

    def batch_at(self, step: int) -> PlannedBatch:
        """Return the examples of a step, padded to rows for every device."""
        return self.plan.at(step).pad_rows(self.layout.rows)


def train(job: Job, signals: Signals) -> tuple[states.State, float]:
    """The state after the last step, and the seconds that this process trained; what was due is on disk."""
    clock, waited = Clock(job.log.event), []
    clock.switch_to("begin")
    state, shardings, advance, source = _begin(job)
    first = int(state.step)
    compiled = _compile(job, state, shardings, source, clock) if first < job.steps else {}
    if compiled:
        clock.switch_to("teacher")
        source.prepare()
    metrics, pending, meter = job.metrics(first), [], _Meter(job, first, clock)
    saved = set(job.checkpoints.steps())
    clock.switch_to("train", step=first)

    def save(at: int, *, wait: bool = False) -> None:
        _check(job, state)
        if at not in saved:
            former = clock.switch_to("save", step=at)
            job.checkpoints.save(at, state, wait=wait)
            saved.add(at)
            clock.switch_to(former)

    def stop(at: int) -> None:
        if signals.asked:
            save(at, wait=True)
            raise Stopped(f"{signals.asked}: saved at step {at}; the same command resumes from there")

    def boundary(at: int) -> None:
        evaluated = at == job.steps or (at % job.evaluate_every == 0 and (at or job.evaluate_start))
        if evaluated:
            _check(job, state)
            former = clock.switch_to("evaluate", step=at)
            job.evaluate(at, state.variables, lambda: stop(at))
            clock.switch_to(former)
        due = evaluated or (at and at % job.save_every == 0)  # what was evaluated may be the best
        if due:
            save(at, wait=at == job.steps)
            release_memory()

    try:
        boundary(first)
        for at, (batch, targets, shape, examples, tokens) in zip(
            range(first, job.steps), time_values(_batches(job, first, source), waited), strict=True
        ):
            state = advance(at, state)
            with jax.transfer_guard("disallow"):
                asked = targets is None
                if asked:
                    targets = source.ask(shape, batch, state)
                new, report = compiled[shape](state._replace(teacher=()), batch, targets)
                state = new._replace(teacher=state.teacher)
            pending.append(report)
            meter.add(examples, tokens, asked)
            done = at + 1
            if done % job.log_every == 0 or done == job.steps:
                values = _values(pending)
                pending.clear()
                job.log.event("train", step=done, waited=round(sum(waited), 4))
                waited.clear()
                if not values.pop("ok"):
                    _check(job, state)
                metrics.write(done, values)
                job.log.live(meter.line(done, values), keep=done % (10 * job.log_every) == 0 or done == job.steps)
            boundary(done)
            stop(done)
    finally:
        metrics.close()
        clock.switch_to("finish")
    return state, clock.seconds("train")


def features_of(job: Job, at: int) -> Features:
    """Those that the indices of a step count in."""
    return job.plan.features(at) if job.features is None else job.features


def _begin(job: Job):
    """The state of the last checkpoint, or the one before step 0, on its devices; and where targets come from."""
    optimizer, teacher = optim.optimizer(job.optim), job.method.teacher
    start = job.start()
    given = (start.encoder, start.heads, start.other)
    if distributed.has_several_processes():
        given = jax.device_get(given)  # on a device of this process, it is on none of the others'

    def begun(encoder, heads, other):
        return start._replace(encoder=encoder, heads=heads, other=other)

    def create(*given):
        return states.create(job.method, begun(*given), optimizer, job.seed)

    def teach(*given):
        variables = job.method.init(key_for(job.seed, "init"), begun(*given))
        return teacher.variables(variables, begun(*given))

    def placed(function):
        # Jitted, so that each leaf is a buffer of its own: one that stood twice in a donated tree would be refused.
        shardings = meshes.make_shardings(job.mesh, jax.eval_shape(function, *given))
        return jax.jit(function, out_shardings=shardings), shardings

    create, shardings = placed(create)
    fixed = placed(teach)[0](*given) if teacher and not teacher.evolves else ()
    advance = _advance(job, begun, given, shardings) if teacher and teacher.evolves else lambda at, state: state
    state = job.checkpoints.last(abstract(jax.eval_shape(create, *given), shardings), job.log)
    return create(*given) if state is None else state, shardings, advance, choose_targets(job, fixed)


def _advance(job: Job, begun: Callable, given: tuple, shardings: Any) -> Callable:
    """The state of a step before anything of it is done: another teacher where a generation begins."""
    teacher = job.method.teacher

    @functools.partial(jax.jit, out_shardings=shardings)
    def change(state, *given):
        return teacher.advance(state, begun(*given), key_for(job.seed, "advance", state.step))

    def advance(at: int, state):
        begins = at > 0 and teacher.generation(at) != teacher.generation(at - 1)
        return change(state, *given) if begins else state

    return advance


def _compile(job: Job, state, shardings, source: Targets, clock: Clock) -> dict[Shape, Callable]:
    """One step function a bucket shape, ahead of time, with its memory."""
    former = clock.switch_to("compile")
    parts = job.layout.micro_batches
    jitted = jitted_step(job.method, job.optim, job.steps, job.seed, shardings, micro_batches=parts)
    if line := job.layout.describe():
        job.log(line)
    compiled = {}
    for shape in job.shapes:
        example = job.task.arrays(
            features_of(job, int(state.step)),
            meshes.select_local_rows(job.mesh, np.full(shape.rows, -1)),
            dict(shape.lengths),
            Draw(0, 0),
        )
        batch = meshes.place_batch(job.mesh, example, shape.rows)
        targets = source.example(shape, batch, state)
        compiled[shape] = jitted.lower(state._replace(teacher=()), batch, targets).compile()
        job.log(f"compiled {shape}: {memory(compiled[shape]) / 2**20:.0f} MiB a device")
        release_memory()
    clock.switch_to(former)
    distributed.barrier("compiled")
    return compiled


def jitted_step(
    method: Method, settings: Optim, steps: int, seed: int, shardings: states.State, *, micro_batches: int
) -> jax.stages.Wrapped:
    """The step as it is compiled: the state is donated and stays where it lies, but for the teacher."""
    rate = optim.schedule(settings, method.period or steps)
    parts = {"clip_norm": settings.clip, "micro_batches": micro_batches}
    function = step.make(method, optim.optimizer(settings), rate, seed=seed, **parts)
    mesh = shardings.step.mesh
    report = meshes.replicated_sharding(mesh)  # the whole of it is read on the host
    return jax.jit(
        meshes.trace_with_mesh(mesh, function), donate_argnums=0, out_shardings=(shardings._replace(teacher=()), report)
    )


def memory(compiled) -> int:
    """Bytes on a device: the peak that CPU reports leaves the temporaries out."""
    found = compiled.memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held + found.temp_size_in_bytes


def _batches(job: Job, first: int, source: Targets) -> Iterator[tuple[Any, Any, Shape, int, int]]:
    """Yield placed batches from step `first` on, made by threads ahead of the loop, with those targets that are known.

    Beside them stand the shape, the number of examples and that of their tokens.
    """
    import grain

    dearest = job.plan.lengths[job.plan.view] if job.features is not None else None

    def build(at: int):
        planned, features = job.batch_at(at), features_of(job, at)
        mine = meshes.select_local_rows(job.mesh, planned.index)
        arrays = job.task.arrays(features, mine, dict(planned.shape.lengths), Draw(job.seed, at))
        lengths = next(iter(job.task.lengths(features).values())) if dearest is None else dearest
        tokens = int(lengths[planned.index[planned.index >= 0]].sum())
        return arrays, source.for_batch(planned), planned.shape, planned.examples, tokens

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    for arrays, known, shape, *counts in grain.MapDataset.range(first, job.steps).map(build).to_iter_dataset(ahead):
        targets = None if known is None else meshes.place_batch(job.mesh, known, shape.rows)
        yield meshes.place_batch(job.mesh, arrays, shape.rows), targets, shape, *counts


def _values(pending: list[dict]) -> dict[str, float]:
    """Means over the steps since the last print: sums and counts are added first, divided once."""
    reports = jax.device_get(pending)
    values: dict[str, float] = {}
    for name in reports[-1]["terms"]:
        total, count = (sum(float(r["terms"][name][i]) for r in reports) for i in (0, 1))
        values[name] = total / count if count else 0.0
    last = reports[-1]
    values |= {"loss": float(np.mean([r["loss"] for r in reports])), "lr": float(last["lr"])}
    return values | {"grad_norm": float(last["grad_norm"]), "ok": bool(last["ok"])}


def _check(job: Job, state: states.State) -> None:
    """Stop before anything is saved or evaluated after a step that was not finite."""
    if not bool(jax.device_get(state.ok)):
        at = int(state.step)
        index = job.plan.at(at).index
        raise NotFinite(at, format_keys(features_of(job, at)["keys"][index[index >= 0]]))


class _Meter:
    """Speed since the start of this process, without compiling, evaluating and saving."""

    def __init__(self, job: Job, first: int, clock: Clock) -> None:
        self._job, self._first, self._clock = job, first, clock
        self._examples = self._tokens = 0
        self._flops = 0.0

    def add(self, examples: int, tokens: int, asked: bool) -> None:
        """Count a step: what is padding is no work."""
        method = self._job.method
        self._examples += examples
        self._tokens += tokens
        self._flops += 3 * method.flops(tokens, examples)
        self._flops += method.teacher.flops(tokens, examples) if asked else 0.0

    def line(self, done: int, values: dict[str, float]) -> str:
        seconds = max(self._clock.seconds("train"), 1e-9)
        left = (self._job.steps - done) * seconds / max(done - self._first, 1)
        speed = f"{self._examples / seconds:.0f} examples/s  {self._tokens / seconds:.0f} tokens/s"
        utilisation = f"  MFU {self._flops / seconds / self._job.peak_flops:.0%}" if self._flops else ""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "grad_norm")
        return f"step {done}/{self._job.steps}  {shown}  {speed}{utilisation}  ETA {format_duration(left)}"
