# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentence retrieval: vectors of both sides, and how often the nearest text is the translation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from xlkd.data.draw import truncate_keys
from xlkd.data.share import Share
from xlkd.files import Json
from xlkd.languages import is_english
from xlkd.metrics.picture import Axes, fit_axes, make_picture
from xlkd.metrics.retrieval import linear_cka, retrieve, structure_correlation
from xlkd.rows import Cell, Pair
from xlkd.spec.tasks import Task
from xlkd.tasks import Batch, Draw, Features, Outputs, Progress, Records, Scores, metrics, report_nothing
from xlkd.tasks.ragged import pack, pad_texts
from xlkd.tasks.tokenization import TextTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = "parallel"
DRAWN = 12  # sentences in a picture


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Encodes each side of a pair by itself: feature rows are all sources, then all targets, in the order of the pairs.

    `reference` [pairs, D] are another model's vectors of the English sides, with whose structure ours is compared.
    """

    tokenizer: TextTokenizer
    max_length: int
    reference: np.ndarray | None = dataclasses.field(default=None, compare=False)
    name: str = "parallel"
    teacher_views: tuple[str, ...] = ()
    uncut_views: tuple[str, ...] = ()

    def identity(self) -> str:
        return f"parallel 1 {self.tokenizer.identity} {self.max_length}"

    def features(
        self, rows: Sequence[Pair], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        texts = [row.source for row in rows] + [row.target for row in rows]
        joined = [
            self.tokenizer.join(text.ids, self.max_length) for text in self.tokenizer.encode(texts, progress, share)
        ]
        return {
            **pack("ids", [text.ids for text in joined], np.int32),
            **pack("types", [text.types for text in joined], np.int8),
            "keys": truncate_keys([row.key for row in rows] * 2),
        }

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": np.diff(features["ids_at"]).astype(np.int32)}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        text = pad_texts(features, index, lengths["text"], self.tokenizer.pad_id)
        return {"text": text, "mask": (index >= 0).astype(np.float32)}

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], records: Records | None = None
    ) -> Scores:
        """Returns for each pair of languages the accuracy both ways; `retrieval` is their mean.

        `centred` is the same after each language's mean vector is subtracted: what all sentences of a language share
        says nothing about their meaning; `margin` divides the cosine by that of the neighbours; `cls` compares the
        first positions, where the model's outputs have them. `structure` and `cka` compare the translations with the
        reference, `structure_en` the English sides with it, which bounds what can be reached.
        """
        cells = {}
        for cell, own in group_by_languages(rows).items():
            sides = outputs["vectors"][own], outputs["vectors"][own + len(rows)]
            scores = {name: 100 * float(values.mean()) for name, values in score_sentences(*sides).items()}
            cells[cell] = scores | {
                "retrieval": (scores["to_source"] + scores["to_target"]) / 2,  # rounded as by earlier versions
                "centred": sum(_measure_accuracy(*(side - side.mean(0) for side in sides))) / 2,
                "margin": sum(_measure_accuracy(*sides, score="margin")) / 2,
                "n": len(own),
            }
            if "cls" in outputs:
                cells[cell]["cls"] = sum(_measure_accuracy(outputs["cls"][own], outputs["cls"][own + len(rows)])) / 2
            if self.reference is not None:
                cells[cell] |= _compare_structures(self.reference[own], *_put_english_first(rows[int(own[0])], sides))
        return Scores(cells, "retrieval", metrics.RETRIEVAL)

    def picture(
        self, outputs: Outputs, rows: Sequence[Pair], title: str, within: Axes | None = None
    ) -> dict[str, Json]:
        """Draws some sentences in all their languages, on the axes of an earlier picture or on their own."""
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

    def records(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair], share: Share | None = None
    ) -> Records:
        scores = {metric.name: np.zeros(len(rows)) for metric in metrics.RETRIEVAL}
        for own in group_by_languages(rows).values():
            sides = outputs["vectors"][own], outputs["vectors"][own + len(rows)]
            for name, values in score_sentences(*sides).items():
                scores[name][own] = values
        return [
            {
                "key": row.key,
                "id": row.id,
                "group": row.group,
                "set": row.set,
                "source_language": row.source_language,
                "target_language": row.target_language,
                **{name: 100.0 * float(values[i]) for name, values in scores.items()},
            }
            for i, row in enumerate(rows)
        ]

    def report(self, features: Features, rows: Sequence[Pair]) -> dict[str, Json]:
        full = int((self.lengths(features)["text"] >= self.max_length).sum())
        return {"shown": f"{full} rows fill all {self.max_length} tokens", "full": full}


def group_by_languages(rows: Sequence[Pair]) -> dict[Cell, np.ndarray]:
    """Groups the numbers of the examples by their two languages, over all data sets."""
    members: dict[Cell, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(Cell("", (row.source_language, row.target_language)), []).append(i)
    return {cell: np.array(numbers) for cell, numbers in members.items()}


def score_sentences(source: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Retrieves the translation of each sentence by nearest neighbour; returns each metric for each, from 0 to 1."""
    nearest = retrieve(target, source)
    return {metric.name: metric.score(nearest) for metric in metrics.RETRIEVAL}


def _measure_accuracy(
    source: np.ndarray, target: np.ndarray, score: Literal["cosine", "margin"] = "cosine"
) -> tuple[float, float]:
    """Returns the accuracy from target to source and from source to target, in percent."""
    to_source, to_target = retrieve(target, source, score=score).accuracy
    return 100 * to_source, 100 * to_target


def _put_english_first(row: Pair, sides: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sides, the English one first."""
    return sides if is_english(row.source_language) else sides[::-1]


def _compare_structures(reference: np.ndarray, english: np.ndarray, foreign: np.ndarray) -> dict[str, float]:
    """Compares structures, in percent; CKA grows where sentences are few, so compare equal numbers of them."""
    scores = {
        "structure": structure_correlation(foreign, reference),
        "structure_en": structure_correlation(english, reference),
        "cka": linear_cka(foreign, reference),
    }
    return {name: 100 * value for name, value in scores.items() if np.isfinite(value)}


def build(settings: Task, tokenizer: PreTrainedTokenizerFast) -> Parallel:
    return Parallel(TextTokenizer(tokenizer), settings.max_length)
