# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run is a list of stages in a work directory; what is finished is not done again."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from xlkd import reports, settings
from xlkd.errors import UserError
from xlkd.train.progress import Log, write_json
from xlkd.train.signals import Signals

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "tokenizers", "safetensors", "numpy")


def run(config, workdir: pathlib.Path, command: Sequence[str]) -> None:
    """All stages of a config that are not done yet."""
    with _claimed(config, workdir), Signals() as signals:
        from xlkd.train import runtime, stage

        runtime.prepare()
        log = Log(workdir / "log.txt")
        log(f"start: {' '.join(command)}")
        write_json(workdir / "environment.json", environment(command))
        log(f"work directory {workdir}, devices: {runtime.devices()}")
        finished: dict[str, pathlib.Path] = {}
        names = settings.stages(config)
        for number, name in enumerate(names, 1):
            folder = workdir / "stages" / f"{number:02d}-{name}"
            if (folder / "done").exists():
                log(f"stage {name}: done before")
            else:
                log(f"stage {name}")
                stage.train(settings.stage(config, name), folder, finished, log, signals)
            finished[name] = folder / "export"
            reports.write(workdir, log if number == len(names) else silent)
        log("done")


def silent(line: str) -> None:
    """For what is printed at the end only."""


def environment(command: Sequence[str]) -> dict[str, Any]:
    """What a reader needs to repeat the run."""
    import jax

    return {
        "command": list(command),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git("rev-parse", "HEAD"),
        "git_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "devices": [str(device) for device in jax.devices()],
    }


@contextlib.contextmanager
def _claimed(config, workdir: pathlib.Path) -> Iterator[None]:
    """The work directory with this config in it, ours alone until the end; a kill gives it back too."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(workdir), "choose another --workdir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"in use by process {lock.read() or '?'}", str(workdir), "wait, or choose another"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _same_config(settings.plain(config), workdir / "config.json")
        yield


def _same_config(config: dict[str, Any], path: pathlib.Path) -> None:
    begun = (path.parent / "stages").exists()  # where an input was bad, nothing was, and it may be mended
    if begun and path.exists():
        changed = settings.differences(config, json.loads(path.read_text(encoding="utf-8")))
        if changed:
            remedy = "choose another --workdir, or give the former values"
            raise UserError(f"holds a run of another config ({', '.join(changed)} differ)", str(path.parent), remedy)
    write_json(path, config)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _git(*arguments: str) -> str:
    where = pathlib.Path(sys.modules["xlkd"].__file__).parent
    with contextlib.suppress(OSError):
        found = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
        return found.stdout.strip()
    return ""
