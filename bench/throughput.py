# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens a second and MFU in bfloat16, of ours and of compiled PyTorch: `python bench/throughput.py --out=DIR`.

  --out=DIR    each work leaves a file here as it ends, and one with a file is not measured again
  --side=ours  the works of one side, ours or torch; without it those of both
  --quick      tiny shapes: shows that it runs, and nothing about speed

The works are the seven shapes of bench/step.py and a step of each of the three systems, all without padding. PyTorch
has the seven shapes and the step of self-distillation. MFU counts FLOPs as a run does, of matrix products alone,
against the published peak of the device (xlkd/runtime/accelerators.py). A work that fails leaves its error.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import side_by_side
import step

from xlkd import cli, files
from xlkd.errors import UserError
from xlkd.files import Json

if TYPE_CHECKING:  # a side is imported when its first work is built
    import jax
    from models import Trainer

    from xlkd.models.family import Architecture

DTYPE = "bfloat16"
ROUNDS, SECONDS = 5, 2.0  # of a work, after the first two calls
VOCABULARY = 46_000  # of the systems' encoders, as of the e5 that is packed
GXLT, MMKD, MBLM = "G-XLT skd, 12×384, 24×384", "MMKD, four levels, 12×384 and 6×384, 32×128", "MBLM, 12×384, 32×128"
LABELS = ("contradiction", "entailment", "neutral")
TAGS = ("en", "de", "zh")
SIDES = ("ours", "torch")


@dataclasses.dataclass(frozen=True)
class Work:
    """Work that is done `n` times by `run(n)`, which waits for its end; tokens and FLOPs are those of one time."""

    run: Callable[[int], None]
    tokens: int
    flops: float


Maker = Callable[[], Work]


@dataclasses.dataclass(frozen=True)
class Training:
    """Training steps on one batch; `targets` are cached ones, and where there are none a teacher runs in each step."""

    trainer: Trainer
    batch: Any
    rows: int
    length: int
    targets: Any = None

    @property
    def flops(self) -> float:
        """Counts the FLOPs of a step as the loop of a run counts them."""
        tokens, method = self.rows * self.length, self.trainer.method
        return 3 * method.flops(tokens, self.rows) + (method.teacher.flops(tokens, self.rows) if method.teacher else 0)

    def run(self, n: int) -> None:
        """Runs `n` steps, and waits for their end."""
        self.trainer.run_steps([self.batch] * n, None if self.targets is None else [self.targets] * n)

    def compile(self, place: jax.sharding.Sharding) -> list[jax.stages.Compiled]:
        """Compiles the programs of a step for a device, which may be one that is not here."""
        without = None if self.trainer.method.teacher else ()
        return self.trainer.compile(place, self.batch, without if self.targets is None else self.targets)

    def to_work(self) -> Work:
        """Returns the steps as work to be measured."""
        return Work(self.run, self.rows * self.length, self.flops)


def main(arguments: list[str]) -> None:
    """Measures the works that have no file yet."""
    flags = cli.parse_flags(arguments, ("out", "side"), ("quick",))
    if "out" not in flags:
        raise UserError("--out is missing", "command line", "name a folder")
    if flags.get("side", "ours") not in SIDES:
        raise UserError(f"--side={flags['side']} is not a side", "command line", f"one of {', '.join(SIDES)}")
    sides = [flags["side"]] if "side" in flags else SIDES
    out = files.expand_path(flags["out"])
    out.mkdir(parents=True, exist_ok=True)
    for name, measure in list_works(sides, quick="quick" in flags):
        path = out / f"{name}.json"
        if not path.exists():
            files.write_json(path, _try(measure))
            print(f"{name}: {path.read_text().strip()}", flush=True)


