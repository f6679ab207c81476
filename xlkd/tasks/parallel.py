# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentence pairs: vectors of both sides, and how often the nearest of the other language is the translation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data.draw import row_keys
from xlkd.metrics.retrieval import retrieve
from xlkd.rows import Pair
from xlkd.tasks import Draw, Features, Progress, Scores, silent
from xlkd.tasks.text import Template, counts, ragged, take


@dataclasses.dataclass(frozen=True)
class Parallel:
    """A feature row is one side of a pair: sources first, then targets, in the order of the pairs.

    `reference` [pairs, D] are another model's vectors of the English sides: how alike are the structures?
    """

    template: Template
    max_length: int
    reference: np.ndarray | None = dataclasses.field(default=None, compare=False)
    name: str = "parallel"

    def identity(self) -> str:
        return f"parallel 1 {self.template.identity} {self.max_length}"

    def features(self, rows: Sequence[Pair], progress: Progress = silent) -> Features:
        texts = [row.source for row in rows] + [row.target for row in rows]
        cut = [self.template.single(e.ids, self.max_length) for e in self.template.encode(texts, progress)]
        return {
            **ragged("ids", [c.ids for c in cut], np.int32),
            **ragged("types", [c.types for c in cut], np.int8),
            "keys": row_keys([row.key for row in rows] * 2),
        }

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": np.diff(features["ids_at"]).astype(np.int32)}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> dict[str, Any]:
        length = lengths["text"]
        text = {
            "ids": take(features, "ids", index, length, self.template.pad),
            "mask": (np.arange(length) < counts(features, "ids", index)[:, None]).astype(np.int32),
            "types": take(features, "types", index, length, 0).astype(np.int32),
        }
        return {"text": text, "mask": (index >= 0).astype(np.float32)}

    def score(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> Scores:
        """Accuracy both ways for each pair of languages; `retrieval` is their mean.

        `centred` is the same after each language's mean vector is taken off: what a language shares in all its
        sentences says nothing of their meaning; `margin` divides the cosine by that of the neighbours; `cls` is read
        at the first position. `structure` and `cka` are of the translations and the reference, `structure_en` of the
        English sides and the reference: what could be reached.
        """
        vectors = outputs["vectors"]
        cells = {}
        names = np.array([f"{row.source_language}-{row.target_language}" for row in rows])
        for name in dict.fromkeys(names):
            mine = np.flatnonzero(names == name)
            sides = vectors[mine], vectors[mine + len(rows)]
            to_source, to_target = _accuracy(*sides)
            cells[str(name)] = {
                "retrieval": (to_source + to_target) / 2,
                "to_target": to_target,
                "to_source": to_source,
                "centred": sum(_accuracy(*(side - side.mean(0) for side in sides))) / 2,
                "n": len(mine),
            }
        return Scores(cells, "retrieval", {})

    def records(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> list[dict[str, Any]]:
        to_source, to_target = np.zeros(len(rows)), np.zeros(len(rows))
        names = np.array([f"{row.source_language}-{row.target_language}" for row in rows])
        for name in dict.fromkeys(names):
            mine = np.flatnonzero(names == name)
            found = retrieve(outputs["vectors"][mine + len(rows)], outputs["vectors"][mine])
            to_source[mine], to_target[mine] = found.to_english, found.from_english
        return [
            {
                "key": row.key,
                "id": row.id,
                "group": row.group,
                "set": row.set,
                "source_language": row.source_language,
                "target_language": row.target_language,
                "to_source": 100.0 * float(to_source[i]),
                "to_target": 100.0 * float(to_target[i]),
            }
            for i, row in enumerate(rows)
        ]

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Any]:
        full = int((self.lengths(features)["text"] >= self.max_length).sum())
        return {"shown": f"{full} rows fill all {self.max_length} tokens", "full": full}


def _accuracy(source: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Target to source and source to target, in percent."""
    to_source, to_target = retrieve(target, source).accuracy
    return 100 * to_source, 100 * to_target


def build(config, tokenizer) -> Parallel:
    return Parallel(Template(tokenizer), config.max_length)
