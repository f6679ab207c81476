# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`xnli:DIR?split=dev`, or one file of it: XNLI's own files, its machine-translated training files, XTREME's folders.

XTREME's test files have no labels: `labels=FILE` takes them from the official file, row by row, where the texts agree.
`quoting=none|csv` is for a copy that was written with other quoting than these.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib

from xlkd import files
from xlkd.data import labels
from xlkd.data.sources import BadRows, Source, _labelled
from xlkd.data.sources._labelled import Kind, Layout
from xlkd.data.sources._table import EITHER, JSONL, QUOTED, TSV, Columns
from xlkd.errors import UserError
from xlkd.rows import Labelled, make_key

TASKS = ("classify",)
OPTIONS = (*_labelled.OPTIONS, "split", "quoting", "labels")

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
KIND = Kind("xnli", labels.NLI, labels.NLI_SPELLINGS, group="first")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns the pairs language after language; the hypotheses of one premise are a group in all languages."""
    examples = _labelled.rows(
        source, KIND, _labelled.find_files(source, _FAMILIES, _SPLITS, _EXPECTED, bad_rows), bad_rows
    )
    return _add_official_labels(source, examples) if source.option("labels") else examples


def _add_official_labels(source: Source, examples: tuple[Labelled, ...]) -> tuple[Labelled, ...]:
    """Returns the rows with the labels of an official file, which has the rows of a language in the same order."""
    path = files.expand_path(source.option("labels"))
    if not path.is_file():
        raise UserError("no such file", str(path), "labels= names XNLI's own xnli.test.tsv")
    if any(row.label is not None for row in examples):
        raise UserError("has labels already", str(source), "leave out labels=")
    official_source = Source(
        "xnli", str(path), (("languages", ",".join(dict.fromkeys(row.language for row in examples))),)
    )
    official = collections.defaultdict(list)
    for row in _labelled.rows(
        official_source,
        KIND,
        _labelled.find_files(official_source, _FAMILIES[:2], _SPLITS, "xnli.test.tsv", BadRows()),
        BadRows(),
    ):
        official[row.language].append(row)
    official_labels = [_find_official_label(official[row.language], row, path) for row in examples]
    pairs = zip(examples, official_labels, strict=True)
    return tuple(dataclasses.replace(row, label=label, key=make_key(row.key, label)) for row, label in pairs)


def _find_official_label(official: list[Labelled], row: Labelled, path: pathlib.Path) -> str | None:
    """Returns the label of the row with the same number, after comparing the texts."""
    number = int(row.id.rpartition(":")[2])
    candidate = official[number] if number < len(official) else None
    if not candidate or (candidate.text, candidate.second) != (row.text, row.second):
        raise UserError(f"differs from the texts of row {row.id}", str(path), "give the official file of that split")
    return candidate.label
