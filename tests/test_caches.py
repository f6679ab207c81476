# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The door `caches`: lists, prunes what was used longest ago, and never touches what is not a cache's."""

import os
import time

import numpy as np
import pytest

from xlkd import caches
from xlkd.data import cache
from xlkd.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three entries of 10 kB, used one, two and three hours ago, compiled programs, and what is not ours."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    for hours in (1, 3, 2):
        name = cache.name_of(f"task{hours}", ["a"])
        cache.arrays(name, lambda: {"x": np.zeros(10_000, np.int8)})
        os.utime(tmp_path / "cache" / name / "done", (time.time() - 3600 * hours,) * 2)
    compiled = tmp_path / "cache" / cache.COMPILED
    compiled.mkdir()
    for name, size in ((f"jit_step-{0:064}-cache", 3_000), (f"jit_step-{0:064}-atime", 2_000)):
        (compiled / name).write_bytes(b"x" * size)
    stranger = tmp_path / "cache" / "photos"
    stranger.mkdir()
    (stranger / "a.jpg").write_bytes(b"x" * 50_000)
    return tmp_path / "cache"


def kinds(folder):
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


def test_the_list_begins_with_what_was_used_longest_ago(folder, capsys):
    caches.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["task3", "task2", "task1", "compiled", "4"]
    assert "10.1 KB" in lines[0]
    assert lines[-1] == f"4 entries, 35.4 KB in {folder}; not the cache's and left alone: 1"
    assert len(list(folder.iterdir())) == 5


@pytest.mark.parametrize(
    ("size", "left"),
    [
        ("1G", ["compiled", "photos", "task1", "task2", "task3"]),
        ("30K", ["compiled", "photos", "task1", "task2"]),
        ("16KB", ["compiled", "photos", "task1"]),
        ("0", ["photos"]),
    ],
)
def test_pruning_deletes_what_was_used_longest_ago(folder, size, left):
    caches.main([f"--prune={size}"])
    assert kinds(folder) == left


def test_all_can_be_deleted_but_what_is_not_a_caches(folder, capsys):
    caches.main(["--delete_all"])
    assert kinds(folder) == ["photos"]
    assert capsys.readouterr().out.endswith(f"35.4 KB; 0 B left in {folder}; not the cache's and left alone: 1\n")


def test_half_entries_go_when_nobody_can_be_writing_them(folder):
    for name, age in ((".writing-old_old_", 48), (".writing-new_new_", 1)):
        (folder / name).mkdir()
        (folder / name / "x.npy").write_bytes(b"x")
        for path in (folder / name / "x.npy", folder / name):
            os.utime(path, (time.time() - 3600 * age,) * 2)
    (folder / ".writing-note").write_text("a file is no entry")
    os.utime(folder / ".writing-note", (1e9, 1e9))
    caches.main(["--delete_all"])
    assert sorted(path.name for path in folder.iterdir()) == [".writing-new_new_", ".writing-note", "photos"]


def test_a_run_that_reads_an_entry_goes_on_when_it_is_deleted(folder):
    name = cache.name_of("open", ["a"])
    mapped = cache.arrays(name, lambda: {"x": np.arange(100_000)})
    caches.main(["--delete_all"])
    assert mapped["x"].sum() == np.arange(100_000).sum()
    assert cache.arrays(name, lambda: {"x": np.ones(3)})["x"].sum() == 3


def test_there_may_be_no_cache_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "none"))
    caches.main([])
    assert capsys.readouterr().out == f"0 entries, 0 B in {tmp_path / 'none'}\n"


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("5k", 5e3), ("1.5 GB", 1.5e9), ("2TiB", 2e12)])
def test_sizes(text, number):
    assert caches.size_bytes(text) == number


def test_what_is_wrong_with_the_flags(folder):
    for flags, said in (
        (["--prune=much"], "not a size"),
        (["--prune=1G", "--delete_all"], "contradict"),
        (["--delete"], "did you mean --delete_all"),
        (["--delete_all=yes"], "unknown flag"),
    ):
        with pytest.raises(UserError, match=said):
            caches.main(flags)
    assert len(list(folder.iterdir())) == 5
