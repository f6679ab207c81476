# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Plans which rows form the batch of a step: a pure function of (seed, step), whatever the number of devices."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xlkd.data.buckets import round_up
from xlkd.data.sampling import compute_shares

PAD = -1  # the index of a padded row


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static shape of a batch: its number of rows, and the length of each view."""

    rows: int
    lengths: tuple[tuple[str, int], ...]

    def with_rows(self, rows: int) -> Shape:
        """Returns the shape with another number of rows."""
        return dataclasses.replace(self, rows=rows)

    def __str__(self) -> str:
        return f"{self.rows} × " + ", ".join(f"{view} {length}" for view, length in self.lengths)


@dataclasses.dataclass(frozen=True)
class PlannedBatch:
    """The batch of a step: the indices of its rows (`PAD` for padding) and its shape."""

    index: np.ndarray
    shape: Shape

    @property
    def examples(self) -> int:
        """Counts the rows that are not padding."""
        return int((self.index != PAD).sum())

    def pad_rows(self, rows: int) -> PlannedBatch:
        """Adds padding at the end, so that every example keeps its place."""
        padding = np.full(rows - len(self.index), PAD, self.index.dtype)
        return PlannedBatch(np.concatenate([self.index, padding]), self.shape.with_rows(rows))


class Plan:
    """Batches of rows of similar length, in an order that depends on seed and epoch alone.

    The bucket of a row is chosen by the first view, the most expensive one; the other views take their own maximum in
    that bucket. After the shuffle each bucket gives its full batches; the remaining rows of all buckets are joined,
    sorted by length and cut: an epoch has ⌈rows / batch⌉ steps, of which one may be short.
    """

    def __init__(self, lengths: Mapping[str, np.ndarray], *, batch: int, edges: tuple[int, ...], seed: int) -> None:
        self.lengths, self.batch, self.seed = dict(lengths), batch, seed
        self.view = next(iter(self.lengths))
        self.rows = len(self.lengths[self.view])
        used, self.bucket = np.unique(np.searchsorted(edges, self.lengths[self.view]), return_inverse=True)
        self.edges = np.asarray(edges)[used]  # of buckets that have rows
        self.steps_per_epoch = -(-self.rows // batch)
        self._current_epoch: tuple[int, list[np.ndarray]] = (-1, [])

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Returns one static shape per bucket, smallest first."""
        buckets = range(len(self.edges))
        running = {
            view: np.maximum.accumulate([round_up(int(values[self.bucket == b].max())) for b in buckets])
            for view, values in self.lengths.items()
            if view != self.view
        }
        return tuple(
            Shape(self.batch, ((self.view, int(self.edges[b])), *((v, int(m[b])) for v, m in running.items())))
            for b in buckets
        )

    def at(self, step: int) -> PlannedBatch:
        """Returns the batch of a step."""
        epoch, position = self._locate(step)
        return self.make_batch(self._get_epoch(epoch)[position])

    def make_batch(self, index: np.ndarray) -> PlannedBatch:
        """Puts rows into the first shape that fits all of them, and pads the batch."""
        return PlannedBatch(index, self.shapes[self.bucket[index].max()]).pad_rows(self.batch)

    def _locate(self, step: int) -> tuple[int, int]:
        """Returns the epoch of a step, and its position there."""
        return divmod(step, self.steps_per_epoch)

    def _get_epoch(self, epoch: int) -> list[np.ndarray]:
        """Returns the batches of an epoch; the last epoch is cached."""
        current = self._current_epoch  # read once: another thread may replace it
        if current[0] != epoch:
            current = self._current_epoch = (epoch, self._shuffle(epoch))
        return current[1]

    def _shuffle(self, epoch: int) -> list[np.ndarray]:
        """Draws the batches of an epoch and their order."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        batches = [batch for order in self._draw_parts(random, epoch) for batch in self._cut(order)]
        return [batches[i] for i in random.permutation(len(batches))]

    def _draw_parts(self, random: np.random.Generator, epoch: int) -> list[np.ndarray]:
        """Returns the shuffled rows of an epoch in parts; no batch has rows of two parts."""
        return [random.permutation(self.rows)]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cuts shuffled rows into batches of similar length."""
        full, leftovers = [], []
        for b in range(len(self.edges)):
            bucket_rows = order[self.bucket[order] == b]
            cut = len(bucket_rows) // self.batch * self.batch
            full += list(bucket_rows[:cut].reshape(-1, self.batch))
            leftovers.append(bucket_rows[cut:])
        remaining = np.concatenate(leftovers)
        remaining = remaining[np.argsort(self.lengths[self.view][remaining], kind="stable")]
        return full + [remaining[i : i + self.batch] for i in range(0, len(remaining), self.batch)]


