# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Stores teacher targets on disk, found by an example's key and written by any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xlkd.data import cache

Values = dict[str, np.ndarray]  # [rows, …]; ragged arrays are padded on axis 1


class TargetStore:
    """Targets under one name, in shards: entries of the cache with the keys of their rows; ragged arrays are unpadded.

    `name` says all that the values depend on except the example, including the padded shape they were computed at.
    """

    def __init__(self, name: str, ragged: Sequence[str] = ()) -> None:
        self._name, self._ragged = name, tuple(ragged)
        self._shards: list[Mapping[str, np.ndarray]] = []
        self._places: dict[object, tuple[int, int]] = {}
        self._entries: set[str] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._places)

    def refresh(self) -> None:
        """Reads the shards that other processes have written to the same cache."""
        for entry in cache.list_entries(self._name):
            if entry not in self._entries:
                self._register(entry, cache.load(entry))

    def adopt(self, other: TargetStore) -> None:
        """Takes the rows of another store that this one lacks."""
        count = len(self._shards)
        adopted = {key: (count + number, row) for key, (number, row) in other._places.items()}
        self._shards += other._shards
        self._places = adopted | self._places

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Returns which rows are stored [rows]."""
        return np.array([key in self._places for key in keys.tolist()], bool)

    def find_missing(self, keys: np.ndarray) -> np.ndarray:
        """Returns which rows are not stored yet [rows]; of equal keys only the first is marked."""
        seen: set[object] = set()
        missing = np.zeros(len(keys), bool)
        for i, key in enumerate(keys.tolist()):
            missing[i] = key not in self._places and key not in seen
            seen.add(key)
        return missing

    def add(self, keys: np.ndarray, values: Values, lengths: np.ndarray) -> None:
        """Stores one more shard; of a ragged array the first `lengths` places of each row are stored."""
        shard = {"keys": keys}
        inside = np.arange(max((values[name].shape[1] for name in self._ragged), default=0)) < lengths[:, None]
        for name, value in values.items():
            shard[name] = value[inside[:, : value.shape[1]]] if name in self._ragged else value
        if self._ragged:
            shard["at"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entry = cache.make_name(self._name, [keys.tobytes().hex()])
        self._register(entry, cache.load_or_build(entry, lambda: shard))

    def take(self, keys: np.ndarray, length: int) -> Values | None:
        """Returns the rows of these keys, ragged arrays padded with 0 to `length`; None where a key is missing."""
        try:
            places = [self._places[key] for key in keys.tolist()]
        except KeyError:
            return None
        return {name: self._read_rows(name, places, length) for name in self._shards[0] if name not in ("keys", "at")}

    def sample(self, random: np.random.Generator, per_shard: int) -> list[object]:
        """Returns the keys of up to `per_shard` random rows of every shard."""
        return [key for s in self._shards for key in random.permutation(s["keys"])[:per_shard].tolist()]

    def _read_rows(self, name: str, places: list[tuple[int, int]], length: int) -> np.ndarray:
        """Reads an array at places (shard, row), padded with 0 to `length` if it is ragged.

        `places` is empty where all rows of this process are padding.
        """
        ragged, first = name in self._ragged, self._shards[0][name]
        values = np.zeros((len(places), *[length] * ragged, *first.shape[1:]), first.dtype)
        for i, (number, row) in enumerate(places):
            shard = self._shards[number]
            if ragged:
                start, stop = shard["at"][row : row + 2]
                values[i, : stop - start] = shard[name][start:stop]
            else:
                values[i] = shard[name][row]
        return values

    def _register(self, entry: str, shard: Mapping[str, np.ndarray] | None) -> None:
        """Adds a shard; a damaged one (None) is left out, so its rows count as missing."""
        self._entries.add(entry)
        if shard:
            self._places |= {key: (len(self._shards), row) for row, key in enumerate(shard["keys"].tolist())}
            self._shards.append(shard)
