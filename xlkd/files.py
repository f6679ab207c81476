# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes outputs without losing anything of the user's: the only code that writes files and folders.

A regular file is replaced as a whole, at the place that a symlink points to; pipes and character devices are written
into. A folder is replaced only where its marker says that an earlier export wrote it, and then file by file: files that
the marker does not list stay. Files are flushed to the disk before they get their names, so that a power failure leaves
the old file or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import re
import secrets
import select
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from typing import IO, Any, BinaryIO, TextIO

from xlkd.errors import UserError

Json = Any  # a tree of JSON values

MARKER = ".xlkd-export.json"
VERSION = 1
PATIENCE = 10  # seconds that a pipe may be without a process at its other end
_DRAFT = ".xlkd-draft-"
_DRAFT_FILE = re.compile(re.escape(_DRAFT) + "[0-9a-f]{8}")
_DRAFT_NAME = re.compile(re.escape(_DRAFT) + "[a-z0-9_]{8}")
_NO_ROOM = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)))


@dataclasses.dataclass(frozen=True)
class OutputFile:
    """An output file that the user named, after `check_file` found that it can be written."""

    path: pathlib.Path

    def write_text(self, text: str) -> None:
        """Writes the whole text, or raises one line and leaves the file as it was."""
        try:
            write_text(self.path, text)
        except BrokenPipeError:  # the reader closed the pipe, as `head` does: it has what it wanted
            return
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise UserError(
                what, str(self.path), "free disk space, correct the permissions, or name another file"
            ) from error

    def write_json(self, value: Json) -> None:
        """Writes the value as JSON."""
        self.write_text(format_json(value))


def expand_path(name: str) -> pathlib.Path:
    """Returns the path that a user named, with `~` replaced by a home folder; refuses what cannot be a path."""
    try:
        path = pathlib.Path(name).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.lstat()
        return path
    except (OSError, RuntimeError, ValueError) as error:  # too long; no such user or no home; a zero byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"is not a path: {reason}", name[:200], "name a file or a folder") from error


def format_json(value: Json) -> str:
    """Returns the value as indented JSON that ends in a newline; NaN is refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def find_repeated_key(pairs: Iterable[tuple[str, Json]]) -> str | None:
    """Returns the first key that occurs twice in a JSON object, of which a dict would lose one; None without any."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return None


def encode_text(text: str) -> bytes:
    """Returns text as UTF-8; halves of surrogate pairs become `\\udXXX`, which is an escape of JSON too."""
    return text.encode("utf-8", "backslashreplace")


def write_json(path: pathlib.Path, value: Json) -> None:
    """Writes the value as JSON, as `write_text` does."""
    write_text(path, format_json(value))


def write_lines(path: pathlib.Path, values: Iterable[Json]) -> None:
    """Writes each value as one line of JSON, as `write_text` does."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes text, as `write_bytes` does."""
    write_bytes(path, encode_text(text))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Replaces a regular file as a whole or not at all, or creates it; writes into a pipe or a character device."""
    descriptor = find_own_descriptor(path)
    if descriptor is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        with open(os.dup(descriptor), "wb") as file:
            file.write(data)
        return
    old_state = _read_state(path)
    if old_state and not stat.S_ISREG(old_state.st_mode):
        _refuse_kind(path, old_state)
        with open(_open_pipe(path), "wb") as file:
            file.write(data)
        return
    target = pathlib.Path(os.path.realpath(path))
    draft = name_draft(target)
    try:
        with draft.open("xb") as file:
            file.write(data)
            flush_file(file)
        if old_state:
            with contextlib.suppress(PermissionError):  # only root may give a file to its former owner
                os.chown(draft, old_state.st_uid, old_state.st_gid)
            draft.chmod(stat.S_IMODE(old_state.st_mode))
        draft.replace(target)
        flush_path(target.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def name_draft(path: pathlib.Path) -> pathlib.Path:
    """Returns a path beside a file for its next content, until that is complete."""
    return path.with_name(_DRAFT + secrets.token_hex(4))


def is_draft(path: pathlib.Path) -> bool:
    """Returns whether `name_draft` returned this path."""
    return bool(_DRAFT_FILE.fullmatch(path.name))


def open_to_append(path: pathlib.Path) -> TextIO:
    """Opens a file to append lines, after a line end where a crash cut its last line."""
    file = path.open("a+", encoding="utf-8")
    size = file.seek(0, os.SEEK_END)
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        file.write("\n")
    return file


def flush_file(file: IO[Any]) -> None:
    """Flushes an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_path(path: pathlib.Path) -> None:
    """Flushes the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems flush no folders
            raise
    finally:
        os.close(descriptor)


def flush_tree(folder: pathlib.Path) -> None:
    """Flushes every file and folder below a folder, and the folder itself, to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.is_file():
            flush_path(path)
    flush_path(folder)


