# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the bytes that a device sends in a training step of compiled TPU programs: `python bench/traffic.py`.

    python bench/traffic.py --topology=v5e-64 --shape=base --mesh=data=8,fsdp=8 --micro-batches=4 --json=FILE
    python bench/traffic.py --program=FILE --name=… --devices=64 --json=FILE     # the saved text of a program
    python bench/traffic.py --json=FILE                                          # prints the table

Needs libtpu (pip install 'xlkd[topology]') and no TPU. `--mesh` takes keys of `config.mesh`; a program is fine-tuning
for question answering in bfloat16, with 8 sequences of 384 tokens on each device. The JSON has a record for each
program; a record of the same name is replaced. What is counted: `xlkd/planning/traffic.py`.
"""

from __future__ import annotations

import json
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

from xlkd import cli
from xlkd.planning import traffic

if TYPE_CHECKING:
    import jax

ROWS, LENGTH = 8, 384  # of a device
VOCABULARIES = {"base": 119547, "e5": 250037}
FLAGS = ("topology", "shape", "mesh", "micro-batches", "program", "name", "devices", "json", "save")


def main(arguments: list[str]) -> None:
    flags = cli.parse_flags(arguments, FLAGS)
    file = pathlib.Path(flags["json"]) if "json" in flags else None
    records: dict[str, Any] = json.loads(file.read_text()) if file and file.exists() else {}
    shape = flags.get("shape", "base")
    if "program" in flags:
        text, devices = pathlib.Path(flags["program"]).read_text(), int(flags["devices"])
        records[flags["name"]] = _count(text, devices, shape)
    elif "topology" in flags:
        mesh, parts = flags.get("mesh", "data=-1"), int(flags.get("micro-batches", "1"))
        name = flags.get("name", f"{flags['topology']} {shape} {mesh} micro_batches={parts}")
        since = time.perf_counter()
        compiled, devices = compile_step(flags["topology"], shape, mesh, parts)
        from xlkd.train import loop

        extra = {"memory": loop.measure_memory(compiled), "seconds": round(time.perf_counter() - since, 1)}
        text = compiled.as_text()
        if "save" in flags:
            pathlib.Path(flags["save"]).write_text(text)
        records[name] = _count(text, devices, shape) | extra
    if file and len(flags) > 1:
        file.write_text(json.dumps(records, indent=1) + "\n")
    print("| program | sent, MB | of it | sums within loops, MB | largest in a loop |\n|---|---|---|---|---|")
    for name, record in records.items():
        kinds = ", ".join(f"{kind} {count / 1e6:,.0f}" for kind, count in record["kinds"].items() if count >= 5e5)
        loops, largest = record["in_loops"] / 1e6, record["largest_in_loop"]
        print(f"| {name} | {record['total'] / 1e6:,.0f} | {kinds} | {loops:,.0f} | {largest} |")


def _count(text: str, devices: int, shape: str) -> dict[str, Any]:
    loops = [each for each in traffic.list_collectives(text, devices) if each.times > 1]
    largest = max(loops, key=lambda each: each.bytes, default=None)
    shown = f"{largest.times} × {largest.kind} of {largest.bytes / 2**20:.1f} MiB" if largest else "none"
    return traffic.describe_traffic(text, devices, VOCABULARIES[shape]) | {"largest_in_loop": shown}


def compile_step(topology: str, shape: str, mesh: str, micro_batches: int) -> tuple[jax.stages.Compiled, int]:
    """Compiles a step; returns its program and the number of devices."""
    from xlkd.planning import machine

    devices = machine.choose_machine("", 0, topology, 1, machine.EFFICIENCY, print).devices
    import jax
    import jax.numpy as jnp
    import models

    from xlkd.methods import Start, finetune
    from xlkd.models.encoder import Encoder
    from xlkd.runtime import mesh as meshes
    from xlkd.spec import read_block
    from xlkd.spec.stage import Mesh
    from xlkd.train import loop, optim, state
    from xlkd.train.checkpoint import make_abstract

    values = dict(pair.split("=") for pair in mesh.split(","))
    settings = read_block(Mesh, {key: int(x) if x.lstrip("-").isdigit() else x for key, x in values.items()}, "mesh")
    spread = meshes.build_mesh(settings, devices)
    architecture = models.make_architecture(shape)
    stage = models.resolve_stage(models.read_stage("finetune.py", "finetune"))
    method = finetune.build(stage, Encoder(architecture, jnp.bfloat16, scan=True))
    adam = optim.make_optimizer(stage.optim)

    def create() -> Any:
        encoder = meshes.pad_vocabulary(spread, models.make_start(architecture).encoder)
        return state.create_state(method, Start(architecture, encoder, {}), adam, 0)

    shapes = jax.eval_shape(create)
    shardings = state.shard_state(spread, shapes, settings)
    rows = ROWS * meshes.count_row_shards(spread)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.row_sharding(spread)),
        models.make_questions(rows, LENGTH, architecture.vocab_size),
    )
    jitted = loop.jit_step(
        method, stage.optim, models.STEPS, 0, spread, shardings, micro_batches=micro_batches, sharding=settings
    )
    return jitted.lower(make_abstract(shapes, shardings), batch, ()).compile(), len(devices)


if __name__ == "__main__":
    sys.exit(cli.run(main))
