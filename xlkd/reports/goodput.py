# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Goodput: the share of a run's time spent on productive steps, and the use of the rest, over all restarts.

A run writes a line to `events.jsonl` whenever it begins another activity, and whenever it prints its steps. The time of
a killed process is therefore known until its last print.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from xlkd.reports import shapes

Event = dict[str, Any]

NAMES = {  # in the order in which tables show them
    "steps": "productive steps",
    "again": "steps that were lost and repeated",
    "data": "waiting for data",
    "teacher": "teacher forward pass before training",
    "evaluate": "evaluation",
    "save": "saving",
    "compile": "compilation",
    "prepare": "reading and tokenizing",
    "start": "start-up and restoring",
    "finish": "export and report",
}
KINDS = {"begin": "start", "report": "finish"}  # events that are counted as another kind
SHOWN = 0.01  # parts with a smaller share are left out of the line for the console


def measure(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Returns the `seconds` of a run, their `parts`, the `share` of productive steps, `starts` and `steps_again`.

    It is None where a run wrote no events.
    """
    processes = _split_processes(_read_events(workdir / "events.jsonl"))
    if not processes:
        return None
    spent: dict[str, float] = collections.defaultdict(float)
    again = 0
    for number, process in enumerate(processes):
        again += _add_times(process, _find_restored_steps(processes[number + 1 :]), spent)
    total = sum(spent.values())
    pauses = [after[0]["time"] - before[-1]["time"] for before, after in itertools.pairwise(processes)]
    return {
        "seconds": round(total, 3),
        "share": round(spent["steps"] / total, 4) if total else 0.0,
        "starts": len(processes),
        "steps_again": again,
        "seconds_between_starts": round(sum(max(pause, 0.0) for pause in pauses), 3),
        "parts": {name: round(spent[name], 3) for name in NAMES if spent[name]},
    }


def format_line(goodput: Mapping[str, Any]) -> str:
    """Writes one line for the console: the share, the largest other parts, and the number of starts."""
    total = goodput["seconds"]
    parts = [(seconds / total, NAMES[name]) for name, seconds in goodput["parts"].items() if name != "steps"]
    shown = ", ".join(f"{name} {share:.0%}" for share, name in sorted(parts, reverse=True) if share >= SHOWN)
    text = f"goodput: {goodput['share']:.0%} of {total:.0f} s were productive steps"
    text += f"; {shown}" if shown else ""
    if goodput["starts"] > 1:
        text += f"; {goodput['starts']} starts, {goodput['steps_again']} steps repeated"
        text += f", {goodput['seconds_between_starts']:.0f} s between them"
    return text


def list_values(goodput: Mapping[str, Any]) -> dict[str, float]:
    """Returns the values for trackers: the share of each part in the time, and the numbers of starts and lost steps."""
    total = goodput["seconds"] or 1.0
    shares = {f"goodput/{name}": seconds / total for name, seconds in goodput["parts"].items()}
    return shares | {f"goodput/{name}": float(goodput[name]) for name in ("starts", "steps_again")}


def _read_events(path: pathlib.Path) -> list[Event]:
    """Reads the events; a line that a kill cut off, and any that is not an event, is left out."""
    if not path.is_file():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            events.append(shapes.select(json.loads(line), shapes.EVENT))
    return events


def _split_processes(events: Sequence[Event]) -> list[list[Event]]:
    """Returns the events of each start, each event with the stage that it belongs to."""
    processes: list[list[Event]] = []
    stage = None
    for event in events:
        if event["kind"] == "start":
            processes.append([])
        stage = event.get("stage", stage)
        if processes:
            processes[-1].append(event | {"stage": stage})
    return processes


def _find_restored_steps(later: Sequence[Sequence[Event]]) -> dict[str, int]:
    """Returns for each stage the step from which the next process that trained it resumed."""
    restored: dict[str, int] = {}
    for process in later:
        first: dict[str, int] = {}
        for event in process:
            if event["kind"] == "train" and "step" in event:
                first.setdefault(event["stage"], event["step"])
        restored = first | restored
    return restored


def _add_times(process: Sequence[Event], restored: dict[str, int], spent: dict[str, float]) -> int:
    """Adds the times of a process to `spent`; returns the number of its steps that had to be repeated."""
    again = 0
    step: dict[str | None, int] = {}
    for event, after in itertools.pairwise(process):
        seconds, stage = max(after["time"] - event["time"], 0.0), event["stage"]
        if event["kind"] != "train":
            spent[KINDS.get(event["kind"], event["kind"])] += seconds
            continue
        start = event.get("step", step.get(stage, 0))
        step[stage] = end = after.get("step", start) if after["stage"] == stage else start
        lost = max(end - max(start, restored.get(stage, end)), 0)
        share = lost / (end - start) if end > start else 0.0
        waited = min(after.get("waited", 0.0), seconds)
        again += lost
        spent["again"] += share * seconds
        spent["data"] += (1 - share) * waited
        spent["steps"] += (1 - share) * (seconds - waited)
    return again
