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
CLASSES |= {"distilbert": "DistilBert", "modernbert": "ModernBert", "deberta-v2": "DebertaV2"}
HEADS = {"span": "ForQuestionAnswering", "classifier": "ForSequenceClassification", "masked_lm": "ForMaskedLM"}


def main() -> None:
    """Writes config.json, model.safetensors (float16, all three heads) and golden.npz of each model type.

    The heads of ModernBERT have the same names: the folder of the type has that of spans, two folders in it the others.
    """
    for number, kind in enumerate(CLASSES):
        torch.manual_seed(number)
        if kind != "modernbert":
            write(HERE / kind, kind, list(HEADS))
            continue
        for head in HEADS:
            write(HERE / kind / ("" if head == "span" else head), kind, [head])


def write(folder: pathlib.Path, kind: str, heads: list[str]) -> None:
    models = {head: build(kind, head) for head in heads}
    folder.mkdir(exist_ok=True)
    tensors = {}
    for model in models.values():
        randomise(model, tensors)
    kept = {name: value.half().contiguous() for name, value in tensors.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = models["classifier" if "classifier" in models else heads[0]].config
    if kind == "modernbert":
        config.architectures = [CLASSES[kind] + HEADS[heads[0]]]
    config.save_pretrained(folder)
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
    if kind == "modernbert":  # the second layer is local, with tokens at a distance of 2; the classifier has the biases
        labels |= {"global_attn_every_n_layers": 2, "local_attention": 4, "classifier_dropout": 0.1}
        labels |= dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
        if head == "classifier":
            biases = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
            labels |= dict.fromkeys(biases, True) | {"classifier_pooling": "mean"}
    if kind == "deberta-v2":  # as mDeBERTa's, but with fewer buckets
        labels |= {"relative_attention": True, "position_buckets": 6, "pos_att_type": "p2c|c2p", "legacy": False}
        labels |= {"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False}
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
    pad = next(iter(models.values())).config.pad_token_id
    lengths = torch.tensor([9, 6, 4])
    mask = (torch.arange(9)[None] < lengths[:, None]).long()
    ids = torch.randint(2, 40, (3, 9)) * mask + pad * (1 - mask)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if kind == "bert":
        inputs["token_type_ids"] = (torch.arange(9)[None] >= 3).long() * mask
    first = next(iter(models.values()))
    states = first(**inputs, output_hidden_states=True).hidden_states
    parts = {"hidden": torch.stack(states)}
    if "span" in models:
        span = models["span"](**inputs)
        parts |= {"start": span.start_logits, "end": span.end_logits}
    names = {"classifier": "classes", "masked_lm": "words"}
    parts |= {name: models[head](**inputs).logits for head, name in names.items() if head in models}
    (states[-1] * mask[..., None] * torch.cos(torch.arange(16.0))).sum().backward()
    golden = {name: value.detach().numpy() for name, value in parts.items()}
    golden |= {name: value.numpy().astype(np.int32) for name, value in inputs.items()}
    for name, value in first.named_parameters():
        if value.grad is not None and "span" in models:
            golden[f"gradient/{name}"] = value.grad.numpy().astype(np.float32)
    return golden


if __name__ == "__main__":
    main()
