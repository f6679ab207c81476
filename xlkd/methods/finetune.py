# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning: an encoder and the head that its task asks for, trained by cross-entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlkd.errors import UserError
from xlkd.losses import distill, span
from xlkd.losses.terms import Term, over
from xlkd.methods import Export, Loss, Method, Start, Variables
from xlkd.models.encoder import Encoder, forward_flops
from xlkd.models.heads import ClassifierHead, SpanHead, init_head


def build(stage, encoder: Encoder) -> Method:
    """Batches come from `tasks/qa.py` or `tasks/classify.py`, which the stage's task names."""
    if stage.task.name not in HEADS:
        raise UserError(f"no head for the task {stage.task.name!r}", "config.task.name", f"one of {', '.join(HEADS)}")
    return HEADS[stage.task.name](stage, encoder)


def spans(stage, encoder: Encoder) -> Method:
    """Two logits a position: where an answer starts and ends."""
    head, logits = SpanHead(encoder.architecture, encoder.dtype), span_logits(encoder)

    def loss(variables, batch, targets, key, step) -> Loss:
        found = logits(variables.params, batch, train=True, key=key)
        gold = span.Span(batch["start"], batch["end"])
        ce = span.cross_entropy(found, gold, batch["text"]["mask"], batch["mask"])
        return Loss({"ce": ce}, {"exact": hits(found, gold, batch)})

    def outputs(variables, batch):
        return answers(logits(variables.params, batch), batch, stage.task)

    return _with_head("span", head, encoder, (), loss, outputs)


def span_logits(encoder: Encoder):
    """`(params, batch, train, key)` to the logits of a window's positions."""
    head = SpanHead(encoder.architecture, encoder.dtype)

    def logits(params, batch, train: bool = False, key=None) -> span.Span:
        return span.Span(*head.apply({"params": params["span"]}, last(encoder, params, batch, train, key)))

    return logits


def classes(stage, encoder: Encoder) -> Method:
    """A logit a label, read from the first position."""
    labels = tuple(stage.task.labels)
    head = ClassifierHead(encoder.architecture, len(labels), encoder.dtype)

    def logits(params, batch, train=False, key=None) -> jax.Array:
        inner, outer = jax.random.split(key) if train else (None, None)
        hidden = last(encoder, params, batch, train, inner)
        return head.apply({"params": params["classifier"]}, hidden, train, outer)

    def loss(variables, batch, targets, key, step) -> Loss:
        found = logits(variables.params, batch, train=True, key=key)
        counted = batch["mask"] * batch["labelled"]
        values, _ = distill.label_loss(found, batch["labels"])
        right = (found.argmax(-1) == batch["labels"]).astype(values.dtype)
        return Loss({"ce": over(values, counted)}, {"accuracy": over(right, counted, 0.0)})

    def outputs(variables, batch):
        return {"logits": logits(variables.params, batch)}

    return _with_head("classifier", head, encoder, labels, loss, outputs)


HEADS = {"qa": spans, "classify": classes}


def last(encoder: Encoder, params, batch, train: bool = False, key=None) -> jax.Array:
    """The last hidden state of the view `text`."""
    text = batch["text"]
    states = encoder.apply({"params": params["encoder"]}, text["ids"], text["mask"], text["types"], train, key=key)
    return states[-1]


def _with_head(name: str, head, encoder: Encoder, labels: tuple[str, ...], loss, outputs) -> Method:
    """An encoder and one head: a head that came with the weights is kept where its labels are the task's."""
    architecture = encoder.architecture

    def init(key: jax.Array, start: Start) -> Variables:
        known = start.heads.get(name) if start.labels == labels or not labels else None
        return Variables({"encoder": start.encoder, name: known or init_head(head, key)})

    def exports(variables) -> dict[str, Export]:
        params = variables.params
        return {"": Export(architecture, params["encoder"], {name: params[name]}, labels)}

    return Method(init, loss, outputs, exports, flops=lambda tokens, rows: forward_flops(architecture, tokens, rows))


def hits(found: span.Span, gold: span.Span, batch) -> Term:
    """Windows whose best start and best end are the gold ones."""
    log_p = [span.log_probabilities(side, batch["text"]["mask"]).argmax(-1) for side in found]
    right = (log_p[0] == gold.start) & (log_p[1] == gold.end)
    return Term((right * batch["mask"]).sum(), batch["mask"].sum(), 0.0)


def answers(found: span.Span, batch, settings) -> dict[str, jax.Array]:
    """What the decoder reads: the best positions of each side, and the best span of the window's context."""
    among = batch["context_mask"] if settings.candidates == "context" else batch["text"]["mask"]
    k = min(settings.n_best, found.start.shape[-1])
    best = {}
    for name, logits in zip(("start", "end"), found, strict=True):
        scores, index = jax.lax.top_k(jnp.where(among, logits, -jnp.inf), k)
        best |= {f"{name}_scores": _padded(scores, settings.n_best), f"{name}_index": _padded(index, settings.n_best)}
    return best | _search(found, batch["context_mask"], settings.max_answer_tokens)


def _padded(x: jax.Array, k: int) -> jax.Array:
    """A window shorter than k has fewer positions than k; every output has the same width."""
    fill = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else 0
    return jnp.pad(x, ((0, 0), (0, k - x.shape[1])), constant_values=fill)


def _search(found: span.Span, context: jax.Array, longest: int) -> dict[str, jax.Array]:
    length = context.shape[-1]
    start = jnp.where(context, found.start, -jnp.inf)
    end = jnp.where(context, found.end, -jnp.inf)
    reach = min(longest, length)
    later = jnp.pad(end, ((0, 0), (0, reach - 1)), constant_values=-jnp.inf)
    joint = jnp.stack([start + later[:, d : d + length] for d in range(reach)], axis=-1)  # [rows, start, length - 1]
    flat = joint.reshape(len(joint), -1)
    at = flat.argmax(-1)
    score = jnp.take_along_axis(flat, at[:, None], axis=-1)[:, 0]
    return {"best_score": score, "best_start": at // reach, "best_end": at // reach + at % reach}
