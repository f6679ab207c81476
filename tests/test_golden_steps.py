# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A complete optimization step of each system on a toy model, as a table of numbers.

A step is `train/step.py` with the real optimizer, schedule and clipping, with dropout, in float32, from weights that
are sines of their own position. The table has the loss, each term and metric (sum / count), the norm of the gradient
before clipping, the learning rate, and for each part of the model how far the step moved it: the sum of the absolute
differences, and a weighted sum that depends on their signs. A changed sign, weight, temperature or key of dropout, or a
missing term, moves a number by far more than the tolerance; another CPU or release of JAX does not.

`python tests/test_golden_steps.py` prints the table. The same steps in float64 agree with it to 7e-6; most of that is
the bias correction of Adam's second moment, 1 - 0.999, which float32 rounds.

Update a number only together with an intended change of the computation, and name the change in the CHANGELOG. If a
number moves without an intended change, the change is wrong and not the table. Never widen the tolerance.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import mblm_toys
import numpy as np
import pytest
import stages
import test_gxlt
import test_mmkd

from xlkd.methods import Method, Start, finetune, gxlt, mblm, mmkd, pretrain
from xlkd.models import encoder as encoders
from xlkd.spec.optim import Optim
from xlkd.spec.tasks import QuestionAnswering
from xlkd.train import optim, step
from xlkd.train import state as states

TABLE = {
    "finetune qa": {
        "loss": 3.761402,
        "grad_norm": 5.835591,
        "lr": 0.06,
        "ce": 3.761402,
        "exact": 0.0,
        "|moved encoder|": 189.4122,
        "moved encoder": 0.7159842,
        "|moved span|": 1.793528,
        "moved span": -0.07318293,
    },
    "finetune classify": {
        "loss": 0.7392857,
        "grad_norm": 4.584838,
        "lr": 0.06,
        "accuracy": 1.0,
        "ce": 0.7392857,
        "|moved classifier|": 15.2914,
        "moved classifier": 0.0008732571,
        "|moved encoder|": 144.7423,
        "moved encoder": 0.2704717,
    },
    "pretrain": {
        "loss": 5.944018,
        "grad_norm": 18.97939,
        "lr": 0.06,
        "accuracy": 0.0,
        "masked_lm": 5.944018,
        "|moved encoder|": 168.3174,
        "moved encoder": 2.140906,
        "|moved masked_lm|": 13.36397,
        "moved masked_lm": -0.5038104,
    },
    "gxlt": {
        "loss": 2.96189,
        "grad_norm": 4.603538,
        "lr": 0.06,
        "agreement": 0.375,
        "ce": 3.761402,
        "coefficient": 0.71875,
        "exact": 0.0,
        "kl": 0.281676,
        "teacher_entropy": 1.976107,
        "|moved encoder|": 189.758,
        "moved encoder": 0.8577898,
        "|moved span|": 1.757055,
        "moved span": -0.07670159,
    },
    "mblm": {
        "loss": 7.637926,
        "grad_norm": 3.750558,
        "lr": 0.06,
        "accuracy": 0.25,
        "ce": 1.204507,
        "kd": 4.413499,
        "zero_shot": 4.348682,
        "|moved branches|": 158.8878,
        "moved branches": 0.0572013,
        "|moved classifier|": 15.4408,
        "moved classifier": -0.2676475,
        "|moved mixture|": 0.06454723,
        "moved mixture": 0.002858908,
        "|moved trunk|": 76.98093,
        "moved trunk": -0.2128289,
    },
    "mmkd": {
        "loss": 11.70501,
        "grad_norm": 38.4526,
        "lr": 0.06,
        "sentence": 1.856994,
        "spread": 0.6903469,
        "structure": 0.1033633,
        "token": 7.347903,
        "token_accuracy": 0.0,
        "word": 1.466477,
        "|moved encoder|": 166.5684,
        "moved encoder": 1.516725,
        "|moved masked_lm|": 10.64194,
        "moved masked_lm": -0.6815991,
        "|moved sentence_0|": 16.74538,
        "moved sentence_0": -0.06792059,
        "|moved structure_0|": 14.66358,
        "moved structure_0": -0.05713469,
        "|moved word_map|": 4.440452,
        "moved word_map": -0.2193732,
        "statistics": 176.3781,
    },
}

