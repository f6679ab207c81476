# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decodes scores of positions into answers: candidates of all windows of a question, in one total order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from xlkd.tasks.windows import Settings, Windows

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
    """The candidates of each example, best first, at least one, and the score of "no answer".

    `searched` marks examples whose best positions gave none, so that the context was searched.
    """

    candidates: tuple[tuple[Candidate, ...], ...]
    searched: np.ndarray  # bool [rows]
    null_scores: np.ndarray  # float64 [rows]

    @property
    def texts(self) -> list[str]:
        return [candidates[0].text for candidates in self.candidates]

    @property
    def null_odds(self) -> np.ndarray:
        """Returns the score of "no answer" minus that of the best candidate [rows]."""
        return self.null_scores - np.array([best.start_score + best.end_score for best, *_ in self.candidates])

    def near_ties(self, margin: float = 1e-4) -> list[int]:
        """Returns the examples whose two best candidates may change places with the last bits of the scores."""
        best = [[span.start_score + span.end_score for span in candidates[:2]] for candidates in self.candidates]
        return [row for row, two in enumerate(best) if len(two) == 2 and two[0] - two[1] < margin]


class _Span(NamedTuple):
    """A candidate before its probability is known."""

    text: str
    start_score: float
    end_score: float
    start: int
    end: int


def decode(outputs: Mapping[str, np.ndarray], windows: Windows, settings: Settings) -> Predictions:
    """Returns the answers to all examples from the outputs for each window, in order.

    `null_scores` [windows, 2] are the scores of start and end at position 0, the label of "no answer": an example has
    the lowest sum of its windows, since a window that does not contain the answer says nothing against the others.
    `start_scores`, `start_index`, `end_scores`, `end_index` [windows, k] are the best positions, best first, the lower
    index where two are equal; `best_score`, `best_start`, `best_end` [windows] the best span of the window's context
    that is not too long, and its positions, -inf where there is none.
    """
    pooled = _pool_pairs(outputs, windows, settings)
    bounds = np.searchsorted(pooled["row"], np.arange(len(windows.question) + 1))
    fallback = _search_spans(outputs, windows)
    candidates, searched = [], np.zeros(len(windows.question), bool)
    for row in range(len(windows.question)):
        best = _keep_best(_cut_spans(pooled, bounds[row], bounds[row + 1], windows, row), settings.n_best)
        if not best:
            searched[row] = True
            empty = _Span("empty", 0.0, 0.0, -1, -1)
            best = [empty if settings.published_empty else _cut_searched_span(windows, row, *fallback[row])]
        candidates.append(_add_probabilities(best))
    by_window = np.asarray(outputs["null_scores"], np.float64).sum(axis=1)
    nulls = np.minimum.reduceat(by_window, np.searchsorted(windows.row_of, np.arange(len(windows.question))))
    return Predictions(tuple(candidates), searched, nulls)


def add_null(candidates: Sequence[Candidate], score: float, n_best: int) -> tuple[Candidate, ...]:
    """Returns the `n_best` candidates with "no answer", an empty text, as one of them; it is added if it is not.

    Of equal scores that of a span comes first. Probabilities are over the candidates that are returned.
    """
    null = _Span("", score, 0.0, -1, -1)
    spans = [_Span(each.text, each.start_score, each.end_score, each.start, each.end) for each in candidates]
    ranked = [*(span for span in spans if span.text), null]
    ranked.sort(key=lambda span: span.start_score + span.end_score, reverse=True)
    return _add_probabilities(ranked[:n_best] if null in ranked[:n_best] else [*ranked[:n_best], null])


def _pool_pairs(outputs: Mapping[str, np.ndarray], windows: Windows, settings: Settings) -> dict[str, np.ndarray]:
    """Returns all valid pairs of positions: their example, tokens and scores, by example and then best first.

    Equal joint scores go by window, then by the rank of the start, then by that of the end.
    """
    blocks = [_find_valid_pairs(outputs, windows, settings, at) for at in range(0, len(windows), _BLOCK)]
    pooled = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    # Windows of an example are in order, and pairs in the order of their ranks; a stable sort keeps both orders
    order = np.lexsort((-(pooled["start_score"] + pooled["end_score"]), pooled["row"]))
    return {name: values[order] for name, values in pooled.items()}


