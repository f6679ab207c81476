# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Creates the state of a stage before its first step, and divides it over the devices."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from xlkd.methods import Method, Start, State, key_for
from xlkd.runtime import mesh as meshes
from xlkd.spec import stage as spec


def create_state(method: Method, start: Start, optimizer: optax.GradientTransformation, seed: int) -> State:
    """Creates the state before step 0."""
    variables = method.init(key_for(seed, "init"), start)
    teacher = method.teacher.init(variables, start) if method.teacher and method.teacher.evolves else ()
    return State(jnp.zeros((), jnp.int32), variables, optimizer.init(variables.params), teacher, jnp.ones((), bool))


def shard_state(mesh: Mesh, state: State, settings: spec.Mesh) -> State:
    """Returns the sharding of each leaf of a state, of which shapes are enough."""
    shardings: State = meshes.make_shardings(mesh, state, meshes.list_parameter_axes(settings))
    return shardings._replace(optimizer=meshes.make_shardings(mesh, state.optimizer))
