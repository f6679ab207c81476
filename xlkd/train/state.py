# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a step carries: nothing random, since every key is folded from (seed, purpose, step)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from xlkd.methods import Method, Start, Variables, key_for


class State(NamedTuple):
    """`ok` is sticky: after a step that is not finite nothing is updated, and `step` stays where it was."""

    step: jax.Array
    variables: Variables
    optimizer: Any
    teacher: Any
    ok: jax.Array


def create(method: Method, start: Start, optimizer, seed: int) -> State:
    """The state before step 0."""
    variables = method.init(key_for(seed, "init"), start)
    evolves = method.teacher is not None and method.teacher.evolves
    teacher = method.teacher.variables(variables, start) if evolves else ()
    return State(jnp.zeros((), jnp.int32), variables, optimizer.init(variables.params), teacher, jnp.ones((), bool))
