# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the rows of parquet files and Arrow streams, by the columns that data sets on the Hugging Face hub have.

Questions are in SQuAD's columns (`id`, `question`, `context`, `answers`), or have one answer in `answer_text` and
`answer_start`. Labelled texts are read by the usual names of tables and by those of XNLI, also with all languages in a
row, MASSIVE and SIB-200; numbers of class labels become the names that the file has for them. Pairs are in a column
`translation` with a field for each language, or in two columns. Options name other columns, as for tables.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence

from xlkd.data.sources import BadRows, Source, _arrow_labelled, _arrow_pairs, _arrow_questions, _layout
from xlkd.data.sources._arrow_columns import Origin, Parts
from xlkd.rows import Labelled, Pair, Question

_READERS: dict[str, Callable[..., Sequence[Question] | Sequence[Labelled] | Sequence[Pair]]] = {
    "qa": _arrow_questions.rows,
    "classify": _arrow_labelled.rows,
    "parallel": _arrow_pairs.rows,
}
OPTIONS = {"qa": _arrow_questions.OPTIONS, "classify": _arrow_labelled.OPTIONS, "parallel": _arrow_pairs.OPTIONS}
TASKS = tuple(_READERS)

# Data sets that are scored or averaged in their own way, by the letters and digits of their names
_KNOWN_SETS = {
    "mlqa": "mlqa", "massive": "massive", "nusax": "nusax", "nusaxsenti": "nusax", "pawsx": "pawsx", "sib200": "sib200",
    "squad": "squad", "tydiqa": "tydiqa", "xnli": "xnli", "xquad": "xquad",
}  # fmt: skip


def read_files(
    source: Source, task: str, parts: Parts, bad_rows: BadRows
) -> Sequence[Question] | Sequence[Labelled] | Sequence[Pair]:
    """Returns the rows of a split in the order of its files; several parts are languages of the same data set."""
    return _READERS[task](source, {_normalise(origin): files for origin, files in parts.items()}, bad_rows)


def _normalise(origin: Origin) -> Origin:
    """Returns an origin with xlkd's names of data set and split, which are those of its folder readers."""
    split = _layout.normalise_split(origin.split)
    set_name = find_known_set(origin.set) or origin.set
    return dataclasses.replace(origin, set=set_name, split="dev" if split == "validation" else split)


def find_known_set(name: str) -> str:
    """Returns xlkd's name of a data set that has one (PAWS-X: pawsx); an empty string for any other."""
    return _KNOWN_SETS.get(re.sub(r"[\W_]", "", name).casefold(), "")