TOLERANCE = 1e-5  # relative; for a signed sum, relative to the sum of absolute values
SEED, NUMBER, STEPS = 7, 3, 20  # the fourth step of twenty, inside the warm-up
OPTIM = Optim(lr=0.1, warmup=5, eps=1e-3, clip=0.5)  # eps: a gradient that is 0 except for rounding must move nothing
# Scanned, because that compiles faster; unrolled layers give the same numbers
STUDENT = encoders.Encoder(mblm_toys.make_architecture(layers=2, dropout=0.1), scan=True)
TEACHER = encoders.Encoder(dataclasses.replace(STUDENT.architecture, hidden_size=8, intermediate_size=16), scan=True)


def fill_with_sines(tree: Any, phase: float) -> Any:
    """Returns the tree with values from -0.4 to 0.4 that depend on place and phase alone; norms' scales about 1."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)

    def fill(number: int, path: tuple, leaf: Any) -> np.ndarray:
        values = 0.4 * np.sin(1.7 * np.arange(leaf.size) + number + phase).reshape(leaf.shape)
        return np.asarray(values + jax.tree_util.keystr(path).endswith("['scale']"), leaf.dtype)

    return jax.tree.unflatten(structure, [fill(number, *leaf) for number, leaf in enumerate(leaves)])


def build_qa() -> tuple[Method, Any]:
    return finetune.build(stages.make_spec(QuestionAnswering()), STUDENT), test_gxlt.make_batch()


def make_labelled_batch() -> Any:
    return mblm_toys.replace_arrays(mblm_toys.make_batch(), labelled=[1, 1, 0, 1, 1, 1], mask=[1, 1, 1, 1, 1, 0])


def build_classify() -> tuple[Method, Any]:
    return finetune.build(mblm_toys.make_stage(), STUDENT), make_labelled_batch()


def build_pretrain() -> tuple[Method, Any]:
    rows = mblm_toys.make_batch()
    weights = np.float32([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1]])
    labels = np.arange(18).reshape(6, 3) * 2 + 1
    batch = {"text": rows["text"], "positions": np.tile([1, 3, 2], (6, 1)), "labels": labels, "weights": weights}
    return pretrain.build(stages.resolve(stages.read_stage("configs/pretrain.py")), STUDENT), batch


def build_gxlt() -> tuple[Method, Any]:
    spec = test_gxlt.make_stage(coefficient="authors", temperature=2.0, alpha_ce=0.75, alpha_kl=0.5)
    return gxlt.build(spec, STUDENT), test_gxlt.make_batch()


def build_mblm() -> tuple[Method, Any]:
    weights = {"weight_s": 1.2, "weight_z": 0.8, "warmup_z": 0.06}
    spec = mblm_toys.make_stage(weights="learned", temperature=2.0, t_squared=True, **weights)
    return mblm.build(spec, STUDENT), make_labelled_batch()


def build_mmkd() -> tuple[Method, Any]:
    spec = test_mmkd.config(head_output=4, word_temperature=2.0, structure_temperature=1.5)
    batch = jax.tree.map(np.copy, test_mmkd.BATCH)
    batch["sentence"]["mask"][::2, 2] = batch["teacher"]["mask"][1::2, 3] = batch["mask"][5] = 0
    batch["counted"][3, 1] = batch["exists"][2, 2] = False
    return mmkd.build(spec, STUDENT, TEACHER), batch


SYSTEMS = {
    "finetune qa": build_qa,
    "finetune classify": build_classify,
    "pretrain": build_pretrain,
    "gxlt": build_gxlt,
    "mblm": build_mblm,
    "mmkd": build_mmkd,
}


def make_start() -> Start:
    shapes = [
        jax.eval_shape(lambda encoder=encoder: encoders.init(encoder.architecture, jax.random.key(0)))
        for encoder in (STUDENT, TEACHER)
    ]
    student, teacher = (fill_with_sines(tree, phase) for phase, tree in enumerate(shapes))
    return Start(STUDENT.architecture, student, {}, other=teacher)


def make_state(method: Method, start: Start, optimizer: Any) -> states.State:
    """Returns the state before the step: its shapes are the method's, its numbers are sines, its moments are 0."""
    shapes = jax.eval_shape(lambda: states.create_state(method, start, optimizer, SEED))
    params, frozen, statistics = (fill_with_sines(tree, phase) for phase, tree in enumerate(shapes.variables))
    statistics = jax.tree.map(lambda x: np.float32(1) + x, statistics)
    moments = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes.optimizer)
    variables = shapes.variables._replace(params=params, frozen=frozen, statistics=statistics)
    teacher = fill_with_sines(shapes.teacher, 0.3)
    return states.State(jnp.asarray(NUMBER), variables, moments, teacher, jnp.ones((), bool))


