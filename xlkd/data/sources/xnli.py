# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`xnli:DIR?split=dev`, or one file of it: XNLI's own files, its machine-translated training files, XTREME's folders.

XTREME's test files hold no labels: `labels=FILE` takes them from the official file, row by row, where the texts agree.
`quoting=none|csv` where a copy was written otherwise than these are.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib

from xlkd.data import labels
from xlkd.data.sources import Bad, Spec, _labelled
from xlkd.data.sources._labelled import Kind, Layout
from xlkd.data.sources._table import EITHER, JSONL, QUOTED, TSV, Columns
from xlkd.errors import UserError
from xlkd.rows import Labelled, make_key

TASKS = ("classify",)

_FOLDER = r"(?:xnli/|pawsx/)?"
PAIR = Columns({"text": 0, "second": 1}, {"label": 2})
XTREME = (
    Layout(_FOLDER + r"(?P<split>train|dev|test)-(?P<language>[\w-]+)\.tsv", QUOTED, (PAIR,)),
    # the English pair, then its translation
    Layout(
        _FOLDER + r"translate-train/en-(?P<language>[\w-]+)-translated\.tsv",
        EITHER,
        (Columns({"text": 2, "second": 3, "label": 4}),),
        split="train",
    ),
)

_NAMED = {"text": ("sentence1",), "second": ("sentence2",), "label": ("gold_label",), "language": ("language",)}
_OFFICIAL = (Columns(_NAMED, {"id": ("pairID",)}),)
_TRANSLATED = (Columns({"text": ("premise",), "second": ("hypo", "hypothesis"), "label": ("label",)}),)
_FAMILIES = (
    (Layout(r"(?:XNLI-1\.0/)?xnli\.(?P<split>dev|test)\.tsv", TSV, _OFFICIAL),),
    (Layout(r"(?:XNLI-1\.0/)?xnli\.(?P<split>dev|test)\.jsonl", JSONL, _OFFICIAL),),
    (
        Layout(
            r"(?:XNLI-MT-1\.0/)?(?:multinli/)?multinli\.(?P<split>train)\.(?P<language>[\w-]+)\.tsv", TSV, _TRANSLATED
        ),
    ),
    XTREME,
)
_SPLITS = {"train": ("train",), "dev": ("dev",), "test": ("test",)}
_EXPECTED = "xnli.SPLIT.tsv, multinli.train.LANG.tsv or SPLIT-LANG.tsv"
KIND = Kind("xnli", labels.NLI, group="first")


def rows(spec: Spec, task: str, bad: Bad) -> tuple[Labelled, ...]:
    """Language after language; the hypotheses under one premise are a group, the same in all languages."""
    spec.allow(*_labelled.OPTIONS, "split", "quoting", "labels")
    found = _labelled.rows(spec, KIND, _labelled.find(spec, _FAMILIES, _SPLITS, _EXPECTED), bad)
    return _joined(spec, found) if spec.option("labels") else found


def _joined(spec: Spec, found: tuple[Labelled, ...]) -> tuple[Labelled, ...]:
    """The rows with the labels of an official file, whose rows of a language are in the same order."""
    path = pathlib.Path(spec.option("labels")).expanduser()
    if not path.is_file():
        raise UserError("no such file", str(path), "labels= names XNLI's own xnli.test.tsv")
    if any(row.label is not None for row in found):
        raise UserError("has labels already", str(spec), "leave out labels=")
    own = Spec("xnli", str(path), (("languages", ",".join(dict.fromkeys(row.language for row in found))),))
    official = collections.defaultdict(list)
    for row in _labelled.rows(own, KIND, _labelled.find(own, _FAMILIES[:2], _SPLITS, "xnli.test.tsv"), Bad()):
        official[row.language].append(row)
    labels = [_label(official[row.language], row, path) for row in found]
    pairs = zip(found, labels, strict=True)
    return tuple(dataclasses.replace(row, label=label, key=make_key(row.key, label)) for row, label in pairs)


def _label(official: list[Labelled], row: Labelled, path: pathlib.Path) -> str | None:
    number = int(row.id.rpartition(":")[2])
    same = official[number] if number < len(official) else None
    if not same or (same.text, same.second) != (row.text, row.second):
        raise UserError(f"has other texts than row {row.id}", str(path), "give the official file of that split")
    return same.label
