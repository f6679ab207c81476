# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Entries are whole or absent, whoever writes, dies or damages them; deleting one costs only time."""

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
    """Counts how often it is asked."""

    def __init__(self, values=None):
        self.values, self.calls = VALUES if values is None else values, 0

    def __call__(self):
        self.calls += 1
        return self.values


def assert_same(found, values=None):
    values = VALUES if values is None else values
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_built_once_then_mapped_from_disk(folder):
    build = Builder()
    for _ in range(3):
        found = cache.load_or_build(A1, build)
        assert_same(found)
        assert isinstance(found["ids"], np.memmap)
    assert build.calls == 1
    assert [p.name for p in folder.iterdir()] == [A1]


def test_every_input_and_every_boundary_is_in_the_name():
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
def test_a_damaged_entry_is_said_once_and_made_again(folder, caplog, how):
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


def test_what_a_run_has_mapped_outlives_its_entry(folder):
    found = cache.load_or_build(A1, Builder())
    cache.delete(cache.list_contents().entries[0].path)
    assert not list(folder.iterdir())
    assert_same(found)


def test_of_two_writers_one_wins_and_both_have_their_arrays(folder):
    """The second builds while the first has already finished."""

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
    found = cache.load_or_build(f"a-{i:032}", lambda: values)
    assert (found["x"] == 7).all() and (found["y"] == 8).all()
print("ready", flush=True)
i = 100
while len(sys.argv) > 1:
    cache.load_or_build(f"a-{i:032}", lambda: values)
    i += 1
"""


def writer(folder, *arguments):
    environment = os.environ | {"XLKD_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], env=environment, stdout=subprocess.PIPE)


def test_processes_that_write_the_same_entries_at_once(folder):
    processes = [writer(folder) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert sorted(p.name for p in folder.iterdir()) == [f"a-{i:032}" for i in range(8)]


def test_a_kill_in_mid_write_leaves_no_half_entry(folder):
    process = writer(folder, "for ever")
    process.stdout.readline()
    while not list(folder.glob(".writing-*/x.npy")):
        assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL
    build = Builder()
    for entry in folder.glob("a-*"):
        found = cache.load_or_build(entry.name, build)
        assert (found["x"] == 7).all()
    assert build.calls == 0, "each entry that has a name is whole"
    half = next(folder.glob(".writing-*"), None)
    if half:  # listed only when nobody can be writing it any more
        assert not [e for e in cache.list_contents().entries if e.path == half]
        for path in (half, *half.iterdir()):
            os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
        assert [e.kind for e in cache.list_contents().entries if e.path == half] == ["half-written"]


def test_a_builder_that_fails_leaves_nothing(folder):
    def fails():
        raise UserError("bad row")

    with pytest.raises(UserError, match="bad row"):
        cache.load_or_build(A1, fails)
    with pytest.raises(ValueError, match="allow_pickle"):
        cache.load_or_build(A1, lambda: {"fine": np.zeros(3), "objects": np.array([{}])})
    assert not folder.exists() or not list(folder.iterdir())


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="set XLKD_CACHE to another folder"):
        cache.load_or_build(A1, Builder())


@pytest.mark.parametrize("told", [(28, "No space left on device"), ("4096 requested and 0 written",)])
def test_a_full_disk_leaves_nothing(folder, monkeypatch, told):
    """The second is what numpy says."""

    def full(*_, **__):
        raise OSError(*told)

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(UserError, match=f"cannot be written: {told[-1]}"):
        cache.load_or_build(A1, Builder())
    assert not list(folder.iterdir())


def test_reading_an_entry_makes_it_the_last_used(folder):
    for name in (A1, A2):
        cache.load_or_build(name, Builder())
        os.utime(folder / name / "done", (1e9 + int(name[-1]),) * 2)
    assert [e.path.name for e in cache.list_contents().entries] == [A1, A2]
    cache.load_or_build(A1, Builder())
    assert [e.path.name for e in cache.list_contents().entries] == [A2, A1]


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null", "relative"])
def test_without_a_home_a_temporary_folder_serves(monkeypatch, home):
    """Root may do anything, and still makes no folder there."""
    monkeypatch.delenv("XLKD_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    found = cache.get_folder()
    assert found.is_absolute()
    assert found.name == "xlkd"
    assert not str(found).startswith(home)


def test_which_variable_says_where(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("XLKD_CACHE", "")  # set and empty is not set: the working directory is no cache
    assert cache.get_folder() == tmp_path / "not" / "yet" / "xlkd"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XLKD_CACHE", "~/mine")
    assert cache.get_folder() == tmp_path / "mine"


def test_what_was_used_longest_ago_makes_room(monkeypatch, tmp_path):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path))
    monkeypatch.setenv("XLKD_CACHE_GIB", str(2500 * 8 / 2**30))  # two entries of 1,000 numbers, not three
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
