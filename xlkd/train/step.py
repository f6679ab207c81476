# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A training step: loss and gradient as sums and counts, a check that they are finite, an update of the parameters.

The step is a pure function, which the loop jits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from xlkd.losses.terms import Term, total
from xlkd.methods import Batch, Coupled, Loss, Method, State, Tree, Variables, key_for
from xlkd.train.optim import LearningRate, clip_gradients

Report = dict[str, Any]  # `terms` {name: (sum, count)}, and the scalars `grad_norm`, `lr`, `loss` and `ok`
StepFn = Callable[[State, Batch, Tree], tuple[State, Report]]  # (state, batch, targets) -> the next state and a report
GradientResult = tuple[Tree, dict[str, Term], Tree]  # the gradient; terms and metrics; the new statistics
LossFn = Callable[[Tree, Batch, Tree, Key[Array, ""]], Loss]  # (params, batch, targets, key) of a micro-batch
CoupledFn = Callable[[Tree, Tree], Coupled]  # (params, embeddings of all rows of the step)


def make_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    rate: LearningRate,
    *,
    seed: int,
    clip_norm: float,
    micro_batches: int = 1,
) -> StepFn:
    """Makes the function that trains one step.

    The loop donates the whole state to it, and a teacher may share buffers with another array, so the loop calls it
    with a state without teacher.
    """

    def step(state: State, batch: Batch, targets: Tree) -> tuple[State, Report]:
        key = key_for(seed, "dropout", state.step)
        targets = jax.lax.stop_gradient(method.prepare(batch, targets) if method.prepare else targets)
        gradient, terms, statistics = compute_gradient(method, state, batch, targets, key, micro_batches)
        norm = optax.tree.norm(gradient)
        ok = state.ok & jnp.isfinite(norm) & jnp.isfinite(total(terms))
        clipped = clip_gradients(gradient, norm, clip_norm)
        direction, moments = optimizer.update(clipped, state.optimizer, state.variables.params)
        lr = rate(state.step % method.period if method.period else state.step)
        params = jax.tree.map(lambda p, d: p - lr * d, state.variables.params, direction)
        variables = state.variables._replace(params=params, statistics=statistics)
        new = State(state.step + 1, variables, moments, state.teacher, state.ok)
        new = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, state)._replace(ok=ok)
        sums = {name: (term.sum, term.count) for name, term in terms.items()}
        return new, {"terms": sums, "grad_norm": norm, "lr": lr, "loss": total(terms), "ok": ok}

    return step


def compute_gradient(
    method: Method, state: State, batch: Batch, targets: Tree, key: Key[Array, ""], micro_batches: int
) -> GradientResult:
    """Computes the gradient of Σ weight · sum / count over all rows of the step, for any number of micro-batches.

    Returns it with the terms and metrics by name, and the new statistics.
    """
    variables, step = state.variables, state.step

    def loss(params: Tree, batch: Batch, targets: Tree, key: Key[Array, ""]) -> Loss:
        return method.loss(variables._replace(params=params), batch, targets, key, step)

    def couple(params: Tree, embeddings: Tree) -> Coupled:
        if method.coupled is None:
            return {}, {}, variables.statistics
        return method.coupled(variables._replace(params=params), embeddings, batch, targets, step)

    if micro_batches > 1:
        coupled = couple if method.coupled else None
        return _accumulate_gradient(loss, coupled, variables, batch, targets, key, micro_batches)

    def sum_terms(params: Tree) -> tuple[jax.Array, tuple[dict[str, Term], Tree]]:
        rows_loss = loss(params, batch, targets, key)
        terms, metrics, statistics = couple(params, rows_loss.embeddings)
        terms, metrics = {**rows_loss.terms, **terms}, {**rows_loss.metrics, **metrics}
        return total(terms), (terms | _clear_weights(metrics), statistics)

    gradient, (terms, statistics) = jax.grad(sum_terms, has_aux=True)(variables.params)
    return gradient, terms, statistics


def _accumulate_gradient(
    loss: LossFn,
    coupled: CoupledFn | None,
    variables: Variables,
    batch: Batch,
    targets: Tree,
    key: Key[Array, ""],
    micro_batches: int,
) -> GradientResult:
    """Computes counts (and the embeddings of all rows) first, then sums and gradient of each micro-batch.

    Counts depend on the batch alone, so without coupled terms the compiler removes the rest of the first pass.
    """
    params = variables.params
    parts = (_cut_rows((batch, targets), micro_batches), jax.random.split(key, micro_batches))

    def count(_: None, part: Tree) -> tuple[None, tuple[dict[str, jax.Array], Tree]]:
        (batch, targets), key = part
        part_loss = loss(params, batch, targets, key)
        counts = {name: term.count for name, term in part_loss.terms.items()}
        return None, (counts, part_loss.embeddings if coupled else ())

    _, (counts, embeddings) = jax.lax.scan(count, None, parts)
    counts = {name: values.sum(0) for name, values in counts.items()}
    gradient, coupled_terms, statistics = jax.tree.map(jnp.zeros_like, params), {}, variables.statistics
    pull = embeddings  # the gradient with respect to the embeddings of each micro-batch
    if coupled:

        def joint(params: Tree, joined: Tree) -> tuple[jax.Array, tuple[dict[str, Term], Tree]]:
            terms, metrics, statistics = coupled(params, joined)
            return total(terms), (terms | _clear_weights(metrics), statistics)

        differentiate = jax.grad(joint, argnums=(0, 1), has_aux=True)
        (gradient, embeddings_gradient), (coupled_terms, statistics) = differentiate(params, _join_rows(embeddings))
        pull = _cut_rows(embeddings_gradient, micro_batches)

    def add_gradient(so_far: Tree, part: Tree) -> tuple[Tree, dict[str, Term]]:
        ((batch, targets), key), pull = part

        def sum_terms(params: Tree) -> tuple[jax.Array, dict[str, Term]]:
            part_loss = loss(params, batch, targets, key)
            terms = {name: term._replace(count=counts[name]) for name, term in part_loss.terms.items()}
            pulled = jax.tree.map(lambda g, e: (g * e).sum(), pull, part_loss.embeddings) if coupled else ()
            value = total(terms) + sum(jax.tree.leaves(pulled), jnp.zeros(()))
            return value, part_loss.terms | _clear_weights(part_loss.metrics)

        gradient, terms = jax.grad(sum_terms, has_aux=True)(params)
        return jax.tree.map(jnp.add, so_far, gradient), jax.tree.map(jnp.asarray, terms)

    gradient, terms = jax.lax.scan(add_gradient, gradient, (parts, pull))
    terms = {name: Term(t.sum.sum(0), t.count.sum(0), jnp.asarray(t.weight)[0]) for name, t in terms.items()}
    return gradient, terms | coupled_terms, statistics


def _cut_rows(tree: Tree, parts: int) -> Tree:
    """Reshapes [rows] to [parts, rows / parts]; neighbours go to different parts, so each stays on all devices."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), tree)


def _join_rows(tree: Tree) -> Tree:
    """Reverses `_cut_rows`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)


def _clear_weights(metrics: dict[str, Term]) -> dict[str, Term]:
    """Returns the terms with weight 0: they are reported, and not differentiated."""
    return {name: term._replace(weight=0.0) for name, term in metrics.items()}
