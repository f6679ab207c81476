# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs that are disturbed: small forms of the embedded defaults as processes, and their ends compared to the bit."""

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
LONG = 900  # seconds after which a process hangs, whatever it does
DAMAGED = "is damaged"  # what a run says where it resumes from a checkpoint before the last


@dataclasses.dataclass(frozen=True)
class System:
    """An embedded default: its config, what makes it small, and what starts it where that is not we."""

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
    injected: str  # how, and by what it is shown
    code: int
    message: str
    equal: bool
    wrong: str = ""  # what is not as it should be
    group: str = ""  # of the table

    def __str__(self) -> str:
        same = "equal to the bit" if self.equal else "NOT EQUAL"
        return (
            f"{self.name}: {self.injected}; exit {self.code}; {same}; {self.wrong or 'as promised'}\n  {self.message}"
        )


class Bench:
    """Runs, each with a folder of its own, and how each system ends where nothing happens."""

    def __init__(self, folder: pathlib.Path, scale: str) -> None:
        self.folder, self.scale, self._count, self._ends = folder, scale, 0, {}

    def run(self, system: System, cache: bool = False) -> Run:
        """A new one; with a full cache where wanted, else with none."""
        self._count += 1
        fixed = tuple(flag for flag in system.flags if "generations" in flag)
        run = Run(system, (*system.flags, *SMALL) if self.scale == "small" else fixed, self.folder / f"{self._count}")
        if cache:
            self.undisturbed(system)
            shutil.copytree(self.folder / f"cache of {system.name}", run.cache)
        return run

    def undisturbed(self, system: System) -> dict[str, str]:
        if system.name not in self._ends:
            run, began = self.run(system), time.monotonic()
            ended = run.finish()
            if ended.code != DONE:
                raise UserError(f"{system.name} does not end: {ended.message}", str(run.folder), "run it by hand")
            self._ends[system.name] = end(run)
            run.cache.rename(self.folder / f"cache of {system.name}")
            shutil.rmtree(run.folder)
            say(f"{system.name}, undisturbed: {time.monotonic() - began:.0f} s, {len(self._ends[system.name])} values")
        return self._ends[system.name]

    def judged(self, name: str, run: Run, injected: str, fault: Ended, code: int, says: str, last: Ended) -> Outcome:
        """What came of a fault: how the run told it, and whether what `last` ended is as if it had not been."""
        (run.folder / "told").write_text(fault.errors)
        told = [*reversed(fault.lines), *run.log().splitlines()]
        heard = next((line for line in told if re.search(says, line)), fault.message)
        wrong = [] if injected else ["the fault did not happen"]
        wrong += [] if fault.code == code else [f"exit {fault.code} where {code} was expected"]
        wrong += [] if re.search(says, heard) else [f"does not say {says!r}"]
        wrong += [] if len(fault.lines) <= 1 or run.system.launcher else [f"{len(fault.lines)} lines of errors"]
        wrong += ["a sound checkpoint was left"] if DAMAGED in run.log() and DAMAGED not in says else []
        wrong += ["a traceback"] if "Traceback" in fault.errors + fault.output else []
        wrong += [] if last.code == DONE else [f"exit {last.code} at its end: {last.message}"]
        equal = last.code == DONE and end(run) == self.undisturbed(run.system)
        outcome = Outcome(
            name, injected, fault.code, heard, equal, ", ".join(wrong) or ("" if equal else "another end")
        )
        if not outcome.wrong:
            shutil.rmtree(run.folder, ignore_errors=True)
        return outcome


def say(line: Any) -> None:
    print(line, flush=True)


