# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stores features and targets on disk, shared by runs: an entry is complete or absent, and deleting it costs only time.

The file `done` of an entry is written last and has a checksum of every array: a damaged entry is built again. Only a
folder with an entry's name and nothing but an entry's files is deleted; anything else is left alone.

Where $XLKD_CACHE is a folder of a bucket, machines share that: entries are copied to the local folder to be read, and
uploaded when they were built.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from xlkd import files, spec, storage
from xlkd.compat import JAX_CACHE_FILE
from xlkd.data.remote_cache import DONE, RemoteCache
from xlkd.errors import UserError

Arrays = dict[str, np.ndarray]
COMPILED = "compiled"  # jax's own entries
_WRITING = ".writing-"
_ENTRY_NAME = re.compile(r"[a-z][a-z0-9_]*(-[0-9a-f]{32}){1,2}")  # as `make_name` returns it; a shard has two hashes
_WRITING_NAME = re.compile(re.escape(_WRITING) + "[a-z0-9_]{8}")
_ENTRY_FILE = re.compile(r"done|[^/]+\.npy")
_WRITING_FILE = re.compile(r"(deleted/)?(done|[^/]+\.npy)|deleted/|part-\d+")
_STALE = 24 * 3600  # seconds after which a partial entry is no longer being written


def get_folder() -> pathlib.Path:
    """Returns $XLKD_CACHE, else `xlkd/` in the user's cache folder, or in a temporary one where there is no home."""
    if get_remote() or not os.environ.get("XLKD_CACHE"):
        return find_user_folder("xlkd")
    return files.expand_path(os.environ["XLKD_CACHE"])


def get_remote() -> RemoteCache | None:
    """Returns the cache in a bucket; None where $XLKD_CACHE is not the address of one."""
    place = os.environ.get("XLKD_CACHE") or ""
    return _open_remote(place) if storage.is_remote(place) else None


@functools.cache
def _open_remote(url: str) -> RemoteCache:
    return RemoteCache(url)


def check_settings() -> None:
    """Refuses impossible values of the cache's variables, and a bucket that does not exist or refuses access."""
    get_folder()
    size_limit_bytes()
    if remote := get_remote():
        remote.check()


def find_user_folder(name: str) -> pathlib.Path:
    """Returns a folder in the user's cache folder, or in a private temporary one where there is no home."""
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not base.is_absolute() or not _is_writable(base):
        try:
            base = pathlib.Path(tempfile.gettempdir())
        except FileNotFoundError as error:
            raise UserError("no folder for the cache can be written", "XLKD_CACHE", "set it to a folder") from error
        return _make_private(base / f"cache-{os.getuid()}") / name
    return _make_private(base / name) if base.stat().st_mode & stat.S_IWOTH else base / name


def _make_private(folder: pathlib.Path) -> pathlib.Path:
    """Makes a folder that only this user can read, where others can write beside it; refuses one that is not ours.

    Whoever can write into the cache decides what its compiled programs do.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        what = "a symlink, or a folder that another user owns or can write to"
        raise UserError(what, str(folder), "delete it, or set XLKD_CACHE to a folder of yours")
    return folder


def make_name(start: str, parts: Iterable[str]) -> str:
    """Returns the name of an entry: a start, and a hash of everything that its content depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part.encode())
    return f"{start}-{digest.hexdigest()[:32]}"


def load_or_build(name: str, build: Callable[[], Mapping[str, np.ndarray]], *, upload: bool = True) -> Arrays:
    """Returns the arrays of an entry, mapped from disk; builds and writes them first where no sound entry exists.

    Of several processes that build the same entry, only one needs to `upload` it to a cache in a bucket.
    """
    stored = load(name)
    if stored is not None:
        return stored
    values, entry = build(), get_folder() / name
    _write_entry(entry, values)
    if (remote := get_remote()) and upload:
        remote.upload_entry(entry)
    _prune_to_limit(entry)
    stored = _read_arrays(entry)
    return dict(values) if stored is None else stored  # None: already pruned


