# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The processes of a run as threads of a test: they exchange results as real ones do, over a store in memory."""

import concurrent.futures
import json
import threading

import numpy as np

from xlkd.data import cache
from xlkd.data.share import Share
from xlkd.runtime import distributed, shared_cache


class Store:
    """The coordination service's key-value store; `sizes` has the bytes of each message."""

    def __init__(self):
        self._values, self._changed, self.sizes = {}, threading.Condition(), {}

    def key_value_set_bytes(self, key, value):
        with self._changed:
            assert key not in self.sizes, "the real store refuses a key that exists"
            self._values[key], self.sizes[key] = value, len(value)
            self._changed.notify_all()

    def blocking_key_value_get_bytes(self, key, milliseconds):
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._values, milliseconds / 1000):
                raise RuntimeError(f"DEADLINE_EXCEEDED: {key}")
            return self._values[key]

    def key_value_delete(self, key):
        with self._changed:
            del self._values[key]

    def list_keys(self):
        return sorted(self._values)


def run_on_all(function, processes, store=None):
    """Calls `function(share)` in one thread for each process; returns the futures of the results."""
    store = store or Store()
    shares = [Share(store, "toy", process, processes) for process in range(processes)]

    def run(share):
        try:
            return function(share)
        except BaseException:
            for other in shares:
                other.close()
            raise

    with concurrent.futures.ThreadPoolExecutor(processes) as threads:
        return [threads.submit(run, share) for share in shares]


class Processes:
    """Several processes as threads of a test, with one cache or one each; `share` is that of the calling thread."""

    def __init__(self, monkeypatch, folder, *, shared):
        self._local = threading.local()
        for module, name, function in (
            (cache, "get_folder", lambda: folder / ("all" if shared or not self.share else str(self.share.process))),
            (distributed, "has_several_processes", lambda: self.share is not None),
            (distributed, "is_primary", lambda: self.share is None or self.share.process == 0),
            (distributed, "open_share", lambda name: self.share),
            (distributed, "any_process", self._any_process),
            (distributed, "broadcast_from_primary", self._broadcast),
            (shared_cache, "is_shared", lambda: shared and self.share is not None),
        ):
            monkeypatch.setattr(module, name, function)

    @property
    def share(self):
        return getattr(self._local, "share", None)

    def run(self, function, processes):
        """Calls a function in each process; returns the results."""

        def work(share):
            self._local.share = share
            return function()

        return [future.result() for future in run_on_all(work, processes)]

    def _broadcast(self, name, function):
        if self.share is None:
            return function()
        return json.loads(self.share.gather(lambda: json.dumps(None if self.share.process else function()).encode())[0])

    def _any_process(self, flags):
        parts = self.share.gather(flags.tobytes) if self.share else [flags.tobytes()]
        return np.any([np.frombuffer(part, bool) for part in parts], axis=0)
