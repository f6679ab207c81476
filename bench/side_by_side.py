# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Times implementations of the same work in turns: medians, spread, ratio, and no verdict on a loaded machine.

A benchmark describes its cases and calls `judge`. Where there are several peers, the fastest one counts. All benchmarks
have these flags:

  --quick      tiny shapes, one round: shows that it runs, and nothing about speed
  --rounds=5   each round runs all sides once, and they take turns in going first
  --only=TEXT  cases with this in their name
  --json=FILE  also writes every single time, and what they depend on: bench/results/NAME/MACHINE.json is kept, and
               `make results` makes the tables of docs/performance.md from all that are kept
  --anyway     continue on a loaded machine; the table then says so and has no verdict
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any

from xlkd import cli, files, processor
from xlkd.errors import UserError

NAMES, SWITCHES = ("rounds", "only", "json"), ("quick", "anyway")
ENOUGH = 5  # rounds for a verdict
CORES = 2  # available to both sides
BUSY = 0.1  # of a core: more use by others counts as load
TICK = os.sysconf("SC_CLK_TCK")
LIBRARIES = ("jax", "jaxlib", "libtpu", "flax", "optax", "numpy", "torch", "transformers")
ROOT = pathlib.Path(__file__).resolve().parents[1]


Side = Callable[[], float | None]  # does the work once and returns its seconds, or None, and then it is timed
Sides = tuple[Side, ...]  # ours, and one for each peer


@dataclasses.dataclass(frozen=True)
class Case:
    """A line of the table. `make` builds all sides (ours first) just before they run; they are freed before the next.

    The bar is the largest allowed ours / theirs, or with `gain` the smallest theirs / ours; 0 means no bar. Theirs is
    the peer with the shortest median.
    """

    name: str
    make: Callable[[], Sides]
    bar: float = 0.0
    gain: bool = False
    warm: int = 2  # untimed calls of each side at first
    peers: tuple[str, ...] = ("theirs",)


@dataclasses.dataclass(frozen=True)
class Flags:
    quick: bool
    rounds: int
    anyway: bool
    only: str
    json: files.OutputFile | None
    rest: dict[str, str]  # flags of this benchmark


def parse_flags(arguments: list[str], names: tuple[str, ...] = (), switches: tuple[str, ...] = ()) -> Flags:
    """Parses the command line and limits the process to two cores; call it before jax and torch are imported."""
    values = cli.parse_flags(arguments, (*NAMES, *names), (*SWITCHES, *switches))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    quick = "quick" in values
    rest = {name: value for name, value in values.items() if name in (*names, *switches)}
    rounds = cli.parse_count(values, "rounds", 1 if quick else ENOUGH, 1000)
    return Flags(
        quick, rounds, "anyway" in values or quick, values.get("only", ""), cli.resolve_output(values, "json"), rest
    )


def judge(title: str, cases: Iterable[Case], flags: Flags) -> list[dict[str, Any]]:
    """Measures the cases, prints their table, and returns its lines."""
    refuse_load_at_rest(flags)
    lines = []
    for case in cases:
        if flags.only in case.name:
            lines.append(_measure(case, flags))
            refuse_load(lines[-1]["others"], flags)
    print(f"\n{title}: {CORES} cores, {flags.rounds} rounds, load average {os.getloadavg()[0]:.2f}\n")
    print("| work | ours, s | theirs, s | ratio | lowest–highest | bar | |\n|---|---|---|---|---|---|---|")
    for line in lines:
        print(_format_row(line))
    if flags.json:
        flags.json.write_json({"title": title, "quick": flags.quick, **describe_machine(), "cases": lines})
    return lines


def describe_machine() -> dict[str, Any]:
    """Returns what measured times depend on: the processor, its cores, the code, and the versions of libraries."""
    installed = {each.metadata["Name"].lower().replace("_", "-"): each.version for each in metadata.distributions()}
    versions = {name: installed[name] for name in LIBRARIES if name in installed}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    machine = {"processor": processor.describe(), "cores": processor.count_cores()}
    return machine | {"python": platform.python_version(), "versions": versions, "git": commit.stdout.strip()}


