# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores of positions to answers: candidates of all windows of a question, in one total order, cut from its context."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from xlkd.tasks.windows import Features, Settings

_BLOCK = 1024  # windows at a time


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A possible answer: the context's characters start to end; both -1 where the text is not from the context."""

    text: str
    probability: float
    start_score: float
    end_score: float
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Predictions:
    """For each row its candidates, best first, at least one.

    `searched` marks rows whose best positions gave none, so that the context was searched.
    """

    candidates: tuple[tuple[Candidate, ...], ...]
    searched: np.ndarray  # bool [rows]

    @property
    def texts(self) -> list[str]:
        return [candidates[0].text for candidates in self.candidates]

    def near_ties(self, margin: float = 1e-4) -> list[int]:
        """The rows whose two best candidates may change places with the last bits of the scores."""
        joint = [[one.start_score + one.end_score for one in found[:2]] for found in self.candidates]
        return [row for row, two in enumerate(joint) if len(two) == 2 and two[0] - two[1] < margin]


def decode(outputs: Mapping[str, np.ndarray], features: Features, settings: Settings) -> Predictions:
    """Answers from what the device gave for each window of `features`, in order.

    `start_scores`, `start_index`, `end_scores`, `end_index` [windows, k] are the best positions, best first, the lower
    index where two are equal; `best_score`, `best_start`, `best_end` [windows] the best span of the window's context
    that is not too long, and its positions, -inf where there is none.
    """
    pooled = _pool(outputs, features, settings)
    bounds = np.searchsorted(pooled["row"], np.arange(len(features.question) + 1))
    fallback = _fallback(outputs, features)
    candidates, searched = [], np.zeros(len(features.question), bool)
    for row in range(len(features.question)):
        found = _best(_texts(pooled, bounds[row], bounds[row + 1], features, row), settings.n_best)
        if not found:
            searched[row] = True
            found = [("empty", 0.0, 0.0, -1, -1)] if settings.published_empty else [_cut(features, row, *fallback[row])]
        candidates.append(_with_probabilities(found))
    return Predictions(tuple(candidates), searched)


def _pool(outputs: Mapping[str, np.ndarray], features: Features, settings: Settings) -> dict[str, np.ndarray]:
    """All valid pairs: their row, pieces and scores, by row and then best first.

    Equal joint scores go by window, then by the rank of the start, then by that of the end.
    """
    blocks = [_pairs(outputs, features, settings, at) for at in range(0, len(features), _BLOCK)]
    pooled = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    # windows of a row stand in order and pairs in order of their ranks: a stable sort keeps both
    order = np.lexsort((-(pooled["start_score"] + pooled["end_score"]), pooled["row"]))
    return {name: values[order] for name, values in pooled.items()}


def _pairs(outputs: Mapping[str, np.ndarray], features: Features, settings: Settings, at: int) -> dict[str, np.ndarray]:
    block = slice(at, at + _BLOCK)
    offset, first, count = features.offset()[block, None], features.first[block, None], features.count[block, None]
    starts = np.asarray(outputs["start_index"])[block] - offset  # from here on: pieces of the window's context
    ends = np.asarray(outputs["end_index"])[block] - offset
    start_ok, end_ok = (starts >= 0) & (starts < count), (ends >= 0) & (ends < count)
    if settings.max_context:
        best = features.best_first[block, None] - first
        start_ok &= (starts >= best) & (starts < best + features.best_count[block, None])
    long = ends[:, None, :] - starts[:, :, None]
    valid = start_ok[:, :, None] & end_ok[:, None, :] & (long >= 0) & (long < settings.max_answer_tokens)
    window, i, j = np.nonzero(valid)
    return {
        "row": features.row_of[block][window],
        "first": starts[window, i] + first[window, 0],
        "last": ends[window, j] + first[window, 0],
        "start_score": np.asarray(outputs["start_scores"], np.float64)[block][window, i],
        "end_score": np.asarray(outputs["end_scores"], np.float64)[block][window, j],
    }


def _texts(pooled: Mapping[str, np.ndarray], low: int, high: int, features: Features, row: int) -> Iterator[tuple]:
    """The candidates of a row one after another, cut from its context."""
    text = features.context[row]
    context, base = features.words(text), features.pieces.splits[text]
    for at in range(low, high):
        start = int(features.pieces.begin[base + pooled["first"][at]])
        end = int(features.pieces.end[base + pooled["last"][at]])
        yield _trimmed(context, start, end, float(pooled["start_score"][at]), float(pooled["end_score"][at]))


def _trimmed(context: str, start: int, end: int, start_score: float, end_score: float) -> tuple:
    """A candidate without white space at its ends, which a lone metaspace brings."""
    found = context[start:end]
    start += len(found) - len(found.lstrip())
    found = found.strip()
    return found, start_score, end_score, start, start + len(found)


def _best(found: Iterator[tuple], n_best: int) -> list[tuple]:
    """The first few that have a text of their own."""
    kept: dict[str, tuple] = {}
    for candidate in found:
        if candidate[0] and candidate[0] not in kept:
            kept[candidate[0]] = candidate
            if len(kept) == n_best:
                break
    return list(kept.values())


def _fallback(outputs: Mapping[str, np.ndarray], features: Features) -> np.ndarray:
    """For each row the window with the best span: first and last piece, and the score; the earlier window if equal."""
    score = np.asarray(outputs["best_score"], np.float64)
    order = np.lexsort((np.arange(len(score)), -score, features.row_of))
    best = order[np.searchsorted(features.row_of[order], np.arange(len(features.question)))]
    shift = features.first[best] - features.offset()[best]
    first, last = (np.asarray(outputs[name])[best] + shift for name in ("best_start", "best_end"))
    return np.stack([first, last, score[best]], axis=1)


def _cut(features: Features, row: int, first: float, last: float, score: float) -> tuple:
    """The span found by search; nothing where the context has no piece at all."""
    text = features.context[row]
    if not np.isfinite(score):
        return "", 0.0, 0.0, -1, -1
    base = features.pieces.splits[text]
    start, end = features.pieces.begin[base + int(first)], features.pieces.end[base + int(last)]
    return _trimmed(features.words(text), int(start), int(end), float(score), 0.0)


def _with_probabilities(found: list[tuple]) -> tuple[Candidate, ...]:
    """Softmax of the joint scores over what was kept."""
    scores = np.array([start + end for _, start, end, _, _ in found])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    return tuple(
        Candidate(text, float(share), start_score, end_score, start, end)
        for share, (text, start_score, end_score, start, end) in zip(shares, found, strict=True)
    )
