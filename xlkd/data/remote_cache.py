# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The part of the cache that is in a bucket: entries are copied from there and to there, and no failure ends a run.

The object of an array has its checksum in the name, and `done`, written last, says which arrays an entry has. So two
hosts that write one entry at the same time leave a sound one, even where their bits differ.
"""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable
from typing import TypeVar

from xlkd import storage
from xlkd.errors import Stopped, UserError

DONE = "done"
PATIENCE = 60.0  # seconds for which a request is sent again: to build an entry again costs only time

Result = TypeVar("Result")


class RemoteCache:
    """The entries in a folder of a bucket. What has failed is said once, and not tried again by this process."""

    def __init__(self, url: str) -> None:
        self._folder = storage.RemoteFolder(url, PATIENCE)
        self._failed: set[str] = set()  # "read", "written"

    @property
    def url(self) -> str:
        """The address of the folder."""
        return self._folder.url

    def check(self) -> None:
        """Raises a UserError where the bucket does not exist or refuses access; a silent one is done without."""
        try:
            self._folder.read(DONE)
        except Stopped as error:
            self._give_up("read", error)

    def list_entries(self, start: str) -> list[str]:
        """Returns the names of the complete entries that begin with `start`."""
        names = self._attempt("read", lambda: list(self._folder.list_objects(start)), [])
        return [name.removesuffix(f"/{DONE}") for name in names if name.endswith(f"/{DONE}")]

    def fetch_entry(self, name: str, draft: pathlib.Path) -> bool:
        """Downloads the files of an entry into a folder; returns whether there was a complete one."""

        def fetch() -> bool:
            marker = self._folder.read(f"{name}/{DONE}")
            if marker is None:
                return False
            try:
                for array, number in _parse_sums(marker[0]).items():
                    self._folder.download(_name_object(name, array, number), draft / f"{array}.npy")
            except (FileNotFoundError, ValueError) as error:
                logging.getLogger(__name__).warning("%s/%s is damaged (%s) and is rebuilt", self.url, name, error)
                self.forget_entry(name)
                return False
            (draft / DONE).write_bytes(marker[0])
            return True

        return self._attempt("read", fetch, False)

    def forget_entry(self, name: str) -> None:
        """Deletes the marker of a damaged entry, which nobody downloads until it is written again."""
        self._attempt("written", lambda: self._folder.delete([f"{name}/{DONE}"]), None)

    def upload_entry(self, entry: pathlib.Path) -> None:
        """Uploads the files of an entry, the marker last, unless the bucket has this entry."""
        marker = (entry / DONE).read_bytes()

        def upload() -> None:
            stored = self._folder.read(f"{entry.name}/{DONE}")
            if stored is not None and stored[0] == marker:
                return
            for array, number in _parse_sums(marker).items():
                self._folder.upload(entry / f"{array}.npy", _name_object(entry.name, array, number))
            self._folder.write(f"{entry.name}/{DONE}", marker)

        self._attempt("written", upload, None)

    def list_files(self, folder: str) -> list[str]:
        """Returns the names of the objects in a folder."""
        names = self._attempt("read", lambda: list(self._folder.list_objects(f"{folder}/")), [])
        return [name.removeprefix(f"{folder}/") for name in names]

    def fetch_file(self, name: str, path: pathlib.Path) -> None:
        """Downloads an object as a file, if it exists."""

        def fetch() -> None:
            try:
                self._folder.download(name, path)
            except FileNotFoundError:  # deleted since it was listed
                return

        self._attempt("read", fetch, None)

    def upload_file(self, path: pathlib.Path, name: str) -> None:
        """Uploads a file."""
        self._attempt("written", lambda: self._folder.upload(path, name), None)

    def _attempt(self, use: str, request: Callable[[], Result], otherwise: Result) -> Result:
        """Returns the result of a request, or `otherwise` once such requests have failed."""
        if use in self._failed:
            return otherwise
        try:
            return request()
        except (Stopped, UserError) as error:
            self._give_up(use, error)
            return otherwise

    def _give_up(self, use: str, error: Exception) -> None:
        """Reports that the bucket is no longer read or written; one that is silent is neither."""
        silent = isinstance(error, Stopped)
        self._failed |= {"read", "written"} if silent else {use}
        reason = str(error).partition(";")[0]
        what = f"the cache {self.url} is no longer {'used' if silent else use} ({reason})"
        logging.getLogger(__name__).warning("%s; this run continues with the cache of this machine", what)


def _parse_sums(marker: bytes) -> dict[str, int]:
    """Returns the checksum of each array of an entry; raises a ValueError for anything else than a marker."""
    sums = json.loads(marker)
    if not isinstance(sums, dict) or not all(type(number) is int and "/" not in name for name, number in sums.items()):
        raise ValueError("its marker is not valid")
    return sums


def _name_object(entry: str, array: str, number: int) -> str:
    return f"{entry}/{array}.{number:08x}.npy"
