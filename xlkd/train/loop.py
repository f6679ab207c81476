# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The one loop: restore or begin; for each step a batch, targets, a step; evaluate, save and print where due."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from xlkd.data.batches import Plan, Shape
from xlkd.errors import NotFinite, Stopped
from xlkd.methods import Method, Start
from xlkd.tasks import Draw, Features, Task
from xlkd.train import mesh as meshes
from xlkd.train import optim, step
from xlkd.train import state as states
from xlkd.train.checkpoint import Checkpoints, abstract
from xlkd.train.evaluation import own_rows
from xlkd.train.progress import Clock, Log, Metrics, duration
from xlkd.train.signals import Signals


@dataclasses.dataclass
class Job:
    """All that training a stage needs; `evaluate(step, variables, stop)` does what of its files is not there yet."""

    method: Method
    start: Callable[[], Start]
    task: Task
    features: Features
    plan: Plan
    steps: int
    seed: int
    optim: Any
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


def train(job: Job, signals: Signals) -> states.State:
    """The state after the last step; every evaluation and checkpoint that was due is on disk."""
    clock = Clock()
    state, shardings = _begin(job)
    first = int(state.step)
    compiled = _compile(job, state, shardings, clock)
    metrics, pending, meter = job.metrics(first), [], _Meter(job, first, clock)
    saved = set(job.checkpoints.steps())
    clock.to("train")

    def save(at: int, *, wait: bool = False) -> None:
        _check(job, state)
        if at not in saved:
            former = clock.to("save")
            job.checkpoints.save(at, state, wait=wait)
            saved.add(at)
            clock.to(former)

    def stop(at: int) -> None:
        if signals.asked:
            save(at, wait=True)
            raise Stopped(f"{signals.asked}: saved at step {at}; the same command goes on from there")

    def boundary(at: int) -> None:
        evaluated = at == job.steps or (at % job.evaluate_every == 0 and (at or job.evaluate_start))
        if evaluated:
            _check(job, state)
            former = clock.to("evaluate")
            job.evaluate(at, state.variables, lambda: stop(at))
            clock.to(former)
        if evaluated or (at and at % job.save_every == 0):  # what was evaluated may be the best
            save(at, wait=at == job.steps)

    try:
        boundary(first)
        for at, (batch, shape, tokens) in zip(range(first, job.steps), _batches(job, first), strict=True):
            with jax.transfer_guard("disallow"):
                state, report = compiled[shape](state, batch, ())
            pending.append(report)
            meter.add(shape, tokens)
            done = at + 1
            if done % job.log_every == 0 or done == job.steps:
                values = _values(pending)
                pending.clear()
                if not values.pop("ok"):
                    _check(job, state)
                metrics.write(done, values)
                job.log.live(meter.line(done, values), keep=done % (10 * job.log_every) == 0 or done == job.steps)
            boundary(done)
            stop(done)
    finally:
        metrics.close()
    return state


def _begin(job: Job):
    """The state of the last checkpoint, or the one before step 0, on its devices."""
    optimizer = optim.optimizer(job.optim)

    start = job.start()

    def create(encoder, heads):
        return states.create(job.method, start._replace(encoder=encoder, heads=heads), optimizer, job.seed)

    saved = job.checkpoints.steps()
    shape = jax.eval_shape(create, start.encoder, start.heads)
    shardings = meshes.shardings(job.mesh, shape)
    if saved:
        job.log(f"restored step {saved[-1]}")
        return job.checkpoints.restore(saved[-1], abstract(shape, shardings)), shardings
    # Jitted, so that each leaf is a buffer of its own: a buffer that stood twice in a donated tree would be refused.
    return jax.jit(create, out_shardings=shardings)(start.encoder, start.heads), shardings


def _compile(job: Job, state, shardings, clock: Clock) -> dict[Shape, Callable]:
    """One step function a bucket shape, ahead of time, with its memory."""
    former = clock.to("compile")
    rate = optim.schedule(job.optim, job.steps)
    function = step.make(
        job.method,
        optim.optimizer(job.optim),
        rate,
        seed=job.seed,
        clip_norm=job.optim.clip,
        micro_batches=job.optim.micro_batches,
    )
    # The whole report is read on the host, so it is replicated; the state keeps its placement.
    jitted = jax.jit(function, donate_argnums=0, out_shardings=(shardings, meshes.replicated(job.mesh)))
    compiled = {}
    for shape in job.plan.shapes:
        example = job.task.arrays(job.features, own_rows(np.full(shape.rows, -1)), dict(shape.lengths), Draw(0, 0))
        batch = meshes.place_batch(job.mesh, example, shape.rows)
        compiled[shape] = jitted.lower(state, batch, ()).compile()
        job.log(f"compiled {shape}: {_memory(compiled[shape]) / 2**20:.0f} MiB a device")
    clock.to(former)
    return compiled


def _memory(compiled) -> int:
    """Bytes on a device: the peak that CPU reports leaves the temporaries out."""
    found = compiled.memory_analysis()
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held + found.temp_size_in_bytes


def _batches(job: Job, first: int) -> Iterator[tuple[Any, Shape, int]]:
    """Placed batches from step `first` on, made by threads ahead of the loop."""
    import grain

    lengths = next(iter(job.task.lengths(job.features).values()))

    def build(at: int):
        planned = job.plan.at(at)
        arrays = job.task.arrays(job.features, own_rows(planned.index), dict(planned.shape.lengths), Draw(job.seed, at))
        return arrays, planned.shape, int(lengths[planned.index[planned.index >= 0]].sum())

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    for arrays, shape, tokens in grain.MapDataset.range(first, job.steps).map(build).to_iter_dataset(ahead):
        yield meshes.place_batch(job.mesh, arrays, shape.rows), shape, tokens


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
        raise NotFinite(at, [f"{key:016x}" for key in job.features["keys"][index[index >= 0]]])


class _Meter:
    """Speed since the start of this process, without compiling, evaluating and saving."""

    def __init__(self, job: Job, first: int, clock: Clock) -> None:
        self._job, self._first, self._clock = job, first, clock
        self._rows = self._tokens = 0
        self._flops = 0.0

    def add(self, shape: Shape, tokens: int) -> None:
        self._rows += shape.rows
        self._tokens += tokens
        self._flops += 3 * self._job.method.flops(tokens, shape.rows)

    def line(self, done: int, values: dict[str, float]) -> str:
        seconds = max(self._clock.of("train"), 1e-9)
        left = (self._job.steps - done) * seconds / max(done - self._first, 1)
        speed = f"{self._rows / seconds:.0f} examples/s  {self._tokens / seconds:.0f} tokens/s"
        utilisation = f"  MFU {self._flops / seconds / self._job.peak_flops:.0%}" if self._flops else ""
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name not in ("grad_norm",))
        return f"step {done}/{self._job.steps}  {shown}  {speed}{utilisation}  ETA {duration(left)}"
