# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Objects of a bucket, read and written through a real server whose requests fail now and then."""

import itertools
import threading
import time

import bucket
import pytest

from xlkd import storage
from xlkd.errors import Stopped, UserError

NAMES = itertools.count()


@pytest.fixture
def folder(proxy):
    return storage.RemoteFolder(f"gs://bucket/objects/{next(NAMES)}")


def test_objects_are_written_listed_read_copied_and_deleted(folder, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    uploaded = folder.upload(tmp_path / "file", "a/b c.txt")
    assert folder.list_objects() == {"a/b c.txt": uploaded}
    assert uploaded.size == 7
    folder.copy("a/b c.txt", "a/d.txt")
    assert folder.list_objects("a/d")["a/d.txt"].crc32c == uploaded.crc32c
    folder.download("a/d.txt", tmp_path / "x" / "copy")
    assert (tmp_path / "x" / "copy").read_bytes() == b"content"
    folder.delete(["a/b c.txt", "a/none"])
    assert list(folder.list_objects("a/")) == ["a/d.txt"]
    assert folder.read("a/b c.txt") is None
    assert folder.read("a/d.txt")[0] == b"content"
    with pytest.raises(FileNotFoundError):
        folder.download("a/none", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_conditional_write_notices_other_writers(folder):
    first = folder.write("lock", b"one", generation=0)
    with pytest.raises(storage.ChangedError):
        folder.write("lock", b"two", generation=0)
    second = folder.write("lock", b"two", generation=first.generation)
    with pytest.raises(storage.ChangedError):
        folder.write("lock", b"three", generation=first.generation)
    assert folder.read("lock") == (b"two", second)


def test_a_write_whose_answer_was_lost_counts_as_written(folder, proxy):
    answers = iter([bucket.LOST_ANSWER])
    proxy.fault = lambda method, path: next(answers, None)
    written = folder.write("lock", b"mine", generation=0)
    assert folder.read("lock") == (b"mine", written)
    assert sum(path.startswith("/upload") and "ifGenerationMatch=0" in path for _, path in proxy.log) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failures_for_a_moment_are_survived(folder, proxy, status, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_LONGEST_PAUSE", 0.1)
    proxy.fail_for(0.2, status)
    folder.write("a", b"content")
    proxy.fail_for(0.2, status)
    assert folder.read("a")[0] == b"content"
    proxy.fail_for(0.2, status)
    folder.download("a", tmp_path / "a")
    proxy.fail_for(0.2, status)
    assert list(folder.list_objects()) == ["a"]


def test_a_bucket_that_stays_silent_stops_the_run_so_that_it_is_started_again(folder, proxy, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    proxy.fail_for(60)
    with pytest.raises(Stopped, match="has not answered"):
        folder.write("a", b"content")


def test_a_process_that_ends_does_not_wait_long_for_a_silent_bucket(folder, proxy):
    threading.Timer(0.3, folder.hurry, [0.1]).start()
    proxy.fail_for(60)
    since = time.monotonic()
    with pytest.raises(Stopped):
        folder.write("a", b"content")
    assert time.monotonic() - since < 20


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_is_one_line(folder, proxy, status):
    proxy.fail_for(60, status)
    with pytest.raises(UserError, match="access refused"):
        folder.list_objects()
    with pytest.raises(UserError, match="access refused"):
        folder.write("a", b"content")


def test_a_bucket_that_does_not_exist_is_one_line(proxy, tmp_path):
    folder = storage.RemoteFolder("gs://other-bucket/run")
    (tmp_path / "a").touch()
    for request in (folder.list_objects, lambda: folder.read("a"), lambda: folder.upload(tmp_path / "a", "a")):
        with pytest.raises(UserError, match="no such bucket"):
            request()


@pytest.mark.parametrize("url", ["gs://", "gs:/x", "s3://b/x", "gs://B!/x", "gs://bucket/a//b", "gs://bucket/../b"])
def test_urls_that_are_no_folder_are_refused(url):
    assert storage.is_remote(url)
    with pytest.raises(UserError, match="not a folder in a bucket"):
        storage.RemoteFolder(url)


def test_several_threads_use_one_folder(folder):
    threads = [threading.Thread(target=folder.write, args=(f"{i}", b"x" * i)) for i in range(8)]
    since = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folder.list_objects()) == 8
    assert time.monotonic() - since < 30
