# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""`pawsx:DIR?split=dev`, or one file: PAWS-X's own folders (`x-final`), and XTREME's files, which are in CSV quoting.

PAWS-X's own files exist with and without quoting: it is removed where every quotation mark is valid CSV.

Where a sentence could not be translated it reads `NS` and the label is 0 whatever the pair's label is: `ns=drop` (the
default) leaves such rows out, `ns=keep` keeps them, as many published numbers do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from xlkd.data import labels
from xlkd.data.sources import BadRows, Source, _labelled, xnli
from xlkd.data.sources._labelled import Kind, Layout
from xlkd.data.sources._table import EITHER, Columns
from xlkd.rows import Labelled

TASKS = ("classify",)
OPTIONS = (*_labelled.OPTIONS, "split", "quoting", "ns")

_PAIR = {"text": ("sentence1",), "second": ("sentence2",)}
_COLUMNS = (Columns(_PAIR | {"id": ("id",)}, {"label": ("label",)}),)
_OWN = r"(?:x-final/)?(?P<language>\w\w)/(?P<split>translated_train|train|dev_2k|test_2k)\.tsv"
_FAMILIES = (xnli.XTREME, (Layout(_OWN, EITHER, _COLUMNS),))
_SPLITS = {"train": ("train", "translated_train"), "dev": ("dev", "dev_2k"), "test": ("test", "test_2k")}
_UNTRANSLATED = ("ns", "wl", "wora")

KIND = Kind("pawsx", labels.PARAPHRASE, labels.PARAPHRASE_SPELLINGS, group="first")


def rows(source: Source, task: str, bad_rows: BadRows) -> tuple[Labelled, ...]:
    """Returns the pairs language after language; rows with the same first sentence in English are a group."""
    kind = leave_out_untranslated(KIND) if source.choice("ns", ("drop", "keep")) == "drop" else KIND
    return _labelled.rows(
        source,
        kind,
        _labelled.find_files(source, _FAMILIES, _SPLITS, "LANG/dev_2k.tsv or SPLIT-LANG.tsv", bad_rows),
        bad_rows,
    )


def leave_out_untranslated(kind: Kind) -> Kind:
    """Returns the description of a data set whose rows that were not translated are left out."""
    return dataclasses.replace(kind, leave_reason=_find_untranslated)


def _find_untranslated(texts: Sequence[str]) -> str:
    """Returns the reason for leaving out a row that was not translated, or an empty string."""
    return "not translated (NS)" if any(text.strip().casefold() in _UNTRANSLATED for text in texts) else ""
