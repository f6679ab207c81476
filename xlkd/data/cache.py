# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Features and targets on disk, shared by runs: an entry is whole or absent, and deleting it costs only time.

The file `done` of an entry is written last and holds a checksum of every array: what was damaged since is made again.
Only what has an entry's name and nothing but an entry's files is deleted; anything else in the folder is left alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from collections.abc import Callable, Iterable

import numpy as np

from xlkd.compat import JAX_CACHE_FILE
from xlkd.errors import UserError

Arrays = dict[str, np.ndarray]
COMPILED = "compiled"  # jax's own entries
_WRITING = ".writing-"
_ENTRY_NAME = re.compile(r"[a-z][a-z0-9_]*(-[0-9a-f]{32}){1,2}")  # as `name_of` makes it; a shard's has two hashes
_WRITING_NAME = re.compile(re.escape(_WRITING) + "[a-z0-9_]{8}")
_ENTRY_FILE = re.compile(r"done|[^/]+\.npy")
_WRITING_FILE = re.compile(r"(deleted/)?(done|[^/]+\.npy)|deleted/|part-\d+")
_STALE = 24 * 3600  # seconds after which nobody writes a half entry any more


def folder() -> pathlib.Path:
    """$XLKD_CACHE, else `xlkd/` in the user's cache folder; a temporary one where there is no home."""
    if os.environ.get("XLKD_CACHE"):
        return pathlib.Path(os.environ["XLKD_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base) or not _writable(pathlib.Path(base)):
        base = os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return pathlib.Path(base) / "xlkd"


def name_of(kind: str, parts: Iterable[str]) -> str:
    """The name of an entry: its kind, and a hash of all it depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part.encode())
    return f"{kind}-{digest.hexdigest()[:32]}"


def arrays(name: str, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of an entry, mapped from disk; built and written first where there is no sound one."""
    entry = folder() / name
    found = _read(entry)
    if found is not None:
        return found
    values = build()
    _write(entry, values)
    _make_room(entry)
    found = _read(entry)
    return values if found is None else found  # pruned again already


def held(name: str) -> Arrays | None:
    """The arrays of an entry; None where there is no sound one."""
    return _read(folder() / name)


def named(kind: str) -> list[str]:
    """The entries of a kind, in order of their names."""
    paths = folder().glob(f"{kind}-*")
    return sorted(path.name for path in paths if _ENTRY_NAME.fullmatch(path.name) and (path / "done").exists())


@dataclasses.dataclass(frozen=True)
class Entry:
    """Something that may be deleted: its size, and when it was last used (seconds since 1970)."""

    path: pathlib.Path
    kind: str
    size_bytes: int
    used: float


@dataclasses.dataclass(frozen=True)
class Contents:
    """Lists what lies in the cache's folder: entries, the least recently used first, and what is not the cache's."""

    entries: tuple[Entry, ...]
    foreign: tuple[pathlib.Path, ...]


def list_contents() -> Contents:
    """Returns the entries and what is left alone; what another process is writing is neither."""
    base, entries, foreign = folder(), [], []
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # it just went
            if entry := _read_entry(path):
                entries.append(entry)
            if path.name == COMPILED and not path.is_symlink() and path.is_dir():
                foreign += [path / name for name in _list_files(path) if not JAX_CACHE_FILE.fullmatch(name)]
            elif not entry and not _is_being_written(path):
                foreign.append(path)
    return Contents(tuple(sorted(entries, key=lambda entry: (entry.used, entry.path.name))), tuple(foreign))


def limit() -> int:
    """Bytes that the cache may hold: $XLKD_CACHE_GIB, else 50 GiB."""
    given = os.environ.get("XLKD_CACHE_GIB", "50")
    try:
        return int(float(given) * 2**30)
    except ValueError:
        raise UserError(f"{given!r} is not a number", "XLKD_CACHE_GIB", "give gibibytes") from None


def _make_room(new: pathlib.Path) -> None:
    """Delete what was used longest ago, but not the new entry, until the rest is within the limit."""
    known = list_contents().entries
    total = sum(entry.size_bytes for entry in known)
    for entry in known:
        if total > limit() and entry.path != new:
            delete(entry.path)
            total -= entry.size_bytes


def _read_entry(path: pathlib.Path) -> Entry | None:
    """Returns what may be deleted; None for what is not ours, and for what another process may be writing."""
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
    if not _read_sums(path / "done"):
        return None
    return Entry(path, path.name.partition("-")[0], size, (path / "done").stat().st_mtime)


def _list_own_files(path: pathlib.Path) -> list[str] | None:
    """Returns the files in a folder that this module, or jax for it, wrote; None for what is not ours as a whole."""
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
    """Returns all that lies in a folder by relative path: folders end in a slash, what is no regular file in @."""
    names = []
    for root, folders, files in os.walk(path):
        for name in (*files, *folders):
            mode = os.lstat(os.path.join(root, name)).st_mode
            ending = "" if stat.S_ISREG(mode) else "/" if stat.S_ISDIR(mode) else "@"
            names.append(os.path.relpath(os.path.join(root, name), path) + ending)
    return names


def _is_being_written(path: pathlib.Path) -> bool:
    """Says whether a folder is an entry that a process is writing, or was less than a day ago."""
    return bool(_WRITING_NAME.fullmatch(path.name)) and _list_own_files(path) is not None


def _read_sums(done: pathlib.Path) -> dict[str, int] | None:
    """Returns the checksums that the marker of an entry holds; None where it holds something else."""
    try:
        sums = json.loads(done.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return sums if isinstance(sums, dict) and all(type(value) is int for value in sums.values()) else None


def _read(entry: pathlib.Path) -> Arrays | None:
    """None where there is no entry, or a damaged one, which is dropped."""
    if not entry.exists():
        return None
    try:
        sums = json.loads((entry / "done").read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if checksum(entry / f"{name}.npy") != expected:
                raise ValueError(f"{name}.npy is not what was written")
        found = {name: np.load(entry / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in sums}
        with contextlib.suppress(PermissionError):  # somebody else's cache, which we may only read
            os.utime(entry / "done", (time.time(),) * 2)
        return found
    except (OSError, ValueError, AttributeError) as error:
        logging.getLogger(__name__).warning("%s is damaged (%s) and is made again", entry, error)
        delete(entry)
        return None


def _write(entry: pathlib.Path, values: Arrays) -> None:
    """Under another name first, so that a kill or another writer leaves nothing half."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        beside = pathlib.Path(tempfile.mkdtemp(prefix=_WRITING, dir=entry.parent))
    except OSError as error:
        raise _unwritable(entry.parent, error) from error
    try:
        sums = {}
        for name, value in values.items():
            np.save(beside / f"{name}.npy", value, allow_pickle=False)
            sums[name] = checksum(beside / f"{name}.npy")
        (beside / "done").write_text(json.dumps(sums), encoding="utf-8")
        with contextlib.suppress(OSError):  # another process was first
            beside.rename(entry)
    except OSError as error:
        raise _unwritable(entry.parent, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def delete(path: pathlib.Path) -> None:
    """Deletes an entry, under another name first, so that a kill leaves nothing half; leaves alone what is not ours."""
    names = _list_own_files(path)
    if names is None:
        return
    if path.name == COMPILED:
        for name in names:
            if not name.endswith("/"):
                (path / name).unlink(missing_ok=True)
        for root, *_ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):  # it holds something else
                os.rmdir(root)
        return
    aside = pathlib.Path(tempfile.mkdtemp(prefix=_WRITING, dir=path.parent))
    with contextlib.suppress(FileNotFoundError):  # another process was first
        path.rename(aside / "deleted")
    shutil.rmtree(aside)


def checksum(path: pathlib.Path) -> int:
    """CRC-32: it guards against bad disks and broken copies, not against people."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total = zlib.crc32(block, total)
    return total


def _unwritable(path: pathlib.Path, error: OSError) -> UserError:
    reason = error.strerror or error  # numpy tells of a full disk in words of its own
    return UserError(f"cannot be written: {reason}", str(path), "make room, or set XLKD_CACHE to elsewhere")


def _writable(path: pathlib.Path) -> bool:
    """What permissions say of a place that is not there is no answer: some file systems make nothing for anybody."""
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
        return os.access(path, os.W_OK)
    return False
