# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pre-training by masked and translation language modelling: one loss, two texts in a row."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xlkd.losses.masked_lm import masked_lm_term
from xlkd.losses.terms import make_term
from xlkd.methods import Export, Loss, Method, Start, Variables, of_params
from xlkd.models.encoder import Encoder, forward_flops
from xlkd.models.heads import MaskedLMHead, init_head
from xlkd.models.outputs import last_hidden, text_vectors
from xlkd.spec.pretrain import Method as Settings
from xlkd.spec.stage import StageSpec
from xlkd.spec.tasks import Masked


def build(spec: StageSpec[Settings, Masked], encoder: Encoder) -> Method:
    """Builds the method for batches of `tasks/masked.py` (training) and `tasks/parallel.py` (sentence vectors)."""
    architecture = encoder.architecture
    head = MaskedLMHead(architecture, encoder.dtype)

    def init(key: jax.Array, start: Start) -> Variables:
        fresh = start.heads.get("masked_lm") or init_head(head, key)
        return Variables({"encoder": start.encoder, "masked_lm": fresh})

    def predictions(params, batch, train=False, key=None):
        states = last_hidden(encoder, params, batch, train, key)
        found = jnp.take_along_axis(states, batch["positions"][..., None], axis=1)
        return head.apply({"params": params["masked_lm"]}, found, params["encoder"]["embeddings"]["words"])

    def right(logits, batch):
        # Rounding can make log-probabilities equal where logits differ: accuracy has always been read from the former
        return (jax.nn.log_softmax(logits).argmax(-1) == batch["labels"]) * batch["weights"]

    def loss(variables, batch, targets, key, step) -> Loss:
        logits = predictions(variables.params, batch, train=True, key=key)
        term = masked_lm_term(logits, batch["labels"], batch["weights"])
        return Loss({"masked_lm": term}, {"accuracy": make_term(right(logits, batch), batch["weights"], 0.0)})

    def predicted(params, batch):
        return {"right": right(predictions(params, batch), batch).sum(1), "count": batch["weights"].sum(1)}

    def exports(variables) -> dict[str, Export]:
        params = variables.params
        heads = {"masked_lm": params["masked_lm"]}
        return {"": Export(architecture, params["encoder"], heads, dtype=spec.encoder.new.disk)}

    def flops(tokens: int, rows: int) -> float:
        scored = spec.task.share * tokens  # about: the head sees the masked positions alone
        D, V = architecture.hidden_size, architecture.vocab_size
        return forward_flops(architecture, tokens, rows) + scored * (2.0 * D**2 + 2.0 * D * V)

    outputs = of_params({"masked": predicted, "parallel": text_vectors(encoder, "mean")})
    return Method(init, loss, outputs, exports, flops=flops)
