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

from xlkd import cli
from xlkd.errors import UserError
from xlkd.runtime import accelerators
from xlkd.runtime import mesh as meshes
from xlkd.runtime.accelerators import Accelerator
from xlkd.runtime.devices import measure_flops

EFFICIENCY = 0.35  # assumed share of the peak that a training step reaches where nothing can be timed
BY_CHIPS = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
BY_CORES = {  # two in a chip
    8: "2x2x1",
    16: "2x2x2",
    32: "2x2x4",
    64: "2x4x4",
    128: "4x4x4",
    256: "4x4x8",
    512: "4x8x8",
    1024: "8x8x8",
    2048: "8x8x16",
    4096: "8x16x16",
}
PODS = {"v4": BY_CORES, "v5e": BY_CHIPS, "v5p": BY_CORES, "v6e": BY_CHIPS}  # the number in Google's name -> chips


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
    slices: int = 1  # equal parts of the devices, between which `mesh.data` alone may lie

    @property
    def count(self) -> int:
        return len(self.devices)

    @property
    def chips(self) -> float:
        return self.count / self.accelerator.devices if self.accelerator else self.count

    def described(self) -> dict[str, Any]:
        """For the record of a plan."""
        names = ("name", "memory", "flops", "exact", "efficiency", "chips", "slices")
        counted = {"devices": self.count, "measured": self.accelerator is None}
        return {name: getattr(self, name) for name in names} | counted

    def speed(self, dtype: str) -> float:
        """FLOP/s of a training step, assumed."""
        return self.flops * self.efficiency * (self.accelerator.float32 if dtype == "float32" else 1.0)


def choose(
    device: str, chips: int, topology: str, slices: int, efficiency: float, say: Callable[[str], object]
) -> Machine:
    """Choose by the flags of the command; without any, this machine. Before jax is first asked for its devices."""
    if topology:
        return _pod(topology, slices, efficiency, say)
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
    known = accelerators.find_accelerator(kind)
    if not known:
        raise UserError(f"{kind} is not in the table of peaks", "--device", "name a device that is like it")
    return _of(known, kind, found[: chips or None], efficiency, exact=True)


def _cpu(found) -> Machine:
    memory = cli.available_memory_bytes() / len(found)
    return Machine("cpu", tuple(found), memory, None, exact=True, flops=measure_flops())


def _elsewhere(name: str, count: int, efficiency: float) -> Machine:
    known = accelerators.TABLE[name]
    found = _processors(count)
    import jax

    here = jax.devices()
    exact = here[0].device_kind.startswith(known.kinds) and len(here) >= count
    return _of(known, name, (here if exact else found)[:count], efficiency, exact=exact)


def _of(known: Accelerator, name: str, found, efficiency: float, *, exact: bool) -> Machine:
    flops = known.flops * len(found)
    slices = len(meshes.group_by_slice(found))
    return Machine(name, tuple(found), known.memory * known.usable, known, exact, efficiency, flops, slices)


def _processors(count: int) -> list:
    """As many devices of this machine's processors, which stand for those that are not here."""
    import jax

    with contextlib.suppress(RuntimeError):  # they were counted before
        jax.config.update("jax_num_cpu_devices", count)
    found = jax.devices("cpu")
    if len(found) < count:
        remedy = f"set JAX_NUM_CPU_DEVICES={count}"
        raise UserError(f"{len(found)} devices stand in for {count}", "this process", remedy)
    return found[:count]


def _pod(topology: str, slices: int, efficiency: float, say: Callable[[str], object]) -> Machine:
    name, shape = _shape(topology)
    known = accelerators.TABLE[name]
    if not importlib.util.find_spec("libtpu"):
        say("libtpu is not installed: memory is estimated by compiling for processors; pip install 'xlkd[topology]'")
        count = slices * math.prod(map(int, shape.split("x"))) * known.devices
        return dataclasses.replace(_elsewhere(name, count, efficiency), slices=slices)
    shown = f"{name}:{shape}" if slices == 1 else f"{name}:{shape} in {slices} slices"
    return _of(known, shown, _describe_topology(name, shape, slices), efficiency, exact=True)


def _shape(topology: str) -> tuple[str, str]:
    """Read `v5e-64` or `v5e:8x8` as the kind and its shape in chips."""
    example = f"for example v5e-64 or v5p:4x4x4; kinds: {', '.join(n for n in accelerators.TABLE if n[0] != 'h')}"
    if not (found := re.fullmatch(r"(v\d[a-z]*|tpu7x)(?:-(\d+)|:(\d+(?:x\d+)+))", topology)):
        raise UserError(f"cannot read {topology!r}", "--topology", example)
    name, number, shape = found[1], found[2], found[3]
    if name not in accelerators.TABLE:
        raise UserError(f"no kind {name!r} in the table", "--topology", example)
    if number and int(number) not in PODS.get(name, {}):
        names = ", ".join(f"{name}-{n}" for n in PODS.get(name, {}))
        raise UserError(f"no shape known for {topology}", "--topology", f"{names or 'give the shape'}, or {name}:AxB")
    return name, shape or PODS[name][int(number)]


def _describe_topology(name: str, shape: str, slices: int) -> list:
    """Return the devices of a pod that is not here, as libtpu describes them."""
    kind = {"v5e": "v5litepod", "tpu7x": "tpu7x"}.get(name, name)
    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{kind}-{math.prod(map(int, shape.split('x')))}",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # libtpu's lock is for chips, and none is used here
    }.items():
        os.environ.setdefault(key, value)
    import jax
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if name == "v4":  # as its hosts have it: one device a chip
        options["chip_config_name"] = "megacore"
    if shape == "1x1":  # a host has 4 chips, unless it is told otherwise
        options["chips_per_host_bounds"] = [1, 1, 1]
    jax.config.update("jax_platforms", "cpu")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{shape}", **options).devices)
    except Exception as error:  # libtpu has no error class of its own
        what = str(error).splitlines()[0][:200]
        if "INVALID_ARGUMENT" in what:
            raise UserError(f"libtpu knows no {name}:{shape} ({what})", "--topology", "give another shape") from error
        raise UserError(f"libtpu cannot be used: {what}", "--topology", "plan with --device and --chips") from error
