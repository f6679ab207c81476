# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The files that tell sentence-transformers how an encoder's hidden states become one vector of a text.

They have the form of its releases before 5.3, which later ones read too. Vectors are not normalised.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from xlkd.files import Json
from xlkd.models import hf
from xlkd.models.family import Architecture

MODULES = "modules.json"
_TEXT, _MODEL = "sentence_bert_config.json", "config_sentence_transformers.json"
_POOLINGS = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
_OTHERS = ("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens")


def pooling_files(architecture: Architecture, pooling: str, max_length: int) -> dict[str, Json]:
    """Returns the files' contents by name: the last layer is pooled, and texts are cut at `max_length` tokens."""
    modes = {name: name == _POOLINGS[pooling] for name in (*_POOLINGS.values(), *_OTHERS)}
    return {
        MODULES: [_describe_module(0, "", "Transformer"), _describe_module(1, "1_Pooling", "Pooling")],
        _MODEL: {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
        _TEXT: {"max_seq_length": min(max_length, architecture.max_length), "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": architecture.hidden_size, **modes},
    }


def read_pooling_files(folder: pathlib.Path) -> dict[str, Json]:
    """Reads these files from a folder; returns none if they do more than pooling and normalising."""
    if not (folder / MODULES).is_file():
        return {}
    modules = hf.read_json(folder / MODULES, list)
    kinds = [_read_kind(module) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        return {}
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    if any(module.get("path") != places[kind] for module, kind in zip(modules, kinds, strict=True)):
        return {}
    names = [name for name in (_MODEL, _TEXT, "1_Pooling/config.json") if (folder / name).is_file()]
    return {MODULES: modules} | {name: hf.read_json(folder / name) for name in names}


def _describe_module(index: int, path: str, kind: str) -> dict[str, Json]:
    return {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}


def _read_kind(module: Json) -> str:
    return str(module.get("type")).rpartition(".")[2] if isinstance(module, Mapping) else ""
