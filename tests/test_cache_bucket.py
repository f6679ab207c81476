# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The cache in a bucket: entries travel between machines, damage is repaired, and a failing bucket costs only time."""

import logging
import threading

import numpy as np
import pytest
from test_cache import A1, A2, B1, Builder, assert_same

from xlkd import caches, main, storage
from xlkd.data import cache, remote_cache
from xlkd.errors import UserError


class Machine:
    """A machine with a cache folder of its own before the one in the bucket."""

    def __init__(self, folder, url, monkeypatch):
        self.folder, self.url, self._monkeypatch = folder, url, monkeypatch
        folder.mkdir()

    def __enter__(self):
        """Lets this process be the machine, after a restart."""
        self._monkeypatch.setenv("XLKD_CACHE", self.url)
        self._monkeypatch.setenv("XDG_CACHE_HOME", str(self.folder))
        cache._open_remote.cache_clear()

    def __exit__(self, *_):
        pass


@pytest.fixture
def machines(bucket_url, tmp_path, monkeypatch):
    return [Machine(tmp_path / name, f"{bucket_url}/cache", monkeypatch) for name in ("first", "second", "third")]


@pytest.fixture
def remote(bucket_url):
    return storage.RemoteFolder(f"{bucket_url}/cache")


def test_an_entry_that_one_machine_has_built_is_read_by_another(machines, remote, proxy, capsys):
    first, second, _ = machines
    with first:
        assert cache.load(A1) is None
        assert_same(cache.load_or_build(A1, Builder()))
        cache.load_or_build(B1, Builder(), upload=False)
        assert [path.name for path in sorted((first.folder / "xlkd").iterdir())] == [A1, B1]
    assert {name.partition("/")[0] for name in remote.list_objects()} == {A1}
    with second:
        cache.load_or_build(A2, Builder())
        assert cache.list_entries("a") == [A1, A2]
        arrays = cache.load(A1)
        assert_same(arrays)
        assert isinstance(arrays["ids"], np.memmap)
        caches.main([])
        assert f"gcloud storage ls {remote.url}" in capsys.readouterr().out
        caches.main(["--delete_all"])
        assert_same(cache.load(A1))
        proxy.log.clear()
        assert_same(cache.load_or_build(A1, Builder()))
        assert not proxy.log, "what is here is not asked for again"


@pytest.mark.parametrize("damage", ["changed", "missing", "marker"])
def test_a_damaged_entry_in_the_bucket_is_rebuilt_and_replaced(machines, remote, damage, caplog):
    first, second, third = machines
    with first:
        cache.load_or_build(A1, Builder())
    (name,) = remote.list_objects(f"{A1}/ids.")
    content = remote.read(name)[0]
    if damage == "changed":
        remote.write(name, content[:500] + bytes([content[500] ^ 1]) + content[501:])
    elif damage == "missing":
        remote.delete([name])
    else:
        remote.write(f"{A1}/done", b"[]")
    with second, caplog.at_level(logging.WARNING):
        build = Builder()
        assert cache.load(A1) is None
        assert_same(cache.load_or_build(A1, build))
        assert build.calls == 1
        assert sum("is damaged" in text for text in caplog.messages) == 1
    with third:
        assert_same(cache.load(A1))


def test_two_machines_that_write_an_entry_at_once_leave_a_sound_one(machines, remote, proxy):
    """Their bits differ; both have found nothing when both begin to write, and their uploads alternate."""
    first, second, third = machines
    values = [{"x": np.full(1000, number), "y": np.full(10, number)} for number in (1, 2)]
    for machine, built in zip((first, second), values, strict=True):
        with machine:
            cache.load_or_build(A1, lambda built=built: built, upload=False)
    gate = threading.Barrier(2, timeout=20)

    def meet(method, path):
        if ".npy" in path and method == "POST":
            gate.wait()

    proxy.fault = meet
    uploads = [
        threading.Thread(target=remote_cache.RemoteCache(remote.url).upload_entry, args=(machine.folder / "xlkd" / A1,))
        for machine in (first, second)
    ]
    for upload in uploads:
        upload.start()
    for upload in uploads:
        upload.join()
    proxy.fault = None
    with third:
        arrays = cache.load(A1)
        assert any(all((arrays[name] == built[name]).all() for name in built) for built in values)


@pytest.mark.parametrize(("status", "word"), [(403, "written"), (503, "used")])
def test_a_bucket_that_cannot_be_written_or_reached_costs_a_warning(machines, proxy, status, word, monkeypatch, caplog):
    monkeypatch.setattr(remote_cache, "PATIENCE", 0.3)
    first, *_ = machines
    with first, caplog.at_level(logging.WARNING):
        cache.check_settings()
        proxy.fault = lambda method, path: status if status == 503 or method == "POST" else None
        for name in (A1, A2):
            assert_same(cache.load_or_build(name, Builder()))
        assert cache.list_entries("a") == [A1, A2]
    assert len(caplog.messages) == 1
    assert f"is no longer {word} (" in caplog.messages[0]
    assert caplog.messages[0].endswith("this run continues with the cache of this machine")


def test_a_bucket_that_refuses_access_is_refused_before_a_work_directory_is_begun(machines, proxy, tmp_path):
    first, *_ = machines
    proxy.fault = lambda method, path: 403
    with first, pytest.raises(UserError, match="access refused"):
        main.main(["--config=configs/gxlt.py", f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["gs://", "gs:/x/y", "s3://bucket/x", "gs://no bucket/x"])
def test_other_addresses_are_refused_before_a_work_directory_is_begun(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", place)
    with pytest.raises(UserError, match="not a folder in a bucket"):
        main.main(["--config=configs/gxlt.py", f"--workdir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()
