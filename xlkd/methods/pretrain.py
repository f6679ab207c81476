# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-training by masked and translation language modelling: one loss, two texts in a row."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from xlkd.losses.masked_lm import masked_lm_term
from xlkd.losses.terms import make_term
from xlkd.methods import (
    Batch,
    Export,
    Loss,
    Method,
    Start,
    Step,
    Tree,
    Variables,
    merge_variables,
    take_variables,
)
from xlkd.models.encoder import Encoder, forward_flops
from xlkd.models.heads import MaskedLMHead, init_head
from xlkd.models.outputs import Outputs, last_hidden, text_vectors
from xlkd.spec.pretrain import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Masked


def build(spec: StageSpec[Settings, Masked], encoder: Encoder) -> Method:
    """Builds the method for batches of `tasks/masked.py` (training) and `tasks/parallel.py` (sentence vectors)."""
    architecture = encoder.architecture
    head = MaskedLMHead(architecture, encoder.dtype)

    def init(key: Key[Array, ""], start: Start) -> Variables:
        params = {"masked_lm": start.heads.get("masked_lm") or init_head(head, key)}
        if spec.method.trains == "head":
            return Variables(params, frozen={"encoder": start.encoder})
        return Variables(params | {"encoder": start.encoder})

    def predict_tokens(
        params: Tree, batch: Batch, train: bool = False, key: Key[Array, ""] | None = None
    ) -> Float[Array, "rows masked vocabulary"]:
        hidden = last_hidden(encoder, params, batch, train, key)
        masked = jnp.take_along_axis(hidden, batch["positions"][..., None], axis=1)
        logits: Any = head.apply({"params": params["masked_lm"]}, masked, params["encoder"]["embeddings"]["words"])
        return logits

    def weigh_correct(logits: Float[Array, "rows masked vocabulary"], batch: Batch) -> Float[Array, "rows masked"]:
        # Rounding can make log-probabilities equal where logits differ: accuracy has always been read from the former
        return (jax.nn.log_softmax(logits).argmax(-1) == batch["labels"]) * batch["weights"]

    def loss(variables: Variables, batch: Batch, targets: Tree, key: Key[Array, ""], step: Step) -> Loss:
        logits = predict_tokens(merge_variables(variables), batch, train=True, key=key)
        term = masked_lm_term(logits, batch["labels"], batch["weights"])
        return Loss({"masked_lm": term}, {"accuracy": make_term(weigh_correct(logits, batch), batch["weights"], 0.0)})

    def outputs(params: Tree, batch: Batch) -> Outputs:
        correct = weigh_correct(predict_tokens(params, batch), batch)
        return {"right": correct.sum(1), "count": batch["weights"].sum(1)}

    def exports(variables: Variables) -> dict[str, Export]:
        params = merge_variables(variables)
        heads = {"masked_lm": params["masked_lm"]}
        return {"": Export(architecture, params["encoder"], heads, dtype=spec.encoder.new.disk)}

    def flops(tokens: int, rows: int) -> float:
        scored = spec.task.share * tokens  # about: the head reads the masked positions alone
        D, V = architecture.hidden_size, architecture.vocab_size
        return forward_flops(architecture, tokens, rows) + scored * (2.0 * D**2 + 2.0 * D * V)

    by_task = take_variables({"masked": outputs, "parallel": text_vectors(encoder, "mean")})
    return Method(init, loss, by_task, exports, flops=flops)
