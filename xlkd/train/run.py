# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A run is a list of stages in a work directory; what is finished is not done again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from xlkd import reports, settings
from xlkd.errors import UserError
from xlkd.train import distributed
from xlkd.train.progress import Log, process_began, write_json
from xlkd.train.signals import Signals

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "tokenizers", "safetensors", "numpy")


def run(config, workdir: pathlib.Path, command: Sequence[str]) -> None:
    """All stages of a config that are not done yet."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_room(workdir))
        distributed.once("work directory", lambda: stack.enter_context(_claimed(config, workdir)))
        _shared(workdir / ".lock")
        signals = stack.enter_context(Signals())
        from xlkd.train import material, runtime, stage

        runtime.prepare()
        log = Log(workdir / "log.txt") if distributed.first() else Log(stream=stack.enter_context(_nowhere()))
        log.event("start", at=process_began())
        log(f"start: {' '.join(command)}")
        write_json(workdir / "environment.json", environment(command))
        log(f"work directory {workdir}, devices: {runtime.devices()}")
        tell, finished = Telling(workdir, log), {}
        names = settings.stages(config)
        folders = [workdir / "stages" / f"{number:02d}-{name}" for number, name in enumerate(names, 1)]
        for folder, name in zip(folders, names, strict=True):
            if not (folder / "done").exists():
                material.present(settings.stage(config, name))
        for folder, name in zip(folders, names, strict=True):
            if distributed.once(f"{folder} done", (folder / "done").exists):
                log(f"stage {name}: done before")
            else:
                log(f"stage {name}")
                log.event("prepare", stage=name)
                stage.train(settings.stage(config, name), folder, finished, log, signals, tell)
                distributed.together(f"{folder} finished")
            finished[name] = folder / "export"
        log.event("report")
        if distributed.first():
            reports.write(workdir, log)
        distributed.together("report")  # who ended before would be missed
        log.event("end")
        log("done")


class Telling:
    """Writes the report anew where something was evaluated, as often as it costs a twentieth of the time or less."""

    def __init__(self, workdir: pathlib.Path, log: Log) -> None:
        self._workdir, self._log, self._next = workdir, log, time.monotonic() + 60

    def __call__(self) -> None:
        began = time.monotonic()
        if began < self._next or not distributed.first():
            return
        self._log.event("report")
        reports.write(self._workdir, lambda line: None)
        self._next = time.monotonic() + max(60, 20 * (time.monotonic() - began))


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
def _room(workdir: pathlib.Path) -> Iterator[None]:
    """A disk that is full, or that can only be read any more, is no bug, whichever library meets it first."""
    try:
        yield
    except Exception as error:
        for reason in map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)):
            if not isinstance(error, UserError) and any(reason in str(one) for one in _chain(error)):
                remedy = "make room, then the same command goes on from the last save"
                raise UserError(f"cannot be written any more: {reason}", str(workdir), remedy) from error
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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


def _shared(lock: pathlib.Path) -> None:
    """Several processes have one work directory: each must see what the first one just wrote."""
    owner = distributed.once("owner of the work directory", lambda: lock.read_text(encoding="utf-8"))
    if not distributed.first() and (not lock.exists() or lock.read_text(encoding="utf-8") != owner):
        what = "not the folder that process 0 sees under this name"
        raise UserError(what, str(lock.parent), "name one that lies on a file system that all hosts share")


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


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
