# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writing outputs: whatever already has their name, no file of the user is lost."""

import contextlib
import errno
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import threading

import pytest

from xlkd import files
from xlkd.errors import UserError


def take_snapshot(folder: pathlib.Path) -> dict[str, object]:
    """Returns the content, link target or mode of everything below a folder, by name."""
    entries: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            entries[name] = ("link", os.readlink(path))
        else:
            entries[name] = path.read_bytes() if path.is_file() else path.lstat().st_mode
    return entries


def write_file(path: pathlib.Path, text: str = "new\n") -> None:
    """Writes as a command does: checks the path first, and writes at the end."""
    files.check_file(path)
    files.OutputFile(path).write_text(text)


def write_export(path: pathlib.Path, **content: str) -> None:
    """Exports as a command does; a name with __ stands for a file in a folder."""
    files.check_folder(path)
    with files.replace_folder(path) as draft:
        for name, text in content.items():
            file = draft / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)


def list_files(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Files


def test_a_new_file_has_default_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_file(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "new\n"
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_replaced_atomically_and_keeps_its_permissions(tmp_path):
    file = tmp_path / "out"
    file.write_text("old")
    file.chmod(0o640)
    with file.open() as reader:
        write_file(file)
        assert reader.read() == "old", "an open reader still reads the former file"
    assert file.read_text() == "new\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_symlink_is_followed_even_to_a_missing_file(tmp_path, exists):
    (tmp_path / "there").mkdir()
    if exists:
        (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to("there/file")
    (tmp_path / "out").symlink_to("link")
    write_file(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new\n"
    assert os.listdir(tmp_path / "there") == ["file"]


def make_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


REFUSED = {
    "folder": (lambda path: path.mkdir(), "a folder, not a file"),
    "link to a folder": (lambda path: path.symlink_to("."), "a folder, not a file"),
    "link into no folder": (lambda path: path.symlink_to("none/file"), "no such folder"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be written"),
    "socket": (make_socket, "a socket, not a file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_path_that_cannot_be_a_file_is_refused_before_the_work(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make, says = REFUSED[kind]
    make(tmp_path / "out")
    before = take_snapshot(tmp_path)
    with pytest.raises(UserError, match=says):
        files.check_file(tmp_path / "out")
    with pytest.raises(UserError):
        files.OutputFile(tmp_path / "out").write_text("new")
    assert take_snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["none/out", "file/out", "x" * 300])
def test_an_impossible_path_is_a_clear_error(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        files.check_file(tmp_path / name)


def make_device(path: pathlib.Path, kind: int, major: int, minor: int) -> None:
    try:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
        path.open("wb").close()
    except OSError:
        pytest.skip("making a device needs rights that this process does not have")


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    """As root, an atomic replacement would turn the device node into a file."""
    make_device(tmp_path / "null", 0o020000, 1, 3)
    before = (tmp_path / "null").lstat()
    write_file(tmp_path / "null")
    (tmp_path / "link").symlink_to("null")
    write_file(tmp_path / "link")
    after = (tmp_path / "null").lstat()
    assert (after.st_mode, after.st_rdev, after.st_ino) == (before.st_mode, before.st_rdev, before.st_ino)
    assert sorted(os.listdir(tmp_path)) == ["link", "null"]


def test_a_block_device_is_refused(tmp_path, monkeypatch):
    (tmp_path / "disk").write_text("all my data")
    monkeypatch.setattr(files.stat, "S_ISREG", lambda mode: False)
    monkeypatch.setattr(files.stat, "S_ISBLK", lambda mode: True)
    for attempt in (files.check_file, lambda path: files.write_text(path, "new")):
        with pytest.raises(UserError, match="a block device, not a file"):
            attempt(tmp_path / "disk")
    assert (tmp_path / "disk").read_text() == "all my data"


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to("pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_file(tmp_path / "out")
    reader.join(timeout=60)
    assert received == ["new\n"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_is_written_to_in_order(tmp_path, path, to):
    if path.startswith("/proc") and not os.path.exists(path):
        pytest.skip("there is no /proc here")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "import pathlib, sys; from xlkd import files; path = pathlib.Path(sys.argv[1]); files.check_file(path)\n"
        "print('before'); files.OutputFile(path).write_text('new\\n'); print('after')"
    )
    redirected = tmp_path / "stdout"
    with redirected.open("w") as file:
        out = subprocess.PIPE if to == "pipe" else file
        done = subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path, stdout=out, text=True, check=True)
    assert (done.stdout if to == "pipe" else redirected.read_text()) == "before\nnew\nafter\n"


def test_descriptors_that_are_read_only_or_closed_are_refused(tmp_path):
    (tmp_path / "in").write_text("mine")
    with (tmp_path / "in").open() as file, pytest.raises(UserError, match="open for reading only"):
        files.check_file(pathlib.Path(f"/dev/fd/{file.fileno()}"))
    with pytest.raises(UserError, match="cannot be written"):
        files.check_file(pathlib.Path("/dev/fd/987"))


def test_a_full_device_is_a_clear_error():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with pytest.raises(UserError, match=re.escape(os.strerror(errno.ENOSPC))):
        write_file(pathlib.Path("/dev/full"))


def test_a_full_disk_is_a_clear_error_and_keeps_the_former_file(tmp_path):
    (tmp_path / "out").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written: .*; free disk space"):
            write_file(tmp_path / "out", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "out").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_missing_permissions_are_reported_before_the_work(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "file").chmod(0o444)
    (tmp_path / "closed").chmod(0o555)
    try:
        if os.access(tmp_path / "closed", os.W_OK):
            pytest.skip("permissions do not bind this user")
        for path in (tmp_path / "closed" / "out", tmp_path / "file"):
            with pytest.raises(UserError, match="permission denied"):
                files.check_file(path)
        for path in (tmp_path / "closed", tmp_path / "closed" / "new"):
            with pytest.raises(UserError, match="cannot be written"):
                files.check_folder(path)
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_an_output_that_overlaps_with_an_input_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("data/en.json", "corpus.en"):
        (tmp_path / name).write_text("mine")
    os.link(tmp_path / "corpus.en", tmp_path / "hard")
    (tmp_path / "soft").symlink_to("data")
    inputs = [tmp_path / "data", tmp_path / "corpus"]
    for name in ("data/en.json", "data/new.json", "soft/new.json", "corpus.en", "corpus.de", "data"):
        with pytest.raises(UserError, match="would overlap with"):
            files.check_inputs(tmp_path / name, inputs)
    with pytest.raises(UserError, match="would overlap with"):
        files.check_inputs(tmp_path / "hard", [tmp_path / "corpus.en"])
    for name in ("data.json", "corpus2.en", "/dev/null"):
        files.check_inputs(tmp_path / name, inputs)


# Folders


def test_a_new_folder_appears_complete_and_with_its_marker(tmp_path):
    with files.replace_folder(tmp_path / "a" / "out") as draft:
        (draft / "config.json").write_text("{}")
        assert not (tmp_path / "a" / "out").exists()
    assert list_files(tmp_path) == [f"a/out/{files.MARKER}", "a/out/config.json"]
    assert json.loads((tmp_path / "a" / "out" / files.MARKER).read_text()) == {"version": 1, "files": ["config.json"]}
    assert (tmp_path / "a" / "out").stat().st_mode & 0o777 == 0o755


def test_an_export_replaces_its_own_files_and_keeps_others(tmp_path):
    write_export(tmp_path / "out", config="1", weights="1", pooling__config="1")
    (tmp_path / "out" / "thesis.docx").write_text("mine")
    (tmp_path / "out" / "pooling" / "notes").write_text("mine")
    write_export(tmp_path / "out", config="2", vectors__config="2")
    assert list_files(tmp_path / "out") == [
        files.MARKER, "config", "pooling/notes", "thesis.docx", "vectors/config"
    ]  # fmt: skip
    assert (tmp_path / "out" / "config").read_text() == "2"
    write_export(tmp_path / "out", config="3")
    assert not (tmp_path / "out" / "vectors").exists(), "an empty folder of the former export is deleted"


@pytest.mark.parametrize("name", ["empty", ".", "link"])
def test_an_empty_folder_is_accepted_even_the_current_one(tmp_path, monkeypatch, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    inode = (tmp_path / "empty").stat().st_ino
    monkeypatch.chdir(tmp_path / "empty" if name == "." else tmp_path)
    for _ in range(2):
        write_export(pathlib.Path(name), config="1")
    assert list_files(tmp_path / "empty") == [files.MARKER, "config"]
    assert (tmp_path / "empty").stat().st_ino == inode
    assert (tmp_path / "link").is_symlink()


def make_foreign_folder(path: pathlib.Path) -> None:
    path.mkdir()
    (path / "thesis.docx").write_text("mine")


def make_link_to_foreign_folder(path: pathlib.Path) -> None:
    make_foreign_folder(path.with_name("documents"))
    path.symlink_to("documents")


FOREIGN = {
    "folder": (make_foreign_folder, "contains thesis.docx, which no export wrote"),
    "link to a folder": (make_link_to_foreign_folder, "contains thesis.docx"),
    "file": (lambda path: path.write_text("mine"), "a file, not a folder"),
    "link to a file": (lambda path: (path.with_name("f").write_text("mine"), path.symlink_to("f")), "a file, not"),
    "pipe": (os.mkfifo, "a file, not a folder"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be read"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_folders_and_files_that_no_export_wrote_are_refused_and_remain(tmp_path, kind):
    make, says = FOREIGN[kind]
    make(tmp_path / "out")
    before = take_snapshot(tmp_path)
    for attempt in (lambda: files.check_folder(tmp_path / "out"), lambda: write_export(tmp_path / "out", config="1")):
        with pytest.raises(UserError, match=says):
            attempt()
    assert take_snapshot(tmp_path) == before


def test_the_missing_target_of_a_symlink_is_created(tmp_path):
    (tmp_path / "out").symlink_to("there")
    write_export(tmp_path / "out", config="1")
    assert (tmp_path / "out").is_symlink()
    assert list_files(tmp_path / "there") == [files.MARKER, "config"]


@pytest.mark.parametrize("taken", ["README.md", "pooling"])
def test_an_export_never_replaces_a_file_of_the_user(tmp_path, taken):
    write_export(tmp_path / "out", config="1")
    (tmp_path / "out" / taken).write_text("mine")
    before = take_snapshot(tmp_path)
    with pytest.raises(UserError, match="this one would replace"):
        write_export(tmp_path / "out", **{"config": "2", "README.md": "2", "pooling__config": "2"})
    assert take_snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["../mine", "/MINE", "a/../../mine", "inner/mine", ".", "", 5, "link", "folder"])
def test_a_marker_cannot_delete_anything_outside_its_folder(tmp_path, name):
    """Anybody may have written the marker, so nothing is deleted through a symlink, and never a folder."""
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.write_text("mine")
    write_export(out, config="1")
    (out / "inner").symlink_to("..")
    (out / "link").symlink_to("../mine")
    (out / "folder").mkdir()
    (out / "folder" / "notes").write_text("mine")
    listed = str(mine) if name == "/MINE" else name
    (out / files.MARKER).write_text(json.dumps({"version": 1, "files": ["config", listed]}))
    with contextlib.suppress(UserError):
        write_export(out, config="2")
    assert mine.read_text() == (out / "folder" / "notes").read_text() == "mine"
    assert (out / "link").is_symlink()


@pytest.mark.parametrize("marker", ["", "[]", '{"version": 1}', '{"version": 9, "files": []}', '{"files": ["a"]}'])
def test_an_unknown_marker_is_refused(tmp_path, marker):
    write_export(tmp_path / "out", a="1")
    (tmp_path / "out" / files.MARKER).write_text(marker)
    before = take_snapshot(tmp_path)
    with pytest.raises(UserError, match="not a list of exported files"):
        write_export(tmp_path / "out", a="2")
    assert take_snapshot(tmp_path) == before


def test_a_failed_export_leaves_the_former_one(tmp_path):
    write_export(tmp_path / "out", config="1")
    before = take_snapshot(tmp_path)
    for error, seen in (
        (ZeroDivisionError(), ZeroDivisionError),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UserError),
    ):
        with pytest.raises(seen):
            fail_export(tmp_path / "out", error)
    assert take_snapshot(tmp_path) == before


def fail_export(path: pathlib.Path, error: Exception) -> None:
    with files.replace_folder(path) as draft:
        (draft / "config").write_text("2")
        raise error


KILLED = """
import os, pathlib, sys
from xlkd import files
count, path = int(sys.argv[1]), pathlib.Path(sys.argv[2])

def kills(function):
    def step(*arguments, **more):
        global count
        count -= 1
        if count < 0:
            os.kill(os.getpid(), 9)
        return function(*arguments, **more)
    return step

for name in ("unlink", "replace", "rename", "rmdir"):
    setattr(pathlib.Path, name, kills(getattr(pathlib.Path, name)))
with files.replace_folder(path) as draft:
    for name in ("config", "weights", "new"):
        (draft / name).write_text("2")
print("whole")
"""


@pytest.mark.parametrize("before", ["export", "empty", "nothing"])
def test_after_a_kill_at_any_moment_foreign_files_remain_and_the_next_export_works(tmp_path, before):
    for step in range(20):
        out = tmp_path / str(step) / "out"
        out.parent.mkdir()
        if before == "export":
            write_export(out, config="1", weights="1", old="1")
            (out / "thesis.docx").write_text("mine")
        elif before == "empty":
            out.mkdir()
        done = subprocess.run([sys.executable, "-c", KILLED, str(step), str(out)], capture_output=True, text=True)
        if done.returncode == 0:
            assert step > 0
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        write_export(out, config="3", weights="3", new="3")
        mine = ["thesis.docx"] if before == "export" else []
        assert list_files(out.parent) == [f"out/{name}" for name in [files.MARKER, "config", "new", *mine, "weights"]]
        assert {(out / name).read_text() for name in ("config", "weights", "new")} == {"3"}
    assert done.stdout == "whole\n"


def test_a_second_export_to_a_folder_at_the_same_time_is_refused(tmp_path):
    write_export(tmp_path / "out", config="1")
    with files.replace_folder(tmp_path / "out") as draft:
        (draft / "config").write_text("2")
        with pytest.raises(UserError, match="another process is exporting to it"):
            write_export(tmp_path / "out", config="3")
    assert (tmp_path / "out" / "config").read_text() == "2"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError('RESOURCE_EXHAUSTED: Error writing "d/1" [OS error 28: No space left on device]'),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
    ],
)
def test_a_full_disk_is_one_line_whichever_library_reports_it(tmp_path, error):
    with pytest.raises(UserError) as caught:
        raise_on_full_disk(error, tmp_path)
    assert re.match("cannot be written any more: (No space|Read-only).*", caught.value.what)
    assert caught.value.where == str(tmp_path)


def raise_on_full_disk(error, tmp_path):
    """Raises an error, and another one on closing, as happens on a full disk."""
    with files.explain_no_room(str(tmp_path), "free disk space"):
        try:
            raise error
        finally:
            raise RuntimeError("the save did not end")


def test_another_error_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError), files.explain_no_room(str(tmp_path), "free disk space"):
        print(1 / 0)


def test_a_repeated_key_is_found_in_a_large_object():
    """In time that grows with the number of keys: a vocabulary has hundreds of thousands."""
    pairs = [(str(number), number) for number in range(300_000)]
    assert files.find_repeated_key(pairs) is None
    assert files.find_repeated_key([*pairs, ("299998", 0), ("7", 0)]) == "299998"
