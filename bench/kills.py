# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Seeded random kills of real runs: each is aimed at a place, its place is recorded, and the run is resumed."""

from __future__ import annotations

import dataclasses
import random
import shutil
import signal
import time
from typing import Any

from disturbed import DAMAGED, LONG, Bench, Outcome, ProcessEnd, Run, System, collect_results, print_line

from xlkd.errors import DONE, STOPPED

PLACES = ("a step", "a save", "an evaluation", "between stages", "the cache")
IN_A_ROW = 8  # kills of one run before it may finish
EVENTS = {"train": "a step", "save": "a save", "evaluate": "an evaluation", "teacher": "the teacher"}


def plan_kills(count: int, draw: random.Random) -> list[Kill]:
    """Returns equally many kills of each place, in a random order, three in five by SIGKILL."""
    places = [PLACES[i % len(PLACES)] for i in range(count)]
    draw.shuffle(places)
    delays = {"a step": 0.1, "a save": 0.05, "an evaluation": 0.5, "between stages": 0.5, "the cache": 0.0}
    numbers = {"a step": 6, "a save": 2}
    return [
        Kill(
            place,
            signal.SIGKILL if draw.random() < 0.6 else signal.SIGTERM,
            draw.randint(1, numbers.get(place, 1)),
            draw.uniform(0, delays[place]),
        )
        for place in places
    ]


def run_kills(bench: Bench, system: System, todo: list[Kill]) -> list[Outcome]:
    """Kills a run several times and then lets it finish; a kill that came too late is left for the next run.

    If a run never reaches a place (the cache is written quickly), the kill is aimed at a step instead.
    """
    if not todo:
        return []
    expected, run, outcomes, ended = bench.get_undisturbed(system), bench.run(system), [], None
    while todo and len(outcomes) < IN_A_ROW and (ended is None or ended.code != DONE):
        if todo[0].place == "the cache":
            shutil.rmtree(run.cache, ignore_errors=True)  # so that it is written again
        ended, place = strike(run, todo[0])
        if place:
            outcomes.append(judge_kill(system, todo.pop(0), place, ended))
            print_line(f"  {outcomes[-1].name}: exit {ended.code} {ended.message} {outcomes[-1].wrong}")
        elif not outcomes:
            todo[0] = dataclasses.replace(todo[0], place="a step", number=1)
    last = run.finish()
    equal = last.code == DONE and collect_results(run) == expected
    print_line(f"{system.name}, resumed after {len(outcomes)} kills: {'bit-identical' if equal else 'NOT EQUAL'}")
    fault_at_end = "" if equal else f"another end, exit {last.code}: {last.message}"
    fault_at_end = "an undamaged checkpoint was discarded" if DAMAGED in run.read_log() else fault_at_end
    if not fault_at_end:
        shutil.rmtree(run.folder)
    return [dataclasses.replace(outcome, equal=equal, wrong=outcome.wrong or fault_at_end) for outcome in outcomes]


def judge_kill(system: System, kill: Kill, place: str, ended: ProcessEnd) -> Outcome:
    """Judges a kill: SIGKILL prints nothing; SIGTERM saves and says so, unless the process only starts or ends."""
    signal_name, wrong = kill.signal.name, ""
    codes = {-signal.SIGKILL} if kill.signal == signal.SIGKILL else {STOPPED, DONE, -signal.SIGTERM}
    if ended.code not in codes:
        wrong = f"exit {ended.code}"
    elif len(ended.lines) > 1:
        wrong = f"{len(ended.lines)} lines on standard error"
    elif ended.code == STOPPED and "saved at step" not in ended.message:
        wrong = "does not say where it saved"
    group = f"{signal_name}, {system.name}, {place}"
    return Outcome(
        f"{signal_name} in {place} of {system.name}",
        f"aimed at {kill.place}",
        ended.code,
        ended.message,
        True,
        wrong,
        group,
    )


@dataclasses.dataclass(frozen=True)
class Kill:
    """The place and signal of a kill; `number` counts steps or saves of that process."""

    place: str
    signal: signal.Signals
    number: int
    delay: float

    def is_due(self, run: Run, events: list[dict[str, Any]], before: dict[str, set]) -> bool:
        kinds = [event["kind"] for event in events]
        saving = bool(run.list_drafts()["a save"] - before["a save"])
        if self.place == "a step":
            return sum("waited" in event for event in events) >= self.number and kinds[-1] == "train" and not saving
        if self.place == "a save":
            return kinds.count("save") >= self.number and saving
        if self.place == "an evaluation":
            return kinds[-1:] == ["evaluate"]
        if self.place == "the cache":
            return bool(run.list_drafts()["the cache"] - before["the cache"])
        return "finish" in kinds[-2:]


def strike(run: Run, kill: Kill) -> tuple[ProcessEnd, str]:
    """Starts a run and kills it; returns its end and the place it had reached, or "" if it had ended before."""
    before, skip = run.list_drafts(), len(run.read_events())
    process = run.start()
    until = time.monotonic() + LONG
    while process.poll() is None and time.monotonic() < until and not kill.is_due(run, run.read_events(skip), before):
        time.sleep(0.0005 if kill.place == "the cache" else 0.002)
    time.sleep(kill.delay)
    place = locate(run, run.read_events(skip), before)
    process.send_signal(kill.signal)
    alive = process.returncode is None
    ended = run.wait(process)
    if kill.signal == signal.SIGKILL:  # nothing changes any more, so its files show the place
        place = locate(run, run.read_events(skip), before)
        alive = ended.code == -signal.SIGKILL
    return ended, place if alive else ""


def locate(run: Run, events: list[dict[str, Any]], before: dict[str, set]) -> str:
    """Returns the place a process has reached, from incomplete files or else from its last event."""
    for name, drafts in run.list_drafts().items():
        if drafts - before[name]:
            return name
    last = events[-1]["kind"] if events else ""
    if last in ("finish", "report", "end") or (last == "prepare" and "finish" in [e["kind"] for e in events]):
        return "between stages"
    return EVENTS.get(last, "the start")
