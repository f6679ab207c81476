# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Kept targets come back by key: in any order, from any shard, padded anew."""

import numpy as np
import pytest

from xlkd.data import cache
from xlkd.data.targets import TargetStore

KEYS = np.array([7, 2**64 - 1, 3, 5], np.uint64)
LENGTHS = np.array([3, 1, 4, 2])
RAGGED = ("start", "hidden")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path))


def values(keys=KEYS, length=4):
    """What a teacher gives for a padded batch: no number twice, and something in the padding too."""
    start = ((keys[:, None] % 1000) * 1000 + np.arange(length, dtype=np.uint64)).astype(np.float32)
    return {"start": start, "hidden": np.stack([start + 0.25, start + 0.5], axis=-1), "pooled": -start[:, 0]}


def kept(name="a", rows=slice(None)):
    store = TargetStore(name, RAGGED)
    store.add(KEYS[rows], values(KEYS[rows]), LENGTHS[rows])
    return store


def assert_rows(store, order, length):
    whole, found = values(length=max(length, 4)), store.take(KEYS[order], length)
    assert set(found) == {"start", "hidden", "pooled"}
    inside = np.arange(length) < LENGTHS[order, None]
    np.testing.assert_array_equal(found["start"], np.where(inside, whole["start"][order, :length], 0))
    np.testing.assert_array_equal(found["hidden"], np.where(inside[..., None], whole["hidden"][order, :length], 0))
    np.testing.assert_array_equal(found["pooled"], whole["pooled"][order])
    assert [found[name].dtype for name in ("start", "hidden", "pooled")] == [np.float32] * 3


@pytest.mark.parametrize("length", [4, 9])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 2, 1, 1], [2]])
def test_rows_come_back_by_key_and_padded_anew(order, length):
    assert_rows(kept(), order, length)
    assert_rows(TargetStore("a", RAGGED), order, length)  # as another run finds them


def test_shards_add_up():
    store = kept(rows=slice(2))
    store.add(KEYS[2:], values(KEYS[2:]), LENGTHS[2:])
    for one in (store, TargetStore("a", RAGGED)):
        assert len(one) == 4
        assert_rows(one, [2, 0, 3, 1], 5)


def test_a_process_may_ask_for_no_row():
    found = kept().take(KEYS[:0], 6)
    assert {name: value.shape for name, value in found.items()} == {
        "start": (0, 6),
        "hidden": (0, 6, 2),
        "pooled": (0,),
    }


def test_without_ragged_arrays_the_length_says_nothing():
    store = TargetStore("plain")
    store.add(KEYS, {"logits": values()["hidden"]}, LENGTHS)
    np.testing.assert_array_equal(store.take(KEYS[[2]], 99)["logits"], values()["hidden"][[2]])


def test_what_is_missing_is_named_once():
    store = kept(rows=slice(2))
    assert store.find_missing(np.array([3, 7, 3, 8], np.uint64)).tolist() == [True, False, False, True]
    assert store.take(KEYS[[0, 2]], 4) is None
    assert not len(TargetStore("another", RAGGED))


def test_what_was_damaged_is_missing_again():
    kept(rows=slice(2))
    kept(rows=slice(2, 4))
    damaged = cache.get_folder() / cache.list_entries("a")[0] / "start.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    store = TargetStore("a", RAGGED)
    there = ~store.find_missing(KEYS)
    assert there.tolist() in ([True, True, False, False], [False, False, True, True])
    assert_rows(store, np.flatnonzero(there), 4)


def test_a_sample_has_some_of_every_shard():
    store = kept(rows=slice(3))
    store.add(KEYS[3:], values(KEYS[3:]), LENGTHS[3:])
    found = [store.sample(np.random.default_rng(seed), per_shard=2) for seed in range(9)]
    assert {len(one) for one in found} == {3}
    assert {one[-1] for one in found} == {5}
    assert {key for one in found for key in one} == set(KEYS.tolist())
