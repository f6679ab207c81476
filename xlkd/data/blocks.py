# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Plans large corpora in blocks of fixed size: step → (epoch, block, position) is arithmetic.

A restart reads one block. A block has rows from everywhere in the corpus, by a permutation that is computed, not
stored. A block is tokenized when it is entered, the next one in the background, and inside it batches are made as for a
small set. Where several processes share the work, all of them load the same blocks one after another.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlkd.data.batches import Plan, PlannedBatch, Shape
from xlkd.data.buckets import round_up
from xlkd.data.composition import read_many
from xlkd.data.permutation import Permutation
from xlkd.data.share import Share
from xlkd.rows import make_key

Features = dict[str, np.ndarray]
_SAMPLE = 2048  # rows of the first epoch that decide the shapes of the views
_LATE = 16  # steps by which a thread that builds batches may be behind another one


class Place(NamedTuple):
    """The place of a step."""

    epoch: int
    block: int
    position: int  # of the step in its block


class Blocks:
    """A plan over rows that are tokenized block by block; `at(step).index` counts in `features(step)`.

    Rows of corpora are read together where they come from `compose(…)` or `JoinedRows(rows.parts)`.

    Shapes are fixed beforehand: the first view by `edges`, the others by what a sample of rows needs in that bucket,
    and all of them by `limits` in the last. A row takes the first shape that fits all its views.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        features: Callable[[Sequence[Any], Share | None], Features],
        lengths: Callable[[Features], Mapping[str, np.ndarray]],
        *,
        batch: int,
        block: int,
        edges: tuple[int, ...],
        limits: Mapping[str, int],
        seed: int,
        share: Share | None = None,
    ) -> None:
        self.rows, self._features, self._lengths, self._share = rows, features, lengths, share
        self.batch, self.block, self.edges, self.seed = batch, block // batch * batch, edges, seed
        self.steps_per_epoch = -(-len(rows) // batch)
        self.blocks_per_epoch = -(-len(rows) // self.block)
        self.shapes = self._choose_shapes(limits)
        self._ahead = concurrent.futures.ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self._loading: dict[int, concurrent.futures.Future[tuple[Features, Plan]]] = {}
        self._next: int | None = None  # with a share: the block that all processes load next

    def locate(self, step: int) -> Place:
        """Returns epoch, block and position of a step: every block but the last has the same number of steps."""
        epoch, step = divmod(step, self.steps_per_epoch)
        return Place(epoch, *divmod(step, self.block // self.batch))

    def list_rows(self, epoch: int, block: int) -> np.ndarray:
        """Returns the numbers of the rows of a block."""
        places = np.arange(block * self.block, min((block + 1) * self.block, len(self.rows)))
        return Permutation(len(self.rows), seed=self.seed, purpose="blocks", epoch=epoch).at(places)

    def features(self, step: int) -> Features:
        """Returns the features of the step's block."""
        return self._enter_block(self.locate(step))[0]

    def at(self, step: int) -> PlannedBatch:
        """Returns the batch of a step; its index has positions within the block, not within the corpus."""
        place = self.locate(step)
        planned = self._enter_block(place)[1].at(place.position)
        edge = planned.shape.lengths[0][1]
        return PlannedBatch(planned.index, self.shapes[self.edges.index(edge)])

    def close(self) -> None:
        """Waits for the block that is being loaded, and loads no more."""
        if self._share:
            self._share.close()
        self._ahead.shutdown(cancel_futures=True)

    def _enter_block(self, place: Place) -> tuple[Features, Plan]:
        """Returns the features and the plan of the step's block; each block is read once, by one thread.

        The next block is loaded in the background, and those before it stay available for late steps. An older block is
        loaded without the other processes, which may not need it.
        """
        number = place.epoch * self.blocks_per_epoch + place.block
        with self._lock:
            first = number if self._share is None or self._next is None else self._next
            for needed in range(first, number + 2):
                if needed not in self._loading:
                    self._loading[needed] = self._ahead.submit(self._load, needed, self._share)
            if self._share:
                self._next = max(first, number + 2)
            late = 1 if self._share is None else 1 + _LATE * self.batch // self.block
            self._loading = {n: f for n, f in self._loading.items() if number - late <= n <= max(first, number + 1)}
            loading = self._loading.get(number)
        return loading.result() if loading else self._load(number, None)

    def _load(self, number: int, share: Share | None) -> tuple[Features, Plan]:
        """Reads and tokenizes a block, and plans its batches."""
        epoch, block = divmod(number, self.blocks_per_epoch)
        features = self._features(read_many(self.rows, self.list_rows(epoch, block)), share)
        lengths = self._lengths(features)
        view = next(iter(lengths))
        edges = np.array(self.edges)[self._find_buckets(lengths)]
        below = np.array((0, *self.edges))[np.searchsorted(self.edges, edges)]
        seed = int(make_key(self.seed, epoch, block)[:15], 16)
        as_long = np.maximum(lengths[view], below + 1)  # a row may need a longer bucket for another view
        return features, Plan({view: as_long}, batch=self.batch, edges=self.edges, seed=seed)

    def _find_buckets(self, lengths: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the index of the first shape that fits all views of each row."""
        bucket = np.zeros(len(next(iter(lengths.values()))), np.int64)
        for view, values in lengths.items():
            bucket = np.maximum(bucket, np.searchsorted([dict(shape.lengths)[view] for shape in self.shapes], values))
        if len(bucket) and bucket.max() == len(self.shapes):
            raise ValueError(f"a row is longer than {self.shapes[-1]}")
        return bucket

    def _choose_shapes(self, limits: Mapping[str, int]) -> tuple[Shape, ...]:
        """Chooses one shape per edge from the lengths of a sample of rows."""
        places = np.arange(min(_SAMPLE, len(self.rows)))
        order = Permutation(len(self.rows), seed=self.seed, purpose="blocks")
        lengths = self._lengths(self._features(read_many(self.rows, order.at(places)), self._share))
        first, *others = lengths
        bucket = np.searchsorted(self.edges, lengths[first])
        shapes = []
        for number, edge in enumerate(self.edges):
            last, inside = number == len(self.edges) - 1, bucket <= number
            needed = {view: round_up(int(lengths[view][inside].max(initial=1))) for view in others}
            other_lengths = [(view, limits[view] if last else needed[view]) for view in others]
            shapes.append(Shape(self.batch, ((first, edge), *other_lengths)))
        return tuple(shapes)
