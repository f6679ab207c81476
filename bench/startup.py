# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Time before a command does its work: help, first step, compiling and saving: `python bench/startup.py`.

The first two lines compare seconds with a limit, 2 and 20. The others compare a warm compilation cache with a cold one
(trace and compile of a training step of base shape), and the delay of the loop by asynchronous and synchronous saves.
Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import side_by_side
from side_by_side import Case, Sides

from xlkd import cli

ROOT = pathlib.Path(__file__).parents[1]


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--child"]:
        return _run_child(*arguments[1:])
    flags = side_by_side.parse_flags(arguments)
    with tempfile.TemporaryDirectory(prefix="xlkd-bench-") as folder:
        cases = [
            Case("`xlkd.main --help`, against 2 s", lambda: (_run_help, lambda: 2.0), 1.0, warm=1),
            Case("warm start to first step, against 20 s", lambda: _make_first_step(flags, folder), 1.0, warm=1),
            Case("trace + compile, warm, unrolled", lambda: _make_compiling(flags, folder, "unrolled"), 2.5, True, 1),
            Case("trace + compile, warm, scanned", lambda: _make_compiling(flags, folder, "scanned"), 5.0, True, 1),
            Case("asynchronous save, against waiting", lambda: _make_saving(flags, folder), 10.0, True),
        ]
        side_by_side.judge("start-up", cases, flags)


def _run_help() -> None:
    subprocess.run([sys.executable, "-m", "xlkd.main", "--help"], cwd=ROOT, check=True, capture_output=True)


def _make_first_step(flags: side_by_side.Flags, folder: str) -> Sides:
    """Builds a run of the default until metrics.jsonl has its first step; caches are warm after the first call."""

    def run_first_step() -> float:
        workdir = tempfile.mkdtemp(dir=folder)
        command = [sys.executable, "-m", "xlkd.main", "--config=configs/gxlt.py", f"--workdir={workdir}/run"]
        command += ["--config.log.every=1"]
        if flags.quick:
            command += ["--config.english.data.train=atlas?split=train&size=4&languages=en&facts=2"]
            command += ["--config.english.data.eval="]
        environment = os.environ | {"XLKD_CACHE": f"{folder}/cache"}
        start, metrics = time.perf_counter(), pathlib.Path(workdir, "run/stages/01-english/metrics.jsonl")
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            while not (metrics.exists() and metrics.stat().st_size):
                if child.poll() is not None:
                    raise RuntimeError(f"ended with {child.returncode} before its first step")
                time.sleep(0.02)
            return time.perf_counter() - start
        finally:
            child.kill()
            child.wait()

    return run_first_step, lambda: 20.0


def _make_compiling(flags: side_by_side.Flags, folder: str, layers: str) -> Sides:
    shape = "tiny" if flags.quick else "base"

    def seconds(cache: str) -> float:
        command = [sys.executable, __file__, "--child", shape, layers, cache]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)

    warm = f"{folder}/{layers}"
    seconds(warm)
    return lambda: seconds(warm), lambda: seconds(tempfile.mkdtemp(dir=folder))


def _run_child(shape: str, layers: str, cache: str) -> None:
    """Prints the seconds to trace and compile a step of 4×128; nothing is computed."""
    import jax
    import models

    from xlkd.methods import finetune
    from xlkd.models.encoder import Encoder
    from xlkd.train import optim, state, step

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5 if shape != "tiny" else 0)
    architecture = models.make_architecture(shape)
    stage = models.resolve_stage(models.read_stage("finetune.py", "finetune"))
    method, adam = (
        finetune.build(stage, Encoder(architecture, scan=layers == "scanned")),
        optim.make_optimizer(stage.optim),
    )
    start = time.perf_counter()
    shapes = jax.eval_shape(lambda: state.create_state(method, models.make_start(architecture), adam, 0))
    function = step.make_step(method, adam, optim.make_schedule(stage.optim, models.STEPS), seed=0, clip_norm=1.0)
    batch = models.make_questions(4, 128, architecture.vocab_size)
    jax.jit(function, donate_argnums=0).lower(shapes, batch, ()).compile()
    print(time.perf_counter() - start)


def _make_saving(flags: side_by_side.Flags, folder: str) -> Sides:
    """Builds the timing of saves; moments are random, because zeros would compress."""
    import jax
    import models
    import numpy as np

    from xlkd.methods import finetune
    from xlkd.models.encoder import Encoder
    from xlkd.train.checkpoint import Checkpoints

    architecture = models.make_architecture("tiny" if flags.quick else "6x384")
    stage = models.resolve_stage(models.read_stage("finetune.py", "finetune"))
    trainer = models.Trainer(finetune.build(stage, Encoder(architecture)), models.make_start(architecture), stage)
    random = np.random.default_rng(0)
    state = jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype) if x.ndim else x, trainer.state)
    state = jax.device_put(state)

    def save(wait: bool) -> float:
        """Times the second save, because the first one also starts threads."""
        checkpoints = Checkpoints(pathlib.Path(tempfile.mkdtemp(dir=folder)), lambda: None)
        checkpoints.save(1, state, wait=True)
        start = time.perf_counter()
        checkpoints.save(2, state, wait=wait)
        blocked = time.perf_counter() - start
        checkpoints.close()
        return blocked

    return lambda: save(wait=False), lambda: save(wait=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
