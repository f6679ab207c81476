# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The other side of a bench: transformers' BERT in PyTorch with SDPA, from the same weights, and fused AdamW."""

from __future__ import annotations

import logging
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
import torch

from xlkd.models import hf
from xlkd.models.encoder import Architecture

CLIP = 1.0


def span_model(of: Architecture, params: dict[str, Any]) -> torch.nn.Module:
    """Our weights, through the folder that an export writes."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import BertForQuestionAnswering
    from transformers.utils import logging as reporting

    reporting.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        hf.save(pathlib.Path(folder) / "model", of, jax.device_get(params))
        rates = {"hidden_dropout_prob": of.dropout, "attention_probs_dropout_prob": of.attention_dropout}
        return BertForQuestionAnswering.from_pretrained(
            f"{folder}/model", attn_implementation="sdpa", dtype=torch.float32, **rates
        )


def tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A batch of question answering under transformers' names."""
    text = batch["text"]
    arrays = {"input_ids": text["ids"], "attention_mask": text["mask"], "token_type_ids": text["types"]}
    arrays |= {"start_positions": batch["start"], "end_positions": batch["end"]}
    return {name: torch.from_numpy(np.asarray(x).astype(np.int64)) for name, x in arrays.items()}


class Trainer:
    """Steps of AdamW, gradients clipped by their norm as on our side; `loss` is of (model, batch)."""

    def __init__(self, model: torch.nn.Module, loss: Any, lr: float, compiled: bool = False) -> None:
        torch.set_num_threads(2)
        self.model = model.train()
        self.loss = torch.compile(loss) if compiled else loss
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.01, fused=True)

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss.detach()

    def over(self, batches: list[dict[str, torch.Tensor]]) -> None:
        for batch in batches:
            self(batch)


def cross_entropy(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The mean of both sides' losses, as the model itself gives it."""
    return model(**batch).loss


def self_distillation(teacher: torch.nn.Module, temperature: float) -> Any:
    """½ Σ over both sides of CE + T² · KL(teacher ‖ student), the teacher asked within the step."""
    teacher.eval()

    def side(student: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        log_q = torch.log_softmax(student / temperature, -1)
        p = torch.softmax(taught / temperature, -1)
        return torch.nn.functional.kl_div(log_q, p, reduction="batchmean") * temperature**2

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.no_grad():
            taught = teacher(**inputs)
        found = model(**batch)
        kl = side(found.start_logits, taught.start_logits) + side(found.end_logits, taught.end_logits)
        return found.loss + 0.5 * kl

    return loss
