# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Builds output functions, which compute the arrays that a task decodes, without dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PRNGKeyArray, Shaped

from xlkd.models.encoder import Encoder
from xlkd.models.families import find_family
from xlkd.models.family import Params
from xlkd.models.heads import ClassifierHead, SpanHead
from xlkd.models.pooling import pool
from xlkd.spec.tasks import QuestionAnswering

Outputs = dict[str, jax.Array]  # {name: [rows, …]}
OutputFn = Callable[[Any, Any], Outputs]  # (parameters, batch) -> outputs
Batch = Mapping[str, Any]  # arrays by name, and views of a text: {"ids": …, "mask": …, "types": …}
SpanLogits = tuple[Float[Array, "rows length"], Float[Array, "rows length"]]  # of starts and of ends
ClassLogits = Float[Array, "rows classes"]


def last_hidden(
    encoder: Encoder, params: Params, batch: Batch, train: bool = False, key: PRNGKeyArray | None = None
) -> Float[Array, "rows length hidden"]:
    """Returns the last hidden state of the view `text`."""
    text = batch["text"]
    states = encoder.apply({"params": params["encoder"]}, text["ids"], text["mask"], text["types"], train, key=key)
    return cast("tuple[jax.Array, ...]", states)[-1]


def span_logits(encoder: Encoder) -> Callable[..., SpanLogits]:
    """Returns a function (params, batch, train, key) -> logits of starts and of ends."""
    head = SpanHead(encoder.architecture, encoder.dtype)

    def logits(params: Params, batch: Batch, train: bool = False, key: PRNGKeyArray | None = None) -> SpanLogits:
        hidden = last_hidden(encoder, params, batch, train, key)
        return cast("SpanLogits", head.apply({"params": params["span"]}, hidden, train, key))

    return logits


def span_outputs(encoder: Encoder, task: QuestionAnswering) -> OutputFn:
    """Returns the function whose outputs `tasks/qa.py` decodes."""
    logits = span_logits(encoder)
    return lambda params, batch: best_spans(*logits(params, batch), batch, task)


def class_logits(encoder: Encoder, labels: int) -> Callable[..., ClassLogits]:
    """Returns a function (params, batch, train, key) -> logits of labels."""
    head = ClassifierHead(encoder.architecture, labels, encoder.dtype)

    def logits(params: Params, batch: Batch, train: bool = False, key: PRNGKeyArray | None = None) -> ClassLogits:
        inner, outer = (None, None) if key is None or not train else jax.random.split(key)
        hidden = last_hidden(encoder, params, batch, train, inner)
        pooled = find_family(encoder.architecture).pool(encoder.architecture, hidden, batch["text"]["mask"])
        return cast("jax.Array", head.apply({"params": params["classifier"]}, pooled, train, outer))

    return logits


def class_outputs(encoder: Encoder, labels: int) -> OutputFn:
    """Returns the function whose outputs `tasks/classify.py` decodes."""
    logits = class_logits(encoder, labels)
    return lambda params, batch: {"logits": logits(params, batch)}


def text_vectors(encoder: Encoder, pooling: str) -> OutputFn:
    """Returns the function that computes one vector for each text, which `tasks/parallel.py` compares."""
    return lambda params, batch: {
        "vectors": pool(last_hidden(encoder, params, batch), batch["text"]["mask"], pooling),
    }


def best_spans(
    start: Float[Array, "rows length"], end: Float[Array, "rows length"], batch: Batch, task: QuestionAnswering
) -> Outputs:
    """Returns the `task.n_best` best positions of each side, the best span of the window's context, and position 0."""
    candidates = batch["context_mask"] if task.candidates == "context" else batch["text"]["mask"]
    k = min(task.n_best, start.shape[-1])
    best = {}
    for name, logits in (("start", start), ("end", end)):
        scores, index = jax.lax.top_k(jnp.where(candidates, logits, -jnp.inf), k)
        best |= {f"{name}_scores": _pad_columns(scores, task.n_best), f"{name}_index": _pad_columns(index, task.n_best)}
    best |= _search_best_span(start, end, batch["context_mask"], task.max_answer_tokens)
    return best | {"null_scores": jnp.stack([start[:, 0], end[:, 0]], axis=1)}


def _pad_columns(x: Num[Array, "rows best"], k: int) -> Num[Array, "rows {k}"]:
    """Pads to k columns: a window shorter than k has fewer positions."""
    fill = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else 0
    return jnp.pad(x, ((0, 0), (0, k - x.shape[1])), constant_values=fill)


def _search_best_span(
    start: Float[Array, "rows length"],
    end: Float[Array, "rows length"],
    context: Shaped[Array, "rows length"],
    longest: int,
) -> Outputs:
    """Finds the span of at most `longest` tokens inside the context whose two logits have the largest sum."""
    length = context.shape[-1]
    start = jnp.where(context, start, -jnp.inf)
    end = jnp.where(context, end, -jnp.inf)
    reach = min(longest, length)
    later = jnp.pad(end, ((0, 0), (0, reach - 1)), constant_values=-jnp.inf)
    joint = jnp.stack([start + later[:, d : d + length] for d in range(reach)], axis=-1)  # [rows, start, length - 1]
    flat = joint.reshape(len(joint), -1)
    index = flat.argmax(-1)
    score = jnp.take_along_axis(flat, index[:, None], axis=-1)[:, 0]
    return {"best_score": score, "best_start": index // reach, "best_end": index // reach + index % reach}
