# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Packed rows come back padded."""

import numpy as np

from xlkd.tasks import ragged


def test_packed_rows_come_back_padded():
    features = ragged.pack("x", [[5, 6, 7], [], [8]], np.int16)
    assert features["x"].dtype == np.int16
    assert features["x_at"].tolist() == [0, 3, 3, 4]
    padded = ragged.pad_rows(features, "x", np.array([2, -1, 0, 1]), 4, fill=-9)
    assert padded.tolist() == [[8, -9, -9, -9], [-9] * 4, [5, 6, 7, -9], [-9] * 4]
    assert padded.dtype == np.int16
    assert ragged.pad_rows(features, "x", np.array([0]), 2, fill=0).tolist() == [[5, 6]]
    assert ragged.row_lengths(features, "x", np.array([0, 2, -1])).tolist() == [3, 1, 1]
    assert ragged.pack("x", [], np.int32)["x"].dtype == np.int32
