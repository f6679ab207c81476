# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a stage hands on: a folder that transformers loads, with a card that says what it was trained on."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from xlkd import settings
from xlkd.methods import Export
from xlkd.models import hf
from xlkd.train import whole


def write(
    folder: pathlib.Path, exported: Export, tokenizer, config, results: dict[str, Any], seen: dict[str, Any]
) -> None:
    """Whole or not at all."""
    record = {"version": 1, "task": settings.plain(config.task), "dtype": config.encoder.dtype, "seen": seen}
    beside = {"tokenizer": tokenizer, "card": card(config, results, seen)}
    if "branches" in exported.encoder:
        record |= {"method": settings.plain(config.method)}
        whole.save(folder, exported.architecture, jax.device_get(exported.encoder), exported.labels, record, **beside)
        return
    params = jax.device_get({"encoder": exported.encoder, **exported.heads})
    pretrained = config.method.name == "pretrain"
    hf.save(
        folder,
        exported.architecture,
        params,
        labels=exported.labels or None,
        record=record,
        **beside,
        dtype=config.encoder.new.disk if pretrained else "float32",
    )


def card(config, results: dict[str, Any], seen: dict[str, Any]) -> str:
    """The model card, from the run's own record."""
    lines = ["---", "library_name: transformers", "tags: [xlkd]", "---", "", f"# {config.stage}", ""]
    lines += [f"Trained by xlkd: method `{config.method.name}`, config {config.run}, seed {config.seed}."]
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| start | `{config.start if config.start != 'encoder' else config.encoder.path}` |"]
    lines += [f"| training data | `{config.data.train}` |", f"| evaluation data | `{config.data.eval}` |"]
    lines += [
        f"| languages whose labels were seen in {where} | {', '.join(of) or 'none'} |" for where, of in seen.items()
    ]
    lines += [""]
    for name, found in results.items():
        lines += [f"## {name}: {found['main']} at step {found['step']}", "", "| | |", "|---|---|"]
        lines += [f"| {cell} | {values[found['main']]:.1f} |" for cell, values in found["cells"].items()]
        lines += [f"| mean | {found['mean']:.1f} |", ""]
    return "\n".join(lines)
