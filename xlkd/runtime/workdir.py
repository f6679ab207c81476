# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The work directory of a run: locked by one process, and checked before each write, so that runs never mix.

A run whose folder is deleted, moved or replaced writes nothing more there and ends. A run has begun once one of its
stages has trained: until then the same folder takes another config, and what was written for the first one is deleted.

A work directory in a bucket (gs://…) is written to a folder of each machine, from which process 0 uploads it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import stat
from collections.abc import Callable, Generator, Iterable
from typing import Any

from ml_collections import ConfigDict

from xlkd import files, settings, storage
from xlkd.compat import ORBAX_METADATA
from xlkd.data import cache
from xlkd.errors import UserError
from xlkd.reports import REPORT_FILES, RUN_FILES
from xlkd.runtime import distributed
from xlkd.runtime.lease import Lease
from xlkd.runtime.mirror import Mirror, Uploader
from xlkd.spec.reading import compute_digest

LOCK = ".lock"
INPUTS = "inputs.json"  # of a stage: the config and the inputs that it trains with
BEGINNING = (  # the files that a stage writes before its training
    *("data_report.json", INPUTS, "metrics.jsonl", "tensorboard/events.*", "*/sent.jsonl"),
    *("evaluation/[0-9]*-*.json", "evaluation/[0-9]*-*.jsonl", "report/*-before.json", "report/*-after.json"),
)
LockId = tuple[int, int]  # device and inode of the lock: no other file gets them while it is open


@dataclasses.dataclass(frozen=True)
class WorkDirectory:
    """A work directory and the lock that this process holds in it; only the primary process holds one, and writes."""

    path: pathlib.Path
    lock: LockId | None
    mirror: Mirror | None = None  # where the work directory is in a bucket
    check_bucket: Callable[[], None] = lambda: None

    def check(self) -> None:
        """Raises a UserError where the folder is no longer the one that was locked."""
        if self.lock and _read_lock_id(self.path) != self.lock:
            what = "no longer the folder that this run started in: it was moved, deleted or replaced"
            raise UserError(what, str(self.path), "start again, with --workdir=NEW_PLACE if it was moved")
        self.check_bucket()

    @property
    def place(self) -> str:
        """The work directory as the user named it."""
        return self.mirror.remote.url if self.mirror else str(self.path)

    def describe_paths(self, text: str) -> str:
        """Returns a text that has addresses of the bucket instead of paths in its mirror."""
        return text.replace(str(self.path), self.place) if self.mirror else text

    def upload(self) -> None:
        """Uploads what changed since the last upload, if the work directory is in a bucket."""
        if self.mirror and self.lock:
            self.check()
            self.mirror.upload()

    def share(self, folder: pathlib.Path) -> None:
        """Gives all processes the files of a folder, which the primary process wrote or downloads now."""
        if mirror := self.mirror:
            listing = distributed.broadcast_from_primary(f"files of {folder.name}", lambda: mirror.publish(folder))
            if not distributed.is_primary():
                mirror.fetch({name: (size, crc32c) for name, (size, crc32c) in listing.items()})

    def locate_checkpoints(self, stage: pathlib.Path) -> pathlib.Path | str:
        """Returns the folder of a stage's checkpoints, or its address in the bucket."""
        folder = stage / "checkpoints"
        return f"{self.place}/{folder.relative_to(self.path).as_posix()}" if self.mirror else folder

    def delete_beginning(self, stage: pathlib.Path) -> None:
        """Deletes what a stage wrote before its training, so that it can begin with other settings or data."""
        for pattern in BEGINNING:
            for file in stage.glob(pattern):
                file.unlink()
        if self.mirror:
            self.mirror.delete_checkpoint(stage, 0)
        elif (stage / "checkpoints" / "0" / ORBAX_METADATA).exists():
            shutil.rmtree(stage / "checkpoints" / "0")
        self.upload()  # before the next beginning is recorded

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
            for parent in folder.relative_to(self.path).parents:
                files.flush_path(self.path / parent)

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

    def write_own_file(self, path: pathlib.Path, data: bytes) -> None:
        """Writes a file that is this process's own, on any process."""
        self.check()
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, data)
        if self.mirror and not self.lock:
            self.mirror.remote.upload(path, path.relative_to(self.path).as_posix())


@contextlib.contextmanager
def open_work_directory(config: ConfigDict, place: str) -> Generator[tuple[WorkDirectory, str], None, None]:
    """Locks a work directory for this config until the end, or refuses it; all processes must call this.

    Yields it, with a line for the log where a damaged file was written again.
    """
    remote = storage.RemoteFolder(place) if storage.is_remote(place) else None
    mirror = Mirror(remote, _make_mirror_folder(remote.url)) if remote else None
    workdir = WorkDirectory(mirror.path if mirror else files.expand_path(place), None, mirror)
    with _describe_errors(workdir), contextlib.ExitStack() as stack:

        def claim() -> tuple[str, str]:
            nonlocal workdir
            claimed = claim_bucket(config, mirror) if mirror else claim_folder(config, workdir.path)
            workdir, note = stack.enter_context(claimed)
            return workdir.place, note

        address, note = distributed.broadcast_from_primary("work directory", claim)
        if mirror and address != workdir.place:
            what = f"not the work directory of process 0, which is {address}"
            raise UserError(what, workdir.place, "give all processes the same --workdir")
        if not mirror:
            check_shared(workdir.path)
        yield workdir, note


