# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A quarter of an hour on a borrowed GPU without a network: throughput, G-XLT's published schedule, a profile.

    python bench/accelerator.py pack --out=DIR --model=DIR --data=DIR [--python=3.12] [--has=NAME,NAME…]
    python3 bench/accelerator.py run --packed=DIR --out=DIR [--seconds=540] [--share=1] [--work=DIR] [--quick]

`pack` writes into a folder of less than 64 MiB what the machine needs beside the working tree: wheels, except those of
JAX and of the packages in --has, which the machine has; the model e5 of --model, its weights in the 4 bits that they
were rounded to; from --data the English questions of squad_en/train.json and drawn questions of xquad and mlqa_dev.

`run` works for so many seconds on the machine, in five parts: it installs what is missing, measures our steps and
PyTorch's (bench/throughput.py), trains and tests `zs`, `ce`, `skd` and `skd_map` on a share of the packed questions
after training the English start from them, and profiles a few steps. What is measured is in the folder --out as soon as
it is there: accelerator.json, results.json of the run, its log.txt, and profile.zip. The same command continues where
an earlier one stopped, from the folder --work (default: build/accelerator). --quick takes tiny shapes, to rehearse on
CPUs. Exit codes: 0 something was measured, 1 nothing, 2 bad input, 75 stopped by a signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import datetime
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import packed  # where xlkd is not installed, this finds it
from packed import ROOT

from xlkd import cli, files
from xlkd.errors import DONE, Stopped, UserError

RECORD, RESULTS, LOG, PROFILE = "accelerator.json", "results.json", "log.txt", "profile.zip"
LEAST, GRACE = 15.0, 20.0  # seconds: a part with fewer is not started; what a part has to save and end
ROOM = 15 * 2**20  # bytes of the profile
CONTROLS = "english,zs,ce,skd,skd_map"
PROFILED = "5:6"  # of so many steps
SMALL = {  # of a rehearsal on CPUs
    "encoder.path": "package:multilingual",
    "encoder.dtype": "float32",
    "encoder.layers_as": "scanned",
    "task.max_length": 128,
    "task.doc_stride": 32,
    "data.ntl": 1,
    "ce.data.ntl": 1,
    "data.batch": 4,
    "english.data.batch": 4,
    "data.buckets": 1,
}


@dataclasses.dataclass(frozen=True)
class Part:
    """A process that leaves results as it works and continues when it is started again; it is done when it ends with 0.

    `share` is the largest part of the remaining time that it gets, `results` the pattern of its results' files in the
    work folder, and `proof` a file there without which it is done anew.
    """

    name: str
    command: tuple[str, ...]
    share: float
    results: str = ""
    proof: str = ""