def load(name: str) -> Arrays | None:
    """Returns the arrays of an entry, mapped from disk; None where no sound entry exists."""
    entry = get_folder() / name
    stored = _read_arrays(entry)
    if stored is not None or not (remote := get_remote()):
        return stored
    if _write_folder(entry, lambda draft: remote.fetch_entry(name, draft)):
        stored = _read_arrays(entry)
        if stored is None:
            remote.forget_entry(name)
        _prune_to_limit(entry)
    return stored


def list_entries(start: str) -> list[str]:
    """Returns the names of the entries that begin with `start` and a hyphen, sorted."""
    paths, remote = get_folder().glob(f"{start}-*"), get_remote()
    names = {path.name for path in paths if (path / DONE).exists()}
    names.update(remote.list_entries(f"{start}-") if remote else ())
    return sorted(filter(_ENTRY_NAME.fullmatch, names))


@dataclasses.dataclass(frozen=True)
class Entry:
    """A part of the cache that may be deleted: its size, and its time of last use (seconds since 1970)."""

    path: pathlib.Path
    kind: str
    size_bytes: int
    used: float


@dataclasses.dataclass(frozen=True)
class Contents:
    """The content of the cache's folder: entries, least recently used first, and paths that are not the cache's."""

    entries: tuple[Entry, ...]
    foreign: tuple[pathlib.Path, ...]


def list_contents() -> Contents:
    """Lists the entries and the foreign paths; entries that another process is writing are left out."""
    base, entries, foreign = get_folder(), [], []
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # just deleted
            if entry := _read_entry(path):
                entries.append(entry)
            if path.name == COMPILED and not path.is_symlink() and path.is_dir():
                foreign += [path / name for name in _list_files(path) if not JAX_CACHE_FILE.fullmatch(name)]
            elif not entry and not _is_being_written(path):
                foreign.append(path)
    return Contents(tuple(sorted(entries, key=lambda entry: (entry.used, entry.path.name))), tuple(foreign))


def size_limit_bytes() -> int:
    """Returns the maximum size of the cache: $XLKD_CACHE_GIB, else 50 GiB."""
    text = os.environ.get("XLKD_CACHE_GIB") or "50"
    try:
        size = spec.parse_value(float, text)
    except ValueError:
        size = -1.0
    if not 0 <= size <= 1e9:
        raise UserError(f"{text!r} is not a number", "XLKD_CACHE_GIB", "give gibibytes, for example 20")
    return int(size * 2**30)


def _prune_to_limit(new: pathlib.Path) -> None:
    """Deletes the least recently used entries, but not the new one, until the cache is within its limit."""
    entries = list_contents().entries
    total = sum(entry.size_bytes for entry in entries)
    for entry in entries:
        if total > size_limit_bytes() and entry.path != new:
            delete(entry.path)
            total -= entry.size_bytes


def _read_entry(path: pathlib.Path) -> Entry | None:
    """Returns the entry in a folder; None for foreign folders, and for one that another process may be writing."""
    names = _list_own_files(path)
    if names is None:
        return None
    states = [(path / name).lstat() for name in names]
    size = sum(state.st_size for state in states)
    newest = max((state.st_mtime for state in states), default=path.stat().st_mtime)
    if path.name == COMPILED:
        return Entry(path, COMPILED, size, newest) if names else None
    if _WRITING_NAME.fullmatch(path.name):
        return Entry(path, "half-written", size, newest) if time.time() - newest > _STALE else None
    if not _read_sums(path / DONE):
        return None
    return Entry(path, path.name.partition("-")[0], size, (path / DONE).stat().st_mtime)


def _list_own_files(path: pathlib.Path) -> list[str] | None:
    """Returns the files that this module or jax wrote in a folder; None where the folder is not the cache's."""
    if path.is_symlink() or not path.is_dir():
        return None
    if path.name == COMPILED:
        return [name for name in _list_files(path) if JAX_CACHE_FILE.fullmatch(name)]
    for name, file in ((_ENTRY_NAME, _ENTRY_FILE), (_WRITING_NAME, _WRITING_FILE)):
        if name.fullmatch(path.name):
            names = _list_files(path)
            return names if all(map(file.fullmatch, names)) else None
    return None


