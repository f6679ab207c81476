# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentence pairs: vectors of both sides, and how often the nearest of the other language is the translation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from xlkd.data.draw import truncate_keys
from xlkd.metrics.picture import Axes, fit_axes, make_picture
from xlkd.metrics.retrieval import linear_cka, retrieve, structure_correlation
from xlkd.rows import Cell, Pair
from xlkd.spec.tasks import Task
from xlkd.tasks import Draw, Features, Progress, Scores, silent
from xlkd.tasks.text import Template, padded, ragged

DRAWN = 12  # sentences in a picture


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
            "keys": truncate_keys([row.key for row in rows] * 2),
        }

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": np.diff(features["ids_at"]).astype(np.int32)}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> dict[str, Any]:
        text = padded(features, index, lengths["text"], self.template.pad)
        return {"text": text, "mask": (index >= 0).astype(np.float32)}

    def score(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> Scores:
        """Accuracy both ways for each pair of languages; `retrieval` is their mean.

        `centred` is the same after each language's mean vector is taken off: what a language shares in all its
        sentences says nothing of their meaning; `margin` divides the cosine by that of the neighbours; `cls` is read
        at the first position. `structure` and `cka` are of the translations and the reference, `structure_en` of the
        English sides and the reference: what could be reached.
        """
        cells = {}
        for name, mine in by_languages(rows).items():
            sides = outputs["vectors"][mine], outputs["vectors"][mine + len(rows)]
            to_source, to_target = _accuracy(*sides)
            cells[name] = {
                "retrieval": (to_source + to_target) / 2,
                "to_target": to_target,
                "to_source": to_source,
                "centred": sum(_accuracy(*(side - side.mean(0) for side in sides))) / 2,
                "margin": sum(_accuracy(*sides, score="margin")) / 2,
                "n": len(mine),
            }
            if "cls" in outputs:
                cells[name]["cls"] = sum(_accuracy(outputs["cls"][mine], outputs["cls"][mine + len(rows)])) / 2
            if self.reference is not None:
                cells[name] |= _structure(self.reference[mine], *_english_first(rows[int(mine[0])], sides))
        return Scores(cells, "retrieval")

    def picture(
        self, outputs: dict[str, np.ndarray], rows: Sequence[Pair], title: str, within: Axes | None = None
    ) -> dict[str, Any]:
        """Some sentences in all their languages, on the axes of an earlier picture or on axes of their own."""
        vectors = outputs["vectors"]
        groups = list(dict.fromkeys(row.group for row in rows))[:DRAWN]
        shown = [i for i, row in enumerate(rows) if row.group in groups]
        places, links = {}, []
        for i in shown:
            row = rows[i]
            sides = (row.source_language, row.source, i), (row.target_language, row.target, i + len(rows))
            places |= {(language, text): (at, row.id) for language, text, at in sides if (language, text) not in places}
            links.append(tuple((language, text) for language, text, _ in sides))
        order = {name: number for number, name in enumerate(places)}
        return make_picture(
            title,
            np.stack([vectors[at] for at, _ in places.values()]),
            [language for language, _ in places],
            [id for _, id in places.values()],
            [(order[a], order[b]) for a, b in links],
            within or fit_axes(vectors),
        )

    def records(self, outputs: dict[str, np.ndarray], features: Features, rows: Sequence[Pair]) -> list[dict[str, Any]]:
        to_source, to_target = np.zeros(len(rows)), np.zeros(len(rows))
        for mine in by_languages(rows).values():
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


def by_languages(rows: Sequence[Pair]) -> dict[Cell, np.ndarray]:
    """Returns the numbers of the rows of each two languages, whatever their data set."""
    members: dict[Cell, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(Cell("", (row.source_language, row.target_language)), []).append(i)
    return {cell: np.array(numbers) for cell, numbers in members.items()}


def _accuracy(source: np.ndarray, target: np.ndarray, score: str = "cosine") -> tuple[float, float]:
    """Target to source and source to target, in percent."""
    to_source, to_target = retrieve(target, source, score=score).accuracy
    return 100 * to_source, 100 * to_target


def _english_first(row: Pair, sides: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return sides if row.source_language == "en" else sides[::-1]


def _structure(reference: np.ndarray, english: np.ndarray, foreign: np.ndarray) -> dict[str, float]:
    """In percent, like all else here; CKA grows where sentences are few, so compare equal numbers of them."""
    found = {
        "structure": structure_correlation(foreign, reference),
        "structure_en": structure_correlation(english, reference),
        "cka": linear_cka(foreign, reference),
    }
    return {name: 100 * value for name, value in found.items() if np.isfinite(value)}


def build(settings: Task, tokenizer: Any) -> Parallel:
    return Parallel(Template(tokenizer), settings.max_length)
