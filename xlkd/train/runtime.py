# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""How jax is set up for a run: its compilation cache, and what the devices can do."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

from xlkd.data import cache
from xlkd.train import accelerators


def prepare() -> None:
    """The persistent compilation cache on, ours unless JAX's variable names one; before the first device call."""
    import jax

    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    jax.config.update("jax_compilation_cache_dir", named or str(cache.folder() / cache.COMPILED))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def give_back() -> None:
    """Memory that nothing holds any more, to the system.

    The doors have glibc keep what a step frees for the next one. What compiling, saving and evaluating freed is kept
    too, and glibc before 2.38 seldom finds the hole of an aligned block again: temporaries of all shapes add up.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def devices() -> str:
    import jax

    kind = jax.devices()[0].device_kind
    return f"{jax.device_count()} × {kind}"


def peak_flops() -> float:
    """Of all devices together: from the table, on CPU measured by one matrix product."""
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return measured() * jax.process_count()
    known = accelerators.of_kind(device.device_kind)
    return known.flops * jax.device_count() if known else float("inf")


def measured(n: int = 1024) -> float:
    """FLOP/s of one matrix product on this machine's processors."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((n, n))
    multiply = jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        multiply(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)