def _list_files(path: pathlib.Path) -> list[str]:
    """Returns everything below a folder by relative path: folders end in a slash, non-regular files in @."""
    names = []
    for root, folders, others in os.walk(path):
        for name in (*others, *folders):
            mode = os.lstat(os.path.join(root, name)).st_mode
            ending = "" if stat.S_ISREG(mode) else "/" if stat.S_ISDIR(mode) else "@"
            names.append(os.path.relpath(os.path.join(root, name), path) + ending)
    return names


def _is_being_written(path: pathlib.Path) -> bool:
    """Says whether a folder is an entry that a process writes now, or wrote less than a day ago."""
    return bool(_WRITING_NAME.fullmatch(path.name)) and _list_own_files(path) is not None


def _read_sums(done: pathlib.Path) -> dict[str, int] | None:
    """Returns the checksums in the marker of an entry; None where it is not a valid marker."""
    try:
        sums = json.loads(done.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return sums if isinstance(sums, dict) and all(type(value) is int for value in sums.values()) else None


def _read_arrays(entry: pathlib.Path) -> Arrays | None:
    """Returns the arrays of an entry; None where it does not exist or is damaged, in which case it is deleted."""
    if not entry.exists():
        return None
    try:
        sums = json.loads((entry / DONE).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if checksum(entry / f"{name}.npy") != expected:
                raise ValueError(f"{name}.npy does not match its checksum")
        stored = {name: np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in sums}
        with contextlib.suppress(PermissionError):  # another user's cache, which is read-only here
            os.utime(entry / DONE, (time.time(),) * 2)
        return stored
    except (OSError, ValueError, AttributeError) as error:
        logging.getLogger(__name__).warning("%s is damaged (%s) and is rebuilt", entry, error)
        delete(entry)
        return None


def _write_entry(entry: pathlib.Path, values: Mapping[str, np.ndarray]) -> None:
    """Writes an entry that was built."""

    def write(draft: pathlib.Path) -> bool:
        sums = {}
        for name, value in values.items():
            np.save(draft / f"{name}.npy", value, allow_pickle=False)
            sums[name] = checksum(draft / f"{name}.npy")
        (draft / DONE).write_text(json.dumps(sums), encoding="utf-8")
        return True

    _write_folder(entry, write)


def _write_folder(entry: pathlib.Path, write: Callable[[pathlib.Path], bool]) -> bool:
    """Makes an entry by `write`, which returns whether it is complete; returns that too.

    The entry is renamed from a draft, so that a kill or another writer leaves no partial entry.
    """
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        draft = pathlib.Path(tempfile.mkdtemp(prefix=_WRITING, dir=entry.parent))
    except OSError as error:
        raise _make_write_error(entry.parent, error) from error
    try:
        complete = write(draft)
        if complete:
            with contextlib.suppress(OSError):  # another process was first
                draft.rename(entry)
        return complete
    except OSError as error:
        raise _make_write_error(entry.parent, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def delete(path: pathlib.Path) -> None:
    """Deletes an entry after renaming it, so that a kill leaves no partial entry; foreign folders are left alone."""
    names = _list_own_files(path)
    if names is None:
        return
    if path.name == COMPILED:
        for name in names:
            if not name.endswith("/"):
                (path / name).unlink(missing_ok=True)
        for root, *_ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(root)
        return
    aside = pathlib.Path(tempfile.mkdtemp(prefix=_WRITING, dir=path.parent))
    with contextlib.suppress(FileNotFoundError):  # another process was first
        path.rename(aside / "deleted")
    shutil.rmtree(aside)


def checksum(path: pathlib.Path) -> int:
    """Returns the CRC-32 of a file, which detects bad disks and broken copies, not manipulation."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total = zlib.crc32(block, total)
    return total


def _make_write_error(path: pathlib.Path, error: OSError) -> UserError:
    """Returns the error of a cache folder that cannot be written."""
    reason = error.strerror or error  # numpy describes a full disk in its own words
    return UserError(f"cannot be written: {reason}", str(path), "free disk space, or set XLKD_CACHE to another folder")


def _is_writable(path: pathlib.Path) -> bool:
    """Says whether a folder can be created and written; permissions of a missing one do not answer that."""
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
        return os.access(path, os.W_OK)
    return False
