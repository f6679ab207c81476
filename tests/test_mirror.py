# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A work directory in a bucket: its lock, and the folder of this machine that is uploaded."""

import itertools
import json
import os
import time

import pytest

from xlkd import storage
from xlkd.errors import UserError
from xlkd.runtime import lease, mirror
from xlkd.runtime.workdir import WorkDirectory

NAMES = itertools.count()


@pytest.fixture
def remote(proxy):
    return storage.RemoteFolder(f"gs://bucket/mirrors/{next(NAMES)}")


@pytest.fixture
def quick_lease(monkeypatch):
    monkeypatch.setattr(lease, "LEASE", 0.6)


def ignore(line):
    pass


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def test_what_changed_is_uploaded_in_the_order_in_which_it_was_written_and_done_last(remote, proxy, tmp_path):
    names = ["stages/01-a/done", "stages/01-a/export/b", "log.txt", "stages/01-a/evaluation/2-eval.json"]
    for name in names:
        write(tmp_path, name, name)
        time.sleep(0.01)
    for name in (
        ".lock",
        "stages/01-a/checkpoints/4/x",
        ".xlkd-draft-0123abcd",
        "thesis.txt",
        "stages/x/.xlkd-draft-0123abcd",
    ):
        write(tmp_path, name, name)
    mirrored = mirror.Mirror(remote, tmp_path)
    mirrored.upload()
    uploads = [path for method, path in proxy.log if "uploadType" in path]
    assert len(uploads) == len(names)
    generations = {name: o.generation for name, o in remote.list_objects().items()}
    assert sorted(generations, key=generations.get) == [*names[1:], names[0]]
    proxy.log.clear()
    mirrored.upload()
    assert proxy.log == []
    write(tmp_path, "log.txt", "more lines")
    (tmp_path / names[1]).rename(tmp_path / "stages/01-a/export/c")
    mirrored.upload()
    assert sorted(remote.list_objects()) == sorted([names[0], *names[2:], "stages/01-a/export/c"])
    assert remote.read("log.txt")[0] == b"more lines"


def test_another_process_than_the_first_uploads_its_own_files_itself(remote, tmp_path):
    workdir = WorkDirectory(tmp_path, None, mirror.Mirror(remote, tmp_path))
    workdir.write_own_file(tmp_path / "stages" / "01-a" / "profile" / "process-1", b"trace")
    assert remote.read("stages/01-a/profile/process-1")[0] == b"trace"


def test_another_machine_downloads_what_the_first_one_wrote(remote, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for name in ("config.json", "stages/01-a/stage.json", "stages/01-a/export/model.safetensors"):
        write(first, name, name)
    mirrored = mirror.Mirror(remote, first)
    mirrored.upload()
    remote.write("stages/01-a/checkpoints/20/sums.json", b"x")
    remote.write("stages/01-a/checkpoints/40/state/x", b"x")  # a killed upload
    remote.write("thesis.txt", b"x")
    write(second, "log.txt", "of an earlier start")
    write(second, "stages/01-a/stage.json", "an older record")
    other = mirror.Mirror(remote, second)
    other.download()
    present = {str(path.relative_to(second)) for path in second.rglob("*") if path.is_file()}
    assert present == {"config.json", "stages/01-a/stage.json"}
    assert (second / "stages/01-a/stage.json").read_text() == "stages/01-a/stage.json"
    assert os.listdir(second / "stages/01-a/checkpoints") == ["20"]
    other.upload()
    assert "thesis.txt" in remote.list_objects()
    listing = json.loads(json.dumps(other.publish(second / "stages/01-a")))
    third = mirror.Mirror(remote, tmp_path / "third")
    third.fetch({name: (size, crc32c) for name, (size, crc32c) in listing.items()})
    assert (tmp_path / "third/stages/01-a/export/model.safetensors").read_text().endswith("safetensors")


def test_a_run_that_is_alive_keeps_its_lock(remote, quick_lease):
    first = lease.Lease(remote, ignore)
    try:
        first._owner["host"] = "another machine"  # which nothing is known of
        first._renew()
        with pytest.raises(UserError, match=r"in use by process .* on another machine"):
            lease.Lease(remote, ignore)
        first.check()
    finally:
        first.release()
    assert remote.list_objects() == {}


def test_a_lock_that_is_no_longer_renewed_is_taken_over_and_its_owner_notices(remote, quick_lease):
    first = lease.Lease(remote, ignore)
    first._ended.set()  # as if the process were stopped
    first._owner["host"] = "another machine"
    first._renew()
    since = time.monotonic()
    second = lease.Lease(remote, ignore)
    assert time.monotonic() - since >= 0.6
    with pytest.raises(UserError, match="taken over by process"):
        first.check()
    second.check()
    second.release()
    assert remote.list_objects() == {}


def test_the_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(remote, monkeypatch):
    first = lease.Lease(remote, ignore)
    first._ended.set()
    first._owner["started"] = "1"  # its number belongs to another process now
    first._renew()
    since = time.monotonic()
    lease.Lease(remote, ignore).release()
    assert time.monotonic() - since < lease.LEASE / 4


def test_a_bucket_that_fails_for_a_moment_costs_no_lock(remote, proxy, quick_lease, monkeypatch):
    monkeypatch.setattr(storage, "_LONGEST_PAUSE", 0.1)
    first = lease.Lease(remote, ignore)
    proxy.fail_for(1.0)
    time.sleep(1.2)
    first.check()
    first.release()


def test_a_failed_upload_ends_the_run_at_its_next_check(remote, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "EVERY", 0.05)
    write(tmp_path, "log.txt", "a line")
    with mirror.Uploader(mirror.Mirror(remote, tmp_path), lambda: None) as uploader:
        time.sleep(0.2)
        uploader.check()
        assert "log.txt" in remote.list_objects()
        proxy.fail_for(60, 403)
        write(tmp_path, "log.txt", "another line")
        time.sleep(0.3)
        with pytest.raises(UserError, match="access refused"):
            uploader.check()