class Record:
    """Keeps what was done and measured in a file of the work folder, with a copy in the folder of results."""

    def __init__(self, work: pathlib.Path, out: pathlib.Path) -> None:
        self.work, self.out = work, out
        with contextlib.suppress(FileNotFoundError):
            self._value = json.loads((work / RECORD).read_text(encoding="utf-8"))
            return
        self._value = {"commands": [], "parts": {}}

    @property
    def measured(self) -> bool:
        """Says whether a part has results."""
        return any(part["results"] for part in self._value["parts"].values())

    def begin(self, **settings: Any) -> None:
        """Adds a command."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._value["commands"].append({"at": now, **settings})
        self.write()

    def is_done(self, part: Part) -> bool:
        """Says whether a part need not be started again."""
        done = self._value["parts"].get(part.name, {}).get("state") == "done"
        return done and (not part.proof or (self.work / part.proof).exists())

    def update(self, part: Part, state: str, seconds: float = 0.0) -> None:
        """Notes the state of a part, the seconds that were added, and the results that are there by now."""
        values = self._value["parts"].setdefault(part.name, {"seconds": 0.0, "results": {}})
        values["state"], values["seconds"] = state, values["seconds"] + seconds
        for path in sorted(self.work.glob(part.results)) if part.results else ():
            with contextlib.suppress(ValueError):  # half-written
                values["results"][str(path.relative_to(self.work))] = json.loads(path.read_text(encoding="utf-8"))
        if state.startswith("failed"):
            log = self.work / f"{part.name}.log"
            values["log"] = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        else:
            values.pop("log", None)
        self.write()

    def write(self) -> None:
        """Writes both files."""
        for folder in (self.work, self.out):
            files.write_json(folder / RECORD, self._value)


def main(arguments: list[str]) -> int | None:
    """Packs, or runs."""
    commands = {"pack": pack, "run": run}
    if not arguments or arguments[0] not in commands:
        raise UserError("neither `pack` nor `run`", "command line", "see --help")
    return commands[arguments[0]](arguments[1:])


def pack(arguments: list[str]) -> None:
    """Packs what the machine needs."""
    flags = cli.parse_flags(arguments, ("out", "model", "data", "python", "has"))
    out, model, data = (_require_path(flags, name) for name in ("out", "model", "data"))
    has = [name for name in flags.get("has", "").split(",") if name]
    size = packed.pack(out, model, data, flags.get("python", "3.12"), has)
    print(f"packed {size / 2**20:.1f} MiB: {out}")


def run(arguments: list[str]) -> int:
    """Runs the parts that are not done yet, within the seconds."""
    began = time.monotonic()
    flags = cli.parse_flags(arguments, ("packed", "out", "seconds", "share", "work"), ("quick",))
    folder, out = (_require_path(flags, name) for name in ("packed", "out"))
    seconds = cli.parse_count(flags, "seconds", 540, 86_400)
    share = parse_share(flags.get("share", "1"))
    if not (folder / packed.REQUIREMENTS).exists():
        raise UserError("not a packed folder", str(folder), "pack it first")
    work = files.expand_path(flags.get("work", str(ROOT / "build" / "accelerator")))
    for place in (work, out):
        place.mkdir(parents=True, exist_ok=True)
    record = Record(work, out)
    record.begin(seconds=seconds, share=share, quick="quick" in flags)
    signal.signal(signal.SIGTERM, _raise_stopped)
    run_parts(list_parts(folder, work, share, "quick" in flags), record, began + seconds)
    return DONE if record.measured else 1


def parse_share(text: str) -> float:
    """Returns a share above 0 and at most 1."""
    with contextlib.suppress(ValueError):
        if 0 < (share := float(text)) <= 1:
            return share
    raise UserError(f"--share={text} is not a number above 0 and at most 1", "command line", "for example 0.01")


def list_parts(folder: pathlib.Path, work: pathlib.Path, share: float, quick: bool) -> list[Part]:
    """Returns the parts in their order."""
    python, bench = str(packed.get_python(work)), ROOT / "bench"
    throughput = [python, str(bench / "throughput.py"), f"--out={work / 'throughput'}", *["--quick"] * quick]
    setup = (sys.executable, str(bench / "packed.py"), str(folder), str(work))
    train = make_training_flags(share) | (SMALL if quick else {})
    english = {key: value for key, value in train.items() if key.startswith("english.")}
    profile = {key: value for key, value in train.items() if key not in english and not key.startswith("ce.")}
    profile |= {"start": "encoder", "stages": "skd", "data.eval": "", "log.profile": PROFILED, "report.compare": ""}
    profile |= {"budget.epochs": 0, "budget.steps": PROFILED.partition(":")[2]}
    return [
        Part("set_up", setup, 0.5, proof=packed.READY),
        Part("ours", (*throughput, "--side=ours"), 0.25, "throughput/[mo]*.json"),
        Part("torch", (*throughput, "--side=torch"), 0.25, "throughput/torch*.json"),
        Part("gxlt", make_run(python, work, "gxlt", train), 0.85, "gxlt/stages/*/stage.json"),
        Part("profile", make_run(python, work, "profile", profile), 1.0),
    ]


def make_training_flags(share: float) -> dict[str, Any]:
    """Returns the keys of configs/gxlt.py:paper that differ here.

    Examples are in buckets instead of padded to 384, and a batch is not divided; the schedule is the published one.
    """
    squad, xquad, mlqa = (math.ceil(share * count) for count in (packed.SQUAD, packed.XQUAD, packed.MLQA))
    return {
        "encoder.path": "model",
        "encoder.dtype": "bfloat16",
        "stages": CONTROLS,
        "report.compare": "ce:zs,skd:ce,skd_map:ce,skd_map:skd",
        "data.train": f"xquad:data/xquad?languages={','.join(packed.LANGUAGES)}&limit={xquad}",
        "data.eval": f"mlqa:data/mlqa_dev?split=dev&pairs=all&limit={mlqa}",
        "data.pad_to": 0,
        "data.buckets": 3,
        "method.mask_positions": "padding",
        "optim.micro_batches": 1,
        "ce.data.ntl": 5,
        "english.data.train": f"squad:data/squad_en/train.json?limit={squad}",
        "english.data.eval": "",
        "english.data.batch": 16,
        "english.optim.lr": 1e-4,
        "english.optim.warmup": 0.1,
    }


def make_run(python: str, work: pathlib.Path, name: str, keys: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the command of a run with these keys, in a work directory of this name."""
    config = f"--config={ROOT / 'configs' / 'gxlt.py'}:paper"
    flags = (f"--config.{key}={value}" for key, value in keys.items())
    return (python, "-m", "xlkd.main", config, f"--workdir={work / name}", *flags)


