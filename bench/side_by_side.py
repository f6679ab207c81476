# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Two ways of the same work, taken in turns: medians, spread and ratio, and no verdict where others use the machine.

A bench describes its cases and calls `judge`; the flags are the same for all of them:

  --quick      tiny shapes, one round: whether it runs, nothing about speed
  --rounds=5   each round runs both sides once, the first of them by turns
  --only=TEXT  cases with this in their name
  --json=FILE  every single time, beside the table
  --anyway     go on where the machine is loaded; the table says so and judges nothing
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from xlkd import cli, files
from xlkd.errors import UserError

NAMES, SWITCHES = ("rounds", "only", "json"), ("quick", "anyway")
ENOUGH = 5  # rounds for a verdict
CORES = 2  # that both sides may use
BUSY = 0.1  # of a core: more than this by others is load
TICK = os.sysconf("SC_CLK_TCK")


Side = Callable[[], float | None]  # the work once; its seconds, or nothing: then it is timed
Sides = tuple[Side, Side]  # ours, theirs


@dataclasses.dataclass(frozen=True)
class Case:
    """One line of the table. `make` builds both sides, ours first, when their turn comes; they go before the next.

    The bar is of ours / theirs, at most; with `gain` of theirs / ours, at least; 0: none.
    """

    name: str
    make: Callable[[], Sides]
    bar: float = 0.0
    gain: bool = False
    warm: int = 2  # calls of each before the first that counts


@dataclasses.dataclass(frozen=True)
class Flags:
    quick: bool
    rounds: int
    anyway: bool
    only: str
    json: files.OutputFile | None
    rest: dict[str, str]  # what the bench has of its own


def flags(arguments: list[str], names: tuple[str, ...] = (), switches: tuple[str, ...] = ()) -> Flags:
    """What the command line says; from here on the process has two cores. Before jax and torch are imported."""
    given = cli.parse_flags(arguments, (*NAMES, *names), (*SWITCHES, *switches))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    quick = "quick" in given
    rest = {name: value for name, value in given.items() if name in (*names, *switches)}
    rounds = cli.parse_count(given, "rounds", 1 if quick else ENOUGH)
    return Flags(
        quick, rounds, "anyway" in given or quick, given.get("only", ""), cli.resolve_output(given, "json"), rest
    )


def judge(title: str, cases: Iterable[Case], flags: Flags) -> list[dict[str, Any]]:
    """Measure the cases and print their table."""
    _refuse(_others_at_rest(), flags)
    lines = []
    for case in cases:
        if flags.only in case.name:
            lines.append(_measured(case, flags))
            _refuse(lines[-1]["others"], flags)
    print(f"\n{title}: {CORES} cores, {flags.rounds} rounds, load average {os.getloadavg()[0]:.2f}\n")
    print("| work | ours, s | theirs, s | ratio | lowest–highest | bar | |\n|---|---|---|---|---|---|---|")
    for line in lines:
        print(_row(line))
    if flags.json:
        flags.json.write_json({"title": title, "quick": flags.quick, "cases": lines})
    return lines


def _measured(case: Case, flags: Flags) -> dict[str, Any]:
    ours, theirs = case.make()
    for _ in range(1 if flags.quick else case.warm):
        ours()
        theirs()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    started, own, busy = time.perf_counter(), _own(), _machine()
    for number in range(flags.rounds):
        sides = [("ours", ours), ("theirs", theirs)]
        for name, side in sides[:: 1 if number % 2 else -1]:
            times[name].append(_timed(side))
    others = (_machine() - busy) - (_own() - own)
    ratios = [o / t for o, t in zip(times["ours"], times["theirs"], strict=True)]
    ratio = statistics.median(times["ours"]) / statistics.median(times["theirs"])
    if case.gain:
        ratio, ratios = 1 / ratio, [1 / r for r in ratios]
    line = {"name": case.name, **times, "ratio": ratio, "ratios": ratios, "bar": case.bar, "gain": case.gain}
    line["others"] = max(others, 0.0) / (time.perf_counter() - started)
    print(f"{case.name}: {ratio:.2f}", flush=True)
    return line | {"verdict": _verdict(line, flags)}


def _timed(side: Side) -> float:
    start = time.perf_counter()
    told = side()
    return time.perf_counter() - start if told is None else told


def _verdict(line: dict[str, Any], flags: Flags) -> str:
    if flags.quick:
        return "quick: no figure"
    if line["others"] > BUSY:
        return f"loaded ({line['others']:.1f} cores by others)"
    if not line["bar"]:
        return ""
    if flags.rounds < ENOUGH:
        return "too few rounds"
    return "held" if (line["ratio"] >= line["bar"]) == line["gain"] else "missed"


def _row(line: dict[str, Any]) -> str:
    ours, theirs = (statistics.median(line[side]) for side in ("ours", "theirs"))
    sign = "≥" if line["gain"] else "≤"
    bar = f"{sign} {line['bar']:g}" if line["bar"] else ""
    spread = f"{min(line['ratios']):.2f}–{max(line['ratios']):.2f}"
    times = f"{_short(ours)} | {_short(theirs)}"
    return f"| {line['name']} | {times} | **{line['ratio']:.2f}** | {spread} | {bar} | {line['verdict']} |"


def _short(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _refuse(others: float, flags: Flags) -> None:
    if others > BUSY and not flags.anyway:
        what = f"others use {others:.2f} cores of this machine, and a loaded one flatters one side"
        raise UserError(what, f"load average {os.getloadavg()[0]:.2f}", "wait until it is quiet, or give --anyway")


def _others_at_rest(seconds: float = 1.0) -> float:
    """Cores in use while we use none."""
    before = _machine()
    time.sleep(seconds)
    return (_machine() - before) / seconds


def _own() -> float:
    """Seconds of CPU time of this process and of the children it has waited for."""
    return sum(os.times()[:4])


def _machine() -> float:
    """Seconds of CPU time of all on the machine, stolen time included; 0 where the system does not tell."""
    try:
        user, nice, system, _, _, *rest = map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + sum(rest[:3])) / TICK