def list_works(sides: list[str] | tuple[str, ...], quick: bool) -> Iterator[tuple[str, Callable[[], Json]]]:
    """Yields the name of each work, which names a file, and the function that measures it."""
    yield "machine", describe_machine
    works: dict[str, dict[str, Maker]] = {"ours": {}, "torch": {}}
    for title, work in (step.STEPS | step.FORWARD).items():
        if work.dtype == DTYPE:  # the same work as its case in float32
            continue
        own = work._replace(**step.QUICK) if quick else work
        size = own.shape, own.rows, own.length, own.dropout if title in step.STEPS else None
        works["ours"][title] = lambda size=size: make_case(*size)
        works["torch"][title] = lambda size=size: make_peer_case(*size)
    shape, rows, length = ("tiny", 2, 16) if quick else ("12x384", 32, 128)
    pairs = (rows, length) if quick else (24, 384)
    works["ours"] |= {
        GXLT: lambda: make_gxlt(shape, *pairs).to_work(),
        MMKD: lambda: make_mmkd(shape, "tiny" if quick else "6x384", rows, length).to_work(),
        MBLM: lambda: make_mblm(shape, rows, length).to_work(),
    }
    works["torch"] |= {GXLT: lambda: make_peer_gxlt(shape, *pairs)}
    for side in sides:
        for title, make in works[side].items():
            yield f"{side}: {title}", lambda make=make: measure(make())


def describe_machine() -> Json:
    """Returns devices, processors and versions."""
    import jax

    from xlkd.runtime.devices import peak_flops
    from xlkd.train.run import describe_environment

    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # no NVIDIA driver
        gpu = ""
    try:
        import torch

        peer = f"{torch.__version__}, GPU: {torch.cuda.is_available()}"
    except ImportError:
        peer = ""
    environment = describe_environment([], {})
    versions = {name: environment[name] for name in ("python", "platform", "packages", "git", "git_changes", "runtime")}
    device = {"device": jax.devices()[0].device_kind, "gpu": gpu, "processor": platform.processor()}
    return device | {"peak_flops": peak_flops(DTYPE), "torch": peer} | versions


def measure(work: Work) -> Json:
    """Measures a work: the first call, which compiles, and then several rounds of as many calls as fill their time."""
    from xlkd.runtime.devices import peak_flops

    first = side_by_side.time_side(lambda: work.run(1))
    work.run(2)
    once = side_by_side.time_side(lambda: work.run(2)) / 2
    count = max(1, round(SECONDS / ROUNDS / once))
    times = [side_by_side.time_side(lambda: work.run(count)) / count for _ in range(ROUNDS)]
    seconds = statistics.median(times)
    return {
        "first_call_seconds": first,
        "seconds": seconds,
        "lowest": min(times),
        "highest": max(times),
        "calls": count * ROUNDS,
        "tokens": work.tokens,
        "tokens_per_second": work.tokens / seconds,
        "flops": work.flops,
        "mfu": work.flops / seconds / peak_flops(DTYPE),
    }


def make_case(shape: str, rows: int, length: int, dropout: float | None) -> Work:
    """Builds our side of a case of bench/step.py: a training step with this dropout, or with None a forward pass."""
    import jax
    import models

    if dropout is not None:
        return make_training(models.make_architecture(shape, dropout), rows, length).to_work()
    architecture = models.make_architecture(shape, 0.0)
    batch = models.put_on_device(models.make_questions(rows, length, architecture.vocab_size))
    forward = models.compile_forward(architecture, models.init_span_params(architecture), DTYPE)

    def run(n: int) -> None:
        for _ in range(n):
            outputs = forward(batch)
        jax.block_until_ready(outputs)

    return Work(run, rows * length, _count_flops(architecture, rows, length))


def make_training(architecture: Architecture, rows: int, length: int, dtype: str = DTYPE) -> Training:
    """Builds a step of fine-tuning for question answering."""
    import models

    batch = models.put_on_device(models.make_questions(rows, length, architecture.vocab_size))
    return Training(step.make_trainer(architecture, dtype), batch, rows, length)


def make_peer_case(shape: str, rows: int, length: int, dropout: float | None) -> Work:
    """Builds PyTorch's side of the same case, compiled, with SDPA."""
    import models
    import peer

    architecture = models.make_architecture(shape, dropout or 0.0)
    params, batch = models.init_span_params(architecture), models.make_questions(rows, length, architecture.vocab_size)
    flops = _count_flops(architecture, rows, length)
    if dropout is not None:
        trainer, tensors = step.make_peer(architecture, params, True, DTYPE), peer.make_tensors(batch)
        return Work(lambda n: trainer.run_steps([tensors] * n), rows * length, 3 * flops)
    call, inputs = (
        peer.compile_forward(peer.load_span_model(architecture, params), True, DTYPE),
        peer.make_inputs(batch),
    )

    def run(n: int) -> None:
        for _ in range(n):
            call(inputs)
        peer.wait()

    return Work(run, rows * length, flops)


