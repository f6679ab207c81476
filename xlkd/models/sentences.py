# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The files by which sentence-transformers knows how the encoder of a folder gives one vector of a text.

They are written as its releases before 5.3 write them, which later ones read too. Vectors are not normalised.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from xlkd.models import hf
from xlkd.models.encoder import Architecture

MODULES = "modules.json"
_TEXT, _MODEL = "sentence_bert_config.json", "config_sentence_transformers.json"
_POOLINGS = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
_OTHERS = ("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens")


def files(architecture: Architecture, pooling: str, max_length: int) -> dict[str, Any]:
    """By name what stands in them: the last layer, pooled, of texts cut at `max_length` tokens."""
    modes = {name: name == _POOLINGS[pooling] for name in (*_POOLINGS.values(), *_OTHERS)}
    return {
        MODULES: [_module(0, "", "Transformer"), _module(1, "1_Pooling", "Pooling")],
        _MODEL: {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
        _TEXT: {"max_seq_length": min(max_length, architecture.max_length), "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": architecture.hidden_size, **modes},
    }


def found(folder: pathlib.Path) -> dict[str, Any]:
    """Those of a folder, where all that it says is how to pool and whether to normalise; else none."""
    if not (folder / MODULES).is_file():
        return {}
    listed = hf.read_json(folder / MODULES, list)
    kinds = [_kind(one) for one in listed]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        return {}
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    if any(one.get("path") != places[kind] for one, kind in zip(listed, kinds, strict=True)):
        return {}
    there = [name for name in (_MODEL, _TEXT, "1_Pooling/config.json") if (folder / name).is_file()]
    return {MODULES: listed} | {name: hf.read_json(folder / name) for name in there}


def _module(index: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _kind(module: Any) -> str:
    return str(module.get("type")).rpartition(".")[2] if isinstance(module, Mapping) else ""