def compute_sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def delete_draft_files(folder: pathlib.Path) -> None:
    """Deletes the drafts of files that killed processes left in a folder, which no other process may write to."""
    for path in folder.glob(f"{_DRAFT}*"):
        if is_draft(path) and path.is_file():
            path.unlink(missing_ok=True)


def open_input(path: pathlib.Path) -> BinaryIO:
    """Opens a file for reading; a pipe is read to its end, and one that no process writes to is refused soon."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        file = open(descriptor, "rb")  # noqa: SIM115 – the caller closes it; a folder is refused here
    except OSError:
        os.close(descriptor)
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode):
            start = _read_first(descriptor, path)
            os.set_blocking(descriptor, True)
            with file:
                return io.BytesIO(start + file.read())
        if not stat.S_ISREG(mode) and not file.isatty():
            raise UserError("a device, not a file", str(path), "name a file")
    except BaseException:
        file.close()
        raise
    os.set_blocking(descriptor, True)
    return file


def _read_first(pipe: int, path: pathlib.Path) -> bytes:
    """Returns what a pipe has at first; nothing where its writer has yet to write, or has ended."""
    poll, deadline = select.poll(), time.monotonic() + PATIENCE
    poll.register(pipe, select.POLLIN)
    while True:
        ended = dict(poll.poll(0)).get(pipe, 0) & select.POLLHUP
        try:
            data = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return b""
        if data or ended:
            return data
        if time.monotonic() > deadline:
            what = f"no process has opened this pipe for writing in {PATIENCE} seconds"
            raise UserError(what, str(path), "start the process that writes to it first")
        time.sleep(0.02)


def _open_pipe(path: pathlib.Path) -> int:
    """Opens a pipe or a device for writing; a pipe without a reader is refused soon."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(path.stat().st_mode):
                raise
            if time.monotonic() > deadline:
                what = f"no process has opened this pipe for reading in {PATIENCE} seconds"
                raise UserError(what, str(path), "start the process that reads from it first") from None
            time.sleep(0.02)
        else:
            os.set_blocking(file, True)
            return file


def check_file(path: pathlib.Path) -> None:
    """Refuses a path that no file can be written to, before the work starts."""
    remedy = "name a file in a folder that exists and is yours"
    descriptor = find_own_descriptor(path)
    if descriptor is not None:
        try:
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", str(path), remedy) from None
        if mode == os.O_RDONLY:
            raise UserError("cannot be written: it is open for reading only", str(path), remedy)
        return
    try:
        old_state = _read_state(path)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(path), remedy) from None
    folder = os.path.dirname(os.path.realpath(path))
    if old_state and not stat.S_ISREG(old_state.st_mode):
        _refuse_kind(path, old_state)
    elif not os.path.isdir(folder):
        raise UserError(f"cannot be written: no such folder: {folder}", str(path), remedy)
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot be written: permission denied in {folder}", str(path), remedy)
    if old_state and not os.access(path, os.W_OK):
        raise UserError("cannot be written: permission denied", str(path), remedy)


def check_inputs(path: pathlib.Path, inputs: Iterable[pathlib.Path]) -> None:
    """Refuses an output that the same command reads, or that lies in a folder that it reads."""
    target = pathlib.Path(os.path.realpath(path))
    for input_path in inputs:
        source = pathlib.Path(os.path.realpath(input_path))
        same_file = source == target or (path.exists() and source.exists() and path.samefile(source))
        # A path that does not exist may be the prefix of several files, as for a parallel corpus
        is_prefix = not source.exists() and target.parent == source.parent and target.name.startswith(f"{source.name}.")
        if same_file or is_prefix or source in target.parents or target in source.parents:
            raise UserError(f"would overlap with {input_path}, which this command reads", str(path), "name another")


