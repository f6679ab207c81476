# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The work directory of a run: locked by one process, and checked before each write, so that runs never mix.

A run whose folder is deleted, moved or replaced writes nothing more there and ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import stat
from collections.abc import Generator, Iterable
from typing import Any

from ml_collections import ConfigDict

from xlkd import files, settings
from xlkd.errors import UserError
from xlkd.reports import REPORT_FILES, RUN_FILES
from xlkd.runtime import distributed

LOCK = ".lock"
LockId = tuple[int, int]  # device and inode of the lock: no other file gets them while it is open


@dataclasses.dataclass(frozen=True)
class WorkDirectory:
    """A work directory and the lock that this process holds in it; only the primary process holds one, and writes."""

    path: pathlib.Path
    lock: LockId | None

    def check(self) -> None:
        """Raises a UserError where the folder is no longer the one that was locked."""
        if self.lock and _read_lock_id(self.path) != self.lock:
            what = "no longer the folder that this run started in: it was moved, deleted or replaced"
            raise UserError(what, str(self.path), "start again, with --workdir=NEW_PLACE if it was moved")

    @contextlib.contextmanager
    def explain_loss(self) -> Generator[None, None, None]:
        """Replaces any error by the UserError of `check` where the folder no longer exists."""
        try:
            yield
        except Exception:
            self.check()
            raise

    def make_folder(self, folder: pathlib.Path) -> None:
        """Makes a folder inside; a work directory that no longer exists is not made again."""
        self.check()
        if self.lock:
            for parent in reversed(folder.relative_to(self.path).parents[:-1]):
                (self.path / parent).mkdir(exist_ok=True)
            folder.mkdir(exist_ok=True)

    def write_json(self, path: pathlib.Path, value: Any) -> None:
        """Writes the value as JSON, on the primary process."""
        self.check()
        if self.lock:
            files.write_json(path, value)

    def write_lines(self, path: pathlib.Path, values: Iterable[Any]) -> None:
        """Writes each value as one line of JSON, on the primary process."""
        self.check()
        if self.lock:
            files.write_lines(path, values)


@contextlib.contextmanager
def claim_folder(config: ConfigDict, path: pathlib.Path) -> Generator[LockId, None, None]:
    """Locks a work directory for this config until the end, or refuses it; the lock ends with the process."""
    _check_is_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(path), "choose another --workdir") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read() or "?"
            raise UserError(f"in use by process {owner}", str(path), "wait, or choose another") from None
        state = os.fstat(lock.fileno())
        lock_id = (state.st_dev, state.st_ino)
        workdir = WorkDirectory(path, lock_id)
        workdir.check()
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _write_config(workdir, settings.to_plain(config))
        yield lock_id


def _check_is_free(path: pathlib.Path) -> None:
    """Refuses a path that is not a folder, and a folder in which a run would overwrite files of the user."""
    remedy = "choose another --workdir"
    if not path.is_dir():
        if os.path.lexists(path):
            raise UserError("a broken symlink" if path.is_symlink() else "a file, not a folder", str(path), remedy)
        return
    if _is_run(path):
        return
    foreign = [name for name in (*RUN_FILES, *REPORT_FILES) if os.path.lexists(path / name)]
    if os.path.lexists(path / LOCK) and (not _is_plain_file(path / LOCK) or (path / LOCK).stat().st_size):
        foreign.append(LOCK)
    if foreign:
        raise UserError(f"contains {', '.join(foreign)}, which no run wrote", str(path), remedy)


def _is_run(path: pathlib.Path) -> bool:
    """Returns whether a run began in a folder: by its config, or, before that was written, by its lock."""
    try:
        if os.path.lexists(path / "config.json"):
            value = json.loads((path / "config.json").read_text(encoding="utf-8"))
            return isinstance(value, dict) and isinstance(value.get("stages"), list)
        return _is_plain_file(path / LOCK) and (path / LOCK).read_text(encoding="utf-8").isdecimal()
    except (OSError, ValueError, RecursionError):
        return False


def _is_plain_file(path: pathlib.Path) -> bool:
    return os.path.lexists(path) and stat.S_ISREG(path.lstat().st_mode)


def _read_lock_id(path: pathlib.Path) -> LockId | None:
    with contextlib.suppress(OSError):
        state = (path / LOCK).stat()
        return state.st_dev, state.st_ino
    return None


def check_shared(path: pathlib.Path) -> None:
    """Refuses a folder that is not the one of the primary process: all processes share one work directory."""
    lock = path / LOCK
    owner = distributed.broadcast_from_primary("owner of the work directory", lambda: lock.read_text(encoding="utf-8"))
    if not distributed.is_primary() and (not lock.exists() or lock.read_text(encoding="utf-8") != owner):
        what = "not the same folder as on process 0"
        raise UserError(what, str(path), "use a folder on a file system that all hosts share")


def _write_config(workdir: WorkDirectory, config: dict[str, Any]) -> None:
    """Writes config.json; refuses a config that differs from the one whose stages have begun."""
    path = workdir.path / "config.json"
    has_stages = (workdir.path / "stages").exists()  # false where an input was refused: the config may then change
    if has_stages and path.exists():
        changed = settings.list_differences(config, json.loads(path.read_text(encoding="utf-8")))
        if changed:
            remedy = "choose another --workdir, or use the earlier values"
            raise UserError(
                f"contains a run of another config ({', '.join(changed)} differ)", str(workdir.path), remedy
            )
    workdir.write_json(path, config)
