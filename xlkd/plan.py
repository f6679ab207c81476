# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Predicts what a run needs: `python -m xlkd.plan --config=configs/gxlt.py [--device=NAME] [--config.KEY=VALUE …]`.

  --config=FILE[:VARIANT]  a config with get_config(variant), or the config.json of a former run
  --config.KEY=VALUE       any key of the config (python -m xlkd.main --config=FILE --keys lists them)
  --device=NAME            cpu, v4, v5e, v5p, v6e, tpu7x, h100 or h200; by default this machine
  --chips=N                number of chips; by default all of this machine, and one of another
  --topology=v5e-64        a TPU slice, also as v5p:4x4x4, compiled without one (pip install 'xlkd[topology]')
  --slices=N               number of slices; by default one
  --efficiency=0.35        share of the peak FLOP/s that a step is assumed to reach, where none can be timed
  --json=FILE              also write the plan as JSON

The plan has for each stage parameters, buckets, memory of a device, FLOPs, time, MFU, and what caching the teacher's
targets saves. Nothing is trained, and no weights are read. Exit codes: 0 if all stages fit, 2 for bad input or a stage
that does not fit. More: docs/plan.md.

Examples:
  python -m xlkd.plan --config=configs/gxlt.py
  python -m xlkd.plan --config=configs/gxlt.py:paper_pod --device=v5e --chips=64
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from xlkd import cli, settings
from xlkd.errors import DONE, USER_INPUT, UserError

Plan = dict[str, Any]  # the JSON of a plan, or a part of it
SMALL = 0.01  # share of the traffic below which a type of sums is not named
FLAGS = ("config", "device", "chips", "topology", "slices", "efficiency", "json")


def main(arguments: list[str]) -> int:
    """Prints the plan of a config; returns the exit code."""
    flags, overrides = cli.split_flags(arguments, FLAGS)
    if "config" not in flags:
        raise UserError("no --config given", "command line", "for example --config=configs/gxlt.py")
    if "topology" in flags and ("device" in flags or "chips" in flags):
        raise UserError("--topology already describes the machine", "command line", "leave out --device and --chips")
    if "slices" in flags and "topology" not in flags:
        raise UserError("--slices without --topology", "command line", "name the slice, for example --topology=v5e-64")
    config = settings.apply_flags(settings.read_config(flags["config"]), overrides)
    file = cli.resolve_output(flags, "json", [pathlib.Path(flags["config"].partition(":")[0])])
    plan = plan_run(config, flags)
    if file:
        file.write_json(plan)
    cli.print_lines(format_plan(plan))
    return DONE if plan["fits"] else USER_INPUT


def plan_run(config: ConfigDict, flags: dict[str, str]) -> Plan:
    """Returns the figures of all stages and their sums, as the JSON has them."""
    from xlkd.planning import machine
    from xlkd.planning.planner import Planner
    from xlkd.runtime import accelerators
    from xlkd.runtime.devices import prepare_devices
    from xlkd.runtime.log import Log

    efficiency = settings.parse_flag(
        "--efficiency", machine.EFFICIENCY, flags.get("efficiency", str(machine.EFFICIENCY))
    )
    if not 0 < efficiency <= 1:
        raise UserError(
            f"--efficiency={efficiency} is not between 0 and 1", "command line", "give a number above 0 and up to 1"
        )
    chips = cli.parse_count(flags, "chips", 1, machine.MOST_DEVICES) if "chips" in flags else 0
    log = Log(stream=sys.stderr)
    prepare_devices()
    slices = cli.parse_count(flags, "slices", 1, machine.MOST_DEVICES)
    chosen = machine.choose_machine(flags.get("device", ""), chips, flags.get("topology", ""), slices, efficiency, log)
    with tempfile.TemporaryDirectory() as scratch:
        planner = Planner(chosen, log, pathlib.Path(scratch))
        stages = [planner.plan_stage(stage) for stage in settings.read_stages(config)]
    log.live("")
    seconds = sum(stage["time"].get("seconds", 0.0) for stage in stages)
    price = chosen.accelerator.price if chosen.accelerator else None
    return {
        "version": 1,
        "machine": chosen.describe(),
        "stages": stages,
        "fits": all(stage["memory"].get("fits", True) for stage in stages),
        "seconds": seconds,
        "chip_hours": seconds * chosen.chips / 3600,
        "price": price,
        "prices": accelerators.PRICES,
        "cost": price and price * seconds * chosen.chips / 3600,
    }


