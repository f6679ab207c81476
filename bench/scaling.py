# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A training step on 1, 2, 4 and 8 virtual devices with its collectives: `python bench/scaling.py [--json=FILE]`.

Devices share the cores of this machine, so the seconds show only the overhead of sharding; the program is what matters.
A data-parallel step should have one kind of large collective, the reduction of the gradient, of about the parameters'
bytes; FSDP should gather parameters and reduce gradients. `--quick` uses a tiny encoder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from xlkd import cli
from xlkd.planning import traffic

LARGE = 0.01  # of the parameters' bytes: smaller collectives are counts and norms
INVOLUNTARY = "nvoluntary full rematerialization"


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--child"]:
        return _run_child(*arguments[1:])
    flags = cli.parse_flags(arguments, ("json",), ("quick",))
    shape = "tiny" if "quick" in flags else "6x384"
    layouts = [("data", 1), ("data", 2), ("data", 4), ("data", 8), ("fsdp", 8)]
    if "quick" in flags:
        layouts = [("data", 2), ("fsdp", 2)]
    lines = [_measure(shape, *layout) for layout in layouts]
    print("\n| devices | s a step | large collectives (share of the parameters' bytes) | small | remade in full |")
    print("|---|---|---|---|---|")
    for line in lines:
        large = ", ".join(f"{n} × {kind} ({share:.2f})" for kind, (n, share) in line["large"].items()) or "none"
        print(f"| {line['layout']} | {line['seconds']:.3g} | {large} | {line['small']} | {line['involuntary']} |")
    if file := cli.resolve_output(flags, "json"):
        file.write_json(lines)


def _measure(shape: str, axis: str, devices: int) -> dict[str, Any]:
    """Runs the step in another process, because the number of devices is fixed when jax starts."""
    command = [sys.executable, __file__, "--child", shape, axis, str(devices)]
    process = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    if process.returncode:
        raise RuntimeError(process.stderr)
    line = json.loads(process.stdout.splitlines()[-1])
    return line | {"layout": f"{axis} {devices}", "involuntary": process.stderr.count(INVOLUNTARY)}


def _run_child(shape: str, axis: str, devices: str) -> None:
    import jax

    jax.config.update("jax_num_cpu_devices", int(devices))
    import models

    from xlkd.methods import finetune
    from xlkd.models.encoder import Encoder
    from xlkd.runtime import mesh as meshes
    from xlkd.spec.stage import Mesh
    from xlkd.train import optim, state, step

    mesh = meshes.build_mesh(Mesh(**{"data": 1} | {axis: -1}))
    architecture = models.make_architecture(shape)
    stage = models.resolve_stage(models.read_stage("finetune.py", "finetune"))
    method, adam = finetune.build(stage, Encoder(architecture)), optim.make_optimizer(stage.optim)

    def create(encoder):
        return state.create_state(method, models.make_start(architecture)._replace(encoder=encoder), adam, 0)

    weights = models.make_start(architecture).encoder
    shardings = meshes.make_shardings(mesh, jax.eval_shape(create, weights))
    state_now = jax.jit(create, out_shardings=shardings)(weights)
    rows, length = (8, 16) if shape == "tiny" else (8, 128)
    batch = meshes.place_batch(mesh, models.make_questions(rows, length, architecture.vocab_size), rows)
    function = step.make_step(method, adam, optim.make_schedule(stage.optim, models.STEPS), seed=0, clip_norm=1.0)
    jitted = jax.jit(
        meshes.trace_with_mesh(mesh, function),
        donate_argnums=0,
        out_shardings=(shardings, meshes.replicated_sharding(mesh)),
    )
    compiled = jitted.lower(state_now, batch, ()).compile()
    times = []
    for _ in range(4):
        start = time.perf_counter()
        state_now, _ = compiled(state_now, batch, ())
        jax.block_until_ready(state_now)
        times.append(time.perf_counter() - start)
    parameters_bytes = sum(x.nbytes for x in jax.tree.leaves(state_now.variables.params))
    print(json.dumps({"seconds": min(times[1:])} | count_collectives(compiled.as_text(), parameters_bytes, mesh.size)))


def count_collectives(program: str, parameters_bytes: int, devices: int) -> dict[str, Any]:
    """Counts the collectives of a program: large ones by kind, with their bytes over the parameters' bytes."""
    large: dict[str, tuple[int, float]] = {}
    small = 0
    for each in traffic.list_collectives(program, devices):
        share = each.bytes / parameters_bytes
        if share < LARGE:
            small += each.times
            continue
        number, before = large.get(each.kind, (0, 0.0))
        large[each.kind] = (number + each.times, before + each.times * share)
    return {"large": large, "small": small}


if __name__ == "__main__":
    sys.exit(cli.run(main))
