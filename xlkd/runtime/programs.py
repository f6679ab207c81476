# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps compiled programs where every host finds them at a restart: on its own disk, and in the cache in a bucket.

jax's own cache is written by process 0 alone, on whose machine the other hosts cannot read it, and in a bucket each of
its failures costs a program half a minute and a warning.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import pathlib

from xlkd import compat, files
from xlkd.data import cache
from xlkd.data.remote_cache import RemoteCache
from xlkd.runtime import distributed


def share_programs() -> None:
    """Replaces jax's compilation cache where several processes or machines need the programs."""
    remote = cache.get_remote()
    if remote is None and not distributed.has_several_processes():
        return
    import jax

    # The path of the folder for this would be part of the names of programs, and other machines have other paths
    jax.config.update("jax_persistent_cache_enable_xla_caches", "")
    compat.replace_compilation_cache(ProgramCache(cache.get_folder() / cache.COMPILED, remote))


class ProgramCache:
    """A compilation cache of jax: a file for each program in a folder, and an object in a bucket if there is one."""

    def __init__(self, folder: pathlib.Path, remote: RemoteCache | None) -> None:
        self._folder, self._remote = folder, remote
        self._objects = frozenset(remote.list_files(cache.COMPILED)) if remote else frozenset()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "programs")  # an exit waits for its uploads

    def get(self, key: str) -> bytes | None:
        """Returns a program; None where there is none."""
        path = self._folder / f"{key}-cache"
        if self._remote and path.name in self._objects and not path.exists():
            self._remote.fetch_file(f"{cache.COMPILED}/{path.name}", path)
        return path.read_bytes() if path.exists() else None

    def put(self, key: str, value: bytes) -> None:
        """Writes a program; replaces one that could not be read."""
        path = self._folder / f"{key}-cache"
        draft = files.name_draft(path)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(value)
            draft.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            logging.getLogger(__name__).warning("%s cannot be written (%s): compiled again next time", path, error)
            return
        if self._remote and _has_own_names_or_is_primary():
            self._thread.submit(self._remote.upload_file, path, f"{cache.COMPILED}/{path.name}")


def _has_own_names_or_is_primary() -> bool:
    """Returns whether the programs of this process are no copies of those of process 0, or this is process 0.

    On CPU jax names programs by the process too; on other devices all processes have the same names.
    """
    import jax

    return distributed.is_primary() or jax.default_backend() == "cpu"
