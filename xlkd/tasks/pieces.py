# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Text to pieces with the characters they stand for, and how a tokenizer joins two texts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from xlkd.errors import UserError
from xlkd.tasks import Progress, silent

_BLOCK = 1024  # texts at a time: what follows holds some words for every character
_WHITE = np.zeros(0x110000, bool)
_WHITE[[point for point in range(0x3001) if chr(point).isspace()]] = True


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The pieces of many texts, one after another; text i has the pieces splits[i] to splits[i + 1].

    A piece stands for the characters begin to end of its text: no white space at the ends, and what the tokenizer
    let fall (a combining or a zero-width mark) belongs to the piece before it in the word. A piece that is white
    space alone has begin = end.
    """

    ids: np.ndarray  # int32 [pieces]
    begin: np.ndarray  # int32 [pieces]
    end: np.ndarray  # int32 [pieces]
    splits: np.ndarray  # int64 [texts + 1]


@dataclasses.dataclass(frozen=True)
class Frame:
    """What stands before, between and after a pair of texts, and the type of each part."""

    first: np.ndarray  # int32 ids
    middle: np.ndarray
    last: np.ndarray
    types: np.ndarray  # int32 [5]: first, text, middle, second text, last
    pad: np.ndarray  # int32, the padding token

    @property
    def specials(self) -> int:
        return len(self.first) + len(self.middle) + len(self.last)


def encode(tokenizer, texts: Sequence[str], progress: Progress = silent) -> Pieces:
    """The pieces of each text by itself, without special tokens; a text's pieces do not depend on the others."""
    parts = []
    for at in range(0, len(texts), _BLOCK):  # the tokenizer's own threads share each block
        parts.append(_encode(tokenizer, texts[at : at + _BLOCK]))
        progress(min(at + _BLOCK, len(texts)), len(texts))
    return join(parts)


def _encode(tokenizer, texts: Sequence[str]) -> Pieces:
    encodings = _plain(tokenizer).encode_batch(list(texts), add_special_tokens=False)
    counts = np.array([len(encoding.ids) for encoding in encodings], np.int64)
    splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    ids = np.fromiter(itertools.chain.from_iterable(e.ids for e in encodings), np.int32, splits[-1])
    ends = itertools.chain.from_iterable(span for e in encodings for span in e.offsets)
    spans = np.fromiter(ends, np.int64, 2 * splits[-1]).reshape(-1, 2)
    blank = np.isin(ids, _blank_ids(tokenizer))
    begin, end = _normalised(texts, np.repeat(np.arange(len(texts)), counts), spans, blank)
    return Pieces(ids, begin, end, splits)


def join(parts: Sequence[Pieces]) -> Pieces:
    """The pieces of all texts of all parts."""
    ids, begin, end = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "begin", "end"))
    counts = np.concatenate([np.diff(part.splits) for part in parts])
    return Pieces(ids, begin, end, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))


def frame(tokenizer) -> Frame:
    """Read off from a probe: the tokenizer's own way of joining a pair, whatever its class is called."""
    if tokenizer.pad_token_id is None:
        raise UserError("the tokenizer has no padding token", remedy="name one in its tokenizer_config.json")
    probe = _plain(tokenizer).encode("a", "a")
    part = np.array([-1 if sequence is None else sequence for sequence in probe.sequence_ids])
    a, b = np.flatnonzero(part == 0), np.flatnonzero(part == 1)
    cuts = (a[0], a[-1] + 1, b[0], b[-1] + 1)
    first, _, middle, _, last = np.split(np.array(probe.ids, np.int32), cuts)
    types = [part[0] if len(part) else 0 for part in np.split(np.array(probe.type_ids, np.int32), cuts)]
    return Frame(first, middle, last, np.array(types, np.int32), np.array(tokenizer.pad_token_id, np.int32))


def _plain(tokenizer):
    """The tokenizer's own machine, set to cut and pad nothing."""
    machine = tokenizer.backend_tokenizer
    if machine.truncation is not None:
        machine.no_truncation()
    if machine.padding is not None:
        machine.no_padding()
    return machine


def _blank_ids(tokenizer) -> list[int]:
    """The lone metaspace, which at the start of a text claims the letter after it."""
    known = tokenizer.convert_tokens_to_ids("▁")
    return [] if known is None or known == tokenizer.unk_token_id else [known]


def _normalised(
    texts: Sequence[str], text_of: np.ndarray, spans: np.ndarray, blank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spans trimmed of white space and widened by what no piece stands for."""
    # all texts end to end, one white character after each, so that no search leaves its text
    characters = np.frombuffer("".join(f"{text} " for text in texts).encode("utf-32-le"), np.uint32)
    closing = np.cumsum([len(text) + 1 for text in texts]) - 1
    base = (closing - [len(text) for text in texts])[text_of]
    white, place, after = _WHITE[characters], np.arange(len(characters)), len(characters)
    next_white = _next(white)
    next_solid = np.append(np.minimum(_next(~white), closing[np.searchsorted(closing, place)]), after)
    last_solid = np.maximum.accumulate(np.where(white, -1, place))

    first, stop = spans[:, 0] + base, spans[:, 1] + base
    begin = next_solid[first]
    end = last_solid[np.maximum(stop - 1, first)] + 1
    solid = (stop > first) & (end > begin) & ~blank
    end = np.where(solid, end, begin)
    # what was let fall ends the piece before it; before the first piece of a word it belongs to none
    following = np.append(begin[1:], after)
    end = np.where(solid, np.maximum(end, np.minimum(next_white[end - 1], following)), end)
    return (begin - base).astype(np.int32), (end - base).astype(np.int32)


def _next(flags: np.ndarray) -> np.ndarray:
    """For each place the first place from there on that is flagged, or the length."""
    places = np.where(flags, np.arange(len(flags)), len(flags))
    return np.minimum.accumulate(places[::-1])[::-1]
