# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""How well two sets of sentence vectors are aligned: retrieval, word links, and likeness of structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

TIE = 1e-9  # similarities nearer than this are equal
Link = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """By sentence, whether its nearest neighbour on the other side is its own translation."""

    to_english: np.ndarray
    from_english: np.ndarray

    @property
    def accuracy(self) -> tuple[float, float]:
        """xx→en and en→xx; chance is 1 / sentences."""
        return float(self.to_english.mean()), float(self.from_english.mean())


def retrieve(
    foreign: np.ndarray, english: np.ndarray, *, score: Literal["cosine", "margin"] = "cosine", k: int = 4
) -> Retrieval:
    """Row i of both [sentences, D] belong together; a tie counts as wrong.

    `margin` divides the cosine by the mean cosine to the k nearest neighbours of both, against hub vectors.
    """
    similarity = unit(foreign) @ unit(english).T
    if score == "margin":
        similarity = similarity / _neighbourhood(similarity, k)
    return Retrieval(_own_is_nearest(similarity), _own_is_nearest(similarity.T))


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1, in float64; a row of zeros stays."""
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _neighbourhood(similarity: np.ndarray, k: int) -> np.ndarray:
    k = min(k, len(similarity))
    rows, columns = (np.partition(s, -k, axis=1)[:, -k:].mean(1) for s in (similarity, similarity.T))
    return (rows[:, None] + columns[None, :]) / 2


def _own_is_nearest(similarity: np.ndarray) -> np.ndarray:
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    return np.diagonal(similarity) > others.max(axis=1, initial=-np.inf) + TIE


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Predicted word links against sure and possible ones, counted over sentences; sure links are possible too."""

    predicted: int
    sure: int
    in_sure: int
    in_possible: int

    @property
    def error_rate(self) -> float:
        both = self.predicted + self.sure
        return 1 - (self.in_sure + self.in_possible) / both if both else 0.0

    @property
    def precision(self) -> float:
        return self.in_possible / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.in_sure / self.sure if self.sure else 0.0


def alignment(
    predicted: Sequence[Collection[Link]], sure: Sequence[Collection[Link]], possible: Sequence[Collection[Link]]
) -> Alignment:
    """The counts of AER, precision and recall, by sentence and summed; divided only once."""
    counts = np.zeros(4, int)
    for a, s, p in zip(predicted, sure, possible, strict=True):
        a, s = set(a), set(s)
        counts += len(a), len(s), len(a & s), len(a & (s | set(p)))
    return Alignment(*map(int, counts))


def mutual_links(
    forth: np.ndarray, back: np.ndarray, source_words: Sequence[int], target_words: Sequence[int]
) -> set[Link]:
    """Word links between pieces that are each other's nearest: `forth` the places in the target, `back` in the source.

    The words are those of each piece; -1 marks a special token.
    """
    pieces = np.flatnonzero(np.asarray(source_words) >= 0)
    mutual = pieces[np.asarray(back)[np.asarray(forth)[pieces]] == pieces]
    links = {(int(source_words[i]), int(target_words[forth[i]])) for i in mutual if forth[i] < len(target_words)}
    return {(a, b) for a, b in links if b >= 0}


def structure_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman correlation of the upper triangles of the cosine matrices of the same n sentences."""
    upper = np.triu_indices(len(x), k=1)
    return spearman(*((unit(of) @ unit(of).T)[upper] for of in (x, y)))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of ranks; equal values share the mean of their ranks; NaN where a side is constant."""
    a, b = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b)))
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else float("nan")


def _ranks(x: np.ndarray) -> np.ndarray:
    _, of, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[of]


def linear_cka(x: np.ndarray, y: np.ndarray) -> float:
    """‖Yᵀ X‖² / (‖Xᵀ X‖ ‖Yᵀ Y‖) of centred columns [sentences, D]; biased upward where n is not much larger than D."""
    x, y = (np.asarray(of, np.float64) - np.mean(of, axis=0, dtype=np.float64) for of in (x, y))
    size = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / size) if size else float("nan")
