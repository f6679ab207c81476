# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Features and targets on disk, shared by runs: an entry is whole or absent, and deleting it costs only time."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable

import numpy as np

Arrays = dict[str, np.ndarray]


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


def _write(entry: pathlib.Path, values: Arrays) -> None:
    """Under another name first, so that a kill or another writer leaves nothing half."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(prefix=".writing-", dir=entry.parent))
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
