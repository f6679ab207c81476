# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Packs rows of unequal length into the flat arrays of features, and pads the rows of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


def pack(name: str, rows: Sequence[Any], dtype: DTypeLike) -> dict[str, np.ndarray]:
    """Returns the rows as one flat array `name`, and the places where they begin as `name_at` [rows + 1]."""
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    flat = np.concatenate([np.asarray(row, dtype) for row in rows]) if len(rows) else np.zeros(0, dtype)
    return {name: flat, f"{name}_at": starts}


def row_lengths(features: Mapping[str, np.ndarray], name: str, index: np.ndarray) -> np.ndarray:
    """Returns the lengths of these rows; a padded row (index -1) counts 1, so that attention has a key."""
    rows, starts = np.maximum(index, 0), features[f"{name}_at"]
    return np.where(index >= 0, starts[rows + 1] - starts[rows], 1)


def pad_rows(features: Mapping[str, np.ndarray], name: str, index: np.ndarray, length: int, fill: int) -> np.ndarray:
    """Returns these rows [rows, length]; padded rows (index -1) and the ends of short rows are `fill`."""
    flat, starts = features[name], features[f"{name}_at"]
    rows = np.maximum(index, 0)
    lengths = np.where(index >= 0, starts[rows + 1] - starts[rows], 0)[:, None]
    columns = np.arange(length)[None]
    where = np.minimum(starts[rows][:, None] + columns, max(len(flat) - 1, 0))
    return np.where(columns < lengths, flat[where], fill).astype(flat.dtype)


def pad_texts(
    features: Mapping[str, np.ndarray], index: np.ndarray, length: int, pad_id: int, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Returns texts as an encoder reads them: `ids`, `mask` and `types` [rows, length]."""
    return {
        "ids": pad_rows(features, f"{prefix}ids", index, length, pad_id),
        "mask": (np.arange(length) < row_lengths(features, f"{prefix}ids", index)[:, None]).astype(np.int32),
        "types": pad_rows(features, f"{prefix}types", index, length, 0).astype(np.int32),
    }
