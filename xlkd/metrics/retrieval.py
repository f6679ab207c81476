# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Metrics of alignment between two sets of sentence vectors: retrieval, word links, similarity of structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

TIE = 1e-9  # similarities nearer than this are equal
Link = tuple[int, int]
Vectors = Float[np.ndarray, "sentences hidden"]


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Retrieval, for each sentence: whether its nearest neighbour on the other side is its own translation."""

    to_english: Bool[np.ndarray, " sentences"]
    from_english: Bool[np.ndarray, " sentences"]

    @property
    def accuracy(self) -> tuple[float, float]:
        """The accuracies xx→en and en→xx; chance is 1 / sentences."""
        return float(self.to_english.mean()), float(self.from_english.mean())


def to_english(retrieval: Retrieval) -> Float[np.ndarray, " sentences"]:
    """Returns 1 for each sentence that finds its English translation, else 0."""
    return retrieval.to_english.astype(np.float64)


def from_english(retrieval: Retrieval) -> Float[np.ndarray, " sentences"]:
    """Returns 1 for each sentence that its English translation finds, else 0."""
    return retrieval.from_english.astype(np.float64)


def both_directions(retrieval: Retrieval) -> Float[np.ndarray, " sentences"]:
    """Returns the mean of the two directions for each sentence."""
    return (to_english(retrieval) + from_english(retrieval)) / 2


def retrieve(
    foreign: Vectors, english: Vectors, *, score: Literal["cosine", "margin"] = "cosine", k: int = 4
) -> Retrieval:
    """Searches for translations, where row i of one side translates row i of the other; a tie counts as wrong.

    `margin` divides the cosine by the mean cosine of both to their k nearest neighbours, which lowers the scores of
    vectors that are near to many others.
    """
    similarity = normalise_rows(foreign) @ normalise_rows(english).T
    if score == "margin":
        similarity = similarity / _average_neighbours(similarity, k)
    return Retrieval(_is_own_nearest(similarity), _is_own_nearest(similarity.T))


def normalise_rows(x: Float[np.ndarray, "rows hidden"]) -> Float[np.ndarray, "rows hidden"]:
    """Scales rows to length 1, in float64; a row of zeros stays zero."""
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _average_neighbours(similarity: np.ndarray, k: int) -> np.ndarray:
    """Returns for each pair the mean similarity of both to their k nearest neighbours."""
    k = min(k, len(similarity))
    rows, columns = (np.partition(s, -k, axis=1)[:, -k:].mean(1) for s in (similarity, similarity.T))
    return (rows[:, None] + columns[None, :]) / 2


def _is_own_nearest(similarity: np.ndarray) -> np.ndarray:
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    return np.diagonal(similarity) > others.max(axis=1, initial=-np.inf) + TIE


@dataclasses.dataclass(frozen=True)
class AlignmentCounts:
    """Counts of predicted word links and of gold links, sure and possible; a sure link is possible too."""

    predicted: int
    sure: int
    in_sure: int
    in_possible: int


def alignment_error_rate(counts: AlignmentCounts) -> float:
    """Returns the AER; 0 where there are no links."""
    links = counts.predicted + counts.sure
    return 1 - (counts.in_sure + counts.in_possible) / links if links else 0.0


def alignment_precision(counts: AlignmentCounts) -> float:
    """Returns the share of the predicted links that are possible; 0 where none is predicted."""
    return counts.in_possible / counts.predicted if counts.predicted else 0.0


def alignment_recall(counts: AlignmentCounts) -> float:
    """Returns the share of the sure links that are predicted; 0 where none is sure."""
    return counts.in_sure / counts.sure if counts.sure else 0.0


def count_links(
    predicted: Sequence[Collection[Link]], sure: Sequence[Collection[Link]], possible: Sequence[Collection[Link]]
) -> AlignmentCounts:
    """Counts the links that AER, precision and recall are made of, summed over sentences."""
    counts = np.zeros(4, int)
    for a, s, p in zip(predicted, sure, possible, strict=True):
        a, s = set(a), set(s)
        counts += len(a), len(s), len(a & s), len(a & (s | set(p)))
    return AlignmentCounts(*map(int, counts))


def mutual_links(
    forth: Int[np.ndarray, " source"],
    back: Int[np.ndarray, " target"],
    source_words: Sequence[int] | Int[np.ndarray, " source_unpadded"],
    target_words: Sequence[int] | Int[np.ndarray, " target_unpadded"],
) -> set[Link]:
    """Returns word links between tokens that are each other's nearest.

    forth, back: the nearest target token of each source token, and the nearest source token of each target token;
    padding behind the tokens is not read.
    source_words, target_words: the word of each token; -1 marks a special token.
    """
    tokens = np.flatnonzero(np.asarray(source_words) >= 0)
    mutual = tokens[np.asarray(back)[np.asarray(forth)[tokens]] == tokens]
    links = {(int(source_words[i]), int(target_words[forth[i]])) for i in mutual if forth[i] < len(target_words)}
    return {(a, b) for a, b in links if b >= 0}


def structure_correlation(x: Float[np.ndarray, "sentences left"], y: Float[np.ndarray, "sentences right"]) -> float:
    """Returns the Spearman correlation between the cosine matrices of the same sentences, above their diagonals."""
    upper = np.triu_indices(len(x), k=1)
    cosines = [normalise_rows(vectors) @ normalise_rows(vectors).T for vectors in (x, y)]
    return spearman(cosines[0][upper], cosines[1][upper])


def spearman(a: Float[np.ndarray, " rows"], b: Float[np.ndarray, " rows"]) -> float:
    """Returns the correlation of ranks; equal values share the mean of their ranks; NaN where a side is constant."""
    a, b = (ranks - ranks.mean() for ranks in (_rank_values(a), _rank_values(b)))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else float("nan")


def _rank_values(x: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def linear_cka(x: Float[np.ndarray, "sentences left"], y: Float[np.ndarray, "sentences right"]) -> float:
    """Returns ‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖) of centred columns; biased upward unless there are many sentences."""
    x, y = (np.asarray(side, np.float64) - np.mean(side, axis=0, dtype=np.float64) for side in (x, y))
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / size) if size else float("nan")
