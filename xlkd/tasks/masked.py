# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masked and translation language modelling: two texts in a row, some of their words to be found again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data.draw import draw_uniform, truncate_keys
from xlkd.languages import WITHOUT_SPACES
from xlkd.rows import Cell, Pair
from xlkd.spec.tasks import Masked as MaskedSettings
from xlkd.tasks import Draw, Features, Progress, Scores, silent
from xlkd.tasks.text import Template, counts, padded, ragged, take


@dataclasses.dataclass(frozen=True)
class Masked:
    """Whole words are drawn, and `hidden` says what becomes of their pieces."""

    template: Template
    max_length: int
    share: float
    name: str = "masked"

    def identity(self) -> str:
        return f"masked 2 {self.template.identity} {self.max_length}"

    def features(self, rows: Sequence[Pair], progress: Progress = silent) -> Features:
        sides = [self.template.encode([getattr(row, side) for row in rows], progress) for side in ("source", "target")]
        ids, words, types = [], [], []
        for row, a, b in zip(rows, *sides, strict=True):
            pair = self.template.pair(a.ids, b.ids, self.max_length)
            ids.append(pair.ids)
            types.append(pair.types)
            words.append(_words(pair, (a, b), (row.source_language, row.target_language)))
        named = [_cell(row) for row in rows]
        cells = sorted(set(named))
        return {
            **ragged("ids", ids, np.int32),
            **ragged("words", words, np.int16),
            **ragged("types", types, np.int8),
            "keys": truncate_keys([row.key for row in rows]),
            "cell": np.array([cells.index(name) for name in named], np.int32),
            "cells": np.array(cells),
        }

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": np.diff(features["ids_at"]).astype(np.int32)}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> dict[str, Any]:
        length = lengths["text"]
        text = padded(features, index, length, self.template.pad)
        words = take(features, "words", index, length, 0)
        keys = np.where(index >= 0, features["keys"][np.maximum(index, 0)], 0).astype(np.uint64)
        chosen = draw_uniform(draw.seed, draw.purpose + " words", draw.step, keys, 1 + int(words.max(initial=0)))
        wanted = (np.take_along_axis(chosen, words.astype(np.int64), 1) < self.share) & (words > 0)
        # By the row's own length, so that a row is masked alike in batches of any length; no word is cut
        over = wanted & (np.cumsum(wanted, 1) > self.budget(counts(features, "ids", index))[:, None])
        wanted &= words < np.where(over, words, np.iinfo(words.dtype).max).min(1)[:, None]
        positions = np.argsort(~wanted, axis=1, kind="stable")[:, : int(self.budget(length))].astype(np.int32)
        masked = np.take_along_axis(wanted, positions, 1)
        labels = np.take_along_axis(text["ids"], positions, 1)
        text["ids"] = hidden(self.template, text["ids"], wanted, draw, keys)
        present = (index >= 0).astype(np.float32)
        weights = masked.astype(np.float32) * present[:, None]
        return {"text": text, "positions": positions, "labels": labels, "weights": weights, "mask": present}

    def budget(self, length: int | np.ndarray) -> np.ndarray:
        """Positions that are scored in a row: a number fixed by its length, so that the head's shape is static."""
        return 4 * np.ceil(1.6 * self.share * np.asarray(length) / 4).astype(np.int64)

    def score(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> Scores:
        return found_again(outputs, features)

    def records(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> list[dict[str, Any]]:
        return []  # words that were found again tell nothing one by one

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Any]:
        full = int((self.lengths(features)["text"] >= self.max_length).sum())
        return {"shown": f"{full} rows fill all {self.max_length} tokens", "full": full}


def build(settings: MaskedSettings, tokenizer: Any) -> Masked:
    return Masked(Template(tokenizer), settings.max_length, settings.share)


def hidden(template: Template, ids: np.ndarray, wanted: np.ndarray, draw: Draw, keys: np.ndarray) -> np.ndarray:
    """Of the wanted pieces 80% become the mask, 10% another piece, 10% stay."""
    length = ids.shape[1]
    fate = draw_uniform(draw.seed, draw.purpose + " fate", draw.step, keys, length)
    other = template.random_piece(draw_uniform(draw.seed, draw.purpose + " other", draw.step, keys, length))
    new = np.where(fate < 0.8, template.mask, np.where(fate < 0.9, other, ids))
    return np.where(wanted, new, ids).astype(np.int32)


def found_again(outputs: dict[str, np.ndarray], features: Features) -> Scores:
    """The share of the hidden pieces that were found, by cell."""
    cells = {}
    for i, name in enumerate(features["cells"]):
        mine = features["cell"] == i
        right, count = (float(outputs[key][mine].sum()) for key in ("right", "count"))
        cells[Cell.parse(str(name))] = {"accuracy": 100 * right / max(count, 1.0), "n": int(mine.sum())}
    return Scores(cells, "accuracy")


def _cell(row: Pair) -> str:
    """The language of a row in one language; of a row in two, an arrow and the second."""
    return row.target_language if row.source_language == row.target_language else f"→{row.target_language}"


def _words(pair, encodings, languages) -> np.ndarray:
    """The number of the word that each token belongs to, from 1; 0 for specials. Without spaces a piece is a word."""
    words, last = np.zeros(len(pair.ids), np.int16), 0
    for (start, stop), encoding, language in zip(pair.spans, encodings, languages, strict=True):
        n = stop - start
        within = np.arange(n) if language in WITHOUT_SPACES else np.array(encoding.words[:n], np.int64)
        words[start:stop] = within + 1 + last
        last = int(words[start:stop].max(initial=last))
    return words
