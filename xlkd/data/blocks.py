# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Large corpora in blocks of fixed size: step → (epoch, block, position) is arithmetic, and a restart reads one block.

A block holds rows from everywhere in the corpus, by a permutation that is computed, not stored. It is tokenised when
it is entered, the one after it meanwhile, and inside it batches are made as those of a small set.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlkd.data.batches import Plan, Planned, Shape
from xlkd.data.buckets import round_up
from xlkd.data.composition import many
from xlkd.data.permutation import Permutation
from xlkd.errors import UserError
from xlkd.rows import make_key

Features = Mapping[str, np.ndarray]
_SAMPLE = 2048  # rows of the first epoch from which the shapes of the views are chosen


class Place(NamedTuple):
    """Where a step stands."""

    epoch: int
    block: int
    position: int  # of the step in its block


class Blocks:
    """A plan over rows that are tokenised block by block; `at(step).index` counts in `features(step)`.

    Rows of corpora are read together where they come as `compose(…)` or `Joined(rows.parts)`.

    Shapes are fixed beforehand: the first view by `edges`, the others by what a sample of rows needs in that bucket,
    and all of them by `limits` in the last. A row takes the first shape that holds all its views.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        features: Callable[[Sequence[Any]], Features],
        lengths: Callable[[Features], Mapping[str, np.ndarray]],
        *,
        batch: int,
        block: int,
        edges: tuple[int, ...],
        limits: Mapping[str, int],
        seed: int,
    ) -> None:
        if block < batch:
            raise UserError(f"a block of {block} rows holds no batch of {batch}", "data.block", "make it larger")
        self.rows, self._features, self._lengths = rows, features, lengths
        self.batch, self.block, self.edges, self.seed = batch, block // batch * batch, edges, seed
        self.steps_per_epoch = -(-len(rows) // batch)
        self.blocks_per_epoch = -(-len(rows) // self.block)
        self.shapes = self._shapes(limits)
        self._ahead = concurrent.futures.ThreadPoolExecutor(1)
        self._lock, self._entered = threading.Lock(), {}

    def place(self, step: int) -> Place:
        """Epoch, block and position of a step: every block but the last has the same number of steps."""
        epoch, step = divmod(step, self.steps_per_epoch)
        return Place(epoch, *divmod(step, self.block // self.batch))

    def index(self, epoch: int, block: int) -> np.ndarray:
        """The numbers of a block's rows."""
        places = np.arange(block * self.block, min((block + 1) * self.block, len(self.rows)))
        return Permutation(len(self.rows), seed=self.seed, purpose="blocks", epoch=epoch).at(places)

    def features(self, step: int) -> Features:
        """Those of the step's block."""
        return self._enter(self.place(step))[0]

    def at(self, step: int) -> Planned:
        """The rows of a step, counted in its block."""
        place = self.place(step)
        planned = self._enter(place)[1].at(place.position)
        edge = planned.shape.lengths[0][1]
        return Planned(planned.index, self.shapes[self.edges.index(edge)])

    def close(self) -> None:
        """Wait for what was begun, and begin no more."""
        self._ahead.shutdown()

    def _enter(self, place: Place) -> tuple[Features, Plan]:
        """Of a block that is read once, by one thread; the next one is begun, the one before kept for late steps."""
        number = place.epoch * self.blocks_per_epoch + place.block
        with self._lock:
            for one in (number, number + 1):
                if one not in self._entered:
                    self._entered[one] = self._ahead.submit(self._load, *divmod(one, self.blocks_per_epoch))
            self._entered = {n: f for n, f in self._entered.items() if number - 1 <= n <= number + 1}
            entered = self._entered[number]
        return entered.result()

    def _load(self, epoch: int, block: int) -> tuple[Features, Plan]:
        features = self._features(many(self.rows, self.index(epoch, block)))
        lengths = self._lengths(features)
        view = next(iter(lengths))
        edges = np.array(self.edges)[self._buckets(lengths)]
        below = np.array((0, *self.edges))[np.searchsorted(self.edges, edges)]
        seed = int(make_key(self.seed, epoch, block)[:15], 16)
        as_long = np.maximum(lengths[view], below + 1)  # a row that another view puts into a longer bucket
        return features, Plan({view: as_long}, batch=self.batch, edges=self.edges, seed=seed)

    def _buckets(self, lengths: Mapping[str, np.ndarray]) -> np.ndarray:
        """The first shape that holds all views of a row."""
        found = np.zeros(len(next(iter(lengths.values()))), np.int64)
        for view, values in lengths.items():
            found = np.maximum(found, np.searchsorted([dict(shape.lengths)[view] for shape in self.shapes], values))
        if len(found) and found.max() == len(self.shapes):
            raise ValueError(f"a row is longer than {self.shapes[-1]}")
        return found

    def _shapes(self, limits: Mapping[str, int]) -> tuple[Shape, ...]:
        places = np.arange(min(_SAMPLE, len(self.rows)))
        order = Permutation(len(self.rows), seed=self.seed, purpose="blocks")
        lengths = self._lengths(self._features(many(self.rows, order.at(places))))
        first, *others = lengths
        bucket = np.searchsorted(self.edges, lengths[first])
        found = []
        for number, edge in enumerate(self.edges):
            last, mine = number == len(self.edges) - 1, bucket <= number
            other = [(v, limits[v] if last else round_up(int(lengths[v][mine].max(initial=1)))) for v in others]
            found.append(Shape(self.batch, ((first, edge), *other)))
        return tuple(found)
