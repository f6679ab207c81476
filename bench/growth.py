# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures how a training step's time grows along each axis, beside what is counted: `python bench/growth.py`.

  --devices    counts a step on 1 to 64 chips of a TPU v5e instead, in the programs of bench/traffic.py: bytes that a
               device sends, and FLOPs and bytes that its operations read and write, where the compiler counts the
               loop over layers as one layer; needs libtpu, and no TPU

An encoder 3×384 in float32: fine-tuning for question answering by rows, by length and by vocabulary, MBLM by its
branches, and self-distillation, whose step has no axis of languages. In each round every point runs once, so that the
machine's drift falls on all of them. The counted cost is FLOPs, as a run counts them, and for the vocabulary the bytes
that AdamW moves. Common flags: bench/side_by_side.py.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import side_by_side
import throughput
import traffic

from xlkd import cli

if TYPE_CHECKING:  # side_by_side.parse_flags comes before jax
    import models

DTYPE = "float32"
SHAPE = "6x384/3"
ADAMW_BYTES = 28  # of a parameter: four numbers are read, three written
STEPS = 2  # of a point per round
TAGS = ("en", "de", "zh", "fr", "es")  # of MBLM's branches, in this order
DEVICE_SHAPE = "6x384"
CHIPS = (1, 4, 8, 16, 64)


@dataclasses.dataclass(frozen=True)
class Point:
    """A value on an axis, and the training step that is measured there."""

    axis: str
    value: int
    make: Callable[[], throughput.Training]


def main(arguments: list[str]) -> None:
    flags = side_by_side.parse_flags(arguments, switches=("devices",))
    if "devices" in flags.rest:
        return count_devices(flags)
    side_by_side.refuse_load_at_rest(flags)
    points = [point for point in list_points(flags.quick) if flags.only in point.axis]
    lines, others = measure_points(points, flags.rounds)
    side_by_side.refuse_load(others, flags)
    print(f"{side_by_side.CORES} cores, {flags.rounds} rounds, load average {os.getloadavg()[0]:.2f}\n")
    print("| axis | value | s a step | measured | counted |\n|---|---|---|---|---|")
    for line in lines:
        first = next(other for other in lines if other["axis"] == line["axis"])
        seconds, start = (statistics.median(each["seconds"]) for each in (line, first))
        ratios = f"{seconds / start:.2f} | {line['counted'] / first['counted']:.2f}"
        print(f"| {line['axis']} | {line['value']:,} | {seconds:.3f} | {ratios} |")
    if flags.json:
        about = {"quick": flags.quick, **side_by_side.describe_machine(), "others": others}
        flags.json.write_json(about | {"points": lines})


def list_points(quick: bool) -> list[Point]:
    """Lists the points of all axes; the steps by rows and by length share one program's trainer."""
    shape = "tiny" if quick else SHAPE
    words, tables = (100, (100, 200)) if quick else (30_522, (7_500, 30_000, 120_000, 250_000))
    rows, lengths = ((1, 2), (16, 32)) if quick else ((2, 4, 8, 16), (32, 64, 128, 256, 512))
    counts = (1, 2) if quick else (1, 2, 3, 5)

    @functools.cache
    def make_trainer(vocabulary: int) -> models.Trainer:
        import models
        import step

        return step.make_trainer(models.make_architecture(shape, 0.1, vocabulary), DTYPE)

    def make_questions(vocabulary: int, rows: int, length: int) -> throughput.Training:
        import models

        batch = models.put_on_device(models.make_questions(rows, length, vocabulary))
        return throughput.Training(make_trainer(vocabulary), batch, rows, length)

    size = (2, 16) if quick else (16, 64)
    return [
        *(Point("rows", n, lambda n=n: make_questions(words, n, 16 if quick else 128)) for n in rows),
        *(Point("length", n, lambda n=n: make_questions(words, 4, n)) for n in lengths),
        *(Point("vocabulary", n, lambda n=n: make_questions(n, *size)) for n in tables),
        *(Point("branches", n, lambda n=n: throughput.make_mblm(shape, *size, TAGS[:n], DTYPE)) for n in counts),
        Point("languages", 1, lambda: throughput.make_gxlt(shape, *size, DTYPE)),
    ]


def measure_points(points: list[Point], rounds: int) -> tuple[list[dict[str, Any]], float]:
    """Measures all points in turns; returns a line for each, and the cores that others used meanwhile."""
    trainings = [point.make() for point in points]
    for training in trainings:
        training.run(1)
    times: list[list[float]] = [[] for _ in points]
    count_others = side_by_side.watch_others()
    for _ in range(rounds):
        for training, seconds in zip(trainings, times, strict=True):
            seconds.append(side_by_side.time_side(lambda training=training: training.run(STEPS)) / STEPS)
    others = count_others()
    lines = [
        {"axis": point.axis, "value": point.value, "seconds": seconds, "counted": count_cost(point.axis, training)}
        for point, training, seconds in zip(points, trainings, times, strict=True)
    ]
    return lines, others


def count_cost(axis: str, training: throughput.Training) -> float:
    """Counts a step's FLOPs, or by vocabulary the bytes that AdamW moves."""
    import jax

    if axis != "vocabulary":
        return training.flops
    return ADAMW_BYTES * sum(leaf.size for leaf in jax.tree.leaves(training.trainer.state.variables.params))


def count_devices(flags: side_by_side.Flags) -> None:
    """Counts a step on several numbers of chips, with the same rows on each."""
    import roofline

    from xlkd.planning.traffic import list_collectives, sum_by_kind

    record = roofline.Record(flags.json)
    print("| chips | GFLOP | GB | sent, MB |\n|---|---|---|---|", flush=True)
    for chips in CHIPS[:1] if flags.quick else CHIPS:
        if flags.only not in f"v5e-{chips}":
            continue
        since = time.perf_counter()
        compiled, devices = traffic.compile_step(f"v5e-{chips}", DEVICE_SHAPE, "data=-1", 1)
        counts = roofline.count_programs([compiled])
        sent = sum(sum_by_kind(list_collectives(compiled.as_text(), devices)).values())
        record.add(f"v5e-{chips}", {"chips": chips, **dataclasses.asdict(counts), "sent": sent}, since)
        print(f"| {chips} | {counts.flops / 1e9:,.0f} | {counts.bytes / 1e9:.1f} | {sent / 1e6:,.0f} |", flush=True)


if __name__ == "__main__":
    sys.exit(cli.run(main))