def _measure(case: Case, flags: Flags) -> dict[str, Any]:
    sides = dict(zip(("ours", *case.peers), case.make(), strict=True))
    for _ in range(1 if flags.quick else case.warm):
        for side in sides.values():
            side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    count_others = watch_others()
    for number in range(flags.rounds):
        first = (number + 1) % len(sides)
        for name in (*sides, *sides)[first : first + len(sides)]:
            times[name].append(time_side(sides[name]))
    others = count_others()
    peer = min(case.peers, key=lambda name: statistics.median(times[name]))
    ratios = [o / t for o, t in zip(times["ours"], times[peer], strict=True)]
    ratio = statistics.median(times["ours"]) / statistics.median(times[peer])
    if case.gain:
        ratio, ratios = 1 / ratio, [1 / r for r in ratios]
    line = {"name": case.name, **times, "peer": peer, "ratio": ratio, "ratios": ratios}
    line |= {"bar": case.bar, "gain": case.gain, "others": others}
    print(f"{case.name}: {ratio:.2f}", flush=True)
    return line | {"verdict": _decide_verdict(line, flags)}


def time_side(side: Side) -> float:
    """Does a side's work once, and returns its seconds."""
    start = time.perf_counter()
    seconds = side()
    return time.perf_counter() - start if seconds is None else seconds


def refuse_load_at_rest(flags: Flags) -> None:
    """Refuses to measure if others use the machine while this process does nothing."""
    refuse_load(_others_at_rest(), flags)


def refuse_load(others: float, flags: Flags) -> None:
    """Refuses to measure while others use the machine, unless the flags allow it."""
    if others > BUSY and not flags.anyway:
        what = f"others use {others:.2f} cores of this machine, and a loaded one flatters one side"
        raise UserError(what, f"load average {os.getloadavg()[0]:.2f}", "wait until it is quiet, or give --anyway")


def watch_others() -> Callable[[], float]:
    """Returns a function that returns the number of cores that others have used since."""
    started, own, machine = time.perf_counter(), _own_seconds(), _machine_seconds()

    def count_others() -> float:
        used = (_machine_seconds() - machine) - (_own_seconds() - own)
        return max(used, 0.0) / (time.perf_counter() - started)

    return count_others


def _decide_verdict(line: dict[str, Any], flags: Flags) -> str:
    if flags.quick:
        return "quick: no figure"
    if line["others"] > BUSY:
        return f"loaded ({line['others']:.1f} cores by others)"
    if not line["bar"]:
        return ""
    if flags.rounds < ENOUGH:
        return "too few rounds"
    return "held" if (line["ratio"] >= line["bar"]) == line["gain"] else "missed"


def _format_row(line: dict[str, Any]) -> str:
    ours, theirs = (statistics.median(line[side]) for side in ("ours", line["peer"]))
    sign = "≥" if line["gain"] else "≤"
    bar = f"{sign} {line['bar']:g}" if line["bar"] else ""
    spread = f"{min(line['ratios']):.2f}–{max(line['ratios']):.2f}"
    times = f"{_format_seconds(ours)} | {_format_seconds(theirs)}"
    times += "" if line["peer"] == "theirs" else f" ({line['peer']})"
    return f"| {line['name']} | {times} | **{line['ratio']:.2f}** | {spread} | {bar} | {line['verdict']} |"


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _others_at_rest(seconds: float = 1.0) -> float:
    """Returns the number of cores that others use while this process uses none."""
    before = _machine_seconds()
    time.sleep(seconds)
    return (_machine_seconds() - before) / seconds


def _own_seconds() -> float:
    """Returns the CPU seconds of this process and of the children it has waited for."""
    return sum(os.times()[:4])


def _machine_seconds() -> float:
    """Returns the CPU seconds of the machine, including stolen time; 0 if the system does not report them."""
    try:
        user, nice, system, _, _, *rest = map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + sum(rest[:3])) / TICK
