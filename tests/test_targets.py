# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cached targets are read by key: in any order, from any shard, padded to any length."""

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


def make_targets(keys=KEYS, length=4):
    """Returns targets for a padded batch: all numbers are distinct, and the padding is not zero."""
    start = ((keys[:, None] % 1000) * 1000 + np.arange(length, dtype=np.uint64)).astype(np.float32)
    return {"start": start, "hidden": np.stack([start + 0.25, start + 0.5], axis=-1), "pooled": -start[:, 0]}


def make_store(name="a", rows=slice(None)):
    store = TargetStore(name, RAGGED)
    store.add(KEYS[rows], make_targets(KEYS[rows]), LENGTHS[rows])
    return store


def assert_rows(store, order, length):
    expected, cached = make_targets(length=max(length, 4)), store.take(KEYS[order], length)
    assert set(cached) == {"start", "hidden", "pooled"}
    inside = np.arange(length) < LENGTHS[order, None]
    np.testing.assert_array_equal(cached["start"], np.where(inside, expected["start"][order, :length], 0))
    np.testing.assert_array_equal(cached["hidden"], np.where(inside[..., None], expected["hidden"][order, :length], 0))
    np.testing.assert_array_equal(cached["pooled"], expected["pooled"][order])
    assert [cached[name].dtype for name in ("start", "hidden", "pooled")] == [np.float32] * 3


@pytest.mark.parametrize("length", [4, 9])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 2, 1, 1], [2]])
def test_targets_are_read_by_key_and_padded_to_the_length(order, length):
    assert_rows(make_store(), order, length)
    assert_rows(TargetStore("a", RAGGED), order, length)  # as another run reads them


def test_shards_add_up():
    store = make_store(rows=slice(2))
    store.add(KEYS[2:], make_targets(KEYS[2:]), LENGTHS[2:])
    for opened in (store, TargetStore("a", RAGGED)):
        assert len(opened) == 4
        assert_rows(opened, [2, 0, 3, 1], 5)


def test_a_process_may_read_no_row():
    targets = make_store().take(KEYS[:0], 6)
    assert {name: value.shape for name, value in targets.items()} == {
        "start": (0, 6),
        "hidden": (0, 6, 2),
        "pooled": (0,),
    }


def test_the_length_is_ignored_without_ragged_arrays():
    store = TargetStore("plain")
    store.add(KEYS, {"logits": make_targets()["hidden"]}, LENGTHS)
    np.testing.assert_array_equal(store.take(KEYS[[2]], 99)["logits"], make_targets()["hidden"][[2]])


def test_a_missing_key_is_listed_once():
    store = make_store(rows=slice(2))
    assert store.find_missing(np.array([3, 7, 3, 8], np.uint64)).tolist() == [True, False, False, True]
    assert store.take(KEYS[[0, 2]], 4) is None
    assert not len(TargetStore("another", RAGGED))


def test_targets_of_a_damaged_shard_are_missing():
    make_store(rows=slice(2))
    make_store(rows=slice(2, 4))
    damaged = cache.get_folder() / cache.list_entries("a")[0] / "start.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    store = TargetStore("a", RAGGED)
    cached = ~store.find_missing(KEYS)
    assert cached.tolist() in ([True, True, False, False], [False, False, True, True])
    assert_rows(store, np.flatnonzero(cached), 4)


def test_a_sample_contains_keys_of_every_shard():
    store = make_store(rows=slice(3))
    store.add(KEYS[3:], make_targets(KEYS[3:]), LENGTHS[3:])
    samples = [store.sample(np.random.default_rng(seed), per_shard=2) for seed in range(9)]
    assert {len(sample) for sample in samples} == {3}
    assert {sample[-1] for sample in samples} == {5}
    assert {key for sample in samples for key in sample} == set(KEYS.tolist())
