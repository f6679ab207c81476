# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masked and translation language modelling: two texts in a row, some of whose words are masked and predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xlkd.data.draw import draw_uniform, truncate_keys
from xlkd.data.share import Share
from xlkd.files import Json
from xlkd.languages import is_without_spaces
from xlkd.rows import Cell, Pair
from xlkd.spec.tasks import Masked as MaskedSettings
from xlkd.tasks import Batch, Draw, Features, Outputs, Progress, Records, Scores, report_nothing
from xlkd.tasks.ragged import pack, pad_rows, pad_texts, row_lengths
from xlkd.tasks.tokenization import JoinedTexts, TextTokenizer, TextTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = "masked"


@dataclasses.dataclass(frozen=True)
class Masked:
    """Masked language modelling: whole words are drawn, and `mask_tokens` replaces their tokens."""

    tokenizer: TextTokenizer
    max_length: int
    share: float
    name: str = "masked"
    teacher_views: tuple[str, ...] = ()
    uncut_views: tuple[str, ...] = ()

    def identity(self) -> str:
        return f"masked 2 {self.tokenizer.identity} {self.max_length}"

    def features(
        self, rows: Sequence[Pair], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        sources = self.tokenizer.encode([row.source for row in rows], progress, share)
        targets = self.tokenizer.encode([row.target for row in rows], progress, share)
        ids, words, types = [], [], []
        for row, source, target in zip(rows, sources, targets, strict=True):
            joined = self.tokenizer.join_pair(source.ids, target.ids, self.max_length)
            ids.append(joined.ids)
            types.append(joined.types)
            words.append(_number_words(joined, (source, target), (row.source_language, row.target_language)))
        names = [_name_cell(row) for row in rows]
        cells = sorted(set(names))
        return {
            **pack("ids", ids, np.int32),
            **pack("words", words, np.int16),
            **pack("types", types, np.int8),
            "keys": truncate_keys([row.key for row in rows]),
            "cell": np.array([cells.index(name) for name in names], np.int32),
            "cells": np.array(cells),
        }

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": np.diff(features["ids_at"]).astype(np.int32)}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        length = lengths["text"]
        text = pad_texts(features, index, length, self.tokenizer.pad_id)
        words = pad_rows(features, "words", index, length, 0)
        keys = np.where(index >= 0, features["keys"][np.maximum(index, 0)], 0).astype(np.uint64)
        draws = draw_uniform(draw.seed, draw.purpose + " words", draw.step, keys, 1 + int(words.max(initial=0)))
        chosen = (np.take_along_axis(draws, words.astype(np.int64), 1) < self.share) & (words > 0)
        # By the row's own length, so that a row is masked alike in batches of any length; no word is masked in part
        over = chosen & (np.cumsum(chosen, 1) > self.max_masked(row_lengths(features, "ids", index))[:, None])
        chosen &= words < np.where(over, words, np.iinfo(words.dtype).max).min(1)[:, None]
        positions = np.argsort(~chosen, axis=1, kind="stable")[:, : int(self.max_masked(length))].astype(np.int32)
        masked = np.take_along_axis(chosen, positions, 1)
        labels = np.take_along_axis(text["ids"], positions, 1)
        text["ids"] = mask_tokens(self.tokenizer, text["ids"], chosen, draw, keys)
        present = (index >= 0).astype(np.float32)
        weights = masked.astype(np.float32) * present[:, None]
        return {"text": text, "positions": positions, "labels": labels, "weights": weights, "mask": present}

    def max_masked(self, length: int | np.ndarray) -> np.ndarray:
        """Returns the largest number of masked tokens that are scored in a row of this length.

        It depends on the length alone, so that the shapes of arrays are fixed.
        """
        return 4 * np.ceil(1.6 * self.share * np.asarray(length) / 4).astype(np.int64)

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], records: Records | None = None
    ) -> Scores:
        return score_masked(outputs, features)

    def records(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], share: Share | None = None
    ) -> Records:
        return []  # single predicted tokens tell nothing

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Json]:
        full = int((self.lengths(features)["text"] >= self.max_length).sum())
        return {"shown": f"{full} rows fill all {self.max_length} tokens", "full": full}


def build(settings: MaskedSettings, tokenizer: PreTrainedTokenizerFast) -> Masked:
    return Masked(TextTokenizer(tokenizer), settings.max_length, settings.share)


def mask_tokens(
    tokenizer: TextTokenizer, ids: np.ndarray, chosen: np.ndarray, draw: Draw, keys: np.ndarray
) -> np.ndarray:
    """Replaces 80% of the chosen tokens by the mask and 10% by another token; 10% stay."""
    length = ids.shape[1]
    fate = draw_uniform(draw.seed, draw.purpose + " fate", draw.step, keys, length)
    other = tokenizer.random_tokens(draw_uniform(draw.seed, draw.purpose + " other", draw.step, keys, length))
    replaced = np.where(fate < 0.8, tokenizer.mask_id, np.where(fate < 0.9, other, ids))
    return np.where(chosen, replaced, ids).astype(np.int32)


def score_masked(outputs: Outputs, features: Features) -> Scores:
    """Returns by cell the share of the masked tokens that are predicted."""
    cells = {}
    for i, name in enumerate(features["cells"]):
        own = features["cell"] == i
        right, count = (float(outputs[key][own].sum()) for key in ("right", "count"))
        cells[Cell.parse(str(name))] = {"accuracy": 100 * right / max(count, 1.0), "n": int(own.sum())}
    return Scores(cells, "accuracy")


def _name_cell(row: Pair) -> str:
    """Returns the language of a row; for a row in two languages both, with an arrow between them."""
    return row.target_language if row.source_language == row.target_language else f"→{row.target_language}"


def _number_words(joined: JoinedTexts, texts: Sequence[TextTokens], languages: Sequence[str]) -> np.ndarray:
    """Returns the number of each token's word, from 1; 0 for specials. Without spaces each token counts as a word."""
    words, last = np.zeros(len(joined.ids), np.int16), 0
    for (start, stop), text, language in zip(joined.spans, texts, languages, strict=True):
        count = stop - start
        within = np.arange(count) if is_without_spaces(language) else text.words[:count]
        words[start:stop] = within + 1 + last
        last = int(words[start:stop].max(initial=last))
    return words
