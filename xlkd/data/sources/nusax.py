# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`nusax:DIR?split=test`: the sentiment files of NusaX, `LANGUAGE/{train,valid,test}.csv`; ids are parallel."""

from __future__ import annotations

from xlkd.data import labels
from xlkd.data.sources import BadRows, Source, _labelled
from xlkd.data.sources._labelled import Kind, Layout
from xlkd.data.sources._table import CSV, Columns
from xlkd.rows import Labelled

TASKS = ("classify",)
OPTIONS = (*_labelled.OPTIONS, "split")

_COLUMNS = (Columns({"id": ("id",), "text": ("text",), "label": ("label",)}),)
_LAYOUT = Layout(r"(?:datasets/)?(?:sentiment/)?(?P<language>\w+)/(?P<split>train|valid|test)\.csv", CSV, _COLUMNS)
_SPLITS = {"train": ("train",), "dev": ("valid",), "test": ("test",)}
KIND = Kind("nusax", labels.SENTIMENT, labels.SENTIMENT_SPELLINGS, group="id")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns the texts language after language; a text in all its languages is a group."""
    return _labelled.rows(
        source, KIND, _labelled.find_files(source, ((_LAYOUT,),), _SPLITS, "LANGUAGE/train.csv", bad_rows), bad_rows
    )
