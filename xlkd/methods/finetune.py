# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning: an encoder and the head that its task asks for, trained by cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxtyping import Array, Key

from xlkd.losses import distill, span
from xlkd.losses.terms import Term, make_term
from xlkd.methods import Batch, Export, Loss, Method, Start, Step, Tree, Variables, take_variables
from xlkd.models.encoder import Encoder, forward_flops
from xlkd.models.heads import ClassifierHead, SpanHead, start_head
from xlkd.models.outputs import OutputFn, class_logits, class_outputs, span_logits, span_outputs
from xlkd.spec.finetune import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Classify, QuestionAnswering


def build(spec: StageSpec[Settings, QuestionAnswering | Classify], encoder: Encoder) -> Method:
    """Builds the method for batches of `tasks/qa.py` or `tasks/classify.py`, which the stage's task names."""
    return build_classes(spec.task, encoder) if isinstance(spec.task, Classify) else build_spans(spec.task, encoder)


def build_spans(task: QuestionAnswering, encoder: Encoder) -> Method:
    """Builds the method with a head of two logits for each position: where an answer starts and ends."""
    head, logits = SpanHead(encoder.architecture, encoder.dtype), span_logits(encoder)

    def loss(variables: Variables, batch: Batch, targets: Tree, key: Key[Array, ""], step: Step) -> Loss:
        predicted = span.Span(*logits(variables.params, batch, train=True, key=key))
        gold = span.Span(batch["start"], batch["end"])
        ce = span.cross_entropy(predicted, gold, batch["text"]["mask"], batch["mask"])
        return Loss({"ce": ce}, {"exact": count_exact(predicted, gold, batch)})

    return _build_with_head("span", head, encoder, (), loss, {"qa": span_outputs(encoder, task)})


def build_classes(task: Classify, encoder: Encoder) -> Method:
    """Builds the method with a head of one logit for each label, read from the first position."""
    labels = task.labels
    head = ClassifierHead(encoder.architecture, len(labels), encoder.dtype)
    logits = class_logits(encoder, len(labels))

    def loss(variables: Variables, batch: Batch, targets: Tree, key: Key[Array, ""], step: Step) -> Loss:
        scores = logits(variables.params, batch, train=True, key=key)
        counted = batch["mask"] * batch["labelled"]
        values, _ = distill.label_loss(scores, batch["labels"])
        correct = (scores.argmax(-1) == batch["labels"]).astype(values.dtype)
        return Loss({"ce": make_term(values, counted)}, {"accuracy": make_term(correct, counted, 0.0)})

    outputs = {"classify": class_outputs(encoder, len(labels))}
    return _build_with_head("classifier", head, encoder, labels, loss, outputs)


def _build_with_head(
    name: str,
    head: SpanHead | ClassifierHead,
    encoder: Encoder,
    labels: tuple[str, ...],
    loss: Callable[..., Loss],
    outputs: Mapping[str, OutputFn],
) -> Method:
    """Builds an encoder with one head: a head that came with the weights is kept if its labels are the task's."""
    architecture = encoder.architecture

    def init(key: Key[Array, ""], start: Start) -> Variables:
        trained = start.heads.get(name) if start.labels == labels or not labels else None
        return Variables({"encoder": start.encoder, name: trained or start_head(name, head, key, start.heads)})

    def exports(variables: Variables) -> dict[str, Export]:
        params = variables.params
        return {"": Export(architecture, params["encoder"], {name: params[name]}, labels)}

    def flops(tokens: int, rows: int) -> float:
        return forward_flops(architecture, tokens, rows)

    return Method(init, loss, take_variables(outputs), exports, flops=flops)


def count_exact(predicted: span.Span, gold: span.Span, batch: Batch) -> Term:
    """Counts the windows whose best start and best end, over all positions but padding, are the gold ones."""
    best = [span.log_probabilities(side, batch["text"]["mask"]).argmax(-1) for side in predicted]
    correct = (best[0] == gold.start) & (best[1] == gold.end)
    return Term((correct * batch["mask"]).sum(), batch["mask"].sum(), 0.0)
