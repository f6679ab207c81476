# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a method is: a frozen value of pure functions that the one loop trains.

A method is one file in this folder with `build(spec, encoder) -> Method`, found by its name; its settings stand in the
file of the same name in `xlkd/spec/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from xlkd.keys import PURPOSES
from xlkd.losses.terms import Term
from xlkd.models.encoder import Architecture
from xlkd.models.outputs import OutputFn

Tree = Any  # a pytree of arrays
Batch = dict[str, Any]  # {view: {name: [rows, length]}} and arrays per row; `mask` is the row mask


class Start(NamedTuple):
    """What the stage's weights gave: an encoder, and the heads that stood beside it; and those of another encoder."""

    architecture: Architecture
    encoder: Tree
    heads: dict[str, Tree]
    labels: tuple[str, ...] = ()
    other: Tree = ()  # the parameters of `config.teacher.path`, where a method has a teacher of its own kind


class Variables(NamedTuple):
    """Only `params` has a gradient and moments."""

    params: Tree
    frozen: Tree = ()
    statistics: Tree = ()


class Loss(NamedTuple):
    """Sums and counts over the rows of a micro-batch; metrics are terms of weight 0."""

    terms: dict[str, Term]
    metrics: dict[str, Term]
    embeddings: Any = None  # {name: [rows, D]}: what `coupled` needs of each row


Coupled = tuple[dict[str, Term], dict[str, Term], Tree]  # terms, metrics, statistics


class Export(NamedTuple):
    """One folder that other software can load."""

    architecture: Architecture
    encoder: Tree
    heads: dict[str, Tree]
    labels: tuple[str, ...] = ()
    route: str = ""  # of a part of a larger model: what the scores of that part are called by
    dtype: str = "float32"  # of the weights on disk
    pooling: str = ""  # how its last layer gives the vector of a text, where the method trains such vectors


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model that gives targets in a jitted function of its own: no dropout, no gradient.

    Where it `evolves` it is part of the state and of every checkpoint. `generation` counts how often it has changed
    before a step; where that number is another than at the step before, `advance` makes the state of this step.
    """

    variables: Callable[[Variables, Start], Tree]  # who teaches first, from what the stage starts with
    forward: Callable[[Tree, Batch], Tree]  # {name: [rows, …]}
    evolves: bool = False
    generation: Callable[[int], int] = lambda step: 0
    advance: Callable[[Any, Start, jax.Array], Any] = lambda state, start, key: state
    origin: str = ""  # who it is, for a model card, where the config does not name it
    uses: float = 0.0  # how often a run needs the target of one example; a cache pays above 1
    flops: Callable[[int, int], float] = lambda tokens, rows: 0.0  # where it is asked: as the method's own
    ragged: tuple[str, ...] = ()  # what of the targets has the batch's length as its second axis


class Classifiers(NamedTuple):
    """The input length of the classifiers of `config.teachers`, and labels of those whose logits have no names."""

    max_length: int = 0  # of their inputs, in their own tokens; 0: as long as each can read
    labels: Mapping[str, tuple[str, ...]] = {}  # by language, in the order of the logits


class Inference(NamedTuple):
    """A trained model of a method whose students are more than one encoder with one head."""

    outputs: Callable[[Tree, Batch], Mapping[str, jax.Array]]  # of parameters; `logits` and those of every route
    routes: Mapping[str, str]  # by language the name of its route
    exports: Callable[[Tree], dict[str, Export]]  # of parameters: the ordinary models that it consists of


@dataclasses.dataclass(frozen=True)
class Method:
    """Pure functions of arrays; design and loop agree on nothing else."""

    init: Callable[[jax.Array, Start], Variables]
    loss: Callable[[Variables, Batch, Tree, jax.Array, jax.Array], Loss]
    outputs: Mapping[str, OutputFn]  # by the name of the task that reads them: (variables, batch) -> outputs
    exports: Callable[[Variables], dict[str, Export]]
    coupled: Callable[[Variables, Tree, Batch, Tree, jax.Array], Coupled] | None = None
    teacher: Teacher | None = None
    prepare: Callable[[Batch, Tree], Tree] | None = None  # targets of the whole step, before it is cut into parts
    classifiers: Classifiers | None = None  # the classifiers of `config.teachers`, where the method learns from them
    reference_pooling: str = "mean"  # how a second encoder gives the vectors that retrieval compares with
    period: int = 0  # steps after which the learning rate's schedule begins again; 0: never
    flops: Callable[[int, int], float] = lambda tokens, rows: 0.0  # forward, of so many real tokens in so many rows


def of_params(outputs: Mapping[str, OutputFn]) -> dict[str, OutputFn]:
    """Returns the output functions of parameters as functions of a method's variables."""

    def of_variables(function: OutputFn) -> OutputFn:
        return lambda variables, batch: function(variables.params, batch)

    return {task: of_variables(function) for task, function in outputs.items()}


def key_for(seed: int, purpose: str, step: jax.Array | int = 0) -> jax.Array:
    """Returns the one random key of a purpose at a step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), PURPOSES[purpose]), step)
