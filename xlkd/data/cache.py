# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Features and targets on disk, shared by runs: an entry is whole or absent, and deleting it costs only time."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable

import numpy as np

Arrays = dict[str, np.ndarray]
COMPILED = "compiled"  # jax's own entries
_WRITING = ".writing-"
_STALE = 24 * 3600  # seconds after which nobody writes a half entry any more


def folder() -> pathlib.Path:
    """$XLKD_CACHE, else `xlkd/` in the user's cache folder; a temporary one where there is no home."""
    if "XLKD_CACHE" in os.environ:
        return pathlib.Path(os.environ["XLKD_CACHE"])
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
    """The arrays of an entry, mapped from disk; built and written first where there is none."""
    entry = folder() / name
    if not (entry / "done").exists():
        _write(entry, build())
    os.utime(entry / "done", (time.time(),) * 2)
    return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(entry.glob("*.npy"))}


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


def delete(entry: Entry) -> None:
    """Under another name first, so that a kill leaves nothing half."""
    aside = pathlib.Path(tempfile.mkdtemp(prefix=_WRITING, dir=entry.path.parent))
    with contextlib.suppress(FileNotFoundError):  # another process was first
        entry.path.rename(aside / "deleted")
    shutil.rmtree(aside)


def _entry(path: pathlib.Path) -> Entry | None:
    """None for a folder that is not ours or that another process is writing."""
    size, newest = 0, 0.0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a running process replaced it
            state = file.stat()
            size, newest = size + state.st_size, max(newest, state.st_mtime)
    if (path / "done").exists():
        return Entry(path, path.name.rpartition("-")[0], size, (path / "done").stat().st_mtime)
    if path.name == COMPILED:
        return Entry(path, COMPILED, size, newest)
    half = path.name.startswith(_WRITING) and time.time() - max(newest, path.stat().st_mtime) > _STALE
    return Entry(path, "half-written", size, newest) if half else None


def _write(entry: pathlib.Path, values: Arrays) -> None:
    """Under another name first, so that a kill or another writer leaves nothing half."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(prefix=_WRITING, dir=entry.parent))
    for name, value in values.items():
        np.save(beside / f"{name}.npy", value, allow_pickle=False)
    (beside / "done").touch()
    try:
        beside.rename(entry)
    except OSError:  # another process was first
        shutil.rmtree(beside)


def _writable(path: pathlib.Path) -> bool:
    while not path.exists():
        path = path.parent
    return os.access(path, os.W_OK)
