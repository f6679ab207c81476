# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Features and targets on disk, shared by runs: an entry is whole or absent, and deleting it costs only time.

The file `done` of an entry is written last and holds a checksum of every array: what was damaged since is made again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable

import numpy as np

from xlkd.errors import UserError

Arrays = dict[str, np.ndarray]
COMPILED = "compiled"  # jax's own entries
_WRITING = ".writing-"
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
    return sorted(path.name for path in folder().glob(f"{kind}-*") if (path / "done").exists())


@dataclasses.dataclass(frozen=True)
class Entry:
    """Something that may be deleted: its size, and when it was last used (seconds since 1970)."""

    path: pathlib.Path
    kind: str
    size_bytes: int
    used: float


def entries() -> list[Entry]:
    """What lies in the cache, what was used longest ago first."""
    base = folder()
    found = [_entry(path) for path in (base.iterdir() if base.is_dir() else ()) if path.is_dir()]
    return sorted((entry for entry in found if entry), key=lambda entry: (entry.used, entry.path.name))


def limit() -> int:
    """Bytes that the cache may hold: $XLKD_CACHE_GIB, else 50 GiB."""
    given = os.environ.get("XLKD_CACHE_GIB", "50")
    try:
        return int(float(given) * 2**30)
    except ValueError:
        raise UserError(f"{given!r} is not a number", "XLKD_CACHE_GIB", "give gibibytes") from None


def _make_room(new: pathlib.Path) -> None:
    """Delete what was used longest ago, but not the new entry, until the rest is within the limit."""
    known = entries()
    total = sum(entry.size_bytes for entry in known)
    for entry in known:
        if total > limit() and entry.path != new:
            delete(entry.path)
            total -= entry.size_bytes


def _entry(path: pathlib.Path) -> Entry | None:
    """None for a folder that is not ours, that another process is writing, or that just went."""
    try:
        done = path / "done"
        states = [file.stat() for file in path.rglob("*")]
        size = sum(state.st_size for state in states)
        newest = max((state.st_mtime for state in states), default=path.stat().st_mtime)
        if done.exists():
            return Entry(path, path.name.partition("-")[0], size, done.stat().st_mtime)
    except FileNotFoundError:
        return None
    if path.name == COMPILED:
        return Entry(path, COMPILED, size, newest)
    half = path.name.startswith(_WRITING) and time.time() - newest > _STALE
    return Entry(path, "half-written", size, newest) if half else None


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
    """Under another name first, so that a kill leaves nothing half."""
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
