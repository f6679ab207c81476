# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Retrieval, word links and structure on cases small enough to count by hand."""

import numpy as np
import pytest

from xlkd.metrics import retrieval

RNG = np.random.default_rng(0)


def test_retrieval_is_scored_in_both_directions():
    english = np.eye(3)
    foreign = np.array([[1.0, 0.1, 0], [0.9, 0.5, 0], [0, 0, 2.0]])  # the second lies nearer to the first's translation
    matches = retrieval.retrieve(foreign, english)
    assert matches.to_english.tolist() == [True, False, True]
    assert matches.from_english.tolist() == [True, True, True]
    assert matches.accuracy == (pytest.approx(2 / 3), 1.0)


def test_a_tie_counts_as_wrong():
    x = RNG.normal(size=(50, 300)).astype(np.float32)
    x[7] = x[31] * 2  # the same direction: two targets at the same distance
    matches = retrieval.retrieve(x, x)
    assert np.flatnonzero(~matches.to_english).tolist() == [7, 31]
    assert np.flatnonzero(~matches.from_english).tolist() == [7, 31]


def test_the_length_of_vectors_does_not_matter():
    x, y = RNG.normal(size=(2, 40, 8))
    y = x + 0.8 * y
    plain = retrieval.retrieve(x, y)
    scaled = retrieval.retrieve(x * RNG.uniform(0.1, 9, (40, 1)), y * RNG.uniform(0.1, 9, (40, 1)))
    assert (plain.to_english == scaled.to_english).all()
    assert 0 < plain.accuracy[0] < 1


def test_the_margin_score_corrects_for_hubs():
    x = RNG.normal(size=(60, 16))
    y = x + 0.9 * RNG.normal(size=(60, 16))
    x, y = x + 1.0, y + 1.0
    y[0] = 40.0  # near to everything
    cosine, margin = (retrieval.retrieve(x, y, score=score).accuracy[0] for score in ("cosine", "margin"))
    assert margin > cosine + 0.1


@pytest.mark.parametrize("options", [{}, {"k": 1}, {"k": 3}])
def test_the_margin_score_equals_one_computed_by_hand(options):
    n, k = 60, options.get("k", 4)
    x, y = np.random.default_rng(5).normal(size=(2, n, 3))
    y = x + 0.5 * y
    similarity = retrieval.normalise_rows(x) @ retrieval.normalise_rows(y).T
    expected = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            near = sorted(similarity[i])[-k:], sorted(similarity[:, j])[-k:]
            expected[i, j] = similarity[i, j] / ((sum(near[0]) + sum(near[1])) / (2 * k))
    own = [[scores[i, i] > max(np.delete(scores[i], i)) for i in range(n)] for scores in (expected, expected.T)]
    matches = retrieval.retrieve(x, y, score="margin", **options)
    assert [matches.to_english.tolist(), matches.from_english.tolist()] == own


def test_retrieval_of_one_or_no_sentence():
    assert retrieval.retrieve(np.ones((1, 2)), np.ones((1, 2)), score="margin").accuracy == (1.0, 1.0)
    assert retrieval.retrieve(np.ones((0, 2)), np.ones((0, 2))).to_english.tolist() == []


def test_alignment_counts_are_summed_before_the_division():
    counts = retrieval.count_links(
        predicted=[{(0, 0), (1, 1), (2, 0)}, {(0, 1)}],
        sure=[{(0, 0), (1, 2)}, {(0, 1)}],
        possible=[{(1, 1)}, set()],
    )
    assert (counts.predicted, counts.sure, counts.in_sure, counts.in_possible) == (4, 3, 2, 3)
    assert retrieval.alignment_error_rate(counts) == pytest.approx(1 - (2 + 3) / (4 + 3))
    assert (retrieval.alignment_precision(counts), retrieval.alignment_recall(counts)) == (3 / 4, 2 / 3)


def test_with_sure_links_only_the_error_rate_is_one_minus_f1():
    counts = retrieval.count_links([{(0, 0), (1, 1), (2, 2)}], [{(0, 0), (3, 3)}], [set()])
    precision, recall = retrieval.alignment_precision(counts), retrieval.alignment_recall(counts)
    f1 = 2 * precision * recall / (precision + recall)
    assert retrieval.alignment_error_rate(counts) == pytest.approx(1 - f1)


def test_links_between_words_need_mutual_links_of_tokens():
    """Source tokens 1 and 2 are one word; token 2 links to target token 0, which prefers token 1."""
    source_to_target, target_to_source = np.array([2, 0, 0, 1, 0]), np.array([1, 3, 0, 1])
    assert retrieval.mutual_links(source_to_target, target_to_source, [-1, 0, 0, 1], [0, 1, -1, 2]) == {(0, 0), (1, 1)}
    assert retrieval.mutual_links(source_to_target, target_to_source, [-1], [0, 1, -1, 2]) == set()
    assert retrieval.mutual_links(np.array([0]), np.array([0]), [3], [-1]) == set()
    assert retrieval.mutual_links(np.array([2]), np.array([0, 0, 0]), [3], [0, 1]) == set(), "past the last token"


def test_spearman_with_ties():
    assert retrieval.spearman(np.array([1, 2, 2, 3.0]), np.array([1, 2, 3, 4.0])) == pytest.approx(0.9486832981)
    assert retrieval.spearman(np.array([1, 2, 3.0]), np.array([9, 4, 1.0])) == pytest.approx(-1)
    assert np.isnan(retrieval.spearman(np.ones(3), np.arange(3.0)))


def test_structure_ignores_rotation_and_length():
    x = RNG.normal(size=(30, 5))
    rotation, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
    assert retrieval.structure_correlation(x, 3 * x @ rotation) == pytest.approx(1)
    assert abs(retrieval.structure_correlation(x, RNG.normal(size=(30, 5)))) < 0.3


def test_linear_cka_ignores_rotation_and_scale():
    x = RNG.normal(size=(200, 4))
    rotation, _ = np.linalg.qr(RNG.normal(size=(4, 4)))
    assert retrieval.linear_cka(x, 2 * x @ rotation + 5) == pytest.approx(1)
    assert retrieval.linear_cka(x, RNG.normal(size=(200, 4))) < 0.1
    a, b = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), np.array([[1.0], [-1], [0], [0]])
    assert np.isnan(retrieval.linear_cka(np.ones((4, 2)), b))
    assert retrieval.linear_cka(a, b) == pytest.approx(1 / np.sqrt(2))  # ‖(2, 0)‖² / (‖2·I‖ · 2)
