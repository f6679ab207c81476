# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Names the host that the others wait for.

A step takes equally long on all hosts, because each waits for the others in its collective operations. Two times are a
host's own: that of waiting for its next batch, and that of a small product which its devices compute alone, when a log
line is due and they are idle. Both are published, and the primary process compares them.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xlkd.runtime import distributed

PAUSE = 30  # seconds between two comparisons
PRODUCTS = 8  # for a comparison; each takes some milliseconds
SLOWER = 2  # a product that takes this many times as long as on the other hosts
WAITING = 0.1  # the share of a step that a host waits for its data
REPEATED = 600  # seconds after which the same host is named again
_FOLDER = "hosts"


class HostTimes(NamedTuple):
    """The times of one host, in seconds."""

    name: str
    step: float
    waited: float  # in a step, for its batch
    product: float


class HostComparison:
    """Measures this host's own times, and compares them with those of the others; in a run of one process, nothing."""

    def __init__(self, step: int) -> None:
        self._several = distributed.has_several_processes()
        self._measured_at = time.monotonic()
        self._step = step
        self._seconds = self._waited = 0.0
        self._slow = ""  # in the last comparison
        self._named: tuple[str, float] = ("", 0.0)
        self._multiply: Any = None

    def compare(self, step: int, seconds: float, waited: Sequence[float]) -> str:
        """Returns a line that names a slow host, on the primary process; empty if there is none.

        `seconds` were spent on steps until now; `waited` are those of waiting for batches since the last call. It is
        called when the devices are idle.
        """
        if not self._several:
            return ""
        self._waited += sum(waited)
        if time.monotonic() < self._measured_at + PAUSE:
            return ""
        steps = max(step - self._step, 1)
        times = HostTimes(
            socket.gethostname(), (seconds - self._seconds) / steps, self._waited / steps, self._time_product()
        )
        self._step, self._seconds, self._waited, self._measured_at = step, seconds, 0.0, time.monotonic()
        process = distributed.get_process()
        distributed.publish_value(f"{_FOLDER}/{process}", json.dumps(times))
        if process:
            return ""
        published = distributed.read_published(_FOLDER)
        return self._select_news(*find_slow_host({int(key): HostTimes(*json.loads(x)) for key, x in published.items()}))

    def _select_news(self, host: str, line: str) -> str:
        """Returns the line about a host that was slow twice in a row, unless it was named a short time ago."""
        repeats, self._slow = host == self._slow, host
        named, at = self._named
        if not host or not repeats or (host == named and time.monotonic() < at + REPEATED):
            return ""
        self._named = (host, time.monotonic())
        return line

    def _time_product(self) -> float:
        """Returns the mean seconds that the devices of this process need for a product."""
        import jax

        if self._multiply is None:
            self._multiply = _make_product()
            jax.block_until_ready(self._multiply())
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            jax.block_until_ready(self._multiply())
        return (time.perf_counter() - began) / PRODUCTS


def find_slow_host(hosts: Mapping[int, HostTimes]) -> tuple[str, str]:
    """Returns the host that most delays the others, and a line that says how; both empty if none does."""
    if len(hosts) < 2:
        return "", ""
    slow, line = "", ""
    process, times = max(hosts.items(), key=lambda item: item[1].product)
    product = statistics.median(other.product for number, other in hosts.items() if number != process)
    if times.product > SLOWER * product:
        slow = f"process {process} ({times.name})"
        line = (
            f"slow host: {slow} needs {1000 * times.product:.1f} ms for a product that the others compute in "
            f"{1000 * product:.1f} ms"
        )
    process, times = max(hosts.items(), key=lambda item: item[1].waited)
    waited = statistics.median(other.waited for number, other in hosts.items() if number != process)
    if times.waited > WAITING * times.step and times.waited > 2 * waited:
        slow = f"process {process} ({times.name})"
        line = (
            f"slow host: {slow} waits {1000 * times.waited:.1f} ms of a step of {1000 * times.step:.1f} ms for its "
            f"data, the others {1000 * waited:.1f} ms"
        )
    return slow, line


def _make_product() -> Any:
    """Compiles a product on each device of this process, without exchange, and returns a function that runs it."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = jax.local_devices()
    on_cpu = devices[0].platform == "cpu"
    size, repeated, dtype = (256, 8, jnp.float32) if on_cpu else (2048, 32, jnp.bfloat16)
    sharding = NamedSharding(Mesh(devices, "device"), PartitionSpec("device"))

    def multiply(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeated, lambda _, y: x @ y, x)

    make = jax.jit(lambda: jnp.full((len(devices), size, size), 1 / size, dtype), out_shardings=sharding)
    matrices = make()
    compiled = jax.jit(multiply, in_shardings=sharding, out_shardings=sharding).lower(matrices).compile()
    return lambda: compiled(matrices)
