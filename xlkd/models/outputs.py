# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Output functions: what the decoder of a task reads of an encoder and its head, without dropout and gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from xlkd.models.encoder import Encoder
from xlkd.models.heads import ClassifierHead, SpanHead
from xlkd.models.pooling import pool

Outputs = dict[str, jax.Array]  # {name: [rows, …]}
OutputFn = Callable[[Any, Any], Outputs]  # (parameters, batch) -> outputs


def last_hidden(encoder: Encoder, params, batch, train: bool = False, key: jax.Array | None = None) -> jax.Array:
    """Returns the last hidden state of the view `text` [rows, length, D]."""
    text = batch["text"]
    states = encoder.apply({"params": params["encoder"]}, text["ids"], text["mask"], text["types"], train, key=key)
    return states[-1]


def span_logits(encoder: Encoder) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns a function (params, batch, train, key) -> logits of starts and of ends, each [rows, length]."""
    head = SpanHead(encoder.architecture, encoder.dtype)

    def logits(params, batch, train: bool = False, key: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        return head.apply({"params": params["span"]}, last_hidden(encoder, params, batch, train, key))

    return logits


def span_outputs(encoder: Encoder, task) -> OutputFn:
    """Returns the function whose outputs `tasks/qa.py` decodes."""
    logits = span_logits(encoder)
    return lambda params, batch: best_spans(*logits(params, batch), batch, task)


def class_logits(encoder: Encoder, labels: int) -> Callable[..., jax.Array]:
    """Returns a function (params, batch, train, key) -> logits [rows, labels], read from the first position."""
    head = ClassifierHead(encoder.architecture, labels, encoder.dtype)

    def logits(params, batch, train: bool = False, key: jax.Array | None = None) -> jax.Array:
        inner, outer = jax.random.split(key) if train else (None, None)
        hidden = last_hidden(encoder, params, batch, train, inner)
        return head.apply({"params": params["classifier"]}, hidden, train, outer)

    return logits


def class_outputs(encoder: Encoder, labels: int) -> OutputFn:
    """Returns the function whose outputs `tasks/classify.py` decodes."""
    logits = class_logits(encoder, labels)
    return lambda params, batch: {"logits": logits(params, batch)}


def text_vectors(encoder: Encoder, pooling: str) -> OutputFn:
    """Returns the function that gives one vector of each text, which `tasks/parallel.py` compares."""
    return lambda params, batch: {
        "vectors": pool(last_hidden(encoder, params, batch), batch["text"]["mask"], pooling),
    }


def best_spans(start: jax.Array, end: jax.Array, batch, task) -> Outputs:
    """Returns the `task.n_best` best positions of each side, and the best span of the window's context."""
    among = batch["context_mask"] if task.candidates == "context" else batch["text"]["mask"]
    k = min(task.n_best, start.shape[-1])
    best = {}
    for name, logits in (("start", start), ("end", end)):
        scores, index = jax.lax.top_k(jnp.where(among, logits, -jnp.inf), k)
        best |= {f"{name}_scores": _widen(scores, task.n_best), f"{name}_index": _widen(index, task.n_best)}
    return best | _search(start, end, batch["context_mask"], task.max_answer_tokens)


def _widen(x: jax.Array, k: int) -> jax.Array:
    """Pads [rows, positions] to k columns: a window shorter than k has fewer positions than k."""
    fill = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else 0
    return jnp.pad(x, ((0, 0), (0, k - x.shape[1])), constant_values=fill)


def _search(start: jax.Array, end: jax.Array, context: jax.Array, longest: int) -> Outputs:
    """Finds the span of at most `longest` tokens inside the context whose two logits have the largest sum."""
    length = context.shape[-1]
    start = jnp.where(context, start, -jnp.inf)
    end = jnp.where(context, end, -jnp.inf)
    reach = min(longest, length)
    later = jnp.pad(end, ((0, 0), (0, reach - 1)), constant_values=-jnp.inf)
    joint = jnp.stack([start + later[:, d : d + length] for d in range(reach)], axis=-1)  # [rows, start, length - 1]
    flat = joint.reshape(len(joint), -1)
    at = flat.argmax(-1)
    score = jnp.take_along_axis(flat, at[:, None], axis=-1)[:, 0]
    return {"best_score": score, "best_start": at // reach, "best_end": at // reach + at % reach}
