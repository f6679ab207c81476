# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The command `caches` lists entries, prunes the least recently used, and deletes nothing but entries of the cache."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from xlkd import caches
from xlkd.data import cache
from xlkd.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Makes three entries of 10 kB used one to three hours ago, compiled programs, and a foreign folder."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    for hours in (1, 3, 2):
        name = cache.make_name(f"task{hours}", ["a"])
        cache.load_or_build(name, lambda: {"x": np.zeros(10_000, np.int8)})
        os.utime(tmp_path / "cache" / name / "done", (time.time() - 3600 * hours,) * 2)
    compiled = tmp_path / "cache" / cache.COMPILED
    compiled.mkdir()
    for name, size in ((f"jit_step-{0:064}-cache", 3_000), (f"jit_step-{0:064}-atime", 2_000)):
        (compiled / name).write_bytes(b"x" * size)
    stranger = tmp_path / "cache" / "photos"
    stranger.mkdir()
    (stranger / "a.jpg").write_bytes(b"x" * 50_000)
    return tmp_path / "cache"


def list_kinds(folder):
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


def test_the_list_starts_with_the_least_recently_used(folder, capsys):
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
def test_pruning_deletes_the_least_recently_used(folder, size, left):
    caches.main([f"--prune={size}"])
    assert list_kinds(folder) == left


def test_delete_all_keeps_foreign_files(folder, capsys):
    caches.main(["--delete_all"])
    assert list_kinds(folder) == ["photos"]
    assert capsys.readouterr().out.endswith(f"35.4 KB; 0 B left in {folder}; not the cache's and left alone: 1\n")


def test_incomplete_entries_are_deleted_once_nobody_can_be_writing_them(folder):
    for name, age in ((".writing-old_old_", 48), (".writing-new_new_", 1)):
        (folder / name).mkdir()
        (folder / name / "x.npy").write_bytes(b"x")
        for path in (folder / name / "x.npy", folder / name):
            os.utime(path, (time.time() - 3600 * age,) * 2)
    (folder / ".writing-note").write_text("a file is no entry")
    os.utime(folder / ".writing-note", (1e9, 1e9))
    caches.main(["--delete_all"])
    assert sorted(path.name for path in folder.iterdir()) == [".writing-new_new_", ".writing-note", "photos"]


def test_a_run_can_still_read_an_entry_that_was_deleted(folder):
    name = cache.make_name("open", ["a"])
    mapped = cache.load_or_build(name, lambda: {"x": np.arange(100_000)})
    caches.main(["--delete_all"])
    assert mapped["x"].sum() == np.arange(100_000).sum()
    assert cache.load_or_build(name, lambda: {"x": np.ones(3)})["x"].sum() == 3


def test_a_missing_cache_is_listed_as_empty(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "none"))
    caches.main([])
    assert capsys.readouterr().out == f"0 entries, 0 B in {tmp_path / 'none'}\n"


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("5k", 5e3), ("1.5 GB", 1.5e9), ("2TiB", 2e12)])
def test_sizes_are_parsed(text, number):
    assert caches.parse_size(text) == number


def test_bad_flags_are_refused(folder):
    for flags, message in (
        (["--prune=much"], "not a size"),
        (["--prune=1G", "--delete_all"], "contradict"),
        (["--delete"], "did you mean --delete_all"),
        (["--delete_all=yes"], "unknown flag"),
    ):
        with pytest.raises(UserError, match=message):
            caches.main(flags)
    assert len(list(folder.iterdir())) == 5


@pytest.fixture
def foreign_files(folder, tmp_path):
    """Makes files of the user whose names resemble those of the cache, and returns them."""
    entry = cache.make_name("features", ["a"])
    outside = tmp_path / "outside"
    user_files = [
        folder / "features-backup" / "done",
        folder / f"{entry}-old" / "done",
        folder / f"{entry.upper()}" / "done",
        folder / f"{cache.make_name('thesis', ['b'])}" / "done",  # named as an entry, but without its marker
        folder / f"{cache.make_name('thesis', ['c'])}" / "chapter.npy",
        folder / "done" / "done",
        folder / ".writing-diary" / "x.npy",
        folder / ".writing-letters_" / "dear.txt",
        folder / cache.COMPILED / "paper-cache",
        folder / cache.COMPILED / "drafts" / "paper",
        outside / "done",
    ]
    for file in user_files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
        for path in (file, file.parent):
            os.utime(path, (1e9, 1e9))
    added = folder / cache.make_name("task4", ["a"])  # an entry into which somebody put a file
    cache.load_or_build(added.name, lambda: {"x": np.zeros(10_000, np.int8)})
    (added / "chapter").mkdir()
    user_files.append(added / "notes.txt")
    user_files[-1].write_text("mine")
    (outside / "done").write_text("{}")
    (folder / cache.make_name("linked", ["a"])).symlink_to(outside)
    (folder / "notes.txt").write_text("mine")
    return [file for file in user_files if file.parent != outside] + [folder / "notes.txt"]


@pytest.mark.parametrize("way", ["--delete_all", "--prune=0", "eviction"])
def test_no_file_of_the_user_is_deleted_in_the_cache(folder, tmp_path, foreign_files, way, monkeypatch, capsys):
    if way == "eviction":
        monkeypatch.setenv("XLKD_CACHE_GIB", "0")
        cache.load_or_build(cache.make_name("new", ["a"]), lambda: {"x": np.zeros(10)})
    else:
        caches.main([way])
        # photos, eight folders, three names in compiled, the entry with a note, the link, the note
        assert "not the cache's and left alone: 15" in capsys.readouterr().out
    assert {file.read_text() for file in foreign_files} == {"mine"}
    assert (tmp_path / "outside" / "done").exists()
    assert (folder / cache.make_name("linked", ["a"])).is_symlink()
    assert not list(folder.glob("task[123]-*")), "entries are deleted"
    assert sorted(os.listdir(folder / cache.COMPILED)) == ["drafts", "paper-cache"]


def test_a_folder_whose_name_only_starts_like_an_entry_is_not_an_entry(folder, foreign_files):
    entry = cache.make_name("features", ["a"])
    cache.load_or_build(entry, lambda: {"x": np.zeros(3)})
    (folder / f"{entry}-backup").mkdir()
    (folder / f"{entry}-backup" / "done").write_text("mine")
    assert cache.list_entries("features") == [entry]
    assert cache.load(f"{entry}-backup") is None
    assert (folder / f"{entry}-backup" / "done").read_text() == "mine"


def test_files_of_jaxs_compilation_cache_are_recognized(tmp_path, monkeypatch):
    """If a release of jax renames its files, they would never be pruned."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path))
    code = (
        "import jax; from xlkd.runtime import devices; devices.prepare_devices()\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "jax.config.update('jax_compilation_cache_max_size', 1 << 30)\n"
        "jax.jit(lambda x: x + 1)(1.0)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    contents = cache.list_contents()
    assert [entry.kind for entry in contents.entries] == [cache.COMPILED]
    assert contents.entries[0].size_bytes > 100
    assert not contents.foreign
    caches.main(["--delete_all"])
    assert not os.listdir(tmp_path)
