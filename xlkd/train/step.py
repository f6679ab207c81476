# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One training step: loss and gradient as sums and counts, a finite check, an update. Pure, and jitted by the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from xlkd.losses.terms import Term, total
from xlkd.methods import Method, State, key_for
from xlkd.train.optim import clip


def make(method: Method, optimizer, rate: Callable, *, seed: int, clip_norm: float, micro_batches: int = 1) -> Callable:
    """`step(state, batch, targets) -> (state, report)`; the report is {name: (sum, count)} and two scalars.

    A state's teacher stays out of it: the whole state is donated, and a teacher may share buffers with nobody.
    """

    def step(state: State, batch: Any, targets: Any) -> tuple[State, dict]:
        key = key_for(seed, "dropout", state.step)
        targets = jax.lax.stop_gradient(method.prepare(batch, targets) if method.prepare else targets)
        gradients, terms, statistics = gradient(method, state, batch, targets, key, micro_batches)
        norm = optax.tree.norm(gradients)
        ok = state.ok & jnp.isfinite(norm) & jnp.isfinite(total(terms))
        direction, moments = optimizer.update(clip(gradients, norm, clip_norm), state.optimizer, state.variables.params)
        lr = rate(state.step % method.period if method.period else state.step)
        params = jax.tree.map(lambda p, d: p - lr * d, state.variables.params, direction)
        variables = state.variables._replace(params=params, statistics=statistics)
        new = State(state.step + 1, variables, moments, state.teacher, state.ok)
        new = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, state)._replace(ok=ok)
        report = {name: (term.sum, term.count) for name, term in terms.items()}
        return new, {"terms": report, "grad_norm": norm, "lr": lr, "loss": total(terms), "ok": ok}

    return step


def gradient(method: Method, state: State, batch, targets, key, micro_batches: int):
    """Gradient of Σ weight · sum / count over the whole step, however it is cut into micro-batches."""
    variables, step = state.variables, state.step

    def loss(params, batch, targets, key):
        return method.loss(variables._replace(params=params), batch, targets, key, step)

    def coupled(params, embeddings):
        return method.coupled(variables._replace(params=params), embeddings, batch, targets, step)

    if micro_batches == 1:

        def whole(params):
            found = loss(params, batch, targets, key)
            terms, metrics, statistics = dict(found.terms), dict(found.metrics), variables.statistics
            if method.coupled:
                more, extra, statistics = coupled(params, found.embeddings)
                terms, metrics = terms | more, metrics | extra
            return total(terms), (terms | _weightless(metrics), statistics)

        gradients, (terms, statistics) = jax.grad(whole, has_aux=True)(variables.params)
        return gradients, terms, statistics
    return _accumulated(loss, coupled if method.coupled else None, variables, batch, targets, key, micro_batches)


def _accumulated(loss, coupled, variables, batch, targets, key, micro_batches):
    """Counts (and the embeddings of all rows) first, then sums and gradient of each micro-batch.

    Counts depend on the batch alone, so without coupled terms the compiler drops all else of the first pass.
    """
    params = variables.params
    parts = (_cut((batch, targets), micro_batches), jax.random.split(key, micro_batches))

    def look(_, part):
        found = loss(params, *part[0], part[1])
        return None, ({name: term.count for name, term in found.terms.items()}, found.embeddings if coupled else ())

    _, (counts, embeddings) = jax.lax.scan(look, None, parts)
    counts = {name: count.sum(0) for name, count in counts.items()}
    gradients, across, statistics = jax.tree.map(jnp.zeros_like, params), {}, variables.statistics
    pull = embeddings
    if coupled:

        def joint(params, joined):
            more, metrics, statistics = coupled(params, joined)
            return total(more), (more | _weightless(metrics), statistics)

        grads, (across, statistics) = jax.grad(joint, argnums=(0, 1), has_aux=True)(params, _join(embeddings))
        gradients, pull = grads[0], _cut(grads[1], micro_batches)

    def backward(so_far, part):
        ((batch, targets), key), pull = part

        def scalar(params):
            found = loss(params, batch, targets, key)
            own = {name: term._replace(count=counts[name]) for name, term in found.terms.items()}
            pulled = jax.tree.map(lambda g, e: (g * e).sum(), pull, found.embeddings) if coupled else ()
            return total(own) + sum(jax.tree.leaves(pulled), jnp.zeros(())), found.terms | _weightless(found.metrics)

        gradients, terms = jax.grad(scalar, has_aux=True)(params)
        return jax.tree.map(jnp.add, so_far, gradients), jax.tree.map(jnp.asarray, terms)

    gradients, terms = jax.lax.scan(backward, gradients, (parts, pull))
    terms = {name: Term(t.sum.sum(0), t.count.sum(0), t.weight[0]) for name, t in terms.items()}
    return gradients, terms | across, statistics


def _cut(tree, parts: int):
    """[rows] -> [parts, rows / parts]; neighbours go to different parts, so each stays spread over all devices."""
    return jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), tree)


def _join(tree):
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)


def _weightless(metrics: dict[str, Term]) -> dict[str, Term]:
    return {name: term._replace(weight=0.0) for name, term in metrics.items()}
