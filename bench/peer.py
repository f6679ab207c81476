# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The other side of a benchmark: transformers' BERT in PyTorch with SDPA and fused AdamW, with the same weights."""

from __future__ import annotations

import logging
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from xlkd.models import hf
from xlkd.models.family import Architecture

CLIP = 1.0
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load_span_model(architecture: Architecture, params: dict[str, Any]) -> torch.nn.Module:
    """Loads our weights into transformers, through an exported folder; with SDPA where the model has it."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from transformers import AutoModelForQuestionAnswering
    from transformers.utils import logging as reporting

    reporting.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        hf.save(pathlib.Path(folder) / "model", architecture, jax.device_get(params))
        attention = "eager" if architecture.model_type == "deberta-v2" else "sdpa"
        model = AutoModelForQuestionAnswering.from_pretrained(
            f"{folder}/model", attn_implementation=attention, dtype=torch.float32
        )
    return model.to(DEVICE)


def make_tensors(batch: dict[str, Any], has_types: bool = True) -> dict[str, torch.Tensor]:
    """Returns a batch for question answering, with the names of transformers."""
    text = batch["text"]
    arrays = {"input_ids": text["ids"], "attention_mask": text["mask"]}
    arrays |= {"token_type_ids": text["types"]} if has_types else {}
    arrays |= {"start_positions": batch["start"], "end_positions": batch["end"]}
    return {name: torch.from_numpy(np.asarray(x).astype(np.int64)).to(DEVICE) for name, x in arrays.items()}


def make_inputs(batch: dict[str, Any], has_types: bool = True) -> dict[str, torch.Tensor]:
    """Returns the same batch without the answers, so that the model computes no loss."""
    tensors = make_tensors(batch, has_types)
    return {name: x for name, x in tensors.items() if not name.endswith("positions")}


def set_precision(dtype: str) -> torch.autocast:
    """Returns a context that computes in this type where PyTorch's autocast does; the weights stay float32."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16")


def wait() -> None:
    """Waits until the GPU has done what was asked of it."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def compile_forward(model: torch.nn.Module, compiled: bool, dtype: str = "float32") -> Callable[..., Any]:
    """Returns the forward pass in inference, which takes a batch; outputs may still be computed."""
    torch.set_num_threads(2)
    call = torch.compile(model.eval()) if compiled else model.eval()

    def forward(batch: dict[str, torch.Tensor]) -> Any:
        with torch.inference_mode(), set_precision(dtype):
            return call(**batch)

    return forward


class Trainer:
    """Runs steps of AdamW with gradients clipped by their norm as on our side; `loss` takes (model, batch)."""

    def __init__(
        self, model: torch.nn.Module, loss: Any, lr: float, compiled: bool = False, dtype: str = "float32"
    ) -> None:
        torch.set_num_threads(2)
        self.dtype = dtype
        self.model = model.train()
        self.loss = torch.compile(loss) if compiled else loss
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr, weight_decay=0.01, fused=True)

    def __call__(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with set_precision(self.dtype):
            loss = self.loss(self.model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        return loss.detach()

    def run_steps(self, batches: list[dict[str, torch.Tensor]]) -> None:
        for batch in batches:
            self(batch)
        wait()


def compute_cross_entropy(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Returns the mean of the losses of start and end, as computed by the model."""
    return model(**batch).loss


def make_distillation_loss(teacher: torch.nn.Module, temperature: float) -> Any:
    """Returns a loss of ½ Σ CE + T² · KL(teacher ‖ student) over start and end; the teacher runs in each step."""
    teacher.eval()

    def compute_kl(student: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
        log_q = torch.log_softmax(student / temperature, -1)
        p = torch.softmax(taught / temperature, -1)
        return torch.nn.functional.kl_div(log_q, p, reduction="batchmean") * temperature**2

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.no_grad():
            taught = teacher(**inputs)
        outputs = model(**batch)
        kl = compute_kl(outputs.start_logits, taught.start_logits) + compute_kl(outputs.end_logits, taught.end_logits)
        return outputs.loss + 0.5 * kl

    return loss
