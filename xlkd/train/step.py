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
from xlkd.runtime.mesh import ONE_DEVICE, GradientLayout
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
    layout: GradientLayout = ONE_DEVICE,
) -> StepFn:
    """Makes the function that trains one step; `layout` says how several devices share the gradient and the update.

    The targets have gone through `method.prepare` before, in a program of its own: methods that differ only there share
    the program of the step.

    `optimizer.update` is told by `ok` whether the step is finite, and leaves its state as it is where it is not.

    The loop donates the whole state to it, and a teacher may share buffers with another array, so the loop calls it
    with a state without teacher.
    """
    update = optax.with_extra_args_support(optimizer).update

    def step(state: State, batch: Batch, targets: Tree) -> tuple[State, Report]:
        key = key_for(seed, "dropout", state.step)
        targets = jax.lax.stop_gradient(targets)
        gradient, terms, statistics = compute_gradient(method, state, batch, targets, key, micro_batches, layout)
        gradient = layout.shard_update(gradient)
        norm = optax.tree.norm(gradient)
        ok = state.ok & jnp.isfinite(norm) & jnp.isfinite(total(terms))
        clipped = clip_gradients(gradient, norm, clip_norm)
        direction, moments = update(clipped, state.optimizer, state.variables.params, ok=ok)
        lr = rate(state.step % method.period if method.period else state.step)
        params = jax.tree.map(lambda p, d: p - lr * d, state.variables.params, direction)
        variables = state.variables._replace(params=params, statistics=statistics)
        new = State(state.step + 1, variables, (), state.teacher, state.ok)
        new = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, state._replace(optimizer=()))
        new = new._replace(optimizer=moments, ok=ok)
        # Where moments are sharded more than parameters, these are gathered once they are final
        params = layout.shard_update(new.variables.params)
        new = new._replace(variables=new.variables._replace(params=params))
        sums = {name: (term.sum, term.count) for name, term in terms.items()}
        return new, {"terms": sums, "grad_norm": norm, "lr": lr, "loss": total(terms), "ok": ok}

    return step


def compute_gradient(
    method: Method,
    state: State,
    batch: Batch,
    targets: Tree,
    key: Key[Array, ""],
    micro_batches: int,
    layout: GradientLayout = ONE_DEVICE,
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

    if micro_batches > 1 or layout.sums_at_end(is_coupled=method.coupled is not None):
        coupled = couple if method.coupled else None
        return _accumulate_gradient(loss, coupled, variables, batch, targets, key, micro_batches, layout)

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
    layout: GradientLayout,
) -> GradientResult:
    """Computes counts (and the embeddings of all rows) first, then sums and gradient of each micro-batch.

    Counts depend on the batch alone, so without coupled terms the compiler removes the rest of the first pass. Each
    device adds up the gradients of its own rows (`layout.own`), and exchanges only the sum of all micro-batches.
    """
    params = variables.params
    keys = jax.random.split(key, micro_batches) if micro_batches > 1 else key[None]
    rows = _cut_rows((batch, targets), micro_batches)

    def count_terms(rows: Tree, shared: Tree) -> tuple[dict[str, jax.Array], Tree, Tree, Tree]:
        params, keys = shared

        def count(_: None, part: Tree) -> tuple[None, tuple[dict[str, jax.Array], Tree]]:
            (batch, targets), key = part
            part_loss = loss(params, batch, targets, key)
            counts = {name: term.count for name, term in part_loss.terms.items()}
            return None, (counts, part_loss.embeddings if coupled else ())

        _, (counts, embeddings) = jax.lax.scan(count, None, (rows, keys))
        return {name: values.sum(0) for name, values in counts.items()}, embeddings, (), ()

    counts, embeddings, *_ = layout.run_on_own_rows(count_terms, rows, (params, keys))
    gradient, coupled_terms, statistics = jax.tree.map(jnp.zeros_like, params), {}, variables.statistics
    pull = embeddings  # the gradient with respect to the embeddings of each micro-batch
    if coupled:

        def joint(params: Tree, joined: Tree) -> tuple[jax.Array, tuple[dict[str, Term], Tree]]:
            terms, metrics, statistics = coupled(params, joined)
            return total(terms), (terms | _clear_weights(metrics), statistics)

        differentiate = jax.grad(joint, argnums=(0, 1), has_aux=True)
        (gradient, embeddings_gradient), (coupled_terms, statistics) = differentiate(params, _join_rows(embeddings))
        pull = _cut_rows(embeddings_gradient, micro_batches)

    def add_gradients(rows: Tree, shared: Tree) -> tuple[dict[str, tuple[jax.Array, jax.Array]], Tree, Tree, Tree]:
        params, keys, counts, so_far = shared

        def add_gradient(so_far: Tree, part: Tree) -> tuple[Tree, dict[str, Term]]:
            ((batch, targets), pull), key = part

            def sum_terms(params: Tree) -> tuple[jax.Array, dict[str, Term]]:
                part_loss = loss(params, batch, targets, key)
                terms = {name: term._replace(count=counts[name]) for name, term in part_loss.terms.items()}
                pulled = jax.tree.map(lambda g, e: (g * e).sum(), pull, part_loss.embeddings) if coupled else ()
                value = total(terms) + sum(jax.tree.leaves(pulled), jnp.zeros(()))
                return value, part_loss.terms | _clear_weights(part_loss.metrics)

            gradient, terms = jax.grad(sum_terms, has_aux=True)(params)
            return layout.shard_like_params(jax.tree.map(jnp.add, so_far, gradient)), jax.tree.map(jnp.asarray, terms)

        gradient, terms = jax.lax.scan(add_gradient, so_far, (rows, keys))
        sums = {name: (term.sum.sum(0), term.count.sum(0)) for name, term in terms.items()}
        weights = {name: jnp.asarray(term.weight)[0] for name, term in terms.items()}
        return sums, (), weights, layout.sum_gradient(gradient)

    # The gradient of the coupled terms is complete on every device that adds up that of its own rows
    so_far = jax.tree.map(jnp.zeros_like, params) if layout.own else gradient
    shared = (params, keys, counts, so_far)
    sums, _, weights, of_rows = layout.run_on_own_rows(add_gradients, (rows, pull), shared, layout.gradient)
    gradient = jax.tree.map(jnp.add, gradient, of_rows) if layout.own else of_rows
    terms = {name: Term(sum, count, weights[name]) for name, (sum, count) in sums.items()}
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