def make_gxlt(shape: str, rows: int, length: int, dtype: str = DTYPE) -> Training:
    """Builds a step of self-distillation, in which a snapshot of the student is the teacher."""
    import models

    from xlkd.methods import gxlt

    architecture = models.make_architecture(shape, 0.1, VOCABULARY)
    settings = models.read_stage("gxlt.py", "skd", start="encoder", method__coefficient_group=0)
    stage = models.resolve_stage(settings, steps_per_epoch=models.STEPS)
    method = gxlt.build(stage, models.make_encoder(architecture, dtype))
    trainer = models.Trainer(method, models.make_start(architecture), stage)
    return Training(trainer, models.put_on_device(models.make_questions(rows, length, VOCABULARY)), rows, length)


def make_peer_gxlt(shape: str, rows: int, length: int) -> Work:
    """Builds PyTorch's step of self-distillation, compiled."""
    import models
    import peer

    architecture = models.make_architecture(shape, 0.1, VOCABULARY)
    params = models.init_span_params(architecture)
    student, teacher = (peer.load_span_model(architecture, params) for _ in range(2))
    loss = peer.make_distillation_loss(teacher, 1.0)
    trainer = peer.Trainer(student, loss, 5e-5, compiled=True, dtype=DTYPE)
    tensors = peer.make_tensors(models.make_questions(rows, length, VOCABULARY))
    flops = _count_flops(architecture, rows, length)
    return Work(lambda n: trainer.run_steps([tensors] * n), rows * length, 4 * flops)


def make_mmkd(student: str, teacher: str, rows: int, length: int, dtype: str = DTYPE) -> Training:
    """Builds a step of all four levels, with the teacher in each step; sentences have half the length of pairs."""
    import mmkd
    import models

    architectures = models.make_architecture(student, 0.1, VOCABULARY), models.make_architecture(teacher, 0.1)
    batch = mmkd.make_batch(rows, length, mmkd.count_positions(length), VOCABULARY, length // 2)
    trainer = mmkd.make_trainer(*architectures, {}, dtype)
    return Training(trainer, models.put_on_device(batch), rows, length)


def make_mblm(shape: str, rows: int, length: int, tags: Sequence[str] = TAGS, dtype: str = DTYPE) -> Training:
    """Builds a step of a student with a branch of a third of the layers for each language, with cached targets."""
    import models
    import numpy as np

    from xlkd.methods import mblm

    architecture = models.make_architecture(shape, 0.1, VOCABULARY)
    changes = {"method__branch_layers": max(1, architecture.layers // 3), "task__languages": ",".join(tags)}
    changes["method__own"] = len(tags) == 1  # a mixture needs a branch
    stage = models.resolve_stage(models.read_stage("mblm.py", "mblm", data__eval="", **changes), labels=LABELS)
    start = models.make_start(architecture, labels=LABELS)
    trainer = models.Trainer(mblm.build(stage, models.make_encoder(architecture, dtype)), start, stage)
    random, ones = np.random.default_rng(0), np.ones(rows, np.float32)
    batch = {
        "text": models.make_texts(random, rows, length, VOCABULARY),
        "labels": random.integers(0, len(LABELS), rows).astype(np.int32),
        "language": (np.arange(rows) % len(tags)).astype(np.int32),
        "labelled": ones,
        "mask": ones,
    }
    targets = {"teacher": random.normal(size=(rows, len(LABELS))).astype(np.float32), "taught": ones}
    return Training(trainer, models.put_on_device(batch), rows, length, models.put_on_device(targets))


def _count_flops(architecture: Architecture, rows: int, length: int) -> float:
    from xlkd.models.encoder import forward_flops

    return forward_flops(architecture, rows * length, rows)


def _try(measure: Callable[[], Json]) -> Json:
    """Returns what was measured, or the error: a library that is missing or fails may not end the other works."""
    try:
        return measure()
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}


if __name__ == "__main__":
    sys.exit(cli.run(main))
