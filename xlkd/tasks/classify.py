# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Classification of one text or a pair: labels by name, scores by language."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xlkd.data import labels as label_names
from xlkd.data.draw import truncate_keys
from xlkd.data.share import Share
from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.metrics import labels as label_metrics
from xlkd.rows import Cell, Labelled
from xlkd.spec.tasks import Classify as ClassifySettings
from xlkd.tasks import Batch, Draw, Features, Outputs, Progress, Records, Scores, metrics, report_nothing
from xlkd.tasks.labelled import describe_labelled
from xlkd.tasks.ragged import pack, pad_texts
from xlkd.tasks.tokenization import TextTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = "classify"
NONE = -1  # in place of a label or a language that is not known
ROUTE = "logits_"  # begins the name of logits by another way through the model than that of the example's language


class Prediction(NamedTuple):
    """The best label of an example, and the probability of each label."""

    label: str
    probabilities: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Classify:
    """The classification of a text or a pair of texts, in the view `text`.

    `labels` are in the order of the logits; where there are none the examples decide, and their features record it.
    `languages` are those that a method distinguishes, in its own order: a batch numbers each example's language among
    them. Examples without a label are refused in training unless `unlabelled` is `keep`: then their `labelled` is 0.
    """

    tokenizer: TextTokenizer
    max_length: int
    labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    ordered: bool = False  # labels are numbers on a scale, as stars are
    unlabelled: str = "refuse"
    name: str = "classify"
    teacher_views: tuple[str, ...] = ()
    uncut_views: tuple[str, ...] = ()

    def identity(self) -> str:
        return f"classify 1 {self.tokenizer.identity} {self.max_length} {self.labels}"

    def features(
        self, rows: Sequence[Labelled], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        rows = list(rows)
        order = self.labels or collect_labels(rows)
        texts = [row.text for row in rows] + [row.second or "" for row in rows]
        tokens = self.tokenizer.encode(texts, progress, share)
        ids, types, lost = [], [], []
        for i, row in enumerate(rows):
            first, second = tokens[i].ids, tokens[i + len(rows)].ids
            if row.second is None:
                joined = self.tokenizer.join(first, self.max_length)
                full_length = len(first) + self.tokenizer.single.specials_count
            else:
                joined = self.tokenizer.join_pair(first, second, self.max_length)
                full_length = len(first) + len(second) + self.tokenizer.pair.specials_count
            ids.append(joined.ids)
            types.append(joined.types)
            lost.append(full_length - len(joined.ids))
        languages = sorted({row.language for row in rows})
        return {
            **pack("ids", ids, np.int32),
            **pack("types", types, np.int8),
            "keys": truncate_keys([row.key for row in rows]),
            "label": number_labels(rows, order),
            "labels": np.array(order, np.str_),
            "lost": np.array(lost, np.int32),
            "language": np.array([languages.index(row.language) for row in rows], np.int32),
            "languages": np.array(languages, np.str_),
        }

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": np.diff(features["ids_at"]).astype(np.int32)}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        """Returns the view `text` and by row `labels`, `labelled` (0 where there is none), `language` and `mask`."""
        if draw.for_training and self.unlabelled == "refuse" and (features["label"] == NONE).any():
            count = int((features["label"] == NONE).sum())
            remedy = "set config.task.unlabelled=keep to train on the others, or name another split"
            raise UserError(f"{count} rows without a label", "config.data.train", remedy)
        if draw.for_training and self.languages:
            self._refuse_other_languages(features)
        at, present = np.maximum(index, 0), index >= 0
        label = np.where(present, features["label"][at], NONE)
        tags = features["languages"].tolist()
        numbers = np.array([self.languages.index(tag) if tag in self.languages else NONE for tag in tags], np.int32)
        return {
            "text": pad_texts(features, index, lengths["text"], self.tokenizer.pad_id),
            "labels": np.maximum(label, 0).astype(np.int32),
            "labelled": (label != NONE).astype(np.float32),
            "language": np.where(present, numbers[features["language"][at]], NONE).astype(np.int32),
            "mask": present.astype(np.float32),
        }

    def decode(self, outputs: Outputs, features: Features) -> list[Prediction]:
        """Returns the prediction for each example, also for those without a label."""
        order = self._find_label_order(outputs["logits"], features)
        logits = outputs["logits"].astype(np.float64)
        shares = np.exp(logits - logits.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        best = label_metrics.predict_labels(outputs["logits"])
        return [
            Prediction(order[label], dict(zip(order, map(float, probabilities), strict=True)))
            for label, probabilities in zip(best, shares, strict=True)
        ]

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Labelled], records: Records | None = None
    ) -> Scores:
        """Scores the examples with a label, in percent, by cell; `majority` is the share of the most frequent label.

        Logits by another route, as `logits_en`, give `accuracy_via_en` beside the others.
        """
        order = self._find_label_order(outputs["logits"], features)
        gold, predicted = features["label"], label_metrics.predict_labels(outputs["logits"])
        members: dict[Cell, list[int]] = {}
        for i, row in enumerate(rows):
            if gold[i] != NONE:
                members.setdefault(Cell.from_example(row), []).append(i)
        if not members:
            raise UserError("no row has a label", "config.data.eval", "such rows can be predicted, not scored")
        scale = self._read_scale(order)
        cells = {
            cell: _score_cell(gold[own].tolist(), predicted[own].tolist(), order, scale)
            for cell, own in members.items()
        }
        by_route = _score_routes(outputs, gold)
        for cell, own in members.items():
            cells[cell] |= {name: float(values[own].mean()) for name, values in by_route.items()}
        return Scores(cells, metrics.CLASSIFICATION[0].name, metrics.CLASSIFICATION)

    def records(
        self, outputs: Outputs, features: Features, rows: Sequence[Labelled], share: Share | None = None
    ) -> Records:
        predictions = self.decode(outputs, features)
        order, gold = features["labels"].tolist(), features["label"]
        scores = _score_examples(gold, label_metrics.predict_labels(outputs["logits"]), order)
        scores |= _score_routes(outputs, gold)
        return [
            {
                "key": row.key,
                "id": row.id,
                "group": row.group,
                "set": row.set,
                "language": row.language,
                "gold": order[gold[i]] if gold[i] != NONE else None,
                "prediction": predictions[i].label,
                **({name: float(values[i]) for name, values in scores.items()} if gold[i] != NONE else {}),
            }
            for i, row in enumerate(rows)
        ]

    def report(self, features: Features, rows: Sequence[Labelled]) -> dict[str, Json]:
        """Describes the examples, and counts the tokens that `max_length` cuts off."""
        description = describe_labelled(rows)
        names = describe_names(rows, features["labels"].tolist())
        lost, lengths = features["lost"], self.lengths(features)["text"]
        members: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            members.setdefault(str(Cell.from_example(row)), []).append(i)
        cut = {
            cell: {
                "cut_percent": 100 * float((lost[own] > 0).mean()),
                "tokens_lost": int(lost[own].sum()),
                "tokens": int(lengths[own].sum()),
            }
            for cell, own in members.items()
        }
        share = f"{100 * float((lost > 0).mean()):.1f}% of the rows are cut at {self.max_length} tokens"
        shown = "; ".join([description["shown"], *names, share, *self._count_languages(features)])
        return description | {"shown": shown, "cut": cut, "labels": features["labels"].tolist()}

    def _count_languages(self, features: Features) -> list[str]:
        """Counts the examples in `languages`, which shows a misspelt language; empty without `languages`."""
        if not self.languages:
            return []
        tags = features["languages"][features["language"]].tolist()
        own = sum(tag in self.languages for tag in tags)
        return [f"{own} rows in {', '.join(self.languages)}, {len(tags) - own} in others"]

    def _refuse_other_languages(self, features: Features) -> None:
        others = sorted(set(features["languages"].tolist()) - set(self.languages))
        if others:
            what = f"training rows in {', '.join(others)}, which task.languages does not name"
            raise UserError(what, "config.data.train", f"leave them out, or add them to {', '.join(self.languages)}")

    def _find_label_order(self, logits: np.ndarray, features: Features) -> tuple[str, ...]:
        """Returns the labels in the order of the logits; refuses logits of another number of labels."""
        order = tuple(features["labels"].tolist())
        if logits.shape[-1] != len(order):
            raise ValueError(f"{logits.shape[-1]} logits for {len(order)} labels")
        return order

    def _read_scale(self, order: Sequence[str]) -> list[float] | None:
        """Returns the labels as numbers if they are a scale, such as stars, else None."""
        stars = len(order) > 2 and set(order) <= set(label_names.STARS)
        if not self.ordered and not stars:
            return None
        try:
            return [float(label) for label in order]
        except ValueError:
            what = f"labels {', '.join(order)} are not numbers"
            raise UserError(what, "config.task.ordered", "set it to False") from None


def build(settings: ClassifySettings, tokenizer: PreTrainedTokenizerFast) -> Classify:
    """Builds the task for a tokenizer."""
    labels = settings.labels
    if len(set(labels)) < len(labels):
        raise UserError(f"a label occurs twice in {', '.join(labels)}", "config.task.labels", "name each once")
    return Classify(
        TextTokenizer(tokenizer),
        settings.max_length,
        labels=labels,
        languages=settings.supervised(),
        ordered=settings.ordered,
        unlabelled=settings.unlabelled,
    )


def collect_labels(rows: Sequence[Labelled]) -> tuple[str, ...]:
    """Returns the labels that occur, in their customary order."""
    return label_names.order_labels({row.label for row in rows if row.label is not None})


def number_labels(rows: Sequence[Labelled], order: Sequence[str]) -> np.ndarray:
    """Returns the number of each example's label among the labels, matched by name; NONE where it has none."""
    numbers = {None: NONE, **_match_labels_of(rows, order)}
    for row in rows:
        if row.label not in numbers:
            remedy = "spell it as there, name it in config.task.labels, or leave such rows out"
            raise UserError(
                f"label {row.label!r} is not one of {', '.join(order)}", f"row {row.id} in {row.language}", remedy
            )
    return np.array([numbers[row.label] for row in rows], np.int32)


def describe_names(rows: Sequence[Labelled], order: Sequence[str]) -> list[str]:
    """Describes which labels of the examples are matched to a label of another spelling; empty where none is."""
    matches = _match_labels_of(rows, order)
    others = sorted(f"{name!r} as {order[number]!r}" for name, number in matches.items() if name != order[number])
    return [f"labels matched by name: {', '.join(others)}"] if others else []


def _match_labels_of(rows: Sequence[Labelled], order: Sequence[str]) -> dict[str, int]:
    return label_names.match_names({row.label for row in rows if row.label is not None}, order)


def match_labels(theirs: Sequence[str], ours: Sequence[str], where: str, remedy: str) -> np.ndarray:
    """Returns where another model's logits have each of our labels, so that `logits[..., order]` is in our order.

    Labels that are not the same are refused.
    """
    matches = label_names.match_names(ours, theirs)
    if len(theirs) == len(ours) == len(matches):
        return np.array([matches[label] for label in ours], np.int32)
    what = f"its labels ({', '.join(theirs)}) do not match those of the task ({', '.join(ours)})"
    raise UserError(what, where, remedy)


def _score_routes(outputs: Outputs, gold: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the accuracy of each example by each other route that the outputs have, NaN where there is no label."""
    routes = {name.removeprefix(ROUTE): logits for name, logits in outputs.items() if name.startswith(ROUTE)}
    return {
        f"accuracy_via_{route}": np.where(gold == NONE, np.nan, 100.0 * (gold == label_metrics.predict_labels(logits)))
        for route, logits in routes.items()
    }


def _score_examples(gold: np.ndarray, predicted: np.ndarray, order: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the metrics of each example in percent; meaningless where there is no label."""
    pairs = [(order[g], order[p]) for g, p in zip(gold.tolist(), predicted.tolist(), strict=True)]
    by_example = [metric for metric in metrics.CLASSIFICATION if metric.over == "example"]
    return {metric.name: 100.0 * np.array([metric.score(*pair) for pair in pairs], np.float64) for metric in by_example}


def _score_cell(
    gold: list[int], predicted: list[int], order: Sequence[str], scale: list[float] | None
) -> dict[str, float]:
    """Returns the metrics of a cell in percent, its majority class and size, and `mae` where labels are a scale."""
    counts = label_metrics.confusion_matrix(gold, predicted, len(order))
    scores: dict[str, float] = {}
    for metric in metrics.CLASSIFICATION:
        if metric.over == "cell":
            scores[metric.name] = 100 * float(metric.score(counts))
        else:
            values = [metric.score(order[g], order[p]) for g, p in zip(gold, predicted, strict=True)]
            scores[metric.name] = 100 * (sum(values) / len(values))
    scores |= {"majority": 100 * label_metrics.majority_accuracy(gold), "n": len(gold)}
    if scale is not None:
        scores["mae"] = label_metrics.mean_absolute_error([scale[g] for g in gold], [scale[p] for p in predicted])
    return scores
