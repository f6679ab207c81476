# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cuts questions into windows: the question, then as much of the context as fits, with the gold span by characters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.data.share import Share
from xlkd.errors import UserError
from xlkd.rows import Answer, Question, make_key
from xlkd.spec.tasks import QuestionAnswering as Settings
from xlkd.tasks import Features, Progress, report_nothing
from xlkd.tasks.tokenization import TextTokenizer, Tokens

# The tokens of a gold span cover exactly its text, more than its text, or no token overlaps it; or the context has no
# answer
EXACT, WIDE, LOST, ABSENT = range(4)


@dataclasses.dataclass(frozen=True)
class Windows:
    """Questions cut into windows, as flat arrays: tokenized texts, examples that point at texts, and their windows."""

    # the template of a question and a context
    before: np.ndarray  # int32: special tokens before the question
    between: np.ndarray
    after: np.ndarray
    types: np.ndarray  # int32 [5]: token types of the three and of the texts between them, in order
    pad: np.ndarray  # int32: the padding token
    # texts, each once
    token_ids: np.ndarray  # int32 [tokens]: text i has the tokens token_splits[i] to token_splits[i + 1]
    token_begin: np.ndarray  # int32 [tokens]: the characters that each token covers
    token_end: np.ndarray
    token_splits: np.ndarray  # int64 [texts + 1]
    text: np.ndarray  # uint8: all texts in UTF-8, text i from text_splits[i] to text_splits[i + 1]
    text_splits: np.ndarray  # int64 [texts + 1]
    # examples
    question: np.ndarray  # int32: a text
    context: np.ndarray  # int32: a text
    context_language: np.ndarray  # bytes
    query: np.ndarray  # int32: tokens of the question that stay
    gold: np.ndarray  # int8: EXACT, WIDE, LOST, ABSENT
    gold_first: np.ndarray  # int32: a token of the context
    gold_last: np.ndarray  # int32
    # windows
    keys: np.ndarray  # bytes
    row_of: np.ndarray  # int32: the example
    first: np.ndarray  # int32: the window's first token of the context
    count: np.ndarray  # int32: how many of the context's tokens it contains
    best_first: np.ndarray  # int32: the first token that has its maximum context in this window
    best_count: np.ndarray  # int32
    lengths: np.ndarray  # int32
    start: np.ndarray  # int32: gold position in the window, 0 where it does not contain the whole answer
    end: np.ndarray  # int32
    answerable: np.ndarray  # bool

    def __len__(self) -> int:
        return len(self.row_of)

    def select_examples(self, examples: slice, windows: slice) -> Windows:
        """Returns the windows with a part of the examples, whose windows are those of the second part."""
        by_example = ("question", "context", "context_language", "query", "gold", "gold_first", "gold_last")
        by_window = ("keys", "first", "count", "best_first", "best_count", "lengths", "start", "end", "answerable")
        selected = {name: getattr(self, name)[examples] for name in by_example}
        selected |= {name: getattr(self, name)[windows] for name in by_window}
        return dataclasses.replace(self, row_of=self.row_of[windows] - np.int32(examples.start), **selected)

    def text_of(self, number: int) -> str:
        """Returns the text with this number."""
        return self.text[self.text_splits[number] : self.text_splits[number + 1]].tobytes().decode("utf-8")

    def token_characters(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the characters at which the tokens of the text with this number begin and end."""
        tokens = slice(self.token_splits[number], self.token_splits[number + 1])
        return self.token_begin[tokens], self.token_end[tokens]

    def context_offset(self) -> np.ndarray:
        """Returns the position of the context's first token in each window."""
        return len(self.before) + self.query[self.row_of] + len(self.between)

    def to_arrays(self) -> Features:
        """Returns all arrays under their names in the cache of features."""
        return {_name_saved_array(field.name): getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_arrays(cls, features: Mapping[str, np.ndarray]) -> Windows:
        """Restores windows from the arrays of `to_arrays`."""
        return cls(**{field.name: features[_name_saved_array(field.name)] for field in dataclasses.fields(cls)})


# Names in caches that earlier versions wrote too
_SAVED_NAMES = {"before": "frame.first", "between": "frame.middle", "after": "frame.last"}
_SAVED_NAMES |= {"types": "frame.types", "pad": "frame.pad"}
_SAVED_NAMES |= {f"token_{name}": f"pieces.{name}" for name in ("ids", "begin", "end", "splits")}


def _name_saved_array(field: str) -> str:
    return _SAVED_NAMES.get(field, field)


def cut_into_windows(
    rows: Sequence[Question],
    tokenizer: TextTokenizer,
    settings: Settings,
    progress: Progress = report_nothing,
    share: Share | None = None,
) -> Windows:
    """Returns the windows of all examples, in order; each different text is tokenized once."""
    rows = list(rows)
    texts = list(dict.fromkeys(text for row in rows for text in (row.question, row.context)))
    index = {text: i for i, text in enumerate(texts)}
    pad, template, tokens = tokenizer.pad_id, tokenizer.pair, tokenizer.encode(texts, progress, share)
    before, between, after = template.specials
    question = np.array([index[row.question] for row in rows], np.int32)
    context = np.array([index[row.context] for row in rows], np.int32)
    counts = np.diff(tokens.splits).astype(np.int32)
    query = np.minimum(counts[question], settings.max_query_length or settings.max_length)
    room = settings.max_length - template.specials_count - query
    step = _choose_stride(settings, room, rows)

    layouts = [
        lay_windows(*shape) for shape in zip(counts[context].tolist(), room.tolist(), step.tolist(), strict=True)
    ]
    windows_of = np.array([len(windows) for windows in layouts], np.int32)
    first, count, best_first, best_count = np.concatenate(layouts).T
    row_of = np.repeat(np.arange(len(rows), dtype=np.int32), windows_of)
    number = np.concatenate([np.arange(n) for n in windows_of])  # among the windows of its example

    gold, gold_first, gold_last = _find_gold_spans(rows, tokens, context)
    inside = (gold_first[row_of] >= first) & (gold_last[row_of] < first + count) & (gold[row_of] < LOST)
    shift = len(before) + query[row_of] + len(between) - first
    encoded = [text.encode("utf-8") for text in texts]
    return Windows(
        before=before,
        between=between,
        after=after,
        types=template.types,
        pad=np.array(pad, np.int32),
        token_ids=tokens.ids,
        token_begin=tokens.begin,
        token_end=tokens.end,
        token_splits=tokens.splits,
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
        lengths=template.specials_count + query[row_of] + count,
        start=np.where(inside, gold_first[row_of] + shift, 0).astype(np.int32),
        end=np.where(inside, gold_last[row_of] + shift, 0).astype(np.int32),
        answerable=inside,
    )


def _choose_stride(settings: Settings, room: np.ndarray, rows: Sequence[Question]) -> np.ndarray:
    """Returns the distance between the starts of an example's windows; no token is left out between two windows."""
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
def lay_windows(tokens: int, room: int, step: int) -> np.ndarray:
    """Lays windows over a context: int32 [windows, 4] of first, count, and first and count of maximum context.

    A token has its maximum context in the window where it is farthest from the nearer edge, plus 0.01 for each token of
    the window; the earlier window where two are equal. In a window these tokens are neighbours, so two numbers say
    which.
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


def _find_gold_spans(
    rows: Sequence[Question], tokens: Tokens, context: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the first answer of each example in its tokens, as `find_gold_span` does."""
    spans = []
    for row, text in zip(rows, context, strict=True):
        _, begin, end, _ = tokens[text]
        spans.append(find_gold_span(begin, end, row.context, row.answers[0]) if row.answers else (ABSENT, 0, -1))
    gold, first, last = np.array(spans, np.int32).T
    return gold.astype(np.int8), first, last


def find_gold_span(begin: np.ndarray, end: np.ndarray, context: str, answer: Answer) -> tuple[int, int, int]:
    """Returns whether tokens keep an answer (EXACT, WIDE, LOST), and the first and last token that overlap it.

    The context's tokens stand for its characters `begin` to `end` [tokens].
    """
    start = answer.start + len(answer.text) - len(answer.text.lstrip())
    stop = answer.start + len(answer.text.rstrip())
    first = int(np.searchsorted(end, start, "right"))
    last = int(np.searchsorted(begin, stop, "left")) - 1
    if last < first:
        return LOST, 0, -1
    exact = begin[first] <= start and end[last] >= stop and context[begin[first] : end[last]] == context[start:stop]
    return (EXACT if exact else WIDE), first, last
