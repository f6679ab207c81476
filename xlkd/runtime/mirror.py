# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Mirrors a work directory that lies in a bucket: the run writes to a folder of this machine, which is uploaded.

The primary process uploads what changed every minute, before each checkpoint and before any exit, in the order in which
it was written: the bucket has a state that the run itself could have been stopped in. Checkpoints are not mirrored:
every process saves its part of them in the bucket.
"""

from __future__ import annotations

import fnmatch
import os
import pathlib
import shutil
import stat
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from xlkd import files, storage
from xlkd.reports import REPORT_FILES, RUN_FILES
from xlkd.runtime.lease import LOCK
from xlkd.runtime.saved_steps import is_saved
from xlkd.storage import RemoteFolder

EVERY = 60.0  # seconds between two uploads
LAST = "done"  # the name of the file that says that all others of its folder are complete
LARGE = "stages/*/export/*.safetensors"  # downloaded where they are read
CHECKPOINTS = "/checkpoints/"


class FileState(NamedTuple):
    """Identifies the content of a file: each write changes one of these values."""

    modified: int  # nanoseconds
    size: int
    inode: int


Listing = dict[str, tuple[int, str]]  # size and CRC-32C of each object, by name


class Mirror:
    """A folder of this machine that mirrors one of a bucket."""

    def __init__(self, remote: RemoteFolder, path: pathlib.Path) -> None:
        self.remote, self.path = remote, path
        self._uploaded: dict[str, FileState] = {}  # the files that are equal to their objects
        self._objects: Listing = {}  # what the bucket has
        self._mutex = threading.RLock()

    def download(self) -> None:
        """Makes the folder equal to the bucket, without large files and checkpoints, of which the numbers stay."""
        objects = self.remote.list_objects()
        self._objects = {name: (o.size, o.crc32c) for name, o in objects.items() if _is_mirrored(name)}
        for name in _list_files(self.path):
            if name not in self._objects:
                (self.path / name).unlink()
        for folder in self.path.glob("stages/*/checkpoints"):
            shutil.rmtree(folder)
        for name in objects:
            before, _, after = name.partition(CHECKPOINTS)
            step, _, inside = after.partition("/")
            if is_saved([inside]):
                (self.path / before / "checkpoints" / step).mkdir(parents=True, exist_ok=True)
        wanted = {name for name in self._objects if (self.path / name).exists() or not fnmatch.fnmatch(name, LARGE)}
        self.fetch({name: self._objects[name] for name in sorted(wanted)})

    def fetch(self, listing: Mapping[str, tuple[int, str]]) -> None:
        """Downloads the objects of a listing that differ from their files."""
        with self._mutex:
            for name, (size, crc32c) in listing.items():
                path = self.path / name
                state = _read_state(path)
                if state is None or state.size != size or storage.compute_crc32c(path) != crc32c:
                    self.remote.download(name, path)
                self._objects[name] = (size, crc32c)
                self._uploaded[name] = _read_state(path) or FileState(0, 0, 0)

    def publish(self, folder: pathlib.Path) -> Listing:
        """Makes a folder complete here and in the bucket; returns its objects."""
        start = folder.relative_to(self.path).as_posix() + "/"
        self.upload()
        listing = {name: o for name, o in self._objects.items() if name.startswith(start)}
        self.fetch(listing)
        return listing

    def upload(self) -> None:
        """Uploads the files that changed, in the order in which they were written, and deletes what was deleted."""
        with self._mutex:
            states = {name: _read_state(self.path / name) for name in _list_files(self.path)}
            changed = [(state, name) for name, state in states.items() if state and self._uploaded.get(name) != state]
            for state, name in sorted(changed, key=lambda item: (pathlib.PurePath(item[1]).name == LAST, item[0])):
                self._upload_file(name, state)
            deleted = [name for name in self._uploaded if name not in states]
            self.remote.delete(deleted)
            for name in deleted:
                del self._uploaded[name]
                self._objects.pop(name, None)

    def _upload_file(self, name: str, state: FileState) -> None:
        """Uploads a file; one that grows meanwhile is uploaded again next time."""
        try:
            data = (self.path / name).read_bytes() if state.size < storage.SMALL else None
            uploaded = self.remote.write(name, data) if data is not None else self.remote.upload(self.path / name, name)
        except FileNotFoundError:  # deleted or renamed meanwhile
            return
        self._uploaded[name], self._objects[name] = state, (uploaded.size, uploaded.crc32c)

    def list_large_objects(self, folder: pathlib.Path) -> Listing:
        """Returns the objects of a folder that are downloaded only where they are read, by their names inside it."""
        start = folder.relative_to(self.path).as_posix() + "/"
        names = (name for name in self._objects if name.startswith(start) and fnmatch.fnmatch(name, LARGE))
        return {name.removeprefix(start): self._objects[name] for name in names}

    def delete_checkpoint(self, stage: pathlib.Path, step: int) -> None:
        """Deletes a checkpoint of a stage in the bucket."""
        name = f"{stage.relative_to(self.path).as_posix()}{CHECKPOINTS}{step}/"
        self.remote.delete(self.remote.list_objects(name))
        shutil.rmtree(self.path / name, ignore_errors=True)


class Uploader:
    """Uploads a mirror every minute, by a thread; what fails is raised by the next `check`."""

    def __init__(self, mirror: Mirror, check: Callable[[], None]) -> None:
        self._mirror, self._check = mirror, check
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._upload_until_end, name="upload", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises what an upload has failed with, or what the check before each upload raises."""
        if self._failure:
            raise self._failure
        self._check()

    def __enter__(self) -> Uploader:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()  # after an upload in progress

    def _upload_until_end(self) -> None:
        while not self._failure and not self._ended.wait(EVERY):
            try:
                self._check()
                self._mirror.upload()
            except Exception as error:
                self._failure = error


def _read_state(path: pathlib.Path) -> FileState | None:
    """Returns the state of a regular file; None for anything else."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return None
    return FileState(state.st_mtime_ns, state.st_size, state.st_ino) if stat.S_ISREG(state.st_mode) else None


def _list_files(folder: pathlib.Path) -> list[str]:
    """Returns the names of the files in a folder that are mirrored."""
    paths = (pathlib.Path(root, name) for root, _, names in os.walk(folder) for name in names)
    relative = (path.relative_to(folder) for path in paths if not files.is_draft(path))
    return [path.as_posix() for path in relative if _is_mirrored(path.as_posix())]


def _is_mirrored(name: str) -> bool:
    """Returns whether a file is one that a run writes, other than its lock and its checkpoints."""
    top, _, rest = name.partition("/")
    if rest:
        return top in ("stages", "texts") and CHECKPOINTS not in name
    return top != LOCK and top in (*RUN_FILES, *REPORT_FILES)
