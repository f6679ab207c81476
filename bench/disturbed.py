# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Disturbed runs: small versions of the defaults on the atlas in processes, compared for bit-identical results."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xlkd.errors import DONE, UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]
LONG = 900  # seconds after which a process counts as hanging
DAMAGED = "is damaged"  # in the message of a run that resumes from a checkpoint before the last


@dataclasses.dataclass(frozen=True)
class System:
    """A default on the atlas: its config, flags that make it small, and the launcher if it has one."""

    name: str
    config: str
    flags: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()


QUESTIONS = (
    "--config.stages=english,skd_map",
    "--config.english.data.train=atlas?split=train&languages=en&size=64",
    "--config.english.data.eval=atlas?split=validation&languages=en,es&size=24",
    "--config.data.train=atlas?split=train&languages=en,es,ru,ar&size=6&seed=1",
    "--config.data.eval=atlas?split=test&languages=en,es,ru&size=6&pairs=all",
    "--config.task.max_length=96",
)
LABELS = (
    "--config.stages=teacher_en,teacher_de,mblm",
    "--config.task.languages=en,de",
    "--config.mblm.teachers.ru=",
    "--config.teacher_en.data.train=atlas?split=train&languages=en&size=24&facts=1",
    "--config.teacher_de.data.train=atlas?split=train&languages=de&size=24&facts=1",
    "--config.teacher_en.data.eval=atlas?split=validation&languages=en&size=40&facts=1",
    "--config.teacher_de.data.eval=atlas?split=validation&languages=de&size=40&facts=1",
    "--config.data.train=atlas?split=train&languages=en,de&size=16&facts=1",
    "--config.data.eval=atlas?split=test&languages=en,de,fr&size=40&facts=1",
    "--config.task.max_length=64",
)
SENTENCES = (
    "--config.stages=full,finetune_full",
    "--config.data.train=atlas?split=train&languages=en,de,es&size=12&seed=5",
    "--config.data.retrieval=atlas?split=validation&languages=en,de,es&size=40",
    "--config.data.alignment=atlas?split=validation&languages=en,de,es&size=12&seed=1",
    "--config.finetune_full.data.train=atlas?split=train&languages=en&size=32&facts=1",
    "--config.finetune_full.data.eval=atlas?split=test&languages=en,de,es&size=40&facts=1",
    "--config.finetune_full.data.batch=8",
    "--config.finetune_full.data.buckets=1",
    "--config.task.max_length=64",
)
SMALL = ("--config.data.batch=8", "--config.data.buckets=1", "--config.save.every=3", "--config.log.every=1")
SYSTEMS = (
    System("gxlt", "configs/gxlt.py", QUESTIONS),
    System("gxlt, one teacher", "configs/gxlt.py", (*QUESTIONS, "--config.method.generations=fixed")),
    System("mblm", "configs/mblm.py", LABELS),
    System("mmkd", "configs/mmkd.py", SENTENCES),
)
PAIR = ("launch/local_pod.sh", "--processes=2", "--devices=1", "--")
POD = System("gxlt, two processes", "configs/gxlt.py", SYSTEMS[1].flags, PAIR)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A line of the table."""

    name: str
    injected: str  # the fault, and the evidence that it happened
    code: int
    message: str
    equal: bool
    wrong: str = ""  # deviations from the expected behaviour
    group: str = ""  # of the table

    def __str__(self) -> str:
        same = "bit-identical" if self.equal else "NOT EQUAL"
        return (
            f"{self.name}: {self.injected}; exit {self.code}; {same}; {self.wrong or 'as promised'}\n  {self.message}"
        )


class Bench:
    """Makes runs in separate folders, and knows the results of each system without a fault."""

    def __init__(self, folder: pathlib.Path, scale: str) -> None:
        self.folder, self.scale, self._count, self._ends = folder, scale, 0, {}

    def run(self, system: System, cache: bool = False) -> Run:
        """Returns a new run, with a full cache or with none."""
        self._count += 1
        fixed = tuple(flag for flag in system.flags if "generations" in flag)
        run = Run(system, (*system.flags, *SMALL) if self.scale == "small" else fixed, self.folder / f"{self._count}")
        if cache:
            self.get_undisturbed(system)
            shutil.copytree(self.folder / f"cache of {system.name}", run.cache)
        return run

    def get_undisturbed(self, system: System) -> dict[str, str]:
        if system.name not in self._ends:
            run, began = self.run(system), time.monotonic()
            ended = run.finish()
            if ended.code != DONE:
                raise UserError(f"{system.name} does not end: {ended.message}", str(run.folder), "run it by hand")
            self._ends[system.name] = collect_results(run)
            run.cache.rename(self.folder / f"cache of {system.name}")
            shutil.rmtree(run.folder)
            print_line(
                f"{system.name}, undisturbed: {time.monotonic() - began:.0f} s, {len(self._ends[system.name])} values"
            )
        return self._ends[system.name]

    def judge(
        self, name: str, run: Run, injected: str, fault: ProcessEnd, code: int, says: str, last: ProcessEnd
    ) -> Outcome:
        """Returns the outcome of a fault: how the run reported it, and whether the final results are unchanged."""
        (run.folder / "errors").write_text(fault.errors)
        output_lines = [*reversed(fault.lines), *run.read_log().splitlines()]
        message = next((line for line in output_lines if re.search(says, line)), fault.message)
        wrong = [] if injected else ["the fault did not happen"]
        wrong += [] if fault.code == code else [f"exit {fault.code} where {code} was expected"]
        wrong += [] if re.search(says, message) else [f"does not say {says!r}"]
        wrong += [] if len(fault.lines) <= 1 or run.system.launcher else [f"{len(fault.lines)} lines of errors"]
        wrong += ["an undamaged checkpoint was discarded"] if DAMAGED in run.read_log() and DAMAGED not in says else []
        wrong += ["a traceback"] if "Traceback" in fault.errors + fault.output else []
        wrong += [] if last.code == DONE else [f"exit {last.code} at its end: {last.message}"]
        equal = last.code == DONE and collect_results(run) == self.get_undisturbed(run.system)
        outcome = Outcome(
            name, injected, fault.code, message, equal, ", ".join(wrong) or ("" if equal else "another end")
        )
        if not outcome.wrong:
            shutil.rmtree(run.folder, ignore_errors=True)
        return outcome


def print_line(line: Any) -> None:
    print(line, flush=True)


@dataclasses.dataclass
class ProcessEnd:
    """The end of a process: its exit code, its output and its standard error."""

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.errors.splitlines() if line.strip()]

    @property
    def message(self) -> str:
        return self.lines[-1] if self.lines else ""


class Run:
    """A run with its own work directory and cache; compiled programs are shared, because compiling takes longest."""

    def __init__(self, system: System, flags: tuple[str, ...], folder: pathlib.Path) -> None:
        self.system, self.flags, self.folder = system, flags, folder
        self.workdir, self.cache = folder / "run", folder / "cache"
        folder.mkdir(parents=True)

    def command(self, code: str = "") -> list[str]:
        """Returns the command; it first executes `code` in the same process."""
        entry = "import runpy; runpy.run_module('xlkd.main', run_name='__main__', alter_sys=True)"
        main = ["-c", f"{code}\n{entry}"] if code else ["-m", "xlkd.main"]
        flags = [f"--config={self.system.config}", *self.flags, f"--workdir={self.workdir}"]
        return [*self.system.launcher, sys.executable, *main, *flags]

    def environment(self, variables: Mapping[str, str | None] = {}) -> dict[str, str]:
        """Returns the environment of this process with the cache of the run; None removes a variable."""
        shared = {"JAX_COMPILATION_CACHE_DIR": str(self.folder.parent / "compiled")}
        shared |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2", "JAX_PLATFORMS": "cpu"}
        ours = {"XLKD_CACHE": str(self.cache), **variables}
        return {name: value for name, value in (shared | os.environ | ours).items() if value is not None}

    def start(self, command: list[str] | None = None, variables: Mapping[str, str | None] = {}, **more: Any):
        streams = {name: (self.folder / name).open("w") for name in ("stdout", "stderr")}
        try:
            return subprocess.Popen(
                command or self.command(), cwd=ROOT, env=self.environment(variables), **{**streams, **more}
            )
        finally:
            for stream in streams.values():
                stream.close()

    def wait(self, process: subprocess.Popen) -> ProcessEnd:
        try:
            code = process.wait(LONG)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return ProcessEnd(code, *((self.folder / name).read_text(errors="replace") for name in ("stdout", "stderr")))

    def finish(
        self, command: list[str] | None = None, variables: Mapping[str, str | None] = {}, **more: Any
    ) -> ProcessEnd:
        return self.wait(self.start(command, variables, **more))

    def read_events(self, skip: int = 0) -> list[dict[str, Any]]:
        """Returns the events of the run, without the first `skip` lines."""
        with contextlib.suppress(OSError):
            lines = (self.workdir / "events.jsonl").read_text().splitlines(keepends=True)[skip:]
            return [json.loads(line) for line in lines if line.endswith("\n")]
        return []

    def read_log(self) -> str:
        return (self.workdir / "log.txt").read_text() if (self.workdir / "log.txt").exists() else ""

    def list_checkpoints(self) -> list[pathlib.Path]:
        """Returns the complete checkpoints of the current stage, in order of their steps."""
        stages = sorted(self.workdir.glob("stages/*/checkpoints"))
        paths = [path for stage in stages[-1:] for path in stage.iterdir() if path.name.isdecimal()]
        return sorted(paths, key=lambda path: int(path.name))

    def list_drafts(self) -> dict[str, set]:
        """Returns incomplete saves and cache entries, by place."""
        saves, entries = self.workdir.glob("stages/*/checkpoints/*-tmp"), self.cache.glob(".writing-*")
        return {"a save": set(_identify(saves)), "the cache": set(_identify(entries))}


def collect_results(run: Run) -> dict[str, str]:
    """Returns the results of a run by name: weights, values of the last checkpoints, scores, answers, metrics."""
    stages = run.workdir / "stages"
    files = [*stages.glob("*/export/**/*.safetensors"), *stages.glob("*/metrics.jsonl")]
    files += [*stages.glob("*/evaluation/*"), *stages.glob("*/rows/*")]
    results_by_name = {str(path.relative_to(stages)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for folder in stages.glob("*/checkpoints"):
        steps = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        if steps:
            results_by_name |= {
                f"{folder.parent.name} {name}": value for name, value in _hash_values(folder / str(max(steps)))
            }
    results = json.loads((run.workdir / "results.json").read_text())["stages"]
    return results_by_name | {
        f"scores of {name}": json.dumps(stage["sets"], sort_keys=True) for name, stage in results.items()
    }


def _hash_values(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    import jax
    import numpy as np
    from orbax.checkpoint import v1 as orbax

    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # the devices of other processes do not exist here
    saved = orbax.checkpointables_metadata(folder).metadata["state"]
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved)
    state = orbax.load_checkpointables(folder, {"state": abstract})["state"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        yield jax.tree_util.keystr(path), hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()


def _identify(paths: Iterable[pathlib.Path]) -> Iterator[tuple[str, int]]:
    """Yields names with their inode numbers, because a name can be used again."""
    for path in paths:
        with contextlib.suppress(OSError):
            yield path.name, path.stat().st_ino
