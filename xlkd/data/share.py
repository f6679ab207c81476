# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Shares out work among the processes of a run, and exchanges the results over the key-value store of process 0.

Devices take no part: an exchange in the background cannot disturb the order of collectives.
"""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from xlkd.errors import UserError

WAIT_TIMEOUT = 24 * 3600  # seconds that a process waits for another one that is alive
_POLL = 2000  # milliseconds after which a waiting process looks whether its share was closed
_VALUE, _ERROR = b"v", b"e"  # the first byte of a message


class Share:
    """The part of one process: it does each piece of work whose number modulo `processes` is `process`.

    Every process calls `gather` equally often, from one thread. `client` is that of jax's coordination service.
    """

    def __init__(self, client: Any, name: str, process: int, processes: int) -> None:
        self.process, self.processes = process, processes
        self._client, self._name, self._round = client, name, 0
        self._closed = threading.Event()

    def gather(self, function: Callable[[], bytes]) -> list[bytes]:
        """Calls `function` on every process and returns all results in order; its UserError is raised on all."""
        number, self._round = self._round, self._round + 1
        own = self._make_key(number, self.process)
        try:
            content = function()
        except UserError as error:
            self._client.key_value_set_bytes(own, _ERROR + json.dumps(error.args).encode())
            raise
        self._client.key_value_set_bytes(own, _VALUE + content)
        others = [place for place in range(self.processes) if place != self.process]
        answers = {place: self._read(self._make_key(number, place)) for place in others}
        if number:  # whoever has answered in this round has read the answers of the round before
            self._client.key_value_delete(self._make_key(number - 1, self.process))
        for place, answer in answers.items():
            if answer.startswith(_ERROR):
                what, where, remedy = json.loads(answer[1:])
                raise UserError(what, f"{where}, on process {place}" if where else f"process {place}", remedy)
        return [content if place == self.process else answers[place][1:] for place in range(self.processes)]

    def close(self) -> None:
        """Ends a `gather` in another thread that still waits for other processes."""
        self._closed.set()

    def _read(self, key: str) -> bytes:
        """Waits for the message of another process."""
        until = time.monotonic() + WAIT_TIMEOUT
        while True:
            try:
                return self._client.blocking_key_value_get_bytes(key, _POLL)
            except RuntimeError as error:  # jax's errors derive from it
                if "DEADLINE_EXCEEDED" not in str(error) or time.monotonic() > until:
                    raise
            if self._closed.is_set():
                raise concurrent.futures.CancelledError

    def _make_key(self, number: int, place: int) -> str:
        return f"xlkd/exchange/{self._name}/{number}/{place}"
