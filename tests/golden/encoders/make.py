# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the tiny encoders beside this file and computes their golden outputs with PyTorch and transformers."""

from __future__ import annotations

import pathlib

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
CLASSES["distilbert"] = "DistilBert"
HEADS = {"span": "ForQuestionAnswering", "classifier": "ForSequenceClassification", "masked_lm": "ForMaskedLM"}


def main() -> None:
    """Writes config.json, model.safetensors (float16, all three heads) and golden.npz of each model type."""
    for number, kind in enumerate(CLASSES):
        torch.manual_seed(number)
        models = {head: build(kind, head) for head in HEADS}
        folder = HERE / kind
        folder.mkdir(exist_ok=True)
        tensors = {}
        for model in models.values():
            randomise(model, tensors)
        kept = {name: value.half().contiguous() for name, value in tensors.items()}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "model.safetensors").chmod(0o644)
        models["classifier"].config.save_pretrained(folder)
        np.savez_compressed(folder / "golden.npz", **outputs(kind, models))


def build(kind: str, head: str) -> torch.nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    if kind == "distilbert":
        sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    family = kind in ("roberta", "xlm-roberta", "camembert")
    shape = {"vocab_size": 40, "max_position_embeddings": 14 if family else 12, "pad_token_id": 1 if family else 0}
    labels = {"num_labels": 3} if head == "classifier" else {}
    if family:
        labels["type_vocab_size"] = 1
    config = getattr(transformers, CLASSES[kind] + "Config")(**sizes, **shape, **labels)
    return getattr(transformers, CLASSES[kind] + HEADS[head])(config).eval()


def randomise(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Values that float16 holds exactly; a tensor that another head's model has drawn already is copied."""
    ties = getattr(model, "_tied_weights_keys", None) or {}
    with torch.no_grad():
        for name, value in model.named_parameters(remove_duplicate=False):
            if name in ties:
                continue
            norm = "orm.weight" in name
            drawn = (torch.randn(value.shape) * 0.2 + (1.0 if norm else 0.0)).half().float()
            value.copy_(tensors.setdefault(name, drawn))


def outputs(kind: str, models: dict[str, torch.nn.Module]) -> dict[str, np.ndarray]:
    """Rows of 9, 6 and 4 pieces; the loss is a sum over valid positions of every part's output, weighed by cosines."""
    pad = models["span"].config.pad_token_id
    lengths = torch.tensor([9, 6, 4])
    mask = (torch.arange(9)[None] < lengths[:, None]).long()
    ids = torch.randint(2, 40, (3, 9)) * mask + pad * (1 - mask)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if kind == "bert":
        inputs["token_type_ids"] = (torch.arange(9)[None] >= 3).long() * mask
    span = models["span"](**inputs, output_hidden_states=True)
    classes = models["classifier"](**inputs).logits
    words = models["masked_lm"](**inputs).logits
    parts = {"hidden": torch.stack(span.hidden_states), "start": span.start_logits, "end": span.end_logits}
    parts |= {"classes": classes, "words": words}
    (span.hidden_states[-1] * mask[..., None] * torch.cos(torch.arange(16.0))).sum().backward()
    golden = {name: value.detach().numpy() for name, value in parts.items()}
    golden |= {name: value.numpy().astype(np.int32) for name, value in inputs.items()}
    for name, value in models["span"].named_parameters():
        if value.grad is not None:
            golden[f"gradient/{name}"] = value.grad.numpy().astype(np.float32)
    return golden


if __name__ == "__main__":
    main()
