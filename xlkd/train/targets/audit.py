# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks cached targets: a sample of them is computed again, because a wrong cache would be worse than none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlkd.data import cache
from xlkd.data.draw import format_keys
from xlkd.data.targets import Values
from xlkd.errors import UserError

SAMPLE = 8  # rows of every shard
CLOSE = 1e-5  # between a cached target and the same computed now, as a share of the largest value


def check_targets(keys: np.ndarray, cached: Values, fresh: Values, ragged: Sequence[str], lengths: np.ndarray) -> None:
    """Refuses cached targets that differ from those computed now; of ragged arrays the padding is not compared."""
    for name, value in cached.items():
        inside = np.ones(value.shape, bool)
        if name in ragged:
            inside = np.arange(value.shape[1]) < lengths[:, None]
            inside = inside.reshape(*inside.shape, *[1] * (value.ndim - 2))
        difference = np.abs(np.where(inside, value - fresh[name], 0)).reshape(len(value), -1)
        if not (difference.max(1) <= CLOSE * max(1.0, float(np.abs(value).max()))).all():
            example = format_keys(keys)[int(difference.max(1).argmax())]
            what = (
                f"the cached target of example {example} differs from the teacher's output (by {difference.max():.2g})"
            )
            raise UserError(what, str(cache.get_folder()), "empty the cache: python -m xlkd.caches --delete_all")
