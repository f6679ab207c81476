# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word alignment: pieces of a sentence and of its translation that are each other's nearest, against gold links."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data.atlas import grammar
from xlkd.data.draw import truncate_keys
from xlkd.errors import UserError
from xlkd.metrics.retrieval import Link, count_links, mutual_links
from xlkd.rows import Pair
from xlkd.spec.tasks import Task
from xlkd.tasks import Draw, Features, Progress, Scores, pieces, silent
from xlkd.tasks.parallel import by_languages
from xlkd.tasks.text import Template, padded, ragged, take

ROWS = "parallel"
SIDES = ("source", "target")
OUTSIDE = -1  # a special token, or a piece of white space: it belongs to no word
_BLANKS = re.compile(r"\S+")


@dataclasses.dataclass(frozen=True)
class WordAlignment:
    """A feature row is a pair with gold links, each side encoded by itself."""

    template: Template
    max_length: int
    name: str = "alignment"

    def identity(self) -> str:
        return f"alignment 1 {self.template.identity} {self.max_length}"

    def features(self, rows: Sequence[Pair], progress: Progress = silent) -> Features:
        if bare := next((row for row in rows if row.links is None), None):
            raise UserError("a pair without word links", f"row {bare.id} of {bare.set}", "see the source `align`")
        found = {"keys": truncate_keys([row.key for row in rows])}
        for side in SIDES:
            texts = [getattr(row, side) for row in rows]
            cut = pieces.encode(self.template.tokenizer, texts, progress)
            sides = [self._side(cut, i, row, side) for i, row in enumerate(rows)]
            for at, (name, dtype) in enumerate((("ids", np.int32), ("types", np.int8), ("words", np.int16))):
                found |= ragged(f"{side}_{name}", [of[at] for of in sides], dtype)
        return found

    def _side(self, cut: pieces.Pieces, number: int, row: Pair, side: str) -> tuple[np.ndarray, ...]:
        at = slice(cut.splits[number], cut.splits[number + 1])
        text, language = getattr(row, side), getattr(row, f"{side}_language")
        word = np.full(len(text) + 1, OUTSIDE, np.int16)
        for of, (begin, end) in enumerate(_words(row, text, language)):
            word[begin:end] = of
        begin, end = cut.begin[at], cut.end[at]
        single = self.template.single(cut.ids[at], self.max_length)
        words = np.full(len(single.ids), OUTSIDE, np.int16)
        start, stop = single.spans[0]
        words[start:stop] = np.where(end > begin, word[begin], OUTSIDE)[: stop - start]
        return single.ids, single.types, words

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {side: np.diff(features[f"{side}_ids_at"]).astype(np.int32) for side in SIDES}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> dict[str, Any]:
        batch: dict[str, Any] = {"mask": (index >= 0).astype(np.float32)}
        for side in SIDES:
            text = padded(features, index, lengths[side], self.template.pad, f"{side}_")
            batch[side] = text | {"inside": take(features, f"{side}_words", index, lengths[side], OUTSIDE) != OUTSIDE}
        return batch

    def score(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> Scores:
        """Counts are summed over the sentences of a pair of languages, then divided; `aer`: the lower the better."""
        predicted, cells = self._links(outputs, features), {}
        for cell, mine in by_languages(rows).items():
            found = count_links(*zip(*(_gold(predicted[i], rows[i]) for i in mine), strict=True))
            cells[cell] = {
                "aer": 100 * found.error_rate,
                "precision": 100 * found.precision,
                "recall": 100 * found.recall,
                "n": len(mine),
            }
        return Scores(cells, "aer")

    def records(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> list[dict[str, Any]]:
        return []  # the rate is of sums over sentences: it is no mean of what each has

    def _links(self, outputs: dict[str, np.ndarray], features: Features) -> list[set[Link]]:
        at = {side: features[f"{side}_words_at"] for side in SIDES}
        return [
            mutual_links(
                outputs["forth"][i],
                outputs["back"][i],
                *(features[f"{side}_words"][at[side][i] : at[side][i + 1]] for side in SIDES),
            )
            for i in range(len(at["source"]) - 1)
        ]

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Any]:
        full = sum(int((of >= self.max_length).sum()) for of in self.lengths(features).values())
        return {"shown": f"{full} sides fill all {self.max_length} tokens", "full": full}


def build(settings: Task, tokenizer: Any) -> WordAlignment:
    return WordAlignment(Template(tokenizer), settings.max_length)


def _gold(predicted: set[Link], row: Pair) -> tuple[set[Link], set[Link], set[Link]]:
    return predicted, set(row.links), set(getattr(row, "possible", ()))


def _words(row: Pair, text: str, language: str) -> list[tuple[int, int]]:
    """As the links count them: cut at white space; the atlas counts characters where a language has none."""
    if row.set == "atlas":
        return grammar.find_word_spans(text, language)
    return [match.span() for match in _BLANKS.finditer(text)]
