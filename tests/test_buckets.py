# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bucket edges are the cheapest ones, and the figures beside them are true."""

import itertools

import numpy as np
import pytest

from xlkd.data import buckets

# XQuAD, seven languages, windows of 384: how many have a length in each step of 32, the first being 32-63.
HISTOGRAM = [48, 197, 362, 1290, 1662, 1548, 934, 889, 672, 441, 1094]


def lengths():
    rng = np.random.default_rng(5)
    return np.minimum(384, rng.gamma(6.0, 30.0, size=400).astype(int) + 5)


def price(cost, rows, edges):
    return cost(np.asarray(edges, float)[buckets.assign_buckets(rows, edges)]).sum()


@pytest.mark.parametrize("cost", [lambda length: length, buckets.make_encoder_cost(384)])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_edges_equal_exhaustive_search(k, cost):
    rows = lengths()
    top = -(-rows.max() // 16) * 16
    inner = range(16, top, 16)
    cheapest = min(price(cost, rows, (*some, top)) for n in range(k) for some in itertools.combinations(inner, n))
    found = buckets.choose_edges(rows, k, cost=cost)
    assert price(cost, rows, found) == pytest.approx(cheapest, rel=1e-12)
    assert len(found) <= k
    assert found[-1] == top
    assert list(found) == sorted(set(found))


def test_more_buckets_than_lengths_gives_each_its_own():
    assert buckets.choose_edges([3, 16, 17, 40], 9) == (16, 32, 48)
    assert buckets.choose_edges([], 4) == ()


def test_a_row_on_the_edge_stays_in_its_bucket():
    assert buckets.assign_buckets([1, 16, 17, 32], (16, 32)).tolist() == [0, 0, 1, 1]


def test_a_row_that_fits_no_bucket_is_an_error():
    with pytest.raises(ValueError, match="33"):
        buckets.assign_buckets([33], (16, 32))


def test_figures():
    figures = buckets.measure_padding([10, 20, 30], (16, 32))
    assert (figures.tokens, figures.bucketed_tokens, figures.longest_tokens) == (60, 80, 96)
    assert figures.padding == pytest.approx(0.25)
    assert figures.padding_at_longest == pytest.approx(0.375)


def test_saving_on_the_xquad_histogram():
    """The cost model's table, from true lengths: 1.72 without padding, 1.51 with the edges 176, 224, 304, 384."""
    starts = range(32, 384, 32)
    spread = np.concatenate([np.linspace(a, a + 31, n).round() for a, n in zip(starts, HISTOGRAM, strict=True)])
    rows = np.append(spread.astype(int), 384)
    found = buckets.choose_edges(rows, 4)
    longest = buckets.BASE(384.0) * len(rows)
    assert len(found) == 4
    assert all(abs(a - b) <= 16 for a, b in zip(found, (176, 224, 304, 384), strict=True))
    assert longest / buckets.BASE(rows).sum() == pytest.approx(1.72, abs=0.02)
    assert longest / price(buckets.BASE, rows, found) == pytest.approx(1.51, abs=0.02)
