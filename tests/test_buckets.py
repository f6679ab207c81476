# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Bucket edges have the lowest cost, and the reported figures are true."""

import itertools

import numpy as np
import pytest

from xlkd.data import buckets

# Windows of at most 384 tokens in seven languages of XQuAD, counted by length in steps of 32 from 32-63.
HISTOGRAM = [48, 197, 362, 1290, 1662, 1548, 934, 889, 672, 441, 1094]


def draw_lengths():
    rng = np.random.default_rng(5)
    return np.minimum(384, rng.gamma(6.0, 30.0, size=400).astype(int) + 5)


def compute_cost(cost, rows, edges):
    return cost(np.asarray(edges, float)[buckets.assign_buckets(rows, edges)]).sum()


@pytest.mark.parametrize(
    "cost", [lambda length: length, buckets.make_encoder_cost(384), buckets.make_encoder_cost(16, 128)]
)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_edges_equal_exhaustive_search(k, cost):
    rows = draw_lengths()
    top = -(-rows.max() // 16) * 16
    inner = range(16, top, 16)
    cheapest = min(
        compute_cost(cost, rows, (*some, top)) for n in range(k) for some in itertools.combinations(inner, n)
    )
    edges = buckets.choose_edges(rows, k, cost=cost)
    assert compute_cost(cost, rows, edges) == pytest.approx(cheapest, rel=1e-12)
    assert len(edges) <= k
    assert edges[-1] == top
    assert list(edges) == sorted(set(edges))


def test_with_more_buckets_than_lengths_each_length_has_its_own():
    assert buckets.choose_edges([3, 16, 17, 40], 9) == (16, 32, 48)
    assert buckets.choose_edges([], 4) == ()


def test_a_row_on_the_edge_stays_in_its_bucket():
    assert buckets.assign_buckets([1, 16, 17, 32], (16, 32)).tolist() == [0, 0, 1, 1]


def test_a_row_that_fits_no_bucket_is_an_error():
    with pytest.raises(ValueError, match="33"):
        buckets.assign_buckets([33], (16, 32))


def test_padding_figures():
    figures = buckets.measure_padding([10, 20, 30], (16, 32))
    assert (figures.tokens, figures.bucketed_tokens, figures.longest_tokens) == (60, 80, 96)
    assert figures.padding == pytest.approx(0.25)
    assert figures.padding_at_longest == pytest.approx(0.375)


def test_saving_on_the_xquad_histogram():
    """The table of the cost model, from real lengths: 1.72 without padding, 1.51 with edges 176, 224, 304, 384."""
    starts = range(32, 384, 32)
    spread = np.concatenate([np.linspace(a, a + 31, n).round() for a, n in zip(starts, HISTOGRAM, strict=True)])
    rows = np.append(spread.astype(int), 384)
    edges = buckets.choose_edges(rows, 4)
    longest = buckets.BASE(384.0) * len(rows)
    assert len(edges) == 4
    assert all(abs(a - b) <= 16 for a, b in zip(edges, (176, 224, 304, 384), strict=True))
    assert longest / buckets.BASE(rows).sum() == pytest.approx(1.72, abs=0.02)
    assert longest / compute_cost(buckets.BASE, rows, edges) == pytest.approx(1.51, abs=0.02)


def test_attention_costs_as_much_as_over_whole_tiles():
    cost, exact = buckets.make_encoder_cost(64, 128), buckets.make_encoder_cost(64)
    assert cost(np.array([128.0, 256.0])).tolist() == exact(np.array([128.0, 256.0])).tolist()
    linear = 24.0 * 64**2
    assert (cost(np.array([144.0])) / 144 - linear).tolist() == (exact(np.array([256.0])) / 256 - linear).tolist()


def test_a_tpu_has_buckets_by_its_tiles_and_other_devices_by_length():
    lengths = [112] * 60 + [128] * 40 + [144] * 100
    cost = {platform: buckets.make_encoder_cost(64, buckets.find_tile(platform)) for platform in ("cpu", "gpu", "tpu")}
    edges = {platform: buckets.choose_edges(lengths, 2, cost=cost[platform]) for platform in cost}
    assert edges["cpu"] == edges["gpu"] == (112, 144), "16 positions of 40 rows are padding, with 128 those of 60"
    assert edges["tpu"] == (128, 144), "144 is as expensive as 256 there"
