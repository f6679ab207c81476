# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Which rows stand in which step: a pure function of (seed, step), whatever the number of devices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

PAD = -1  # the index of a row that is not there


@dataclasses.dataclass(frozen=True)
class Shape:
    """The static shape of a batch: rows, and the length of each view."""

    rows: int
    lengths: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{self.rows} × " + ", ".join(f"{view} {length}" for view, length in self.lengths)


@dataclasses.dataclass(frozen=True)
class Planned:
    """One step: the indices of its rows (`PAD` where there is none) and its shape."""

    index: np.ndarray
    shape: Shape


class Plan:
    """Batches of rows of like length, in an order that depends on seed and epoch alone.

    A row's bucket is chosen by the first view, the dearest; the others take their own maximum in that
    bucket. After the shuffle each bucket gives its full batches; what is left of all buckets is joined,
    sorted by length and cut: ⌈rows / batch⌉ steps an epoch, one of them short.
    """

    def __init__(self, lengths: Mapping[str, np.ndarray], *, batch: int, edges: tuple[int, ...], seed: int) -> None:
        self.lengths, self.batch, self.edges, self.seed = dict(lengths), batch, np.asarray(edges), seed
        self.view = next(iter(self.lengths))
        self.rows = len(self.lengths[self.view])
        self.bucket = np.searchsorted(self.edges, self.lengths[self.view]).astype(np.int32)
        self.steps_per_epoch = -(-self.rows // batch)
        self._kept: tuple[int, list[np.ndarray]] = (-1, [])

    @functools.cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """One static shape a bucket, smallest first."""
        used = np.unique(self.bucket)
        running = {
            view: np.maximum.accumulate([_round_up(values[self.bucket == b].max()) for b in used])
            for view, values in self.lengths.items()
            if view != self.view
        }
        return tuple(
            Shape(self.batch, ((self.view, int(self.edges[b])), *((v, int(m[i])) for v, m in running.items())))
            for i, b in enumerate(used)
        )

    def at(self, step: int) -> Planned:
        """The rows of a step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        index = self._epoch(epoch)[position]
        shape = self.shapes[int(np.searchsorted(np.unique(self.bucket), self.bucket[index].max()))]
        return Planned(np.concatenate([index, np.full(self.batch - len(index), PAD, index.dtype)]), shape)

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        kept = self._kept  # read once: another thread may be in another epoch
        if kept[0] != epoch:
            kept = self._kept = (epoch, self._shuffled(epoch))
        return kept[1]

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        order = random.permutation(self.rows)
        full, left = [], []
        for b in np.unique(self.bucket):
            mine = order[self.bucket[order] == b]
            cut = len(mine) // self.batch * self.batch
            full += list(mine[:cut].reshape(-1, self.batch))
            left.append(mine[cut:])
        rest = np.concatenate(left)
        rest = rest[np.argsort(self.lengths[self.view][rest], kind="stable")]
        full += [rest[i : i + self.batch] for i in range(0, len(rest), self.batch)]
        return [full[i] for i in random.permutation(len(full))]


def in_order_of_length(lengths: Mapping[str, np.ndarray], *, batch: int, edges: tuple[int, ...]) -> list[Planned]:
    """Every row once, sorted by length, the last batch padded: how evaluation and teachers read."""
    view = next(iter(lengths))
    order = np.argsort(lengths[view], kind="stable")
    plan = Plan(lengths, batch=batch, edges=edges, seed=0)
    used = np.unique(plan.bucket)
    batches = []
    for start in range(0, len(order), batch):
        index = order[start : start + batch]
        shape = plan.shapes[int(np.searchsorted(used, plan.bucket[index].max()))]
        batches.append(Planned(np.concatenate([index, np.full(batch - len(index), PAD, index.dtype)]), shape))
    return batches


def _round_up(length: int, multiple: int = 16) -> int:
    return -(-int(length) // multiple) * multiple