@contextlib.contextmanager
def _describe_errors(workdir: WorkDirectory) -> Generator[None, None, None]:
    """Replaces paths of this machine in errors by those of the bucket that the user named."""
    try:
        yield
    except UserError as error:
        raise UserError(*map(workdir.describe_paths, error.args)) from error


@contextlib.contextmanager
def claim_bucket(config: ConfigDict, mirror: Mirror) -> Generator[tuple[WorkDirectory, str], None, None]:
    """Locks a folder of a bucket as `claim_folder` does, and uploads its mirror every minute and at the end."""
    lease = Lease(mirror.remote, print)
    try:
        mirror.download()
        with claim_folder(config, mirror.path, mirror) as (claimed, note), Uploader(mirror, lease.check) as uploader:
            workdir = dataclasses.replace(claimed, check_bucket=uploader.check)
            try:
                yield workdir, note
            except BaseException:
                mirror.remote.hurry()
                with contextlib.suppress(Exception):  # the first error says more
                    workdir.upload()
                raise
            workdir.upload()
    finally:
        with contextlib.suppress(Exception):  # nobody needs the lock of a process that has ended
            lease.release()


def _make_mirror_folder(url: str) -> pathlib.Path:
    """Makes the folder of this process that mirrors a folder of a bucket; a restart finds its files there."""
    number = distributed.get_process()
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{number}"
    folder = cache.find_user_folder("xlkd-work") / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"no room for the files of a work directory in a bucket: {error.strerror}"
        raise UserError(what, str(folder), "set XDG_CACHE_HOME to a folder that can be written") from error
    return folder


@contextlib.contextmanager
def claim_folder(
    config: ConfigDict, path: pathlib.Path, mirror: Mirror | None = None
) -> Generator[tuple[WorkDirectory, str], None, None]:
    """Locks a work directory for this config until the end, or refuses it; the lock ends with the process.

    Yields it, with a line for the log where a damaged file was written again.
    """
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
        workdir = WorkDirectory(path, (state.st_dev, state.st_ino), mirror)
        workdir.check()
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        for folder in (path / "texts", *path.glob("stages/*"), *path.glob("stages/*/*")):
            files.delete_draft_files(folder)
        yield workdir, _write_config(workdir, settings.to_plain(config))


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
    """Returns whether a run wrote to a folder: by its config, or, where that is missing or damaged, by other files."""
    config = path / "config.json"
    try:
        text = config.read_text(encoding="utf-8", errors="replace") if os.path.lexists(config) else ""
        is_locked = _is_plain_file(path / LOCK) and (path / LOCK).read_text(encoding="utf-8").isdecimal()
    except (OSError, ValueError):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return bool(list_stages(path)) or (is_locked and not text.strip("\0"))
    return isinstance(value, dict) and isinstance(value.get("stages"), list)


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


def _write_config(workdir: WorkDirectory, config: dict[str, Any]) -> str:
    """Writes config.json; refuses a config that differs from the one with which stages have trained.

    Returns a line for the log where config.json was damaged, else "".
    """
    path, folders = workdir.path / "config.json", list_stages(workdir.path)
    begun = any(map(has_trained, folders))
    old = read_object(path)
    remedy = "choose another --workdir, or use the earlier values"
    if begun and old is not None:
        if changed := settings.list_differences(config, old):
            what = f"contains a run of another config ({', '.join(changed)} differ)"
            raise UserError(what, str(workdir.path), remedy)
    elif begun:
        recorded = {(read_object(folder / INPUTS) or {}).get("config") for folder in folders if has_trained(folder)}
        if recorded != {compute_digest(config)}:
            what = "config.json is missing or damaged, and nothing says that the run in this folder has this config"
            raise UserError(what, str(workdir.path), "choose another --workdir, or restore config.json")
    elif folders and (old is None or settings.list_differences(config, old)):
        for folder in folders:
            workdir.delete_beginning(folder)
        for file in (workdir.path / "texts").glob("*.jsonl"):
            file.unlink()
    workdir.write_json(path, config)
    return "config.json was missing or damaged and is written again" if begun and old is None else ""


def list_stages(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of stages in a work directory that a run wrote to."""
    folders = (folder for folder in sorted(path.glob("stages/[0-9]*-*")) if folder.is_dir())
    names = ("data_report.json", INPUTS)
    return [folder for folder in folders if has_trained(folder) or any((folder / name).exists() for name in names)]


def has_trained(folder: pathlib.Path) -> bool:
    """Returns whether the files of a stage depend on its training: it was saved after a step, or has finished."""
    steps = (path.name for path in folder.glob("checkpoints/[0-9]*"))
    return (folder / "done").exists() or any(step.isdecimal() and int(step) > 0 for step in steps)


def read_object(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns the JSON object in a file; None where the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
