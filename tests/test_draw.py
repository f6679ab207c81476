# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Random draws by name: identical everywhere, and different for each name."""

import numpy as np

from xlkd.data.draw import draw_uniform, format_keys, truncate_keys
from xlkd.rows import make_key

KEYS = np.array([1, 2, 2**63 + 5], np.uint64)


def test_golden_numbers():
    """These numbers decide which words are masked, so a change here changes every run."""
    golden = [[0.2326991, 0.2525143, 0.352675], [0.3811563, 0.628723, 0.9388147], [0.2612032, 0.1894101, 0.4631865]]
    numbers = draw_uniform(7, "train words", 3, KEYS, 3)
    np.testing.assert_allclose(numbers, golden, atol=1e-7)


def test_a_draw_depends_on_its_row_and_position_only():
    all_rows = draw_uniform(0, "train", 5, KEYS, 9)
    np.testing.assert_array_equal(draw_uniform(0, "train", 5, KEYS[[2, 0]], 4), all_rows[[2, 0], :4])
    np.testing.assert_array_equal(draw_uniform(0, "train", 5, KEYS[:0], 4), np.zeros((0, 4)))


def test_seed_purpose_step_and_key_each_change_the_numbers():
    keys = np.arange(4, dtype=np.uint64)
    numbers = [draw_uniform(s, p, i, keys, 6) for s in range(3) for p in ("a", "b") for i in range(3)]
    assert len(np.unique(numbers)) == 3 * 2 * 3 * 4 * 6


def test_numbers_are_uniform_and_neighbours_are_independent():
    x = draw_uniform(0, "train", 0, np.arange(400, dtype=np.uint64), 500)
    assert x.min() >= 0
    assert x.max() < 1
    counts = np.histogram(x, 20, (0, 1))[0]
    assert ((counts - 1e4) ** 2 / 1e4).sum() < 50, "chi² with 19 degrees of freedom exceeds it once in 10,000"
    n = np.sqrt(x.size)
    next_step = draw_uniform(0, "train", 1, np.arange(400, dtype=np.uint64), 500)
    for a, b in ((x[:, 1:], x[:, :-1]), (x[1:], x[:-1]), (x, next_step), (x[1:], next_step[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) * n < 4


def test_keys_are_the_first_64_bits():
    assert truncate_keys(["00000000000000ff" + "a" * 16, "f" * 32]).tolist() == [255, 2**64 - 1]
    assert truncate_keys([]).dtype == np.uint64


def test_examples_are_named_for_every_dtype_of_keys():
    """The message about a loss that is not finite names examples of any task."""
    key = make_key("a row")
    assert format_keys(np.array([key], "S32")) == [key]
    assert format_keys(truncate_keys([key])) == [key[:16]]
