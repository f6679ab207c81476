# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which rows stand in which step: a pure function of (seed, step), whatever the number of devices."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from xlkd.data.buckets import round_up
from xlkd.data.sampling import compute_shares

PAD = -1  # the index of a row that is not there


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static shape of a batch: rows, and the length of each view."""

    rows: int
    lengths: tuple[tuple[str, int], ...]

    def with_rows(self, rows: int) -> Shape:
        return dataclasses.replace(self, rows=rows)

    def __str__(self) -> str:
        return f"{self.rows} × " + ", ".join(f"{view} {length}" for view, length in self.lengths)


@dataclasses.dataclass(frozen=True)
class Planned:
    """One step: the indices of its rows (`PAD` where there is none) and its shape."""

    index: np.ndarray
    shape: Shape

    @property
    def examples(self) -> int:
        """Count the rows that are not padding."""
        return int((self.index != PAD).sum())

    def pad_rows(self, rows: int) -> Planned:
        """Add padding at the end, so that every example keeps its place."""
        padding = np.full(rows - len(self.index), PAD, self.index.dtype)
        return Planned(np.concatenate([self.index, padding]), self.shape.with_rows(rows))


class Plan:
    """Batches of rows of like length, in an order that depends on seed and epoch alone.

    A row's bucket is chosen by the first view, the dearest; the others take their own maximum in that
    bucket. After the shuffle each bucket gives its full batches; what is left of all buckets is joined,
    sorted by length and cut: ⌈rows / batch⌉ steps an epoch, one of them short.
    """

    def __init__(self, lengths: Mapping[str, np.ndarray], *, batch: int, edges: tuple[int, ...], seed: int) -> None:
        self.lengths, self.batch, self.seed = dict(lengths), batch, seed
        self.view = next(iter(self.lengths))
        self.rows = len(self.lengths[self.view])
        used, self.bucket = np.unique(np.searchsorted(edges, self.lengths[self.view]), return_inverse=True)
        self.edges = np.asarray(edges)[used]  # those of buckets that hold rows
        self.steps_per_epoch = -(-self.rows // batch)
        self._kept: tuple[int, list[np.ndarray]] = (-1, [])

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """One static shape a bucket, smallest first."""
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

    def at(self, step: int) -> Planned:
        """The rows of a step."""
        epoch, position = self._at(step)
        return self.padded(self._epoch(epoch)[position])

    def padded(self, index: np.ndarray) -> Planned:
        """These rows in the first shape that holds them all."""
        return Planned(index, self.shapes[self.bucket[index].max()]).pad_rows(self.batch)

    def _at(self, step: int) -> tuple[int, int]:
        """Epoch, and place in it."""
        return divmod(step, self.steps_per_epoch)

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        kept = self._kept  # read once: another thread may be in another epoch
        if kept[0] != epoch:
            kept = self._kept = (epoch, self._shuffled(epoch))
        return kept[1]

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        batches = [batch for order in self._orders(random, epoch) for batch in self._cut(order)]
        return [batches[i] for i in random.permutation(len(batches))]

    def _orders(self, random: np.random.Generator, epoch: int) -> list[np.ndarray]:
        """The rows of an epoch, shuffled; no batch holds rows of two of these."""
        return [random.permutation(self.rows)]

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        full, left = [], []
        for b in range(len(self.edges)):
            mine = order[self.bucket[order] == b]
            cut = len(mine) // self.batch * self.batch
            full += list(mine[:cut].reshape(-1, self.batch))
            left.append(mine[cut:])
        rest = np.concatenate(left)
        rest = rest[np.argsort(self.lengths[self.view][rest], kind="stable")]
        return full + [rest[i : i + self.batch] for i in range(0, len(rest), self.batch)]


class ByLanguage(Plan):
    """As many rows an epoch, but each language in its share, rows ** exponent; `mixed` or one language a batch.

    A language runs through its own shuffled rows and starts again, shuffled anew, when they end.
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
        self.of = {int(language): np.flatnonzero(languages == language) for language in np.unique(languages)}
        self.quota = _apportioned(
            compute_shares({str(k): len(rows) for k, rows in self.of.items()}, exponent), self.rows
        )
        if not mixed:
            self.steps_per_epoch = sum(-(-count // self.batch) for count in self.quota.values())

    def _orders(self, random: np.random.Generator, epoch: int) -> list[np.ndarray]:
        parts = [self._stream(k, epoch * self.quota[str(k)], self.quota[str(k)]) for k in self.of]
        return [random.permutation(np.concatenate(parts))] if self.mixed else parts

    def _stream(self, language: int, start: int, count: int) -> np.ndarray:
        """So many rows of a language from a place in its endless order."""
        rows = self.of[language]
        first = start // len(rows)
        passes = range(first, -(-(start + count) // len(rows)))
        keys = [[self.seed, (language + 1 << 32) + number] for number in passes]
        order = [np.random.Generator(np.random.Philox(key=key)).permutation(rows) for key in keys]
        return np.concatenate([rows[:0], *order])[start - first * len(rows) :][:count]


class Redrawn(Plan):
    """Each epoch over rows of its own; epochs may differ in length."""

    def __init__(self, lengths: Mapping[str, np.ndarray], *, members: tuple[np.ndarray, ...], **plan: Any) -> None:
        super().__init__(lengths, **plan)
        self.members = members
        sizes = [-(-len(rows) // self.batch) for rows in members]
        *starts, self.steps = np.cumsum([0, *sizes]).tolist()
        self.starts, self.steps_per_epoch = tuple(starts), sizes[0]

    def _at(self, step: int) -> tuple[int, int]:
        epoch = int(np.searchsorted(self.starts, step, side="right")) - 1
        return epoch, step - self.starts[epoch]

    def _orders(self, random: np.random.Generator, epoch: int) -> list[np.ndarray]:
        return [random.permutation(self.members[epoch])]


def _apportioned(parts: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that add up to the total, by largest remainder."""
    floors = {name: math.floor(part * total) for name, part in parts.items()}
    by_rest = sorted(parts, key=lambda name: floors[name] - parts[name] * total)
    return {name: floors[name] + (name in by_rest[: total - sum(floors.values())]) for name in parts}


def in_order_of_length(lengths: Mapping[str, np.ndarray], *, batch: int, edges: tuple[int, ...]) -> list[Planned]:
    """Every row once, sorted by length, the last batch padded: how evaluation and teachers read."""
    plan = Plan(lengths, batch=batch, edges=edges, seed=0)
    order = np.argsort(lengths[plan.view], kind="stable")
    return [plan.padded(order[start : start + batch]) for start in range(0, len(order), batch)]