def run_parts(parts: Sequence[Part], record: Record, end: float) -> None:
    """Runs the parts that are not done, until a time of the clock; a part that fails ends only those that need it."""
    environment = make_environment(record.work)
    for part in parts:
        if record.is_done(part):
            continue
        if part.proof == "" and any(other.proof and not record.is_done(other) for other in parts):
            record.update(part, "skipped: the machine is not set up")
            continue
        seconds = grant_seconds(end - time.monotonic(), part.share)
        if not seconds:
            record.update(part, "skipped: no time was left")
            continue
        run_part(part, seconds, record, environment)
        collect_files(record.work, record.out)


def grant_seconds(left: float, share: float) -> float:
    """Returns the seconds that a part may run so that it can still save and end; 0 where they are too few."""
    seconds = min(left * share, left - GRACE)
    return seconds if seconds >= LEAST else 0.0


def run_part(part: Part, seconds: float, record: Record, environment: Mapping[str, str]) -> None:
    """Runs a part for so many seconds at most, and notes results as they come."""
    began, state = time.monotonic(), "stopped by a signal"
    noted = began
    print(f"{part.name}: {seconds:.0f} s at most", flush=True)
    with open(record.work / f"{part.name}.log", "ab") as log:
        process = subprocess.Popen(
            part.command, cwd=record.work, env=environment, stdout=log, stderr=log, preexec_fn=_end_with_parent
        )
        try:
            while process.poll() is None and time.monotonic() - began < seconds:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
                record.update(part, "running", time.monotonic() - noted)
                noted = time.monotonic()
            code = process.poll()
            state = "stopped: its time was over" if code is None else f"failed with {code}" if code else "done"
        finally:
            _stop(process)
            record.update(part, state, time.monotonic() - noted)
    print(f"{part.name}: {state} after {time.monotonic() - began:.0f} s", flush=True)


def make_environment(work: pathlib.Path) -> dict[str, str]:
    """Returns the environment of the parts: compiled programs are kept in the work folder, nothing asks a network."""
    variables = {"XLKD_CACHE": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    places = {name: str(work / folder) for name, folder in variables.items()}
    return os.environ | places | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def collect_files(work: pathlib.Path, out: pathlib.Path) -> None:
    """Copies what a run leaves beside its results, and packs the profile."""
    for name in (RESULTS, LOG):
        if (work / "gxlt" / name).exists():
            shutil.copy(work / "gxlt" / name, out / name)
    traces = list_fitting(work.glob("profile/stages/*/profile/**/*"))
    if traces:
        with zipfile.ZipFile(out / PROFILE, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in traces:
                archive.write(path, path.relative_to(work))


def list_fitting(paths: Any) -> list[pathlib.Path]:
    """Returns the smallest files, as many as fit into the room of the profile."""
    fitting, room = [], ROOM
    for path in sorted(filter(pathlib.Path.is_file, paths), key=lambda path: path.stat().st_size):
        room -= path.stat().st_size
        if room >= 0:
            fitting.append(path)
    return fitting


def _require_path(flags: dict[str, str], name: str) -> pathlib.Path:
    if name not in flags:
        raise UserError(f"--{name} is missing", "command line", "see --help")
    return files.expand_path(flags[name]).absolute()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks a process to save and end, and ends it if it does not."""
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    """Lets the kernel ask this process to end when its parent is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _raise_stopped(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would end this process before its part
    raise Stopped("the same command continues")


if __name__ == "__main__":
    sys.exit(cli.run(main))