def format_plan(plan: Plan) -> Iterator[str]:
    """Yields the lines of a plan that are printed."""
    yield from _format_machine(plan["machine"])
    for stage in plan["stages"]:
        yield ""
        yield from _format_stage(stage)
    yield ""
    yield from _format_totals(plan)


def _format_machine(machine: Plan) -> Iterator[str]:
    count, memory = machine["devices"], format_bytes(machine["memory"])
    yield f"{count} × {machine['name']}, {memory} usable each, {format_flops(machine['flops'])}/s in all"
    if machine["measured"]:
        yield "speed: timed here, on a few steps of the smallest and the largest shape"
    else:
        share = f"{machine['efficiency']:.0%} of the peak"
        yield f"speed: assumed {share}, and AdamW at full memory bandwidth; waiting for data is not counted"
    if not machine["exact"]:
        yield "memory: compiled for CPUs, with other temporaries than on the device itself"


def _format_stage(stage: Plan) -> Iterator[str]:
    data, memory, teacher = stage["data"], stage["memory"], stage["teacher"]
    yield f"stage {stage['stage']}: {stage['method']} from {stage['start']}, {stage['steps']} steps"
    parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in stage["parameters"].items())
    yield f"  parameters  {sum(stage['parameters'].values()):,}: {parts}"
    windows = f", {data['windows']:,} windows" if data["windows"] is not None else ""
    evaluated = "".join(f"; {name}: {count:,} rows" for name, count in data["evaluated_rows"].items())
    yield f"  data        {data['rows']:,} rows{windows}, {data['tokens']:,} tokens{evaluated}"
    checkpoints = f"; checkpoints {format_bytes(stage['checkpoint_bytes'])}" if stage["steps"] else ""
    yield f"  disk        features {format_bytes(data['features_bytes'])}{checkpoints}"
    if stage["steps"]:
        if stage["batch"]["shown"]:
            yield f"  batch       {stage['batch']['shown'].removeprefix('batch of ')}"
        shapes = ", ".join(f"{bucket['shape']}: {bucket['steps']:,} steps" for bucket in stage["buckets"])
        padding = f"{data['padding']:.0%} padding, {data['padding_at_longest']:.0%} if all were padded to one length"
        yield f"  buckets     {shapes} ({padding})"
        parts = ", ".join(f"{name} {format_bytes(share)}" for name, share in memory["parts"].items() if share)
        yield f"  memory      {format_bytes(memory['total'])} a device at {memory['shape']}: {parts}"
        if stage.get("traffic"):
            yield f"  moves       {_format_traffic(stage['traffic'])}"
        real, padded = format_flops(stage["flops"]["step"]), format_flops(stage["flops"]["step_padded"])
        yield f"  work        {real} for real tokens, {padded} with padding"
    if teacher:
        yield f"  teacher     {_format_teacher(teacher)}"
    if stage["time"]:
        yield f"  time        {_format_time(stage['time'])}"
    if divided := stage.get("divided_update"):
        before, after = (f"{1000 * divided[key]:.2g}" for key in ("before", "after"))
        sent = f"a device then sends {format_bytes(divided['sent'])} a step"
        yield f"  update      {before} ms a step, or {after} ms with {divided['change']}; {sent}"
    if memory and not memory["fits"]:
        yield format_refusal(memory)


