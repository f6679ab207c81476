# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The processes of a run as threads of a test: they exchange results as real ones do, over a store in memory."""

import concurrent.futures
import threading

from xlkd.data.share import Share


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
