# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts what a compiled program moves between devices, from the text of its instructions."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")
REDUCTIONS = ("all-reduce", "reduce-scatter")
TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
# Of 8 bits are all other types
BITS = {"f64": 64, "s64": 64, "u64": 64, "f32": 32, "s32": 32, "u32": 32, "bf16": 16, "f16": 16, "s16": 16, "u16": 16}
_COLLECTIVE = re.compile(rf" = (.+?) ({'|'.join(KINDS)})(-start)?\((.*)")
_ARRAY = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(ENTRY )?%?([^ (]+) \(.*\{$")
_CALLS = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([^\s,}]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LOOP = re.compile(r" while\(%?([^\s)]+)\).*condition=%?([^\s,]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_CONSTANT = re.compile(r"= s\d+\[\]\S* constant\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """An exchange of arrays between devices, which a step makes `times` times."""

    kind: str
    bytes: int  # of the complete arrays: what is reduced, or what has been gathered
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # type and shape of each, as a device receives it
    group: int  # devices that exchange with one another
    times: int  # the product of the trip counts of the loops around it

    @property
    def moved(self) -> float:
        """Returns the bytes that a device sends in a step, where they travel in a ring."""
        share = (self.group - 1) / self.group
        rounds = {"all-reduce": 2 * share, "collective-permute": 1.0}
        return self.times * self.bytes * rounds.get(self.kind, share)


def list_collectives(program: str, devices: int) -> list[Collective]:
    """Lists the collectives of a compiled program (`compiled.as_text()`) of this number of devices."""
    computations, entry = _split_computations(program)
    times: dict[str, int] = collections.defaultdict(int)

    def visit(name: str, count: int) -> None:
        times[name] += count
        for line in computations[name]:
            trips = _count_trips(line, computations)
            branches = [name for names in _BRANCHES.findall(line) for name in names.replace("%", "").split(", ")]
            for called in (*_CALLS.findall(line), *branches):
                if called in computations and not _COLLECTIVE.search(line):
                    visit(called, count * trips)

    visit(entry, 1)
    collectives = {}
    for name, count in times.items():
        # So a TPU's compiler calls an all-reduce that is fused with the slices that each device keeps
        scattered = name.startswith("all-reduce-scatter")
        for number, line in enumerate(computations[name]):
            if match := _COLLECTIVE.search(line):
                # What is exchanged in steps, between those of a computation, has a line for each step
                channel = _CHANNEL.search(line)
                key = (channel[1], *_ARRAY.findall(match[1]), count) if channel else (name, number)
                collectives.setdefault(key, _read_collective(match, devices, count, scattered=scattered))
    return [collective for collective in collectives.values() if collective.group > 1]


def describe_traffic(program: str, devices: int, vocabulary: int) -> dict[str, Any]:
    """Returns the bytes that a device sends in a step: in `total`, by `kinds`, for reductions by their `types`.

    `in_loops` are those of reductions within loops. `table` is the share of arrays with a row for each token.
    """
    collectives = list_collectives(program, devices)
    types: dict[str, float] = collections.defaultdict(float)
    table = 0.0
    for each in collectives:
        for dtype, shape in each.arrays:
            share = _count_bytes(dtype, shape) / sum(_count_bytes(*array) for array in each.arrays) * each.moved
            table += share * (vocabulary in shape)
            if each.kind in REDUCTIONS:
                types[dtype] += share
    kinds = sum_by_kind(collectives)
    in_loops = sum(each.moved for each in collectives if each.kind in REDUCTIONS and each.times > 1)
    total = sum(kinds.values())
    return {"total": total, "kinds": kinds, "types": dict(types), "in_loops": in_loops, "table": table}


def sum_by_kind(collectives: Sequence[Collective]) -> dict[str, float]:
    """Returns the bytes that a device sends in a step, by the kind of collective."""
    moved = {kind: sum(each.moved for each in collectives if each.kind == kind) for kind in KINDS}
    return {kind: bytes_ for kind, bytes_ in moved.items() if bytes_}


def _split_computations(program: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation by its name, and the name of the first one that runs."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in program.splitlines():
        if not line.startswith(" ") and (match := _COMPUTATION.match(line)):
            lines = computations.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        else:
            lines.append(line)
    return computations, entry


def _count_trips(line: str, computations: dict[str, list[str]]) -> int:
    """Returns how often a loop runs: as its line says, or as its condition compares; 1 for other instructions."""
    if not (loop := _LOOP.search(line)):
        return 1
    if known := _TRIPS.search(line):
        return int(known[1])
    limits = [int(match[1]) for other in computations[loop[2]] if (match := _CONSTANT.search(other))]
    return max(limits, default=1)


def _read_collective(match: re.Match[str], devices: int, count: int, *, scattered: bool) -> Collective:
    shapes, kind, start, rest = match.groups()
    listed = _ARRAY.findall(shapes)
    if start and kind == "all-gather":
        listed = listed[len(listed) // 2 :]  # after those that go in
    arrays = tuple((dtype, tuple(map(int, filter(None, sizes.split(","))))) for dtype, sizes in listed)
    group = _count_group(rest, devices)
    size = sum(_count_bytes(*array) for array in arrays)
    if kind == "reduce-scatter":
        size *= group  # the result is a device's part
    return Collective("reduce-scatter" if scattered else kind, size, arrays, group, count)


def _count_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return BITS.get(dtype, 8) // 8 * math.prod(shape)


def _count_group(attributes: str, devices: int) -> int:
    """Returns how many devices exchange with one another, from the ways in which a program writes its groups."""
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(match[1].split(","))
    return devices
