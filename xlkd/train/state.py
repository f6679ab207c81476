# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Creates the state of a stage before its first step."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from xlkd.methods import Method, Start, State, key_for


def create_state(method: Method, start: Start, optimizer: optax.GradientTransformation, seed: int) -> State:
    """Creates the state before step 0."""
    variables = method.init(key_for(seed, "init"), start)
    teacher = method.teacher.init(variables, start) if method.teacher and method.teacher.evolves else ()
    return State(jnp.zeros((), jnp.int32), variables, optimizer.init(variables.params), teacher, jnp.ones((), bool))
