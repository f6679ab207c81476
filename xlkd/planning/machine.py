# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes the machine that a plan is made for: this one, or another whose programs can be compiled here."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from xlkd import cli
from xlkd.errors import UserError
from xlkd.runtime import accelerators
from xlkd.runtime import mesh as meshes
from xlkd.runtime.accelerators import Accelerator
from xlkd.runtime.devices import measure_flops

EFFICIENCY = 0.35  # assumed share of the peak FLOP/s that a training step reaches, where no step can be timed
_SIZE = "[1-9][0-9]{0,4}"
_TOPOLOGY = re.compile(rf"(v[0-9][a-z]*|tpu7x)(?:-({_SIZE})|:({_SIZE}(?:x{_SIZE}){{1,2}}))")
MOST_DEVICES = 4096  # of a plan: JAX needs half a minute for as many stand-ins
BY_CHIPS = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
BY_CORES = {  # a chip has two cores
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
PODS = {"v4": BY_CORES, "v5e": BY_CHIPS, "v5p": BY_CORES, "v6e": BY_CHIPS}  # number in Google's name -> shape in chips


@dataclasses.dataclass(frozen=True)
class Machine:
    """A machine, with its devices as JAX describes them; `accelerator` is None on CPUs, where steps are timed."""

    name: str
    devices: tuple[Any, ...]
    memory: float  # bytes of a device that a program may use
    accelerator: Accelerator | None
    exact: bool  # whether programs are compiled by the compiler of that machine
    efficiency: float = EFFICIENCY
    flops: float = 0.0  # peak FLOP/s of all devices together, in bfloat16; measured on CPUs, in float32
    slices: int = 1  # TPU slices, of equally many devices; only `mesh.data` can cross them

    @property
    def count(self) -> int:
        """Returns the number of devices."""
        return len(self.devices)

    @property
    def chips(self) -> float:
        """Returns the number of chips; some chips have two devices."""
        return self.count / self.accelerator.devices if self.accelerator else self.count

    @property
    def platform(self) -> str:
        """Returns the platform of the machine: cpu, gpu or tpu."""
        if self.accelerator is None:
            return str(self.devices[0].platform)
        return "tpu" if self.accelerator.kinds[0].startswith("TPU") else "gpu"

    def describe(self) -> dict[str, Any]:
        """Returns the machine as the JSON of a plan has it."""
        names = ("name", "memory", "flops", "exact", "efficiency", "chips", "slices")
        counted = {"devices": self.count, "measured": self.accelerator is None}
        return {name: getattr(self, name) for name in names} | counted

    def find_peak(self, dtype: str) -> float:
        """Returns the peak that the utilisation of a run in this type refers to, as its live line does."""
        return self.flops if self.accelerator else measure_flops(dtype)

    def assume_speed(self, dtype: str) -> float:
        """Returns the FLOP/s that a training step is assumed to reach."""
        assumed = self.flops * self.efficiency
        return assumed * self.accelerator.float32 if self.accelerator and dtype == "float32" else assumed


def choose_machine(
    device: str, chips: int, topology: str, slices: int, efficiency: float, log: Callable[[str], object]
) -> Machine:
    """Returns the machine that the command's flags name, or this one; has to be called before JAX has devices."""
    if topology:
        return _describe_pod(topology, slices, efficiency, log)
    known = (*accelerators.TABLE, "cpu")
    if device and device not in known:
        raise UserError(f"no device {device!r} in the table", "--device", f"one of {', '.join(known)}")
    if device in accelerators.TABLE:
        return _describe_remote(device, max(chips, 1) * accelerators.TABLE[device].devices, efficiency)
    return _describe_this_machine(device, chips, efficiency)


def _describe_this_machine(device: str, chips: int, efficiency: float) -> Machine:
    import jax

    if chips:
        _stand_in_devices(chips)
    devices = jax.devices("cpu") if device == "cpu" else jax.devices()
    if devices[0].platform == "cpu":
        return _measure_cpu(devices[: chips or None])
    kind = devices[0].device_kind
    known = accelerators.find_accelerator(kind)
    if not known:
        raise UserError(f"{kind} is not in the table of accelerators", "--device", "name a similar device")
    return _describe_accelerators(known, kind, devices[: chips or None], efficiency, exact=True)


def _measure_cpu(devices: Sequence[Any]) -> Machine:
    """Measures the FLOP/s of this machine, and divides its available memory among the devices."""
    memory = cli.available_memory_bytes() / len(devices)
    return Machine("cpu", tuple(devices), memory, None, exact=True, flops=measure_flops("float32"))


def _describe_remote(name: str, count: int, efficiency: float) -> Machine:
    """Describes a machine of the table; CPU devices replace devices that this machine lacks."""
    known = accelerators.TABLE[name]
    stand_ins = _stand_in_devices(count)
    import jax

    local = jax.devices()
    exact = local[0].device_kind.startswith(known.kinds) and len(local) >= count
    return _describe_accelerators(known, name, (local if exact else stand_ins)[:count], efficiency, exact=exact)


def _describe_accelerators(
    known: Accelerator, name: str, devices: Sequence[Any], efficiency: float, *, exact: bool
) -> Machine:
    flops = known.flops * len(devices)
    slices = len(meshes.group_by_slice(devices))
    return Machine(name, tuple(devices), known.memory * known.usable, known, exact, efficiency, flops, slices)


def _stand_in_devices(count: int) -> list[Any]:
    """Returns this number of CPU devices, which replace devices that this machine lacks."""
    import jax

    with contextlib.suppress(RuntimeError):  # JAX has devices already, whose number is fixed
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        what = f"the plan needs {count} CPU devices in place of the missing ones, and JAX has {len(devices)}"
        raise UserError(what, remedy=f"set the environment variable JAX_NUM_CPU_DEVICES={count}")
    return devices[:count]


def _describe_pod(topology: str, slices: int, efficiency: float, log: Callable[[str], object]) -> Machine:
    """Describes TPU slices by libtpu where it is installed, else with CPU devices in their place."""
    name, shape = _parse_topology(topology)
    known = accelerators.TABLE[name]
    count = slices * math.prod(map(int, shape.split("x"))) * known.devices
    if count > MOST_DEVICES:
        what = f"{count} devices are more than {MOST_DEVICES}"
        raise UserError(what, "--topology", "give a smaller shape, or fewer slices")
    if not importlib.util.find_spec("libtpu"):
        log("libtpu is not installed: memory is estimated by compiling for CPUs; pip install 'xlkd[topology]'")
        return dataclasses.replace(_describe_remote(name, count, efficiency), slices=slices)
    shown = f"{name}:{shape}" if slices == 1 else f"{name}:{shape} in {slices} slices"
    return _describe_accelerators(known, shown, _describe_topology(name, shape, slices), efficiency, exact=True)


def _parse_topology(topology: str) -> tuple[str, str]:
    """Parses `v5e-64` or `v5e:8x8`; returns the kind and the shape in chips."""
    example = f"for example v5e-64 or v5p:4x4x4; kinds: {', '.join(n for n in accelerators.TABLE if n[0] != 'h')}"
    if not (
        match := re.fullmatch(
            r"(v[0-9][a-z]*|tpu7x)(?:-([1-9][0-9]{0,4})|:([1-9][0-9]{0,4}(?:x[1-9][0-9]{0,4}){1,2}))", topology
        )
    ):
        raise UserError(f"cannot read {topology!r}", "--topology", example)
    name, number, shape = match.groups()
    if name not in accelerators.TABLE:
        raise UserError(f"no kind {name!r} in the table", "--topology", example)
    if shape and shape.count("x") != (1 if PODS.get(name) is BY_CHIPS else 2):
        raise UserError(f"cannot read {topology!r}", "--topology", example)
    if number and int(number) not in PODS.get(name, {}):
        names = ", ".join(f"{name}-{n}" for n in PODS.get(name, {}))
        raise UserError(f"no known shape for {topology}", "--topology", f"{names or 'give the shape'}, or {name}:AxB")
    return name, shape or PODS[name][int(number)]


def _describe_topology(name: str, shape: str, slices: int) -> list[Any]:
    """Returns the devices of TPU slices as libtpu describes them, without a TPU."""
    kind = {"v5e": "v5litepod", "tpu7x": "tpu7x"}.get(name, name)
    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": f"{kind}-{math.prod(map(int, shape.split('x')))}",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # libtpu locks the chips, and none is used here
    }.items():
        os.environ.setdefault(key, value)
    import jax
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if name == "v4":  # its hosts show one device a chip
        options["chip_config_name"] = "megacore"
    if shape == "1x1":  # libtpu assumes hosts of 4 chips
        options["chips_per_host_bounds"] = [1, 1, 1]
    jax.config.update("jax_platforms", "cpu")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{shape}", **options).devices)
    except Exception as error:  # libtpu has no error class of its own
        what = str(error).splitlines()[0][:200]
        if "INVALID_ARGUMENT" in what:
            raise UserError(
                f"libtpu does not support {name}:{shape} ({what})", "--topology", "give another shape"
            ) from error
        raise UserError(f"libtpu cannot be used: {what}", "--topology", "plan with --device and --chips") from error
