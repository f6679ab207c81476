# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a method is: a frozen value of pure functions that the one loop trains.

A method is one file in this folder with `build(stage, encoder) -> Method`, found by its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from xlkd.losses.terms import Term
from xlkd.models.encoder import Architecture

Tree = Any  # a pytree of arrays
Batch = dict[str, Any]  # {view: {name: [rows, length]}} and arrays per row; `mask` is the row mask


class Start(NamedTuple):
    """What the stage's weights gave: an encoder, and the heads that stood beside it."""

    architecture: Architecture
    encoder: Tree
    heads: dict[str, Tree]
    labels: tuple[str, ...] = ()


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


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model that gives targets: its own view of a batch, its own forward pass, no gradient."""

    name: str
    variables: Callable[[Variables], Tree] | Tree
    view: str
    forward: Callable[[Tree, Batch], Tree]


@dataclasses.dataclass(frozen=True)
class Method:
    """Pure functions of arrays; design and loop agree on nothing else."""

    init: Callable[[jax.Array, Start], Variables]
    loss: Callable[[Variables, Batch, Tree, jax.Array, jax.Array], Loss]
    outputs: Callable[[Variables, Batch], Tree]
    exports: Callable[[Variables], dict[str, Export]]
    coupled: (
        Callable[[Variables, Tree, Batch, Tree, jax.Array], tuple[dict[str, Term], dict[str, Term], Tree]] | None
    ) = None
    flops: Callable[[int, int], float] = lambda tokens, rows: 0.0  # forward, of so many real tokens in so many rows