@dataclasses.dataclass
class Ended:
    """How a process ended: its exit code, and what it said on standard error."""

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
    """A work directory and a cache of its own; compiled programs are shared, or most of the time went there."""

    def __init__(self, system: System, flags: tuple[str, ...], folder: pathlib.Path) -> None:
        self.system, self.flags, self.folder = system, flags, folder
        self.workdir, self.cache = folder / "run", folder / "cache"
        folder.mkdir(parents=True)

    def command(self, code: str = "") -> list[str]:
        """`code` goes before the command begins, in the same process."""
        entry = "import runpy; runpy.run_module('xlkd.main', run_name='__main__', alter_sys=True)"
        main = ["-c", f"{code}\n{entry}"] if code else ["-m", "xlkd.main"]
        given = [f"--config={self.system.config}", *self.flags, f"--workdir={self.workdir}"]
        return [*self.system.launcher, sys.executable, *main, *given]

    def environment(self, given: Mapping[str, str | None] = {}) -> dict[str, str]:
        """This process's own, with a cache; None takes a variable away."""
        shared = {"JAX_COMPILATION_CACHE_DIR": str(self.folder.parent / "compiled")}
        shared |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2", "JAX_PLATFORMS": "cpu"}
        ours = {"XLKD_CACHE": str(self.cache), **given}
        return {name: value for name, value in (shared | os.environ | ours).items() if value is not None}

    def start(self, command: list[str] | None = None, given: Mapping[str, str | None] = {}, **more: Any):
        streams = {name: (self.folder / name).open("w") for name in ("stdout", "stderr")}
        try:
            return subprocess.Popen(
                command or self.command(), cwd=ROOT, env=self.environment(given), **{**streams, **more}
            )
        finally:
            for stream in streams.values():
                stream.close()

    def ended(self, process: subprocess.Popen) -> Ended:
        try:
            code = process.wait(LONG)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return Ended(code, *((self.folder / name).read_text(errors="replace") for name in ("stdout", "stderr")))

    def finish(self, command: list[str] | None = None, given: Mapping[str, str | None] = {}, **more: Any) -> Ended:
        return self.ended(self.start(command, given, **more))

    def events(self, skip: int = 0) -> list[dict[str, Any]]:
        """What the run wrote of itself, without the first `skip` lines."""
        with contextlib.suppress(OSError):
            lines = (self.workdir / "events.jsonl").read_text().splitlines(keepends=True)[skip:]
            return [json.loads(line) for line in lines if line.endswith("\n")]
        return []

    def log(self) -> str:
        return (self.workdir / "log.txt").read_text() if (self.workdir / "log.txt").exists() else ""

    def checkpoints(self) -> list[pathlib.Path]:
        """Whole ones of the stage that is under way, in order of their steps."""
        stages = sorted(self.workdir.glob("stages/*/checkpoints"))
        found = [path for stage in stages[-1:] for path in stage.iterdir() if path.name.isdecimal()]
        return sorted(found, key=lambda path: int(path.name))

    def half(self) -> dict[str, set]:
        """What lies there half written, by place."""
        saves, entries = self.workdir.glob("stages/*/checkpoints/*-tmp"), self.cache.glob(".writing-*")
        return {"a save": set(_known(saves)), "the cache": set(_known(entries))}


def end(run: Run) -> dict[str, str]:
    """All that a run ends with, by name: weights, values of the last checkpoints, scores, answers, metrics."""
    stages = run.workdir / "stages"
    files = [*stages.glob("*/export/**/*.safetensors"), *stages.glob("*/metrics.jsonl")]
    files += [*stages.glob("*/evaluation/*"), *stages.glob("*/rows/*")]
    found = {str(path.relative_to(stages)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for folder in stages.glob("*/checkpoints"):
        steps = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        if steps:
            found |= {f"{folder.parent.name} {name}": value for name, value in _values(folder / str(max(steps)))}
    results = json.loads((run.workdir / "results.json").read_text())["stages"]
    return found | {f"scores of {name}": json.dumps(stage["sets"], sort_keys=True) for name, stage in results.items()}


def _values(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    import jax
    import numpy as np
    from orbax.checkpoint import v1 as orbax

    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # of several processes, their devices are not here
    saved = orbax.checkpointables_metadata(folder).metadata["state"]
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved)
    state = orbax.load_checkpointables(folder, {"state": abstract})["state"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        yield jax.tree_util.keystr(path), hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()


def _known(paths: Iterable[pathlib.Path]) -> Iterator[tuple[str, int]]:
    """A name may come again; with the number of its inode it does not."""
    for path in paths:
        with contextlib.suppress(OSError):
            yield path.name, path.stat().st_ino
