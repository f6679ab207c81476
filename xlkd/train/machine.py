# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The machine that a plan is made for: this one, or one that is not here and whose programs can still be compiled."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Callable
from typing import Any

from xlkd import door
from xlkd.errors import UserError
from xlkd.train import accelerators, runtime
from xlkd.train.accelerators import Accelerator

EFFICIENCY = 0.35  # assumed share of the peak that a training step reaches where nothing can be timed
PODS = {16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}  # chips of v5e and v6e
SLICES = {"v5e": PODS, "v6e": PODS}


@dataclasses.dataclass(frozen=True)
class Machine:
    """Its devices as JAX has them here; `accelerator` is None on processors, where speed is timed."""

    name: str
    devices: tuple[Any, ...]
    memory: float  # bytes of a device that a program may use
    accelerator: Accelerator | None
    exact: bool  # programs are compiled by the machine's own compiler
    efficiency: float = EFFICIENCY
    flops: float = 0.0  # of all devices at best, in bfloat16; on processors measured

    @property
    def count(self) -> int:
        return len(self.devices)

    @property
    def chips(self) -> float:
        return self.count / self.accelerator.devices if self.accelerator else self.count

    def described(self) -> dict[str, Any]:
        """For the record of a plan."""
        told = {name: getattr(self, name) for name in ("name", "memory", "flops", "exact", "efficiency", "chips")}
        return told | {"devices": self.count, "measured": self.accelerator is None}

    def speed(self, dtype: str) -> float:
        """FLOP/s of a training step, assumed."""
        return self.flops * self.efficiency * (self.accelerator.float32 if dtype == "float32" else 1.0)


def choose(device: str, chips: int, topology: str, efficiency: float, say: Callable[[str], object]) -> Machine:
    """By the flags of the door; without any, this machine. Before jax is first asked for its devices."""
    if topology:
        return _pod(topology, efficiency, say)
    known = (*accelerators.TABLE, "cpu")
    if device and device not in known:
        raise UserError(f"no device {device!r} in the table", "--device", f"one of {', '.join(known)}")
    if device in accelerators.TABLE:
        return _elsewhere(device, max(chips, 1) * accelerators.TABLE[device].devices, efficiency)
    return _here(device, chips, efficiency)


def _here(device: str, chips: int, efficiency: float) -> Machine:
    import jax

    if chips:
        _processors(chips)
    found = jax.devices("cpu") if device == "cpu" else jax.devices()
    if found[0].platform == "cpu":
        return _cpu(found[: chips or None])
    kind = found[0].device_kind
    known = accelerators.of_kind(kind)
    if not known:
        raise UserError(f"{kind} is not in the table of peaks", "--device", "name a device that is like it")
    return _of(known, kind, found[: chips or None], efficiency, exact=True)


def _cpu(found) -> Machine:
    memory = door.memory() / len(found)
    return Machine("cpu", tuple(found), memory, None, exact=True, flops=runtime.measured())


def _elsewhere(name: str, count: int, efficiency: float) -> Machine:
    known = accelerators.TABLE[name]
    found = _processors(count)
    import jax

    here = jax.devices()
    exact = here[0].device_kind.startswith(known.kinds) and len(here) >= count
    return _of(known, name, (here if exact else found)[:count], efficiency, exact=exact)


def _of(known: Accelerator, name: str, found, efficiency: float, *, exact: bool) -> Machine:
    flops = known.flops * len(found)
    return Machine(name, tuple(found), known.memory * known.usable, known, exact, efficiency, flops)


def _processors(count: int) -> list:
    """As many devices of this machine's processors, which stand for those that are not here."""
    import jax

    with contextlib.suppress(RuntimeError):  # they were counted before
        jax.config.update("jax_num_cpu_devices", count)
    found = jax.devices("cpu")
    if len(found) < count:
        remedy = f"set XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        raise UserError(f"{len(found)} devices stand in for {count}", "this process", remedy)
    return found[:count]


def _pod(topology: str, efficiency: float, say: Callable[[str], object]) -> Machine:
    name, shape = _shape(topology)
    known = accelerators.TABLE[name]
    count = math.prod(map(int, shape.split("x"))) * known.devices
    if not importlib.util.find_spec("libtpu"):
        say("libtpu is not installed: memory is estimated by compiling for processors; pip install 'xlkd[topology]'")
        return _elsewhere(name, count, efficiency)
    return _of(known, f"{name}:{shape}", _described(name, shape, count), efficiency, exact=True)


def _shape(topology: str) -> tuple[str, str]:
    """`v5e-64` or `v5e:8x8` as the kind and its shape in chips."""
    example = f"for example v5e-64 or v5p:4x4x4; kinds: {', '.join(n for n in accelerators.TABLE if n[0] != 'h')}"
    if not (found := re.fullmatch(r"(v\d[a-z]*|tpu7x)(?:-(\d+)|:(\d+(?:x\d+)+))", topology)):
        raise UserError(f"cannot read {topology!r}", "--topology", example)
    name, chips, shape = found[1], found[2], found[3]
    if name not in accelerators.TABLE:
        raise UserError(f"no kind {name!r} in the table", "--topology", example)
    if chips and int(chips) not in SLICES.get(name, {}):
        some = ", ".join(f"{name}-{n}" for n in SLICES.get(name, {}))
        raise UserError(f"no shape known for {topology}", "--topology", f"{some or 'give the shape'}, or {name}:AxB")
    return name, shape or SLICES[name][int(chips)]


def _described(name: str, shape: str, count: int) -> list:
    """Devices of a pod that is not here, as libtpu describes them."""
    kind = {"v5e": "v5litepod", "tpu7x": "tpu7x"}.get(name, name)
    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{kind}-{count}",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }.items():
        os.environ.setdefault(key, value)
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{shape}").devices)
    except Exception as error:  # what libtpu says of a shape that it does not know
        what = str(error).splitlines()[0][:200]
        raise UserError(f"libtpu knows no {name}:{shape} ({what})", "--topology", "give another shape") from error
