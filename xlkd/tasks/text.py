# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens as arrays: a tokenizer's template for one text and for two, ragged rows, padded views."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xlkd.errors import UserError
from xlkd.tasks import Progress, silent

BLOCK = 4096

Frame = list[tuple[int, int]]  # (piece, or -1 - number of the text; token type) in order


class Encoding(NamedTuple):
    """One text without specials: pieces, words they belong to, characters they cover."""

    ids: list[int]
    words: list[int]
    offsets: list[tuple[int, int]]


class Sequenced(NamedTuple):
    """A row as the model reads it; `spans` says where each text lies in it."""

    ids: np.ndarray
    types: np.ndarray
    spans: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Template:
    """How a tokenizer frames one text and two, learned by asking it rather than by its class."""

    tokenizer: Any  # a fast tokenizer of transformers

    def __post_init__(self) -> None:
        self.backend.no_truncation()
        self.backend.no_padding()

    @property
    def backend(self) -> Any:
        return self.tokenizer.backend_tokenizer

    @functools.cached_property
    def identity(self) -> str:
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    @property
    def pad(self) -> int:
        if self.tokenizer.pad_token_id is None:
            raise UserError("has no token for padding", "tokenizer", "add pad_token to its tokenizer_config.json")
        return self.tokenizer.pad_token_id

    @property
    def mask(self) -> int:
        if self.tokenizer.mask_token_id is None:
            raise UserError("has no mask token", "tokenizer", "masked language modelling needs one")
        return self.tokenizer.mask_token_id

    def random_piece(self, uniform: np.ndarray) -> np.ndarray:
        """A piece that is no special for each number in [0, 1)."""
        return self._ordinary[(uniform * len(self._ordinary)).astype(np.int64)]

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> list[Encoding]:
        """Each text cut into pieces, without specials; each different text once."""
        unique, known = list(dict.fromkeys(texts)), {}
        for at in range(0, len(unique), BLOCK):  # the tokenizer's own threads share each block
            block = unique[at : at + BLOCK]
            found = self.backend.encode_batch(block, add_special_tokens=False)
            known |= {t: Encoding(e.ids, e.word_ids, e.offsets) for t, e in zip(block, found, strict=True)}
            progress(at + len(block), len(unique))
        return [known[text] for text in texts]

    def single(self, ids: Sequence[int], max_length: int) -> Sequenced:
        return _fill(self._one, (ids[: max_length - len(self._one) + 1],))

    def pair(self, a: Sequence[int], b: Sequence[int], max_length: int) -> Sequenced:
        """Two texts, the longer one cut first where they do not fit."""
        room = max_length - (len(self._two) - 2)
        keep_a = min(len(a), max(room - len(b), (room + 1) // 2))
        keep_b = min(len(b), room - keep_a)
        return _fill(self._two, (a[:keep_a], b[:keep_b]))

    def specials(self, texts: int) -> int:
        """How many tokens the frame of one or two texts adds."""
        return len(self._one) - 1 if texts == 1 else len(self._two) - 2

    @functools.cached_property
    def _one(self) -> Frame:
        return self._frame("a")

    @functools.cached_property
    def _two(self) -> Frame:
        return self._frame("a", "a")

    @functools.cached_property
    def _ordinary(self) -> np.ndarray:
        """All pieces but the specials."""
        return np.setdiff1d(np.arange(len(self.tokenizer)), self.tokenizer.all_special_ids).astype(np.int32)

    def _frame(self, *texts: str) -> Frame:
        found = self.backend.encode(*texts, add_special_tokens=True)
        frame, last = [], None
        for i, t, text in zip(found.ids, found.type_ids, found.sequence_ids, strict=True):
            if text is None:
                frame.append((i, t))
            elif text != last:
                frame.append((-1 - text, t))
            last = text
        return frame


def _fill(frame, texts) -> Sequenced:
    ids, types, spans = [], [], {}
    for item, kind in frame:
        piece = texts[-1 - item] if item < 0 else [item]
        if item < 0:
            spans[-1 - item] = (len(ids), len(ids) + len(piece))
        ids.extend(piece)
        types.extend([kind] * len(piece))
    return Sequenced(np.array(ids, np.int32), np.array(types, np.int8), tuple(spans[i] for i in range(len(texts))))


def ragged(name: str, rows: Sequence[Any], dtype) -> dict[str, np.ndarray]:
    """Rows of unequal length as one flat array and where each begins."""
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    flat = np.concatenate([np.asarray(row, dtype) for row in rows]) if len(rows) else np.zeros(0, dtype)
    return {name: flat, f"{name}_at": starts}


def counts(features: dict[str, np.ndarray], name: str, index: np.ndarray) -> np.ndarray:
    """How long the rows of a ragged array are; one that is not there counts 1, so that attention has a key."""
    at, starts = np.maximum(index, 0), features[f"{name}_at"]
    return np.where(index >= 0, starts[at + 1] - starts[at], 1)


def padded(
    features: dict[str, np.ndarray], index: np.ndarray, length: int, pad: int, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Texts of a batch as an encoder reads them: ids, mask and types, [rows, length] each."""
    return {
        "ids": take(features, f"{prefix}ids", index, length, pad),
        "mask": (np.arange(length) < counts(features, f"{prefix}ids", index)[:, None]).astype(np.int32),
        "types": take(features, f"{prefix}types", index, length, 0).astype(np.int32),
    }


def take(features: dict[str, np.ndarray], name: str, index: np.ndarray, length: int, pad: int) -> np.ndarray:
    """[rows, length] of a ragged array; rows that are not there and the ends of short ones are `pad`."""
    flat, starts = features[name], features[f"{name}_at"]
    at = np.maximum(index, 0)
    counts = np.where(index >= 0, starts[at + 1] - starts[at], 0)[:, None]
    columns = np.arange(length)[None]
    where = np.minimum(starts[at][:, None] + columns, max(len(flat) - 1, 0))
    return np.where(columns < counts, flat[where], pad).astype(flat.dtype)
