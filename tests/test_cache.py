# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Entries are complete or absent, whoever writes, dies or damages them; deleting an entry costs only time."""

import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from xlkd.data import cache
from xlkd.errors import UserError

A1, A2, B1, C1 = (f"{kind}-{number:032}" for kind, number in (("a", 1), ("a", 2), ("b", 1), ("c", 1)))

VALUES = {
    "ids": np.arange(1000, dtype=np.int32),
    "names": np.array(["de", "→zh"]),
    "none": np.zeros(0, np.int16),
    "matrix": np.ones((3, 4), np.float32),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Builder:
    """Builds an entry, and counts its calls."""

    def __init__(self, values=None):
        self.values, self.calls = VALUES if values is None else values, 0

    def __call__(self):
        self.calls += 1
        return self.values


def assert_same(arrays, expected=None):
    expected = VALUES if expected is None else expected
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        assert arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(arrays[name], value)


def test_an_entry_is_built_once_and_then_mapped_from_disk(folder):
    build = Builder()
    for _ in range(3):
        arrays = cache.load_or_build(A1, build)
        assert_same(arrays)
        assert isinstance(arrays["ids"], np.memmap)
    assert build.calls == 1
    assert [p.name for p in folder.iterdir()] == [A1]


def test_the_name_depends_on_every_input_and_their_boundaries():
    inputs = [["x", "y"], ["xy"], ["x", "y", ""], ["y", "x"], ["x", "ý"], []]
    names = [cache.make_name(kind, parts) for parts in inputs for kind in ("a", "b")]
    assert len(set(names)) == len(names)
    assert cache.make_name("a", ["x", "y"]) == names[0] == "a-946a0b44bba82efb145c58530ff7b3d4"


def damage(entry: pathlib.Path, how: str) -> None:
    file = entry / "ids.npy"
    if how == "truncated":
        os.truncate(file, file.stat().st_size - 100)
    elif how == "flipped byte":
        data = bytearray(file.read_bytes())
        data[500] ^= 1
        file.write_bytes(data)
    elif how == "header":
        file.write_bytes(b"\x00" * 16 + file.read_bytes()[16:])
    elif how == "missing":
        file.unlink()
    elif how == "no marker":
        (entry / "done").unlink()
    else:
        (entry / "done").write_text(how)


@pytest.mark.parametrize(
    "how", ["truncated", "flipped byte", "header", "missing", "no marker", "", "{", "[]", '{"ids": 0}']
)
def test_a_damaged_entry_is_reported_once_and_rebuilt(folder, caplog, how):
    cache.load_or_build(A1, Builder())
    damage(folder / A1, how)
    build = Builder()
    with caplog.at_level(logging.WARNING):
        assert_same(cache.load_or_build(A1, build))
        assert_same(cache.load_or_build(A1, build))
    assert build.calls == 1
    assert len(caplog.records) == 1
    assert f"{A1} is damaged" in caplog.text
    assert [p.name for p in folder.iterdir()] == [A1]


def test_mapped_arrays_outlive_their_deleted_entry(folder):
    arrays = cache.load_or_build(A1, Builder())
    cache.delete(cache.list_contents().entries[0].path)
    assert not list(folder.iterdir())
    assert_same(arrays)


def test_if_two_write_an_entry_one_wins_and_both_get_their_arrays(folder):
    """The second writer is still building when the first has finished."""

    def slow():
        assert_same(cache.load_or_build(A1, Builder()))
        return VALUES

    assert_same(cache.load_or_build(A1, slow))
    assert [p.name for p in folder.iterdir()] == [A1]


WRITER = """
import sys, numpy as np
from xlkd.data import cache
values = {"x": np.full(300_000, 7), "y": np.full(300_000, 8)}
for i in range(8):
    arrays = cache.load_or_build(f"a-{i:032}", lambda: values)
    assert (arrays["x"] == 7).all() and (arrays["y"] == 8).all()
print("ready", flush=True)
i = 100
while len(sys.argv) > 1:
    cache.load_or_build(f"a-{i:032}", lambda: values)
    i += 1
"""


def start_writer(folder, *arguments):
    environment = os.environ | {"XLKD_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], env=environment, stdout=subprocess.PIPE)


def test_processes_can_write_the_same_entries_at_once(folder):
    processes = [start_writer(folder) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert sorted(p.name for p in folder.iterdir()) == [f"a-{i:032}" for i in range(8)]


def test_a_killed_writer_leaves_no_incomplete_entry(folder):
    process = start_writer(folder, "for ever")
    process.stdout.readline()
    while not list(folder.glob(".writing-*/x.npy")):
        assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    build = Builder()
    for entry in folder.glob("a-*"):
        arrays = cache.load_or_build(entry.name, build)
        assert (arrays["x"] == 7).all()
    assert build.calls == 0, "each named entry is complete"
    draft = next(folder.glob(".writing-*"), None)
    if draft:  # listed only when no process can still be writing it
        assert not [e for e in cache.list_contents().entries if e.path == draft]
        for path in (draft, *draft.iterdir()):
            os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
        assert [e.kind for e in cache.list_contents().entries if e.path == draft] == ["half-written"]


def test_a_builder_that_fails_leaves_nothing(folder):
    def fails():
        raise UserError("bad row")

    with pytest.raises(UserError, match="bad row"):
        cache.load_or_build(A1, fails)
    with pytest.raises(ValueError, match="allow_pickle"):
        cache.load_or_build(A1, lambda: {"fine": np.zeros(3), "objects": np.array([{}])})
    assert not folder.exists() or not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="set XLKD_CACHE to another folder"):
        cache.load_or_build(A1, Builder())


@pytest.mark.parametrize("arguments", [(28, "No space left on device"), ("4096 requested and 0 written",)])
def test_a_full_disk_leaves_nothing(folder, monkeypatch, arguments):
    """The second message is numpy's."""

    def raise_error(*_, **__):
        raise OSError(*arguments)

    monkeypatch.setattr(cache.np, "save", raise_error)
    with pytest.raises(UserError, match=f"cannot be written: {arguments[-1]}"):
        cache.load_or_build(A1, Builder())
    assert not list(folder.iterdir())


def test_reading_an_entry_makes_it_the_most_recently_used(folder):
    for name in (A1, A2):
        cache.load_or_build(name, Builder())
        os.utime(folder / name / "done", (1e9 + int(name[-1]),) * 2)
    assert [e.path.name for e in cache.list_contents().entries] == [A1, A2]
    cache.load_or_build(A1, Builder())
    assert [e.path.name for e in cache.list_contents().entries] == [A2, A1]


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", "relative"])
def test_without_a_home_the_cache_is_in_a_temporary_folder(monkeypatch, home):
    """Even root, who could, creates no folder in such a home."""
    monkeypatch.delenv("XLKD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    cache_folder = cache.get_folder()
    assert cache_folder.is_absolute()
    assert cache_folder.name == "xlkd"
    assert not str(cache_folder).startswith(home)


def test_variables_choose_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("XLKD_CACHE", "")  # an empty variable counts as not set
    assert cache.get_folder() == tmp_path / "not" / "yet" / "xlkd"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XLKD_CACHE", "~/mine")
    assert cache.get_folder() == tmp_path / "mine"


def test_the_least_recently_used_entry_is_evicted(monkeypatch, tmp_path):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path))
    monkeypatch.setenv("XLKD_CACHE_GIB", str(2500 * 8 / 2**30))  # room for two entries of 1,000 numbers, not three
    for age, name in ((30, A1), (10, B1), (20, C1)):
        cache.load_or_build(name, lambda: {"x": np.zeros(1000)})
        os.utime(tmp_path / name / "done", (time.time() - age,) * 2)
    assert {path.name for path in tmp_path.iterdir()} == {B1, C1}


def test_the_limit_is_a_number_of_gibibytes(monkeypatch):
    monkeypatch.delenv("XLKD_CACHE_GIB", raising=False)
    assert cache.size_limit_bytes() == 50 * 1024**3
    monkeypatch.setenv("XLKD_CACHE_GIB", "0.5")
    assert cache.size_limit_bytes() == 512 * 1024**2
    monkeypatch.setenv("XLKD_CACHE_GIB", "much")
    with pytest.raises(UserError, match="'much' is not a number"):
        cache.size_limit_bytes()
