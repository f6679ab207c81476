# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word alignment: tokens of a sentence and of its translation that are each other's nearest, against gold links."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xlkd.data.atlas import grammar
from xlkd.data.draw import truncate_keys
from xlkd.data.share import Share
from xlkd.data.sources.align import AlignedPair
from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.metrics.retrieval import Link, count_links, mutual_links
from xlkd.rows import Pair
from xlkd.spec.tasks import Task
from xlkd.tasks import Batch, Draw, Features, Outputs, Progress, Records, Scores, metrics, report_nothing
from xlkd.tasks.parallel import group_by_languages
from xlkd.tasks.ragged import pack, pad_rows, pad_texts
from xlkd.tasks.tokenization import TextTokenizer, TextTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = "parallel"
SIDES = ("source", "target")
OUTSIDE = -1  # in place of a word: a special token, or one of white space
_BLANKS = re.compile(r"\S+")


@dataclasses.dataclass(frozen=True)
class WordAlignment:
    """Pairs with gold word links: a feature row is a pair, whose sides are encoded each by itself."""

    tokenizer: TextTokenizer
    max_length: int
    name: str = "alignment"
    teacher_views: tuple[str, ...] = ()
    uncut_views: tuple[str, ...] = ()

    def identity(self) -> str:
        return f"alignment 1 {self.tokenizer.identity} {self.max_length}"

    def features(
        self, rows: Sequence[Pair], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        if bare := next((row for row in rows if row.links is None), None):
            raise UserError("a pair without word links", f"row {bare.id} of {bare.set}", "see the source `align`")
        features = {"keys": truncate_keys([row.key for row in rows])}
        for side in SIDES:
            tokens = self.tokenizer.encode([getattr(row, side) for row in rows], progress, share)
            sides = [self._join_side(text, row, side) for text, row in zip(tokens, rows, strict=True)]
            for at, (name, dtype) in enumerate((("ids", np.int32), ("types", np.int8), ("words", np.int16))):
                features |= pack(f"{side}_{name}", [arrays[at] for arrays in sides], dtype)
        return features

    def _join_side(self, tokens: TextTokens, row: Pair, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns ids, token types and words of one side with its special tokens."""
        text = getattr(row, side)
        joined = self.tokenizer.join(tokens.ids, self.max_length)
        words = np.full(len(joined.ids), OUTSIDE, np.int16)
        start, stop = joined.spans[0]
        spans = _find_word_spans(row, text, getattr(row, f"{side}_language"))
        words[start:stop] = tokens.number_by_spans(text, spans)[: stop - start]
        return joined.ids, joined.types, words

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {side: np.diff(features[f"{side}_ids_at"]).astype(np.int32) for side in SIDES}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        batch: Batch = {"mask": (index >= 0).astype(np.float32)}
        for side in SIDES:
            text = pad_texts(features, index, lengths[side], self.tokenizer.pad_id, f"{side}_")
            words = pad_rows(features, f"{side}_words", index, lengths[side], OUTSIDE)
            batch[side] = text | {"inside": words != OUTSIDE}
        return batch

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], records: Records | None = None
    ) -> Scores:
        """Sums the counts over the sentences of each pair of languages, then divides; `aer`: the lower the better."""
        predicted, cells = self._predict_links(outputs, features), {}
        for cell, own in group_by_languages(rows).items():
            sure = [rows[i].links or () for i in own]
            possible = [row.possible if isinstance(row, AlignedPair) else () for row in (rows[i] for i in own)]
            counts = count_links([predicted[i] for i in own], sure, possible)
            cells[cell] = {metric.name: 100 * metric.score(counts) for metric in metrics.ALIGNMENT} | {"n": len(own)}
        return Scores(cells, "aer", metrics.ALIGNMENT)

    def records(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], share: Share | None = None
    ) -> Records:
        return []  # the error rate divides sums over sentences: it is not a mean of scores of each

    def _predict_links(self, outputs: Outputs, features: Features) -> list[set[Link]]:
        """Returns the word links of each pair: of tokens that are each other's nearest."""
        at = {side: features[f"{side}_words_at"] for side in SIDES}
        return [
            mutual_links(
                outputs["forth"][i],
                outputs["back"][i],
                *(features[f"{side}_words"][at[side][i] : at[side][i + 1]] for side in SIDES),
            )
            for i in range(len(at["source"]) - 1)
        ]

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Json]:
        full = sum(int((lengths >= self.max_length).sum()) for lengths in self.lengths(features).values())
        return {"shown": f"{full} sides fill all {self.max_length} tokens", "full": full}


def build(settings: Task, tokenizer: PreTrainedTokenizerFast) -> WordAlignment:
    return WordAlignment(TextTokenizer(tokenizer), settings.max_length)


def _find_word_spans(row: Pair, text: str, language: str) -> list[tuple[int, int]]:
    """Returns the words that the links count: cut at white space, by characters in the atlas's Chinese."""
    if row.set == "atlas":
        return grammar.find_word_spans(text, language)
    return [match.span() for match in _BLANKS.finditer(text)]
