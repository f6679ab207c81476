# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Before a run: `python -m xlkd.plan --config=configs/gxlt.py [--device=NAME] [--config.KEY=VALUE …]`.

  --config=FILE[:VARIANT]  a config with get_config(variant), or the config.json of a former run
  --config.KEY=VALUE       any key of the config (python -m xlkd.main --keys lists them)
  --device=NAME            cpu, v4, v5e, v5p, v6e, tpu7x, h100 or h200; by default this machine
  --chips=N                how many of them; by default all that are here, of another machine one
  --topology=v5e-64        a TPU slice, also as v5p:4x4x4, compiled without one (pip install 'xlkd[topology]')
  --slices=N               how many of them; by default one
  --efficiency=0.35        share of the peak that a step is assumed to reach where nothing can be timed
  --json=FILE              also write the plan as JSON

For each stage parameters, buckets, memory a device, FLOPs, time, MFU and what a kept teacher saves. Nothing is trained,
and no weights are read. Exit codes: 0 it fits, 2 bad input or a stage that does not fit. More: docs/plan.md.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from xlkd import cli, settings
from xlkd.errors import DONE, USER_INPUT, UserError

FLAGS = ("config", "device", "chips", "topology", "slices", "efficiency", "json")


def main(arguments: list[str]) -> int:
    flags, overrides = cli.split_flags(arguments, FLAGS)
    if "config" not in flags:
        raise UserError("no --config given", "command line", "for example --config=configs/gxlt.py")
    if "topology" in flags and ("device" in flags or "chips" in flags):
        raise UserError("--topology says what the machine is", "command line", "leave out --device and --chips")
    if "slices" in flags and "topology" not in flags:
        raise UserError("--slices without --topology", "command line", "name the slice, for example --topology=v5e-64")
    config = settings.override(settings.read(flags["config"]), overrides)
    file = cli.resolve_output(flags, "json", [pathlib.Path(flags["config"].partition(":")[0])])
    found = plan(config, flags)
    if file:
        file.write_json(found)
    print("\n".join(lines(found)))
    return DONE if found["fits"] else USER_INPUT


