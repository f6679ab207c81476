# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs real training steps on toy models, and differentiates their reports."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from xlkd.methods import Method, State, Variables
from xlkd.train import step

PLAIN = optax.identity()  # an update then has the direction of the gradient


def make_state(variables: Variables, *, number: int = 0, optimizer=PLAIN, teacher: Any = ()) -> State:
    """Returns the state before a step with these variables."""
    moments = optimizer.init(variables.params)
    return State(jnp.asarray(number, jnp.int32), variables, moments, teacher, jnp.ones((), bool))


def report_gradient(
    method: Method, place: Callable[[Any], tuple[State, Any]], batch: Any, micro_batches: int = 1
) -> Callable[[Any], tuple[jax.Array, Any]]:
    """Returns `f(value) -> (number, gradient)` of a step; `place` puts the value into the state or the targets.

    The number is the sum of everything the step reports: the loss, every term and metric, and the gradient's norm.
    Nothing here stops a gradient: where it is zero, the package stopped it.
    """
    batch = jax.tree.map(jnp.asarray, batch)
    take_step = step.make_step(method, PLAIN, lambda number: 0.1, seed=0, clip_norm=0.0, micro_batches=micro_batches)

    def sum_report(value: Any) -> jax.Array:
        state, targets = place(value)
        targets = method.prepare(batch, targets) if method.prepare else targets
        _, report = take_step(state._replace(optimizer=PLAIN.init(state.variables.params)), batch, targets)
        numbers = (report["terms"], report["loss"], report["grad_norm"])
        return sum((jnp.asarray(leaf, jnp.float32) for leaf in jax.tree.leaves(numbers)), jnp.zeros(()))

    return jax.jit(jax.value_and_grad(sum_report))


def largest_absolute(tree: Any) -> float:
    """Returns the largest absolute value of a tree."""
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
