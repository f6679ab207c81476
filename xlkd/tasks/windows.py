# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Questions to windows: question first, then as much of the context as fits, with the gold span by characters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.errors import UserError
from xlkd.rows import Answer, Question, make_key
from xlkd.spec.tasks import QuestionAnswering as Settings
from xlkd.tasks import Progress, pieces, silent
from xlkd.tasks.pieces import Frame, Pieces

EXACT, WIDE, LOST = 0, 1, 2  # a gold span's pieces cover its text, cover more than it, or there are none


@dataclasses.dataclass(frozen=True)
class Features:
    """Flat arrays: each text's pieces once, rows that point at texts, windows that point at rows."""

    frame: Frame
    pieces: Pieces
    text: np.ndarray  # uint8: all texts in UTF-8, text i from text_splits[i] to text_splits[i + 1]
    text_splits: np.ndarray  # int64 [texts + 1]
    # rows
    question: np.ndarray  # int32: a text
    context: np.ndarray  # int32: a text
    context_language: np.ndarray  # bytes
    query: np.ndarray  # int32: question pieces kept
    gold: np.ndarray  # int8: EXACT, WIDE, LOST
    gold_first: np.ndarray  # int32: a piece of the context
    gold_last: np.ndarray  # int32
    # windows
    keys: np.ndarray  # bytes
    row_of: np.ndarray  # int32
    first: np.ndarray  # int32: the first piece of the context that it holds
    count: np.ndarray  # int32: how many of them
    best_first: np.ndarray  # int32: the first of those that have their maximum context here
    best_count: np.ndarray  # int32
    lengths: np.ndarray  # int32
    start: np.ndarray  # int32: gold position in the window, 0 where it does not hold the whole answer
    end: np.ndarray  # int32
    answerable: np.ndarray  # bool

    def __len__(self) -> int:
        return len(self.row_of)

    def words(self, text: int) -> str:
        """A text by its index."""
        return self.text[self.text_splits[text] : self.text_splits[text + 1]].tobytes().decode("utf-8")

    def offset(self) -> np.ndarray:
        """The position of the context's first piece in each window."""
        return len(self.frame.first) + self.query[self.row_of] + len(self.frame.middle)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as flat arrays, for a cache."""
        flat = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                flat[field.name] = value
            else:
                flat |= {f"{field.name}.{name}": np.asarray(part) for name, part in vars(value).items()}
        return flat

    @classmethod
    def from_arrays(cls, flat: Mapping[str, np.ndarray]) -> Features:
        """The inverse of `to_arrays`."""
        frame = Frame(*(flat[f"frame.{f.name}"] for f in dataclasses.fields(Frame)))
        parts = Pieces(*(flat[f"pieces.{f.name}"] for f in dataclasses.fields(Pieces)))
        names = [f.name for f in dataclasses.fields(cls)[2:]]
        return cls(frame, parts, **{name: flat[name] for name in names})


def features(
    rows: Sequence[Question],
    tokenizer,
    settings: Settings,
    progress: Progress = silent,
) -> Features:
    """All windows of all rows, in order; each different text is tokenized once."""
    rows = list(rows)
    texts = list(dict.fromkeys(text for row in rows for text in (row.question, row.context)))
    index = {text: i for i, text in enumerate(texts)}
    parts, frame = pieces.encode(tokenizer, texts, progress), pieces.frame(tokenizer)
    question = np.array([index[row.question] for row in rows], np.int32)
    context = np.array([index[row.context] for row in rows], np.int32)
    counts = np.diff(parts.splits).astype(np.int32)
    query = np.minimum(counts[question], settings.max_query_length or settings.max_length)
    room = settings.max_length - frame.specials - query
    step = _step(settings, room, rows)

    layouts = [layout(*shape) for shape in zip(counts[context].tolist(), room.tolist(), step.tolist(), strict=True)]
    cut_into = np.array([len(one) for one in layouts], np.int32)
    first, count, best_first, best_count = np.concatenate(layouts).T
    row_of = np.repeat(np.arange(len(rows), dtype=np.int32), cut_into)
    number = np.concatenate([np.arange(n) for n in cut_into])  # among the windows of its row

    gold, gold_first, gold_last = _golds(rows, parts, context)
    inside = (gold_first[row_of] >= first) & (gold_last[row_of] < first + count) & (gold[row_of] != LOST)
    shift = len(frame.first) + query[row_of] + len(frame.middle) - first
    encoded = [text.encode("utf-8") for text in texts]
    return Features(
        frame=frame,
        pieces=parts,
        text=np.frombuffer(b"".join(encoded), np.uint8),
        text_splits=np.cumsum([0, *map(len, encoded)]),
        question=question,
        context=context,
        context_language=np.array([row.context_language for row in rows], "S"),
        query=query,
        gold=gold,
        gold_first=gold_first,
        gold_last=gold_last,
        keys=np.array([make_key(rows[r].key, n) for r, n in zip(row_of, number, strict=True)], "S32"),
        row_of=row_of,
        first=first,
        count=count,
        best_first=best_first,
        best_count=best_count,
        lengths=frame.specials + query[row_of] + count,
        start=np.where(inside, gold_first[row_of] + shift, 0).astype(np.int32),
        end=np.where(inside, gold_last[row_of] + shift, 0).astype(np.int32),
        answerable=inside,
    )


def _step(settings: Settings, room: np.ndarray, rows: Sequence[Question]) -> np.ndarray:
    """How far apart the windows of each row start; never so far that a piece falls between two."""
    step = np.minimum(settings.doc_stride, room)
    if settings.doc_stride_means == "overlap":
        step = room - settings.doc_stride
    if len(short := np.flatnonzero((room < 1) | (step < 1))):
        row = rows[short[0]]
        what = f"max_length={settings.max_length} leaves {max(room[short[0]], 0)} tokens of a window for the context"
        remedy = "raise max_length, or lower max_query_length or doc_stride"
        raise UserError(what, f"{row.set}, id {row.id!r}", remedy)
    return step


@functools.lru_cache(maxsize=65536)
def layout(tokens: int, room: int, step: int) -> np.ndarray:
    """The windows over a context: int32 [windows, 4] of first, count, and the pieces with maximum context here.

    A piece has it in the window where it is farthest from the nearer edge, plus 0.01 for each piece of the window; the
    earlier window where two are equal. In a window these pieces are neighbours, so two numbers say which.
    """
    windows = 1 + max(0, -(-(tokens - room) // step))
    first = np.arange(windows) * step
    count = np.minimum(room, tokens - first)
    best, winner = np.full(tokens, -np.inf), np.zeros(tokens, np.int64)
    for w, (f, c) in enumerate(zip(first.tolist(), count.tolist(), strict=True)):
        score = np.minimum(np.arange(c), np.arange(c)[::-1]) + 0.01 * c
        better = np.flatnonzero(score > best[f : f + c])
        best[f + better], winner[f + better] = score[better], w
    best_first = np.searchsorted(winner, np.arange(windows))
    best_count = np.searchsorted(winner, np.arange(windows), "right") - best_first
    return np.stack([first, count, best_first, best_count], axis=1).astype(np.int32)


def _golds(rows: Sequence[Question], parts: Pieces, context: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What became of each row's first answer, and the context's pieces that overlap it."""
    found = [
        gold_span(parts, int(text), row.context, row.answers[0]) if row.answers else (LOST, 0, -1)
        for row, text in zip(rows, context, strict=True)
    ]
    gold, first, last = np.array(found, np.int32).T
    return gold.astype(np.int8), first, last


def gold_span(parts: Pieces, text: int, context: str, answer: Answer) -> tuple[int, int, int]:
    """What became of an answer (EXACT, WIDE, LOST), and its first and last piece."""
    begin = parts.begin[parts.splits[text] : parts.splits[text + 1]]
    end = parts.end[parts.splits[text] : parts.splits[text + 1]]
    start = answer.start + len(answer.text) - len(answer.text.lstrip())
    stop = answer.start + len(answer.text.rstrip())
    first = int(np.searchsorted(end, start, "right"))
    last = int(np.searchsorted(begin, stop, "left")) - 1
    if last < first:
        return LOST, 0, -1
    exact = begin[first] <= start and end[last] >= stop and context[begin[first] : end[last]] == context[start:stop]
    return (EXACT if exact else WIDE), first, last