def _find_valid_pairs(
    outputs: Mapping[str, np.ndarray], windows: Windows, settings: Settings, at: int
) -> dict[str, np.ndarray]:
    """Returns the pairs of a block of windows that are spans of the context and not too long."""
    block = slice(at, at + _BLOCK)
    offset, first, count = (values[block, None] for values in (windows.context_offset(), windows.first, windows.count))
    starts = np.asarray(outputs["start_index"])[block] - offset  # from here on: tokens of the window's context
    ends = np.asarray(outputs["end_index"])[block] - offset
    start_ok, end_ok = (starts >= 0) & (starts < count), (ends >= 0) & (ends < count)
    if settings.max_context:
        best = windows.best_first[block, None] - first
        start_ok &= (starts >= best) & (starts < best + windows.best_count[block, None])
    long = ends[:, None, :] - starts[:, :, None]
    valid = start_ok[:, :, None] & end_ok[:, None, :] & (long >= 0) & (long < settings.max_answer_tokens)
    window, i, j = np.nonzero(valid)
    return {
        "row": windows.row_of[block][window],
        "first": starts[window, i] + first[window, 0],
        "last": ends[window, j] + first[window, 0],
        "start_score": np.asarray(outputs["start_scores"], np.float64)[block][window, i],
        "end_score": np.asarray(outputs["end_scores"], np.float64)[block][window, j],
    }


def _cut_spans(pooled: Mapping[str, np.ndarray], low: int, high: int, windows: Windows, row: int) -> Iterator[_Span]:
    """Yields the pooled candidates low to high of an example, cut from its context."""
    context = windows.text_of(windows.context[row])
    begin, end = windows.token_characters(windows.context[row])
    for at in range(low, high):
        start, stop = int(begin[pooled["first"][at]]), int(end[pooled["last"][at]])
        yield _trim_candidate(context, start, stop, float(pooled["start_score"][at]), float(pooled["end_score"][at]))


def _trim_candidate(context: str, start: int, end: int, start_score: float, end_score: float) -> _Span:
    """Returns a candidate without white space at its ends, which a lone metaspace brings."""
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return _Span(text, start_score, end_score, start, start + len(text))


def _keep_best(spans: Iterable[_Span], n_best: int) -> list[_Span]:
    """Returns the first few candidates that have a text of their own."""
    by_text: dict[str, _Span] = {}
    for span in spans:
        if span.text and span.text not in by_text:
            by_text[span.text] = span
            if len(by_text) == n_best:
                break
    return list(by_text.values())


def _search_spans(outputs: Mapping[str, np.ndarray], windows: Windows) -> np.ndarray:
    """Returns the best span of each example's windows: first and last token, and score; the earlier window if equal."""
    score = np.asarray(outputs["best_score"], np.float64)
    order = np.lexsort((np.arange(len(score)), -score, windows.row_of))
    best = order[np.searchsorted(windows.row_of[order], np.arange(len(windows.question)))]
    shift = windows.first[best] - windows.context_offset()[best]
    first, last = (np.asarray(outputs[name])[best] + shift for name in ("best_start", "best_end"))
    return np.stack([first, last, score[best]], axis=1)


def _cut_searched_span(windows: Windows, row: int, first: float, last: float, score: float) -> _Span:
    """Returns the span of `_search_spans` as a candidate; an empty text where the context has no tokens."""
    if not np.isfinite(score):
        return _Span("", 0.0, 0.0, -1, -1)
    begin, end = windows.token_characters(windows.context[row])
    context = windows.text_of(windows.context[row])
    return _trim_candidate(context, int(begin[int(first)]), int(end[int(last)]), float(score), 0.0)


def _add_probabilities(spans: Sequence[_Span]) -> tuple[Candidate, ...]:
    """Returns the candidates with the softmax of their joint scores."""
    scores = np.array([span.start_score + span.end_score for span in spans])
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    return tuple(
        Candidate(span.text, float(share), span.start_score, span.end_score, span.start, span.end)
        for share, span in zip(shares, spans, strict=True)
    )
