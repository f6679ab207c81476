# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sets up JAX for a run: its compilation cache, the memory of the process, the peak rate of the devices."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import pathlib
import time

from xlkd import files, processor
from xlkd.data import cache
from xlkd.errors import UserError
from xlkd.runtime import accelerators
from xlkd.runtime.programs import share_programs


def prepare_devices() -> None:
    """Turns on the persistent compilation cache, unless JAX's own variables set it; before the first device call."""
    import jax

    cache.size_limit_bytes()  # refuses an impossible limit before anything is computed
    options = {
        "jax_compilation_cache_dir": str(cache.get_folder() / cache.COMPILED),
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    for name, value in options.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        share_programs()


def release_memory() -> None:
    """Returns freed memory to the system.

    The commands let glibc keep the memory that a step frees for the next one. What compiling, saving and evaluating
    free is kept too, and glibc before 2.38 seldom reuses the gap of an aligned block: temporaries of all shapes add up.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def measure_memory() -> dict[str, float]:
    """Returns the memory of this process, and where it is known the most that a device has used, in GiB."""
    import jax

    memory = {}
    with contextlib.suppress(OSError, ValueError, IndexError):  # another system than Linux
        pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        memory["memory"] = pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    if peak := (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"):
        memory["device_memory"] = peak / 2**30
    return memory


def describe_devices() -> str:
    """Returns the number and kind of the devices."""
    import jax

    kind = jax.devices()[0].device_kind
    return f"{jax.device_count()} × {kind}"


@functools.cache
def peak_flops(dtype: str) -> float:
    """Returns the peak FLOP/s of all devices together: from the table, on CPU the highest measured for this type."""
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return measure_flops(dtype) * jax.process_count()
    accelerator = accelerators.find_accelerator(device.device_kind)
    return accelerator.flops * jax.device_count() if accelerator else float("inf")


def measure_flops(dtype: str) -> float:
    """Returns the highest FLOP/s that matrix products of this type have reached on this machine's processors.

    Other programs slow down a product, never speed it up: the best of several sizes and times counts, and that of
    earlier measurements, which the cache folder keeps.
    """
    path, name = cache.get_folder() / "peak.json", _name_machine(dtype)
    known = _read_peaks(path)
    # What earlier starts reached seldom rises: one size is enough then, in hundredths of a second
    best = max(_time_product(size, dtype) for size in ((1024,) if name in known else (512, 1024, 2048)))
    try:
        if best > known.get(name, 0.0):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(path, known | {name: best})
        return max(best, known.get(name, 0.0))
    except (OSError, UserError):  # a cache that cannot be written only costs the memory of earlier measurements
        return best


def _time_product(size: int, dtype: str, times: int = 5) -> float:
    """Returns the FLOP/s of the fastest of several matrix products, whose sums are float32."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((size, size), dtype)
    multiply = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    multiply(x, x).block_until_ready()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        multiply(x, x).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def _read_peaks(path: pathlib.Path) -> dict[str, float]:
    """Returns the kept rates by machine; nothing where the file is missing or damaged."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in values.items() if isinstance(v, float)} if isinstance(values, dict) else {}


def _name_machine(dtype: str) -> str:
    """Names what the rate depends on: the processor, the cores that this process may use, jaxlib, and the type."""
    import jaxlib

    machine = f"{processor.describe()}, {processor.count_cores()} cores, jaxlib {jaxlib.__version__}"
    return machine if dtype == "float32" else f"{machine}, {dtype}"
