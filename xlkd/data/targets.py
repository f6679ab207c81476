# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Teacher targets on disk: looked up by an example's key, added by any number of processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlkd.data import cache

Values = dict[str, np.ndarray]  # [rows, …], the ragged ones padded on axis 1


class TargetStore:
    """Rows under one name, in shards: entries of the cache, each with its keys; ragged arrays are kept unpadded.

    `name` says all that the values depend on but the example, the padded shape they were computed at included.
    """

    def __init__(self, name: str, ragged: Sequence[str] = ()) -> None:
        self._name, self._ragged = name, tuple(ragged)
        self._shards: list[Values] = []
        self._place: dict[object, tuple[int, int]] = {}
        for entry in cache.named(name):
            self._take_in(cache.held(entry))

    def __len__(self) -> int:
        return len(self._place)

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Which rows are not there yet [rows], each key named once."""
        seen: set[object] = set()
        absent = np.zeros(len(keys), bool)
        for i, key in enumerate(keys.tolist()):
            absent[i] = key not in self._place and key not in seen
            seen.add(key)
        return absent

    def add(self, keys: np.ndarray, values: Values, lengths: np.ndarray) -> None:
        """One more shard; of a ragged array the first `lengths` places of each row are kept."""
        shard = {"keys": keys}
        inside = np.arange(max((values[name].shape[1] for name in self._ragged), default=0)) < lengths[:, None]
        for name, value in values.items():
            shard[name] = value[inside[:, : value.shape[1]]] if name in self._ragged else value
        if self._ragged:
            shard["at"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entry = cache.name_of(self._name, [keys.tobytes().hex()])
        self._take_in(cache.arrays(entry, lambda: shard))

    def take(self, keys: np.ndarray, length: int) -> Values | None:
        """The rows of these keys, ragged arrays padded with 0 to `length`; None where one is not there."""
        try:
            places = [self._place[key] for key in keys.tolist()]
        except KeyError:
            return None
        return {name: self._rows(name, places, length) for name in self._shards[0] if name not in ("keys", "at")}

    def sample(self, random: np.random.Generator, of_each: int) -> list[object]:
        """Keys of some rows of every shard."""
        return [key for s in self._shards for key in random.permutation(s["keys"])[:of_each].tolist()]

    def _rows(self, name: str, places: list[tuple[int, int]], length: int) -> np.ndarray:
        """Gathers rows. `places` may be empty: a process can hold only padding."""
        ragged, like = name in self._ragged, self._shards[0][name]
        found = np.zeros((len(places), *[length] * ragged, *like.shape[1:]), like.dtype)
        for i, (number, row) in enumerate(places):
            shard = self._shards[number]
            if ragged:
                start, stop = shard["at"][row : row + 2]
                found[i, : stop - start] = shard[name][start:stop]
            else:
                found[i] = shard[name][row]
        return found

    def _take_in(self, shard: Values | None) -> None:
        if shard:  # else it was damaged, and its rows are missing
            self._place |= {key: (len(self._shards), row) for row, key in enumerate(shard["keys"].tolist())}
            self._shards.append(shard)
