# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts FLOPs and bytes of the systems' training steps in TPU programs: `python bench/roofline.py --json=FILE`.

  --json=FILE  keeps a record for each system and TPU, written as soon as it is counted: bench/results/roofline.json,
               from which `make results` draws the rooflines of docs/performance.md
  --only=TEXT  programs with this in their name, such as v5e

Needs libtpu (pip install 'xlkd[topology]') and no TPU. The steps are those of bench/throughput.py in bfloat16, and
fine-tuning of mBERT's shape with the rows of bench/traffic.py. The compiler counts the body of a loop once, so layers
are unrolled; two small numbers of them are compiled, and the counts continued on a line to the complete encoder.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import side_by_side
import throughput
import traffic

from xlkd import cli, files
from xlkd.planning import machine

if TYPE_CHECKING:  # machine.choose_machine comes before the devices of jax
    import jax

TPUS = ("v5e", "v6e")


@dataclasses.dataclass(frozen=True)
class Counts:
    """FLOPs of programs on a device, and the bytes that their operations read and write, as the compiler counts."""

    flops: float
    bytes: float

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.flops + other.flops, self.bytes + other.bytes)

    def extend(self, twice: Counts, factor: float) -> Counts:
        """Returns the counts of `factor` times the layers, from these and those of twice the layers."""
        more = factor - 1
        flops = self.flops + more * (twice.flops - self.flops)
        return Counts(flops, self.bytes + more * (twice.bytes - self.bytes))


@dataclasses.dataclass(frozen=True)
class System:
    """A system's step, built with a number of layers; `fewest` of its `layers` are compiled, and twice as many."""

    name: str
    layers: int
    fewest: int
    make: Callable[[int], throughput.Training]


def _make_finetuning(layers: int) -> throughput.Training:
    import models

    return throughput.make_training(models.make_architecture(f"base/{layers}"), traffic.ROWS, traffic.LENGTH)


SYSTEMS = (
    System("fine-tuning, mBERT's shape, 8×384", 12, 1, _make_finetuning),
    System(throughput.GXLT, 12, 1, lambda n: throughput.make_gxlt(f"12x384/{n}", 24, 384)),
    System(throughput.MBLM, 12, 3, lambda n: throughput.make_mblm(f"12x384/{n}", 32, 128)),
    System(throughput.MMKD, 12, 2, lambda n: throughput.make_mmkd(f"12x384/{n}", f"6x384/{n // 2}", 32, 128)),
)


def main(arguments: list[str]) -> None:
    flags = cli.parse_flags(arguments, ("json", "only"))
    record = Record(cli.resolve_output(flags, "json"))
    print("| program | GFLOP | GB | FLOP / byte |\n|---|---|---|---|", flush=True)
    for tpu in TPUS:
        for system in SYSTEMS:
            name = f"{system.name}, {tpu}"
            if flags.get("only", "") in name:
                since = time.perf_counter()
                counts = count_system(system, tpu)
                record.add(name, {"system": system.name, "device": tpu, **dataclasses.asdict(counts)}, since)
                flops, moved = counts.flops / 1e9, counts.bytes / 1e9
                print(f"| {name} | {flops:,.0f} | {moved:.1f} | {flops / moved:.0f} |", flush=True)


class Record:
    """A file with a record for each compiled program, written after each; a record of the same name is replaced."""

    def __init__(self, file: files.OutputFile | None) -> None:
        self._file = file
        old = json.loads(file.path.read_text(encoding="utf-8")) if file and file.path.exists() else {"programs": {}}
        self._programs: dict[str, Any] = old["programs"]

    def add(self, name: str, counts: dict[str, Any], since: float) -> None:
        """Adds the counts of a program, with the seconds since its compilation began."""
        self._programs[name] = counts | {"seconds": round(time.perf_counter() - since, 1)}
        if self._file:
            about = side_by_side.describe_machine()
            self._file.write_json({"versions": about["versions"], "git": about["git"], "programs": self._programs})


def count_system(system: System, tpu: str) -> Counts:
    """Counts a step of a system on one chip."""
    (device,) = machine.choose_machine("", 0, f"{tpu}-1", 1, machine.EFFICIENCY, print).devices
    import jax

    place = jax.sharding.SingleDeviceSharding(device)
    first, twice = (count_programs(system.make(n * system.fewest).compile(place)) for n in (1, 2))
    return first.extend(twice, system.layers / system.fewest)


def count_programs(programs: Sequence[jax.stages.Compiled]) -> Counts:
    """Adds up what the compiler counts; the body of a loop once."""
    costs = [program.cost_analysis() for program in programs]
    return Counts(*(sum(cost.get(key, 0.0) for cost in costs) for key in ("flops", "bytes accessed")))


if __name__ == "__main__":
    sys.exit(cli.run(main))