def format_refusal(memory: Plan) -> str:
    """Returns the line of a stage that does not fit: how much memory it needs, and which settings help."""
    over, total, available = memory["total"] / memory["of"], format_bytes(memory["total"]), format_bytes(memory["of"])
    need = f"does not fit: needs {over:.1f}× the memory ({total} of {available} a device)"
    fitting = [change["change"] for change in memory["tried"] if change["fits"]]
    if fitting:
        return f"{need}; fits with {', or with '.join(fitting)}"
    tried = ", ".join(f"{change['change']} {change['total'] / memory['of']:.1f}×" for change in memory["tried"])
    return f"{need}; not enough: {tried}; take a smaller config.data.batch, or more devices and config.mesh.fsdp"


def _format_traffic(traffic: Plan) -> str:
    """Returns what a device sends in a step, in which types gradients are summed, and what trimming would save."""
    from xlkd.planning.traffic import TYPES

    kinds = ", ".join(f"{kind} {format_bytes(count)}" for kind, count in traffic["kinds"].items())
    large = [name for name, count in traffic["types"].items() if count >= SMALL * traffic["total"]]
    sums = f"; sums in {' and '.join(sorted(TYPES.get(name, name) for name in large))}" if large else ""
    saved = traffic["table"] * traffic["unused"]
    trimming = f"; config.encoder.trim_vocab=True would save about {format_bytes(saved)}"
    return f"{format_bytes(traffic['total'])} a device and step: {kinds}{sums}" + (
        trimming if saved >= 0.1 * traffic["total"] else ""
    )


def _format_teacher(teacher: Plan) -> str:
    disk, uses = format_bytes(teacher["bytes"]), f"{teacher['uses']:.3g}"
    if teacher["kind"] == "once":
        return f"targets computed once for each row before the first step, used {uses} times; {disk} on disk"
    if teacher["kind"] == "vectors":
        return f"the vectors of config.teacher.vectors, {disk} on disk: no forward pass"
    share = f"a forward pass in every step, {teacher['share']:.0%} on top of it"
    if teacher["kind"] == "kept":
        return f"targets cached: each is used {uses} times, {teacher['gain']:.2f}× less work; {disk} on disk"
    if teacher["kind"] == "evolves":
        return f"{share}; the teacher changes, so that each target is used once and caching is not possible"
    if teacher["kind"] == "used once":
        return f"{share}; each target is used once, so that caching would save nothing"
    return f"{share}; config.teacher.cache is off: {disk} on disk would save all but 1 in {uses} of it"


def _format_time(times: Plan) -> str:
    from xlkd.runtime.log import format_duration

    parts = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in times["parts"].items() if seconds)
    if "mfu" not in times:
        return f"{format_duration(times['seconds'])} ({parts})"
    shown = f"{times['mfu']:.0%} MFU ({times['mfu_padded']:.0%} with padding)"
    return f"{format_duration(times['seconds'])} ({parts}), {times['step_seconds'] * 1000:.4g} ms a step, {shown}"


def _format_totals(plan: Plan) -> Iterator[str]:
    from xlkd.runtime.log import format_duration

    if not plan["fits"]:
        yield "a stage does not fit, so that no time is predicted"
        return
    yield f"in all {format_duration(plan['seconds'])} of steps and evaluation, {plan['chip_hours']:.3g} device hours"
    if plan["cost"] is not None:
        yield f"about ${plan['cost']:,.2f} at ${plan['price']:.2f} a chip-hour ({plan['prices']})"
    elif not plan["machine"]["measured"]:
        yield f"the table has no price for {plan['machine']['name']}"


def format_bytes(bytes_: float) -> str:
    """Formats a number of bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if bytes_ < 1024:
            return f"{bytes_:.3g} {unit}"
        bytes_ /= 1024
    return f"{bytes_:.3g} TiB"


def format_flops(count: float) -> str:
    """Formats a number of FLOPs with a decimal unit."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if count < 1000:
            return f"{count:.3g} {unit}FLOP"
        count /= 1000
    return f"{count:.3g} ZFLOP"


if __name__ == "__main__":
    sys.exit(cli.run(main))