def check_folder(path: pathlib.Path) -> None:
    """Refuses a path that no folder can be exported to: a file, or a folder with content that no export wrote."""
    remedy = "name a new folder, an empty one, or an earlier export"
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        ancestor = next(folder for folder in pathlib.Path(os.path.realpath(path)).parents if folder.exists())
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
            raise UserError("cannot be written", str(ancestor), remedy) from None
        return
    except NotADirectoryError:
        raise UserError("a file, not a folder", str(path), remedy) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), remedy) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError("cannot be written: permission denied", str(path), remedy)
    if _read_marker(path) is None and (foreign := [name for name in names if not _DRAFT_NAME.fullmatch(name)]):
        raise UserError(f"contains {_name_some(foreign)}, which no export wrote", str(path), remedy)


@contextlib.contextmanager
def replace_folder(path: pathlib.Path) -> Generator[pathlib.Path, None, None]:
    """Yields an empty folder to write in; at the end its files replace those of an earlier export.

    A kill leaves the old export, or a folder that the next export may replace; a new folder is complete or absent.
    """
    check_folder(path)
    target = pathlib.Path(os.path.realpath(path))
    with explain_no_room(str(path), "free disk space or make the disk writable, then run the same command again"):
        draft_parent = target if target.exists() else target.parent
        draft_parent.mkdir(parents=True, exist_ok=True)
        if _delete_dead_drafts(draft_parent) and draft_parent == target:
            raise UserError("another process is exporting to it", str(path), "wait, or name another folder")
        draft = pathlib.Path(tempfile.mkdtemp(prefix=_DRAFT, dir=draft_parent))
        lock = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)  # shows that this process is alive; a kill releases it
        try:
            with contextlib.suppress(OSError):  # some network file systems lock no folders
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield draft
            try:
                _publish(draft, target)
            except OSError as error:
                raise UserError(f"cannot be written: {error.strerror}", str(path), "run the command again") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            os.close(lock)


