# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines a method: a frozen value of pure functions, which the training loop calls.

A method is one file in this folder with `build(spec, encoder) -> Method`, found by its name; its settings stand in the
file of the same name in `xlkd/spec/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Int, Key

from xlkd.keys import PURPOSES
from xlkd.losses.terms import Term
from xlkd.models.family import Architecture
from xlkd.models.outputs import OutputFn

Tree = Any  # a pytree of arrays
Batch = dict[str, Any]  # {view: {name: [rows, length]}} and arrays per row; `mask` is the row mask
Step = Int[Array, ""] | int  # the number of the step: an array inside the jitted step


class Start(NamedTuple):
    """The encoder and heads that a stage starts from, as its weights gave them."""

    architecture: Architecture
    encoder: Tree
    heads: dict[str, Tree]
    labels: tuple[str, ...] = ()
    other: Tree = ()  # the parameters of `config.teacher.path`, where a method has a teacher encoder


class Variables(NamedTuple):
    """The arrays of a model; only `params` has a gradient and moments."""

    params: Tree
    frozen: Tree = ()
    statistics: Tree = ()


class State(NamedTuple):
    """The state that a step passes on to the next. It has no random key: each is folded from seed, purpose and step.

    `ok` is sticky: after a step that is not finite nothing is updated, and `step` stays where it was.
    """

    step: Int[Array, ""]
    variables: Variables
    optimizer: Tree
    teacher: Tree
    ok: Bool[Array, ""]


class Loss(NamedTuple):
    """Sums and counts over the rows of a micro-batch; metrics are terms of weight 0."""

    terms: dict[str, Term]
    metrics: dict[str, Term]
    embeddings: Any = None  # {name: [rows, hidden]}: the vectors of each row that `coupled` reads


Coupled = tuple[dict[str, Term], dict[str, Term], Tree]  # terms, metrics, statistics


class Export(NamedTuple):
    """A trained model to be written as a folder that other software can load."""

    architecture: Architecture
    encoder: Tree
    heads: dict[str, Tree]
    labels: tuple[str, ...] = ()
    route: str = ""  # for a part of a larger model: the name that reports give to the scores of that part
    dtype: str = "float32"  # of the weights on disk
    pooling: str = ""  # how its last layer gives the vector of a text, where the method trains such vectors


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model that gives targets in a jitted function of its own: no dropout, no gradient.

    A teacher that `evolves` is part of the state and of every checkpoint. `generation` counts how often it has changed
    before a step; where that number differs from that of the step before, `advance` makes the state of this step.
    """

    init: Callable[[Variables, Start], Tree]  # its first variables, from the new student and the weights of the stage
    forward: Callable[[Tree, Batch], Tree]  # {name: [rows, …]}
    evolves: bool = False
    generation: Callable[[int], int] = lambda step: 0
    advance: Callable[[State, Start, jax.Array], State] = lambda state, start, key: state
    origin: str = ""  # names the teacher in a model card, where the config does not
    uses: float = 0.0  # how often a run needs the target of one example; a cache pays above 1
    flops: Callable[[int, int], float] = lambda tokens, rows: 0.0  # of a forward pass, as the method's own
    ragged: tuple[str, ...] = ()  # the targets whose second axis is the batch's length


class Classifiers(NamedTuple):
    """The input length of the classifiers of `config.teachers`, and labels of those whose logits have no names."""

    max_length: int = 0  # of their inputs, in their own tokens; 0: as long as each can read
    labels: Mapping[str, tuple[str, ...]] = {}  # by language, in the order of the logits


class Inference(NamedTuple):
    """A trained model of a method whose students are more than one encoder with one head."""

    outputs: OutputFn  # (parameters, batch) -> `logits`, and the logits of each route
    routes: Mapping[str, str]  # by language the name of its route
    exports: Callable[[Tree], dict[str, Export]]  # parameters -> the ordinary models that they consist of
    shapes: Tree  # of the parameters


@dataclasses.dataclass(frozen=True)
class Method:
    """Pure functions of arrays: all that the loop knows of a method."""

    init: Callable[[jax.Array, Start], Variables]
    loss: Callable[[Variables, Batch, Tree, jax.Array, jax.Array], Loss]  # of variables, batch, targets, key, step
    outputs: Mapping[str, OutputFn]  # by the name of the task that reads them: (variables, batch) -> outputs
    exports: Callable[[Variables], dict[str, Export]]
    coupled: Callable[[Variables, Tree, Batch, Tree, jax.Array], Coupled] | None = None
    teacher: Teacher | None = None
    prepare: Callable[[Batch, Tree], Tree] | None = None  # (batch, targets) of the whole step -> the targets it takes
    classifiers: Classifiers | None = None  # the classifiers of `config.teachers`, where the method learns from them
    learns_vectors: bool = False  # whether its targets are `vectors` [rows, width], those of `config.teacher.vectors`
    reference_pooling: str = "mean"  # how a teacher encoder gives the vectors that retrieval compares with
    warn: Callable[[Mapping[str, float]], str] = lambda values: ""  # what is wrong by the logged values; "" if nothing
    period: int = 0  # steps after which the learning rate's schedule begins again; 0: never
    flops: Callable[[int, int], float] = lambda tokens, rows: 0.0  # (real tokens, rows) -> FLOPs of a forward pass


def merge_variables(variables: Variables) -> dict[str, Tree]:
    """Returns trained and frozen parameters together; a part of a model can have both under its name."""
    frozen, params = dict(variables.frozen), variables.params
    common = {name: {**frozen[name], **params[name]} for name in frozen.keys() & params.keys()}
    return {**frozen, **params, **common}


def take_variables(outputs: Mapping[str, OutputFn]) -> dict[str, OutputFn]:
    """Returns the output functions of parameters as functions of a method's variables."""

    def with_variables(function: OutputFn) -> OutputFn:
        return lambda variables, batch: function(merge_variables(variables), batch)

    return {task: with_variables(function) for task, function in outputs.items()}


def key_for(seed: int, purpose: str, step: Step = 0) -> Key[Array, ""]:
    """Returns the one random key of a purpose at a step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), PURPOSES[purpose]), step)
