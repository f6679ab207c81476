# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""One way to write an output: whatever stands under its name, nothing of the user's is lost."""

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


def snapshot(folder: pathlib.Path) -> dict[str, object]:
    """Every name below a folder with its content, its target or its kind."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        else:
            found[name] = path.read_bytes() if path.is_file() else path.lstat().st_mode
    return found


def write(path: pathlib.Path, text: str = "new\n") -> None:
    """As a command does: checked before the work, written after it."""
    files.check_file(path)
    files.OutputFile(path).write_text(text)


def export(path: pathlib.Path, **content: str) -> None:
    """As a command does; a name with __ stands for a file in a folder."""
    files.check_folder(path)
    with files.replace_folder(path) as draft:
        for name, text in content.items():
            file = draft / name.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)


def names(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Files


def test_a_new_file_gets_the_permissions_that_new_files_get(tmp_path):
    (tmp_path / "plain").write_text("")
    write(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "new\n"
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_replaced_as_a_whole_and_keeps_its_permissions(tmp_path):
    file = tmp_path / "out"
    file.write_text("old")
    file.chmod(0o640)
    with file.open() as reader:
        write(file)
        assert reader.read() == "old", "who reads the former file goes on"
    assert file.read_text() == "new\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_symlink_is_followed_also_where_it_leads_to_nothing_yet(tmp_path, exists):
    (tmp_path / "there").mkdir()
    if exists:
        (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to("there/file")
    (tmp_path / "out").symlink_to("link")
    write(tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new\n"
    assert os.listdir(tmp_path / "there") == ["file"]


def listening_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


REFUSED = {
    "folder": (lambda path: path.mkdir(), "a folder, not a file"),
    "link to a folder": (lambda path: path.symlink_to("."), "a folder, not a file"),
    "link into no folder": (lambda path: path.symlink_to("none/file"), "no such folder"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be written"),
    "socket": (listening_socket, "a socket, not a file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_place_for_a_file_is_refused_before_the_work(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make, says = REFUSED[kind]
    make(tmp_path / "out")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=says):
        files.check_file(tmp_path / "out")
    with pytest.raises(UserError):
        files.OutputFile(tmp_path / "out").write_text("new")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["none/out", "file/out", "x" * 300])
def test_a_path_that_leads_nowhere_is_one_line(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        files.check_file(tmp_path / name)


def make_device(path: pathlib.Path, kind: int, major: int, minor: int) -> None:
    try:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
        path.open("wb").close()
    except OSError:
        pytest.skip("making a device needs rights that this process does not have")


def test_a_device_is_written_into_and_stays_one(tmp_path):
    """What replaced a device for root: the node itself became a file."""
    make_device(tmp_path / "null", 0o020000, 1, 3)
    before = (tmp_path / "null").lstat()
    write(tmp_path / "null")
    (tmp_path / "link").symlink_to("null")
    write(tmp_path / "link")
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


def test_a_pipe_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to("pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write(tmp_path / "out")
    reader.join(timeout=60)
    assert got == ["new\n"]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_is_written_into_in_its_order(tmp_path, path, to):
    if path.startswith("/proc") and not os.path.exists(path):
        pytest.skip("there is no /proc here")
    (tmp_path / "link").symlink_to("/dev/stdout")
    code = (
        "import pathlib, sys; from xlkd import files; path = pathlib.Path(sys.argv[1]); files.check_file(path)\n"
        "print('before'); files.OutputFile(path).write_text('new\\n'); print('after')"
    )
    where = tmp_path / "stdout"
    with where.open("w") as file:
        out = subprocess.PIPE if to == "pipe" else file
        done = subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path, stdout=out, text=True, check=True)
    assert (done.stdout if to == "pipe" else where.read_text()) == "before\nnew\nafter\n"


def test_what_is_open_for_reading_only_or_not_at_all_is_refused(tmp_path):
    (tmp_path / "in").write_text("mine")
    with (tmp_path / "in").open() as file, pytest.raises(UserError, match="open for reading only"):
        files.check_file(pathlib.Path(f"/dev/fd/{file.fileno()}"))
    with pytest.raises(UserError, match="cannot be written"):
        files.check_file(pathlib.Path("/dev/fd/987"))


def test_a_full_device_is_one_line():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with pytest.raises(UserError, match=re.escape(os.strerror(errno.ENOSPC))):
        write(pathlib.Path("/dev/full"))


def test_a_full_disk_is_one_line_and_leaves_the_former_file_alone(tmp_path):
    (tmp_path / "out").write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written: .*; make room"):
            write(tmp_path / "out", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "out").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_what_permissions_forbid_is_refused_before_the_work(tmp_path):
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


def test_an_output_is_none_of_the_inputs(tmp_path):
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


def test_a_new_folder_is_there_as_a_whole_with_its_marker(tmp_path):
    with files.replace_folder(tmp_path / "a" / "out") as draft:
        (draft / "config.json").write_text("{}")
        assert not (tmp_path / "a" / "out").exists()
    assert names(tmp_path) == [f"a/out/{files.MARKER}", "a/out/config.json"]
    assert json.loads((tmp_path / "a" / "out" / files.MARKER).read_text()) == {"version": 1, "files": ["config.json"]}
    assert (tmp_path / "a" / "out").stat().st_mode & 0o777 == 0o755


def test_an_export_is_replaced_file_by_file_and_others_stay(tmp_path):
    export(tmp_path / "out", config="1", weights="1", pooling__config="1")
    (tmp_path / "out" / "thesis.docx").write_text("mine")
    (tmp_path / "out" / "pooling" / "notes").write_text("mine")
    export(tmp_path / "out", config="2", vectors__config="2")
    assert names(tmp_path / "out") == [
        files.MARKER, "config", "pooling/notes", "thesis.docx", "vectors/config"
    ]  # fmt: skip
    assert (tmp_path / "out" / "config").read_text() == "2"
    export(tmp_path / "out", config="3")
    assert not (tmp_path / "out" / "vectors").exists(), "an empty folder of ours goes"


@pytest.mark.parametrize("name", ["empty", ".", "link"])
def test_an_empty_folder_may_be_used_also_the_current_one(tmp_path, monkeypatch, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    inode = (tmp_path / "empty").stat().st_ino
    monkeypatch.chdir(tmp_path / "empty" if name == "." else tmp_path)
    for _ in range(2):
        export(pathlib.Path(name), config="1")
    assert names(tmp_path / "empty") == [files.MARKER, "config"]
    assert (tmp_path / "empty").stat().st_ino == inode
    assert (tmp_path / "link").is_symlink()


def foreign_folder(path: pathlib.Path) -> None:
    path.mkdir()
    (path / "thesis.docx").write_text("mine")


def link_to_foreign_folder(path: pathlib.Path) -> None:
    foreign_folder(path.with_name("documents"))
    path.symlink_to("documents")


FOREIGN = {
    "folder": (foreign_folder, "contains thesis.docx, which no export wrote"),
    "link to a folder": (link_to_foreign_folder, "contains thesis.docx"),
    "file": (lambda path: path.write_text("mine"), "a file, not a folder"),
    "link to a file": (lambda path: (path.with_name("f").write_text("mine"), path.symlink_to("f")), "a file, not"),
    "pipe": (os.mkfifo, "a file, not a folder"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be read"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_no_export_wrote_is_refused_and_stays(tmp_path, kind):
    make, says = FOREIGN[kind]
    make(tmp_path / "out")
    before = snapshot(tmp_path)
    for attempt in (lambda: files.check_folder(tmp_path / "out"), lambda: export(tmp_path / "out", config="1")):
        with pytest.raises(UserError, match=says):
            attempt()
    assert snapshot(tmp_path) == before


def test_a_symlink_that_leads_nowhere_yet_gets_its_folder(tmp_path):
    (tmp_path / "out").symlink_to("there")
    export(tmp_path / "out", config="1")
    assert (tmp_path / "out").is_symlink()
    assert names(tmp_path / "there") == [files.MARKER, "config"]


@pytest.mark.parametrize("taken", ["README.md", "pooling"])
def test_a_file_of_the_users_with_the_name_of_a_new_one_is_refused(tmp_path, taken):
    export(tmp_path / "out", config="1")
    (tmp_path / "out" / taken).write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="this one would replace"):
        export(tmp_path / "out", **{"config": "2", "README.md": "2", "pooling__config": "2"})
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["../mine", "/MINE", "a/../../mine", "inner/mine", ".", "", 5, "link", "folder"])
def test_a_marker_reaches_nothing_outside_its_folder(tmp_path, name):
    """It is a file that anybody may have written: through a symlink too nothing is deleted, and no folder ever."""
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.write_text("mine")
    export(out, config="1")
    (out / "inner").symlink_to("..")
    (out / "link").symlink_to("../mine")
    (out / "folder").mkdir()
    (out / "folder" / "notes").write_text("mine")
    listed = str(mine) if name == "/MINE" else name
    (out / files.MARKER).write_text(json.dumps({"version": 1, "files": ["config", listed]}))
    with contextlib.suppress(UserError):
        export(out, config="2")
    assert mine.read_text() == (out / "folder" / "notes").read_text() == "mine"
    assert (out / "link").is_symlink()


@pytest.mark.parametrize("marker", ["", "[]", '{"version": 1}', '{"version": 9, "files": []}', '{"files": ["a"]}'])
def test_a_marker_that_is_not_ours_is_no_permission(tmp_path, marker):
    export(tmp_path / "out", a="1")
    (tmp_path / "out" / files.MARKER).write_text(marker)
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="not a list of exported files"):
        export(tmp_path / "out", a="2")
    assert snapshot(tmp_path) == before


def test_what_fails_in_the_middle_leaves_the_former_export(tmp_path):
    export(tmp_path / "out", config="1")
    before = snapshot(tmp_path)
    for error, seen in (
        (ZeroDivisionError(), ZeroDivisionError),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), UserError),
    ):
        with pytest.raises(seen):
            fail(tmp_path / "out", error)
    assert snapshot(tmp_path) == before


def fail(path: pathlib.Path, error: Exception) -> None:
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
def test_a_kill_at_any_moment_loses_nothing_foreign_and_lets_the_next_export_work(tmp_path, before):
    for step in range(20):
        out = tmp_path / str(step) / "out"
        out.parent.mkdir()
        if before == "export":
            export(out, config="1", weights="1", old="1")
            (out / "thesis.docx").write_text("mine")
        elif before == "empty":
            out.mkdir()
        done = subprocess.run([sys.executable, "-c", KILLED, str(step), str(out)], capture_output=True, text=True)
        if done.returncode == 0:
            assert step > 0
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        export(out, config="3", weights="3", new="3")
        mine = ["thesis.docx"] if before == "export" else []
        assert names(out.parent) == [f"out/{name}" for name in [files.MARKER, "config", "new", *mine, "weights"]]
        assert {(out / name).read_text() for name in ("config", "weights", "new")} == {"3"}
    assert done.stdout == "whole\n"


def test_two_exports_to_one_folder_at_once(tmp_path):
    export(tmp_path / "out", config="1")
    with files.replace_folder(tmp_path / "out") as draft:
        (draft / "config").write_text("2")
        with pytest.raises(UserError, match="another process is exporting to it"):
            export(tmp_path / "out", config="3")
    assert (tmp_path / "out" / "config").read_text() == "2"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError('RESOURCE_EXHAUSTED: Error writing "d/1" [OS error 28: No space left on device]'),
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
    ],
)
def test_a_disk_that_is_full_is_told_in_one_line_whoever_met_it(tmp_path, error):
    with pytest.raises(UserError) as told:
        meet(error, tmp_path)
    assert re.match("cannot be written any more: (No space|Read-only).*", told.value.what)
    assert told.value.where == str(tmp_path)


def meet(error, tmp_path):
    """Closing what is open fails too, as it does on a full disk."""
    with files.explain_no_room(str(tmp_path), "make room"):
        try:
            raise error
        finally:
            raise RuntimeError("the save did not end")


def test_another_fault_keeps_its_own_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError), files.explain_no_room(str(tmp_path), "make room"):
        print(1 / 0)
