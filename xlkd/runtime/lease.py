# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Locks a folder of a bucket by an object that its owner renews; a lock that is no longer renewed can be taken over.

No clocks of two machines are compared: whoever waits for a lock looks at it again and again, and takes it over when it
has not changed for `LEASE` seconds. The owner writes nothing once it has not renewed its lock for most of that time.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable

from xlkd.errors import UserError
from xlkd.storage import ChangedError, RemoteFolder

LOCK = ".lock"
LEASE = 60.0  # seconds without renewal after which another process may take a lock over
_RENEWALS = 6  # renewals within that time
_LATE = 0.7  # of that time: an owner that has not renewed its lock for longer renews it before it writes


class Lease:
    """The lock of this process in a folder of a bucket, renewed by a thread until `release`."""

    def __init__(self, folder: RemoteFolder, log: Callable[[str], object]) -> None:
        """Takes the lock, after waiting for one that is no longer renewed; refuses a folder that is in use."""
        self._folder, self._log, self._mutex, self._lost = folder, log, threading.Lock(), ""
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
        self._owner = {
            "host": socket.gethostname(),
            "boot": boot.read_text(encoding="utf-8").strip() if boot.exists() else "",
            "process": os.getpid(),
            "started": _read_start_ticks(os.getpid()),
            "token": uuid.uuid4().hex,
        }
        try:
            self._generation = self._write(self._wait_until_free())
        except ChangedError:
            raise UserError(f"in use by {self._read_owner()}", folder.url, "wait, or choose another") from None
        self._renewed = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises a UserError where another process has taken the lock over; renews a lock that is late first."""
        if not self._lost and time.monotonic() - self._renewed > _LATE * LEASE:
            self._renew()
        if self._lost:
            what = f"taken over by {self._lost}, after this process had not answered for a while"
            raise UserError(what, self._folder.url, "leave it to that process")

    def release(self) -> None:
        """Deletes the lock."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            self._folder.delete([LOCK])

    def _wait_until_free(self) -> int:
        """Returns the generation of the lock that may be replaced, 0 without a lock; refuses one that is renewed."""
        current = self._folder.read(LOCK)
        if current is None:
            return 0
        owner, generation, since = _parse_owner(current[0]), current[1].generation, time.monotonic()
        if not self._is_dead(owner):
            self._log(f"{self._folder.url} is locked by {_describe(owner)}: waiting whether it is still renewed")
            while time.monotonic() - since < LEASE:
                time.sleep(min(LEASE / _RENEWALS / 2, 5))
                current = self._folder.read(LOCK)
                if current is None:
                    return 0
                if current[1].generation != generation:
                    raise UserError(f"in use by {self._read_owner()}", self._folder.url, "wait, or choose another")
        self._log(f"{self._folder.url}: the lock of {_describe(owner)}, which has ended, is taken over")
        return generation

    def _is_dead(self, owner: dict[str, object]) -> bool:
        """Returns whether the owner was a process of this machine that has ended, so that nobody has to wait."""
        if (owner.get("host"), owner.get("boot")) != (self._owner["host"], self._owner["boot"]):
            return False
        return _read_start_ticks(owner.get("process")) != owner.get("started")

    def _write(self, generation: int) -> int:
        """Writes the lock if it still has this generation; returns its new one. Raises ChangedError otherwise."""
        record = self._owner | {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "after": generation}
        return self._folder.write(LOCK, json.dumps(record).encode(), generation).generation

    def _read_owner(self) -> str:
        """Describes the present owner of the lock."""
        current = self._folder.read(LOCK)
        return _describe(_parse_owner(current[0])) if current else "another process"

    def _renew(self) -> None:
        with self._mutex:
            if self._lost:
                return
            began = time.monotonic()
            try:
                self._generation = self._write(self._generation)
                self._renewed = began
            except ChangedError:
                self._lost = self._read_owner()

    def _renew_until_end(self) -> None:
        while not self._ended.wait(LEASE / _RENEWALS) and not self._lost:
            with contextlib.suppress(Exception):  # `check` tries again, and raises it
                self._renew()


def _read_start_ticks(process: object) -> str:
    """Returns when a process of this machine started, in a form that no other process of the same number has."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _parse_owner(data: bytes) -> dict[str, object]:
    try:
        owner = json.loads(data)
    except (ValueError, RecursionError):
        owner = None
    return owner if isinstance(owner, dict) else {}


def _describe(owner: dict[str, object]) -> str:
    return f"process {owner.get('process', '?')} on {owner.get('host', '?')}"