def mark_export(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Adds the marker to a folder of a run that has none or a damaged one, for the exported files with these names.

    Version 0.1 exported without a marker.
    """
    if not folder.is_dir():
        return
    try:
        marked = _read_marker(folder) is not None
    except UserError:
        marked = False
    if not marked:
        _write_marker(folder, _list_files(folder) & frozenset(names))


@contextlib.contextmanager
def explain_no_room(where: str, remedy: str) -> Generator[None, None, None]:
    """Turns an error about a full or read-only disk into one line, whichever library raised it."""
    try:
        yield
    except Exception as error:
        for reason in _NO_ROOM:
            if not isinstance(error, UserError) and any(reason in str(cause) for cause in list_causes(error)):
                raise UserError(f"cannot be written any more: {reason}", where, remedy) from error
        raise


def _publish(draft: pathlib.Path, target: pathlib.Path) -> None:
    """Moves the files of a draft into place; files that were in the folder and that no marker lists stay."""
    flush_tree(draft)
    draft.chmod(0o755)  # mkdtemp and safetensors give access to the owner alone
    for file in draft.glob("*.safetensors"):
        file.chmod(0o644)
    written = _list_files(draft)
    if not target.exists():
        _write_marker(draft, written)
        draft.rename(target)
        flush_path(target.parent)
        return
    exported = _read_marker(target) or frozenset()
    old = {name for name in exported if _is_plain_file(target, name)}
    foreign = [name for name in sorted(written - old) if _is_taken(target, name)]
    if foreign:
        what = f"contains {_name_some(foreign)}, which no export wrote and this one would replace"
        raise UserError(what, str(target), "move it away, or name another folder")
    _replace_marker(draft, target, exported | written)

    def flush_folders() -> None:
        for folder in {target, *((target / name).parent for name in old | written)}:
            if folder.is_dir():
                flush_path(folder)

    for name in old:  # delete all before moving any: a kill leaves no mixture of two exports
        (target / name).unlink()
    flush_folders()
    for name in sorted(written):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(target / name)
    for name in old - written:
        for folder in (target / name).parents:
            if folder == target:
                break
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
    flush_folders()
    _replace_marker(draft, target, written)


def _list_files(folder: pathlib.Path) -> frozenset[str]:
    """Returns the files below a folder by relative path, the marker excepted."""
    return frozenset(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) - {MARKER}


def _write_marker(folder: pathlib.Path, files: Iterable[str]) -> None:
    """Writes the marker, which lists the exported files."""
    write_json(folder / MARKER, {"version": VERSION, "files": sorted(files)})


def _replace_marker(draft: pathlib.Path, target: pathlib.Path, files: Iterable[str]) -> None:
    """Writes the marker in the draft and moves it into place, so that a kill leaves no partial file."""
    _write_marker(draft, files)
    (draft / MARKER).replace(target / MARKER)


def _read_marker(folder: pathlib.Path) -> frozenset[str] | None:
    """Returns the files that an earlier export wrote to a folder; None where there is no marker."""
    file = folder / MARKER
    if not os.path.lexists(file):
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8")) if stat.S_ISREG(file.lstat().st_mode) else None
    except (OSError, ValueError, RecursionError):
        value = None
    names = value.get("files") if isinstance(value, dict) and value.get("version") == VERSION else None
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_inside(name) for name in names):
        raise UserError("is not a list of exported files", str(file), "name a new folder")
    return frozenset(names)


def _is_inside(name: str) -> bool:
    """Says whether a name in a marker is a relative path that stays inside its folder."""
    path = pathlib.PurePosixPath(name)
    return str(path) == name != MARKER and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _is_plain_file(folder: pathlib.Path, name: str) -> bool:
    """Says whether the name is a regular file that is reached without following a symlink."""
    path = folder / name
    real = os.path.join(os.path.realpath(folder), name)
    return path.is_file() and not path.is_symlink() and os.path.realpath(path) == real


def _is_taken(folder: pathlib.Path, name: str) -> bool:
    """Says whether something exists where a file is to be written, or blocks one of its parent folders."""
    parents = [folder / parent for parent in pathlib.PurePosixPath(name).parents[:-1]]
    blocked = any(os.path.lexists(path) and (path.is_symlink() or not path.is_dir()) for path in parents)
    return blocked or os.path.lexists(folder / name)


def _delete_dead_drafts(folder: pathlib.Path) -> bool:
    """Deletes the drafts of killed processes in a folder; returns whether a running process has one there."""
    alive = False
    for path in folder.iterdir():
        if not _DRAFT_NAME.fullmatch(path.name):
            continue
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # not a folder, or just deleted
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            alive = True
        except OSError:  # cannot be locked here, so it stays
            pass
        finally:
            os.close(lock)
    return alive


def find_own_descriptor(path: pathlib.Path) -> int | None:
    """Returns N for /dev/stdout, /dev/fd/N and similar names of files that this process has open."""
    target = os.path.join(os.getcwd(), path)
    for _ in range(40):  # as many symlinks as Linux follows
        folder, name = os.path.realpath(os.path.dirname(target)), os.path.basename(target)
        if name.isdecimal() and re.fullmatch(rf"(/dev|/proc/{os.getpid()}(/task/\d+)?)/fd", folder):
            return int(name)
        target = os.path.join(folder, name)
        if not os.path.islink(target):
            return None
        target = os.path.join(folder, os.readlink(target))
    return None


def _read_state(path: pathlib.Path) -> os.stat_result | None:
    """Returns the state of the file that a path leads to; None where it does not exist."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _refuse_kind(path: pathlib.Path, state: os.stat_result) -> None:
    """Refuses an existing path that is neither a pipe nor a character device."""
    if stat.S_ISDIR(state.st_mode):
        raise UserError("a folder, not a file", str(path), "name a file")
    if not (stat.S_ISFIFO(state.st_mode) or stat.S_ISCHR(state.st_mode)):
        kind = "a block device" if stat.S_ISBLK(state.st_mode) else "a socket"
        raise UserError(f"{kind}, not a file", str(path), "name a file")


def list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, its cause, the cause's cause and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _name_some(names: list[str]) -> str:
    """Joins the first three names and counts the rest."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
