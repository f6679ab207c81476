# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning: an encoder and the head that its task asks for, trained by cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping

import jax

from xlkd.losses import distill, span
from xlkd.losses.terms import Term, make_term
from xlkd.methods import Export, Loss, Method, Start, Variables, of_params
from xlkd.models.encoder import Encoder, forward_flops
from xlkd.models.heads import ClassifierHead, SpanHead, init_head
from xlkd.models.outputs import OutputFn, class_logits, class_outputs, span_logits, span_outputs
from xlkd.spec.finetune import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Classify, QuestionAnswering


def build(spec: StageSpec[Settings, QuestionAnswering | Classify], encoder: Encoder) -> Method:
    """Builds the method for batches of `tasks/qa.py` or `tasks/classify.py`, which the stage's task names."""
    return classes(spec.task, encoder) if isinstance(spec.task, Classify) else spans(spec.task, encoder)


def spans(task: QuestionAnswering, encoder: Encoder) -> Method:
    """Builds a head with two logits a position: where an answer starts and ends."""
    head, logits = SpanHead(encoder.architecture, encoder.dtype), span_logits(encoder)

    def loss(variables, batch, targets, key, step) -> Loss:
        predicted = span.Span(*logits(variables.params, batch, train=True, key=key))
        gold = span.Span(batch["start"], batch["end"])
        ce = span.cross_entropy(predicted, gold, batch["text"]["mask"], batch["mask"])
        return Loss({"ce": ce}, {"exact": hits(predicted, gold, batch)})

    return _with_head("span", head, encoder, (), loss, {"qa": span_outputs(encoder, task)})


def classes(task: Classify, encoder: Encoder) -> Method:
    """Builds a head with a logit a label, read from the first position."""
    labels = task.labels
    head = ClassifierHead(encoder.architecture, len(labels), encoder.dtype)
    logits = class_logits(encoder, len(labels))

    def loss(variables, batch, targets, key, step) -> Loss:
        scores = logits(variables.params, batch, train=True, key=key)
        counted = batch["mask"] * batch["labelled"]
        values, _ = distill.label_loss(scores, batch["labels"])
        right = (scores.argmax(-1) == batch["labels"]).astype(values.dtype)
        return Loss({"ce": make_term(values, counted)}, {"accuracy": make_term(right, counted, 0.0)})

    return _with_head("classifier", head, encoder, labels, loss, {"classify": class_outputs(encoder, len(labels))})


def _with_head(
    name: str, head, encoder: Encoder, labels: tuple[str, ...], loss, outputs: Mapping[str, OutputFn]
) -> Method:
    """An encoder and one head: a head that came with the weights is kept where its labels are the task's."""
    architecture = encoder.architecture

    def init(key: jax.Array, start: Start) -> Variables:
        known = start.heads.get(name) if start.labels == labels or not labels else None
        return Variables({"encoder": start.encoder, name: known or init_head(head, key)})

    def exports(variables) -> dict[str, Export]:
        params = variables.params
        return {"": Export(architecture, params["encoder"], {name: params[name]}, labels)}

    def flops(tokens: int, rows: int) -> float:
        return forward_flops(architecture, tokens, rows)

    return Method(init, loss, of_params(outputs), exports, flops=flops)


def hits(predicted: span.Span, gold: span.Span, batch) -> Term:
    """Windows whose best start and best end are the gold ones."""
    log_p = [span.log_probabilities(side, batch["text"]["mask"]).argmax(-1) for side in predicted]
    right = (log_p[0] == gold.start) & (log_p[1] == gold.end)
    return Term((right * batch["mask"]).sum(), batch["mask"].sum(), 0.0)
