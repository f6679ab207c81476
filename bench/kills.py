# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Seeded random kills of real runs: aimed at a place, shown to have come there, and gone on from to the end."""

from __future__ import annotations

import dataclasses
import random
import shutil
import signal
import time
from typing import Any

from disturbed import DAMAGED, LONG, Bench, Ended, Outcome, Run, System, end, say

from xlkd.errors import DONE, STOPPED

PLACES = ("a step", "a save", "an evaluation", "between stages", "the cache")
IN_A_ROW = 8  # kills of one run before it is let to its end
EVENTS = {"train": "a step", "save": "a save", "evaluate": "an evaluation", "teacher": "the teacher"}


def planned(count: int, draw: random.Random) -> list[Kill]:
    """As many of each place, in a drawn order, three in five by SIGKILL."""
    places = [PLACES[i % len(PLACES)] for i in range(count)]
    draw.shuffle(places)
    delays = {"a step": 0.1, "a save": 0.05, "an evaluation": 0.5, "between stages": 0.5, "the cache": 0.0}
    numbers = {"a step": 6, "a save": 2}
    return [
        Kill(
            at,
            signal.SIGKILL if draw.random() < 0.6 else signal.SIGTERM,
            draw.randint(1, numbers.get(at, 1)),
            draw.uniform(0, delays[at]),
        )
        for at in places
    ]


def kills(bench: Bench, system: System, todo: list[Kill]) -> list[Outcome]:
    """Some in a row on one run, which then goes on to its end; a kill that the end forestalled is for the next run.

    A place that a whole run does not come to (the cache is written in a moment) is given up for a step.
    """
    if not todo:
        return []
    expected, run, found, ended = bench.undisturbed(system), bench.run(system), [], None
    while todo and len(found) < IN_A_ROW and (ended is None or ended.code != DONE):
        if todo[0].place == "the cache":
            shutil.rmtree(run.cache, ignore_errors=True)  # or nothing would be written there any more
        ended, stood = struck(run, todo[0])
        if stood:
            found.append(of_kill(system, todo.pop(0), stood, ended))
            say(f"  {found[-1].name}: exit {ended.code} {ended.message} {found[-1].wrong}")
        elif not found:
            todo[0] = dataclasses.replace(todo[0], place="a step", number=1)
    last = run.finish()
    equal = last.code == DONE and end(run) == expected
    say(f"{system.name}, gone on with after {len(found)} kills: {'equal to the bit' if equal else 'NOT EQUAL'}")
    late = "" if equal else f"another end, exit {last.code}: {last.message}"
    late = "a sound checkpoint was left" if DAMAGED in run.log() else late
    if not late:
        shutil.rmtree(run.folder)
    return [dataclasses.replace(outcome, equal=equal, wrong=outcome.wrong or late) for outcome in found]


def of_kill(system: System, kill: Kill, stood: str, ended: Ended) -> Outcome:
    """SIGKILL says nothing; SIGTERM saves and says so, but for a process that still imports or is all but done."""
    by, wrong = kill.signal.name, ""
    codes = {-signal.SIGKILL} if kill.signal == signal.SIGKILL else {STOPPED, DONE, -signal.SIGTERM}
    if ended.code not in codes:
        wrong = f"exit {ended.code}"
    elif len(ended.lines) > 1:
        wrong = f"{len(ended.lines)} lines on standard error"
    elif ended.code == STOPPED and "saved at step" not in ended.message:
        wrong = "does not say where it saved"
    group = f"{by}, {system.name}, {stood}"
    return Outcome(
        f"{by} in {stood} of {system.name}", f"aimed at {kill.place}", ended.code, ended.message, True, wrong, group
    )


@dataclasses.dataclass(frozen=True)
class Kill:
    """Where a process is to end, and by which signal; `number` counts steps or saves of that process."""

    place: str
    signal: signal.Signals
    number: int
    delay: float

    def due(self, run: Run, events: list[dict[str, Any]], before: dict[str, set]) -> bool:
        kinds = [event["kind"] for event in events]
        saving = bool(run.half()["a save"] - before["a save"])
        if self.place == "a step":
            return sum("waited" in event for event in events) >= self.number and kinds[-1] == "train" and not saving
        if self.place == "a save":
            return kinds.count("save") >= self.number and saving
        if self.place == "an evaluation":
            return kinds[-1:] == ["evaluate"]
        if self.place == "the cache":
            return bool(run.half()["the cache"] - before["the cache"])
        return "finish" in kinds[-2:]


def struck(run: Run, kill: Kill) -> tuple[Ended, str]:
    """Start a run and end it where the kill says; where it really stood, empty where it ended by itself before."""
    before, skip = run.half(), len(run.events())
    process = run.start()
    until = time.monotonic() + LONG
    while process.poll() is None and time.monotonic() < until and not kill.due(run, run.events(skip), before):
        time.sleep(0.0005 if kill.place == "the cache" else 0.002)
    time.sleep(kill.delay)
    stood = place(run, run.events(skip), before)
    process.send_signal(kill.signal)
    alive = process.returncode is None
    ended = run.ended(process)
    if kill.signal == signal.SIGKILL:  # from here on nothing moves: what lies there is where it stood
        stood = place(run, run.events(skip), before)
        alive = ended.code == -signal.SIGKILL
    return ended, stood if alive else ""


def place(run: Run, events: list[dict[str, Any]], before: dict[str, set]) -> str:
    """Where a process stands, by what it left half written, else by the last that it said."""
    for name, half in run.half().items():
        if half - before[name]:
            return name
    last = events[-1]["kind"] if events else ""
    if last in ("finish", "report", "end") or (last == "prepare" and "finish" in [e["kind"] for e in events]):
        return "between stages"
    return EVENTS.get(last, "the start")