def plan(config: ConfigDict, flags: Mapping[str, str]) -> dict[str, Any]:
    """The figures of all stages."""
    from xlkd.planning import machine
    from xlkd.planning.planner import Planner
    from xlkd.runtime import accelerators
    from xlkd.runtime.devices import prepare_devices
    from xlkd.runtime.log import Log

    efficiency = settings.typed("--efficiency", machine.EFFICIENCY, flags.get("efficiency", str(machine.EFFICIENCY)))
    if not 0 < efficiency <= 1:
        raise UserError(f"--efficiency={efficiency} is no share", "command line", "give a number above 0 and up to 1")
    chips = cli.parse_count(flags, "chips", 1) if "chips" in flags else 0
    log = Log(stream=sys.stderr)
    prepare_devices()
    slices = cli.parse_count(flags, "slices", 1)
    where = machine.choose(flags.get("device", ""), chips, flags.get("topology", ""), slices, efficiency, log)
    with tempfile.TemporaryDirectory() as scratch:
        planner = Planner(where, log, pathlib.Path(scratch))
        stages = [planner.stage(stage) for stage in settings.stages(config)]
    log.live("")
    seconds = sum(stage["time"].get("seconds", 0.0) for stage in stages)
    price = where.accelerator.price if where.accelerator else None
    return {
        "version": 1,
        "machine": where.described(),
        "stages": stages,
        "fits": all(stage["memory"].get("fits", True) for stage in stages),
        "seconds": seconds,
        "chip_hours": seconds * where.chips / 3600,
        "price": price,
        "prices": accelerators.PRICES,
        "cost": price and price * seconds * where.chips / 3600,
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The plan as a person reads it."""
    yield from _machine(found["machine"])
    for stage in found["stages"]:
        yield ""
        yield from _stage(stage)
    yield ""
    yield from _total(found)


def _machine(machine: Mapping[str, Any]) -> Iterator[str]:
    count, memory = machine["devices"], size(machine["memory"])
    yield f"{count} × {machine['name']}, {memory} each that a program may use, {flops(machine['flops'])}/s in all"
    if machine["measured"]:
        yield "speed: timed here, on a few steps of the smallest and the largest shape"
    else:
        yield f"speed: assumed {machine['efficiency']:.0%} of the peak, and AdamW at full memory bandwidth; no waiting"
    if not machine["exact"]:
        yield "memory: compiled for processors, which hold other temporaries than the device's own compiler"


def _stage(stage: Mapping[str, Any]) -> Iterator[str]:
    data, memory, teacher = stage["data"], stage["memory"], stage["teacher"]
    yield f"stage {stage['stage']}: {stage['method']} from {stage['start']}, {stage['steps']} steps"
    parts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in stage["parameters"].items())
    yield f"  parameters  {sum(stage['parameters'].values()):,}: {parts}"
    windows = f", {data['windows']:,} windows" if data["windows"] is not None else ""
    evaluated = "".join(f"; {name}: {count:,} rows" for name, count in data["evaluated_rows"].items())
    yield f"  data        {data['rows']:,} rows{windows}, {data['tokens']:,} tokens{evaluated}"
    kept = f"; checkpoints {size(stage['checkpoint_bytes'])}" if stage["steps"] else ""
    yield f"  disk        features {size(data['features_bytes'])}{kept}"
    if stage["steps"]:
        if stage["batch"]["shown"]:
            yield f"  batch       {stage['batch']['shown'].removeprefix('batch of ')}"
        shapes = ", ".join(f"{of['shape']}: {of['steps']:,} steps" for of in stage["buckets"])
        padding = f"{data['padding']:.0%} padding, {data['padding_at_longest']:.0%} at one length"
        yield f"  buckets     {shapes} ({padding})"
        held = ", ".join(f"{name} {size(share)}" for name, share in memory["parts"].items() if share)
        yield f"  memory      {size(memory['total'])} a device at {memory['shape']}: {held}"
        work = stage["flops"]
        yield f"  work        {flops(work['step'])} for real tokens, {flops(work['step_padded'])} with padding"
    if teacher:
        yield f"  teacher     {_teacher(teacher)}"
    if stage["time"]:
        yield f"  time        {_time(stage['time'])}"
    if memory and not memory["fits"]:
        yield does_not_fit(memory)


def does_not_fit(memory: Mapping[str, Any]) -> str:
    """One line: how much is lacking, and what was found to help."""
    over = memory["total"] / memory["of"]
    need = f"does not fit: needs {over:.1f}× the memory ({size(memory['total'])} of {size(memory['of'])} a device)"
    helps = [one["change"] for one in memory["tried"] if one["fits"]]
    if helps:
        return f"{need}; fits with {', or with '.join(helps)}"
    tried = ", ".join(f"{one['change']} {one['total'] / memory['of']:.1f}×" for one in memory["tried"])
    return f"{need}; not enough: {tried}; take a smaller config.data.batch, or more devices and config.mesh.fsdp"


def _teacher(teacher: Mapping[str, Any]) -> str:
    kept, uses = size(teacher["bytes"]), f"{teacher['uses']:.3g}"
    if teacher["kind"] == "once":
        return f"asked once for each row before the first step, used {uses} times; {kept} on disk"
    share = f"asked in every step, {teacher['share']:.0%} on top of it"
    if teacher["kind"] == "kept":
        return f"kept: each target is used {uses} times, {teacher['gain']:.2f}× less work; {kept} on disk"
    if teacher["kind"] == "evolves":
        return f"{share}; it changes, so that each target is used once and nothing can be kept"
    if teacher["kind"] == "used once":
        return f"{share}; each target is used once, so that keeping them saves nothing"
    return f"{share}; config.teacher.cache is off, {kept} on disk would spare all but 1 in {uses} of it"


def _time(told: Mapping[str, Any]) -> str:
    from xlkd.runtime.log import format_duration

    parts = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in told["parts"].items() if seconds)
    if "mfu" not in told:
        return f"{format_duration(told['seconds'])} ({parts})"
    shown = f"{told['mfu']:.0%} MFU ({told['mfu_padded']:.0%} with padding)"
    return f"{format_duration(told['seconds'])} ({parts}), {told['step_seconds'] * 1000:.4g} ms a step, {shown}"


def _total(found: Mapping[str, Any]) -> Iterator[str]:
    from xlkd.runtime.log import format_duration

    if not found["fits"]:
        yield "a stage does not fit, so that no time is predicted"
        return
    yield f"in all {format_duration(found['seconds'])} of steps and evaluation, {found['chip_hours']:.3g} device hours"
    if found["cost"] is not None:
        yield f"about ${found['cost']:,.2f} at ${found['price']:.2f} a chip-hour ({found['prices']})"
    elif not found["machine"]["measured"]:
        yield f"the table has no price for {found['machine']['name']}"


def size(bytes_: float) -> str:
    """With a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if bytes_ < 1024:
            return f"{bytes_:.3g} {unit}"
        bytes_ /= 1024
    return f"{bytes_:.3g} TiB"


def flops(count: float) -> str:
    """With a decimal unit."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if count < 1000:
            return f"{count:.3g} {unit}FLOP"
        count /= 1000
    return f"{count:.3g} ZFLOP"


if __name__ == "__main__":
    sys.exit(cli.run(main))
