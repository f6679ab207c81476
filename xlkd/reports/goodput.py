# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Goodput: which share of a run's time was steps that stayed, and where the rest went, restarts included.

A run writes a line to `events.jsonl` whenever it turns to something else, and at each print of its steps. What is not
known of a process that was killed is what it did since its last print.
"""

from __future__ import annotations

import collections
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]

NAMES = {  # in the order in which tables show them
    "steps": "productive steps",
    "again": "steps that were lost and done again",
    "data": "waiting for data",
    "teacher": "asking the teacher beforehand",
    "evaluate": "evaluation",
    "save": "saving",
    "compile": "compilation",
    "prepare": "reading and tokenizing",
    "start": "start-up and restoring",
    "finish": "export and report",
}
KINDS = {"begin": "start", "report": "finish"}  # events that are counted with another
SHOWN = 0.01  # parts below this share are left out of the line for a console


def of(workdir: pathlib.Path) -> dict[str, Any] | None:
    """Seconds by part; None where a run left no events."""
    processes = _processes(_read(workdir / "events.jsonl"))
    if not processes:
        return None
    spent: dict[str, float] = collections.Counter()
    again = 0
    for number, process in enumerate(processes):
        again += _count(process, _restored(processes[number + 1 :]), spent)
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


def line(found: dict[str, Any]) -> str:
    """For a console: the share, what took the rest, how often it began."""
    parts = [(seconds / found["seconds"], NAMES[name]) for name, seconds in found["parts"].items() if name != "steps"]
    shown = ", ".join(f"{name} {share:.0%}" for share, name in sorted(parts, reverse=True) if share >= SHOWN)
    text = f"goodput: {found['share']:.0%} of {found['seconds']:.0f} s were productive steps"
    text += f"; {shown}" if shown else ""
    if found["starts"] > 1:
        text += f"; {found['starts']} starts, {found['steps_again']} steps done again"
        text += f", {found['seconds_between_starts']:.0f} s between them"
    return text


def _read(path: pathlib.Path) -> list[Event]:
    """What was cut by a kill, or is of another kind, is left out."""
    if not path.is_file():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(text)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("time"), int | float) and "kind" in event:
            found.append(event)
    return found


def _processes(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each start, every one with the stage that it belongs to."""
    found: list[list[Event]] = []
    stage = None
    for event in events:
        if event["kind"] == "start":
            found.append([])
        stage = event.get("stage", stage)
        if found:
            found[-1].append(event | {"stage": stage})
    return found


def _restored(later: Sequence[Sequence[Event]]) -> dict[str, int]:
    """The step from which the next process that trained a stage went on."""
    found: dict[str, int] = {}
    for process in later:
        first: dict[str, int] = {}
        for event in process:
            if event["kind"] == "train" and "step" in event:
                first.setdefault(event["stage"], event["step"])
        found = first | found
    return found


def _count(process: Sequence[Event], restored: dict[str, int], spent: dict[str, float]) -> int:
    """Add the times of a process to `spent`; the number of its steps that had to be done again."""
    again, step = 0, {}
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