def make_targets(system: str, method: Method, state: states.State, start: Start, batch: Any) -> Any:
    if system == "mblm":
        return mblm_toys.make_targets() | {"taught": np.float32([1, 0, 1, 1, 1, 1])}
    return jax.jit(method.teacher.forward)(state.teacher or start.other, batch) if method.teacher else ()


def measure_step(system: str) -> dict[str, float]:
    """Runs the step, and returns its numbers."""
    method, batch = SYSTEMS[system]()
    start, optimizer = make_start(), optim.make_optimizer(OPTIM)
    state = make_state(method, start, optimizer)
    targets = make_targets(system, method, state, start, batch)
    function = step.make_step(method, optimizer, optim.make_schedule(OPTIM, STEPS), seed=SEED, clip_norm=OPTIM.clip)
    targets = jax.jit(method.prepare)(batch, targets) if method.prepare else targets
    new, report = jax.jit(function)(state, batch, targets)
    assert bool(report["ok"])
    return summarize(state, *jax.device_get((new, report)))


def summarize(state: states.State, new: states.State, report: Any) -> dict[str, float]:
    """Returns the numbers of the table, with the digits that float32 has."""
    numbers = {"loss": report["loss"], "grad_norm": report["grad_norm"], "lr": report["lr"]}
    numbers |= {name: total / count for name, (total, count) in report["terms"].items()}
    for name, old in state.variables.params.items():
        moved = jax.tree.map(np.subtract, new.variables.params[name], old)
        signed = jax.tree.map(np.multiply, moved, fill_with_sines(moved, 3.0))
        numbers[f"|moved {name}|"] = sum(np.abs(leaf).sum(dtype=float) for leaf in jax.tree.leaves(moved))
        numbers[f"moved {name}"] = sum(leaf.sum(dtype=float) for leaf in jax.tree.leaves(signed))
    if new.variables.statistics:
        numbers["statistics"] = sum(leaf.sum(dtype=float) for leaf in jax.tree.leaves(new.variables.statistics))
    return {name: float(f"{number:.7g}") for name, number in numbers.items()}


@pytest.mark.parametrize("system", SYSTEMS)
def test_golden_step(system):
    numbers, golden = measure_step(system), TABLE[system]
    assert numbers.keys() == golden.keys()
    far = {
        name: f"{number} instead of {golden[name]}"
        for name, number in numbers.items()
        if abs(number - golden[name]) > TOLERANCE * abs(golden.get(f"|{name}|", golden[name]))
    }
    assert not far, f"a step of {system} computes other numbers than before; see the top of this file"


if __name__ == "__main__":
    for system in SYSTEMS:
        print(f'    "{system}": {{')
        for name, number in measure_step(system).items():
            print(f'        "{name}": {number},')
        print("    },")