class LanguagePlan(Plan):
    """Epochs of as many rows, but with each language in its share, rows ** exponent.

    Batches are mixed or of one language. A language runs through its own shuffled rows, and through a new shuffle of
    them when they end.
    """

    def __init__(
        self,
        lengths: Mapping[str, np.ndarray],
        *,
        languages: np.ndarray,
        exponent: float = 1.0,
        mixed: bool = True,
        **plan: Any,
    ) -> None:
        super().__init__(lengths, **plan)
        self.mixed = mixed
        numbers = np.unique(languages).tolist()
        self.rows_by_language = {number: np.flatnonzero(languages == number) for number in numbers}
        self.quota = _apportion(
            compute_shares({str(k): len(rows) for k, rows in self.rows_by_language.items()}, exponent), self.rows
        )
        if not mixed:
            self.steps_per_epoch = sum(-(-count // self.batch) for count in self.quota.values())

    def _draw_parts(self, random: np.random.Generator, epoch: int) -> list[np.ndarray]:
        """Returns the epoch's rows of each language; shuffled in one part if batches may mix languages."""
        parts = [self._take_rows(k, epoch * self.quota[str(k)], self.quota[str(k)]) for k in self.rows_by_language]
        return [random.permutation(np.concatenate(parts))] if self.mixed else parts

    def _take_rows(self, language: int, start: int, count: int) -> np.ndarray:
        """Returns `count` rows of a language from position `start` of its shuffled passes, which never end."""
        rows = self.rows_by_language[language]
        first_pass = start // len(rows)
        passes = range(first_pass, -(-(start + count) // len(rows)))
        keys = [[self.seed, (language + 1 << 32) + number] for number in passes]
        order = [np.random.Generator(np.random.Philox(key=key)).permutation(rows) for key in keys]
        return np.concatenate([rows[:0], *order])[start - first_pass * len(rows) :][:count]


class RedrawnPlan(Plan):
    """Epochs that each have rows of their own, and may differ in length."""

    def __init__(self, lengths: Mapping[str, np.ndarray], *, members: tuple[np.ndarray, ...], **plan: Any) -> None:
        super().__init__(lengths, **plan)
        self.members = members
        sizes = [-(-len(rows) // self.batch) for rows in members]
        *starts, self.steps = np.cumsum([0, *sizes]).tolist()
        self.starts, self.steps_per_epoch = tuple(starts), sizes[0]

    def _locate(self, step: int) -> tuple[int, int]:
        """Returns the epoch of a step, and its position there."""
        epoch = int(np.searchsorted(self.starts, step, side="right")) - 1
        return epoch, step - self.starts[epoch]

    def _draw_parts(self, random: np.random.Generator, epoch: int) -> list[np.ndarray]:
        """Returns the shuffled rows of the epoch's draw."""
        return [random.permutation(self.members[epoch])]


def _apportion(parts: Mapping[str, float], total: int) -> dict[str, int]:
    """Rounds parts of a total to whole numbers that add up to it, by largest remainder."""
    floors = {name: math.floor(part * total) for name, part in parts.items()}
    by_remainder = sorted(parts, key=lambda name: floors[name] - parts[name] * total)
    return {name: floors[name] + (name in by_remainder[: total - sum(floors.values())]) for name in parts}


def plan_by_length(lengths: Mapping[str, np.ndarray], *, batch: int, edges: tuple[int, ...]) -> list[PlannedBatch]:
    """Returns batches of every row once, sorted by length, the last batch padded, for evaluation and teachers."""
    plan = Plan(lengths, batch=batch, edges=edges, seed=0)
    order = np.argsort(lengths[plan.view], kind="stable")
    return [plan.make_batch(order[start : start + batch]) for start in range(0, len(order), batch)]
