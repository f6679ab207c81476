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
from xlkd.data.corpus import Gathered
from xlkd.data.draw import uniform
from xlkd.errors import UserError
from xlkd.rows import Pair, key_of

Features = Mapping[str, np.ndarray]
_SAMPLE = 2048  # rows of the first epoch from which the shapes of the views are chosen


class Permutation:
    """A shuffle of 0 … size−1 by a keyed Feistel network: any place of it at once, none of it in memory."""

    _ROUNDS = 6

    def __init__(self, size: int, *, seed: int, purpose: str, epoch: int = 0) -> None:
        self._size, self._seed, self._purpose, self._epoch = size, seed, purpose, epoch
        self._half = max(-(-int(size - 1).bit_length() // 2), 1)  # bits of either half

    def at(self, places: np.ndarray) -> np.ndarray:
        """What stands at these places; a value outside is sent through again until it falls inside."""
        values = self._cipher(np.asarray(places, np.uint64))
        while (outside := values >= self._size).any():
            values[outside] = self._cipher(values[outside])
        return values.astype(np.int64)

    def _cipher(self, values: np.ndarray) -> np.ndarray:
        half = np.uint64(self._half)
        left, right = values >> half, values & np.uint64((1 << self._half) - 1)
        for number in range(self._ROUNDS):
            step = self._epoch * self._ROUNDS + number
            drawn = uniform(self._seed, self._purpose, step, right, 1)[:, 0]
            left, right = right, left ^ (drawn * (1 << self._half)).astype(np.uint64)
        return (left << half) | right


class Capped(Gathered):
    """At most `most` rows: the first, or some drawn from the seed."""

    def __init__(self, rows: Sequence[Any], most: int, take: str = "random", seed: int = 0) -> None:
        self._rows, self._size, self.languages = rows, min(most, len(rows)), languages(rows)
        self._order = Permutation(len(rows), seed=seed, purpose="cap") if take == "random" else None
        self.identity = f"{most} {take} {seed} of {_identity(rows)}"

    def __len__(self) -> int:
        return self._size

    def many(self, index: np.ndarray) -> list[Any]:
        return many(self._rows, self._order.at(index) if self._order else index)


class Joined(Gathered):
    """Rows one after the other."""

    def __init__(self, parts: Sequence[Sequence[Any]]) -> None:
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self.parts])
        self.identity = " and ".join(_identity(part) for part in self.parts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    @property
    def languages(self) -> tuple[str, str]:
        return languages(self.parts[0])

    def many(self, index: np.ndarray) -> list[Any]:
        index = np.asarray(index)
        of = np.searchsorted(self._ends, index, side="right")
        found: list[Any] = [None] * len(index)
        for number in np.unique(of):
            mine = np.flatnonzero(of == number)
            part = self.parts[number]
            for at, row in zip(mine, many(part, index[mine] - (self._ends[number] - len(part))), strict=True):
                found[at] = row
        return found


class Identities(Gathered):
    """English with itself: in round j the English side of pair j of language j mod n, where that pair exists."""

    languages = ("en", "en")

    def __init__(self, parts: Sequence[Sequence[Pair]]) -> None:
        for part in parts:
            if "en" not in languages(part):
                raise UserError(f"no English side in {'-'.join(languages(part))}", remedy="leave identity pairs out")
        self._parts = tuple(parts)
        counts = [max(0, -(-(len(part) - number) // len(parts))) for number, part in enumerate(parts)]
        self._ends = np.cumsum(counts)
        self.identity = "identities of " + " and ".join(_identity(part) for part in parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def many(self, index: np.ndarray) -> list[Pair]:
        index = np.asarray(index)
        of = np.searchsorted(self._ends, index, side="right")
        rounds = of + (index - np.where(of > 0, self._ends[of - 1], 0)) * len(self._parts)
        found: list[Any] = [None] * len(index)
        for number in np.unique(of):
            mine = np.flatnonzero(of == number)
            for at, row in zip(mine, many(self._parts[number], rounds[mine]), strict=True):
                found[at] = _itself(row)
        return found


def compose(
    parts: Sequence[Sequence[Pair]], *, cap: int = 0, take: str = "random", seed: int = 0, identities: bool = False
) -> Joined:
    """Corpora by pair of languages, each pair joined and capped, and English with itself if asked for."""
    by_pair: dict[tuple[str, str], list[Sequence[Pair]]] = {}
    for part in _flat(parts):
        by_pair.setdefault(languages(part), []).append(part)
    joined = [found[0] if len(found) == 1 else Joined(found) for found in by_pair.values()]
    capped = [Capped(rows, cap, take, seed) if cap else rows for rows in joined]
    return Joined([*capped, Identities(capped)] if identities else capped)


def many(rows: Sequence[Any], index: np.ndarray) -> list[Any]:
    """Rows by number, together where the sequence can."""
    return rows.many(index) if isinstance(rows, Gathered) else [rows[int(i)] for i in index]


def languages(rows: Sequence[Pair]) -> tuple[str, str]:
    """The languages of rows that all have the same."""
    named = getattr(rows, "languages", None)
    return named or (rows[0].source_language, rows[0].target_language)


def _flat(parts: Sequence[Sequence[Pair]]) -> list[Sequence[Pair]]:
    return [one for part in parts for one in (_flat(part.parts) if isinstance(part, Joined) else [part]) if len(one)]


def _identity(rows: Sequence[Any]) -> str:
    made = getattr(rows, "identity", None)
    return made if isinstance(made, str) else key_of(*(row.key for row in rows))


def _itself(row: Pair) -> Pair:
    text = row.source if row.source_language == "en" else row.target
    key = key_of("identity", row.key)
    return Pair(row.id, key, row.group, row.set, text, text, "en", "en")


class Place(NamedTuple):
    """Where a step stands."""

    epoch: int
    block: int
    position: int  # of the step in its block


class Blocks:
    """A plan over rows that are tokenised block by block; `at(step).index` counts in `features(step)`.

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
        seed = int(key_of(self.seed, epoch, block)[:15], 16)
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
            other = [(v, limits[v] if last else _round_up(lengths[v][mine].max(initial=1))) for v in others]
            found.append(Shape(self.batch, ((first, edge), *other)))
        return tuple(found)


def _round_up(length: int, multiple: int = 16) -> int:
    return -(-int(length) // multiple) * multiple
