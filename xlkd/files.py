# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes outputs so that nothing of the user's is lost: the one way to write a file or a folder.

A regular file is replaced as a whole, beside the file that a symlink names; pipes and character devices are written
into. A folder is replaced only where its marker says that an earlier export wrote it, and then file by file: files that
the marker does not list stay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from xlkd.errors import UserError

MARKER = ".xlkd-export.json"
VERSION = 1
_DRAFT = ".xlkd-draft-"
_DRAFT_NAME = re.compile(re.escape(_DRAFT) + "[a-z0-9_]{8}")
_NO_ROOM = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)))


@dataclasses.dataclass(frozen=True)
class OutputFile:
    """A file that the user named as an output; `check_file` has found that it can be written."""

    path: pathlib.Path

    def write_text(self, text: str) -> None:
        """Writes the whole text, or raises one line and leaves the file as it was."""
        try:
            write_text(self.path, text)
        except BrokenPipeError:  # the reader of a pipe went away: the command ends as `| head` ends it
            raise
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}"
            raise UserError(what, str(self.path), "make room, or name another file") from error

    def write_json(self, value: Any) -> None:
        """Writes the value as JSON."""
        self.write_text(json_text(value))


def json_text(value: Any) -> str:
    """Returns the value as indented JSON with a newline at its end; NaN is refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes the value as JSON, as `write_text` does."""
    write_text(path, json_text(value))


def write_lines(path: pathlib.Path, values: Iterable[Any]) -> None:
    """Writes each value as one line of JSON, as `write_text` does."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces a regular file as a whole or not at all, or makes it; writes into a pipe or a character device."""
    data = text.encode()
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        with open(os.dup(descriptor), "wb") as file:
            file.write(data)
        return
    former = _read_state(path)
    if former and not stat.S_ISREG(former.st_mode):
        _refuse_kind(path, former)
        with open(os.open(path, os.O_WRONLY), "wb") as file:
            file.write(data)
        return
    target = pathlib.Path(os.path.realpath(path))
    draft = target.with_name(_DRAFT + secrets.token_hex(4))
    try:
        with draft.open("xb") as file:
            file.write(data)
        if former:
            with contextlib.suppress(PermissionError):  # only root may give a file to its former owner
                os.chown(draft, former.st_uid, former.st_gid)
            draft.chmod(stat.S_IMODE(former.st_mode))
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def check_file(path: pathlib.Path) -> None:
    """Refuses a path that no file can be written to, before the work is done."""
    elsewhere = "name a file in a folder that exists and is yours"
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        try:
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", str(path), elsewhere) from None
        if mode == os.O_RDONLY:
            raise UserError("cannot be written: it is open for reading only", str(path), elsewhere)
        return
    try:
        former = _read_state(path)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", str(path), elsewhere) from None
    folder = os.path.dirname(os.path.realpath(path))
    if former and not stat.S_ISREG(former.st_mode):
        _refuse_kind(path, former)
    elif not os.path.isdir(folder):
        raise UserError(f"cannot be written: no such folder: {folder}", str(path), elsewhere)
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot be written: permission denied in {folder}", str(path), elsewhere)
    if former and not os.access(path, os.W_OK):
        raise UserError("cannot be written: permission denied", str(path), elsewhere)


def check_inputs(path: pathlib.Path, inputs: Iterable[pathlib.Path]) -> None:
    """Refuses an output that the same command reads, or that lies in a folder that it reads."""
    target = pathlib.Path(os.path.realpath(path))
    for given in inputs:
        source = pathlib.Path(os.path.realpath(given))
        shared = source == target or (path.exists() and source.exists() and path.samefile(source))
        # A name that is no file may be the prefix of several, as that of a parallel corpus is
        prefix = not source.exists() and target.parent == source.parent and target.name.startswith(f"{source.name}.")
        if shared or prefix or source in target.parents or target in source.parents:
            raise UserError(f"would overwrite or stand among what is read from {given}", str(path), "name another")


def check_folder(path: pathlib.Path) -> None:
    """Refuses a path that no folder can be exported to: a file, or a folder that holds what no export wrote."""
    elsewhere = "name a new folder, an empty one, or an earlier export"
    try:
        names = sorted(os.listdir(path))
    except FileNotFoundError:
        ancestor = next(folder for folder in pathlib.Path(os.path.realpath(path)).parents if folder.exists())
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
            raise UserError("cannot be written", str(ancestor), elsewhere) from None
        return
    except NotADirectoryError:
        raise UserError("a file, not a folder", str(path), elsewhere) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), elsewhere) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError("cannot be written: permission denied", str(path), elsewhere)
    if _read_marker(path) is None and (foreign := [name for name in names if not _DRAFT_NAME.fullmatch(name)]):
        raise UserError(f"holds {_name_some(foreign)}, which no export wrote", str(path), elsewhere)


@contextlib.contextmanager
def replace_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder to write in; at the end its files take the place of those of an earlier export.

    A kill leaves the former export, or a folder that the next export may replace; a new folder is whole or absent.
    """
    check_folder(path)
    target = pathlib.Path(os.path.realpath(path))
    with explain_no_room(str(path), "make room, then run the same command again"):
        place = target if target.exists() else target.parent
        place.mkdir(parents=True, exist_ok=True)
        if _delete_dead_drafts(place) and place == target:
            raise UserError("another process is exporting to it", str(path), "wait, or name another folder")
        draft = pathlib.Path(tempfile.mkdtemp(prefix=_DRAFT, dir=place))
        lock = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)  # says that this process lives; a kill gives it back
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
    """Marks a folder of a run's own, where version 0.1 wrote an export of files with these names without a marker."""
    if folder.is_dir() and not os.path.lexists(folder / MARKER):
        _write_marker(folder, _list_files(folder) & frozenset(names))


@contextlib.contextmanager
def explain_no_room(where: str, remedy: str) -> Iterator[None]:
    """Turns a full or read-only disk into one line, whichever library meets it first."""
    try:
        yield
    except Exception as error:
        for reason in _NO_ROOM:
            if not isinstance(error, UserError) and any(reason in str(cause) for cause in _list_causes(error)):
                raise UserError(f"cannot be written any more: {reason}", where, remedy) from error
        raise


def _publish(draft: pathlib.Path, target: pathlib.Path) -> None:
    """Moves the files of a draft to their place; files that were there and that no marker lists stay."""
    draft.chmod(0o755)  # mkdtemp and safetensors leave both to the owner alone
    for file in draft.glob("*.safetensors"):
        file.chmod(0o644)
    written = _list_files(draft)
    if not target.exists():
        _write_marker(draft, written)
        draft.rename(target)
        return
    listed = _read_marker(target) or frozenset()
    former = {name for name in listed if _is_plain_file(target, name)}
    foreign = [name for name in sorted(written - former) if _is_taken(target, name)]
    if foreign:
        what = f"holds {_name_some(foreign)}, which no export wrote and this one would replace"
        raise UserError(what, str(target), "move it away, or name another folder")
    _replace_marker(draft, target, listed | written)
    for name in former:  # all, before the first new one comes: a kill leaves no model of two exports
        (target / name).unlink()
    for name in sorted(written):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(target / name)
    for name in former - written:
        for folder in (target / name).parents:
            if folder == target:
                break
            with contextlib.suppress(OSError):  # it holds something else
                folder.rmdir()
    _replace_marker(draft, target, written)


def _list_files(folder: pathlib.Path) -> frozenset[str]:
    return frozenset(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) - {MARKER}


def _write_marker(folder: pathlib.Path, files: Iterable[str]) -> None:
    write_json(folder / MARKER, {"version": VERSION, "files": sorted(files)})


def _replace_marker(draft: pathlib.Path, target: pathlib.Path, files: Iterable[str]) -> None:
    """Writes the marker in the draft first, so that a kill leaves nothing beside it."""
    _write_marker(draft, files)
    (draft / MARKER).replace(target / MARKER)


def _read_marker(folder: pathlib.Path) -> frozenset[str] | None:
    """Returns the files that an earlier export wrote to a folder; None where it has no marker."""
    file = folder / MARKER
    if not os.path.lexists(file):
        return None
    try:
        value = json.loads(file.read_text(encoding="utf-8")) if stat.S_ISREG(file.lstat().st_mode) else None
    except (OSError, ValueError, RecursionError):
        value = None
    names = value.get("files") if isinstance(value, dict) and value.get("version") == VERSION else None
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_inside(name) for name in names):
        raise UserError("is no list of exported files", str(file), "name a new folder")
    return frozenset(names)


def _is_inside(name: str) -> bool:
    """Says whether a name of a marker is a relative path that leads nowhere else."""
    path = pathlib.PurePosixPath(name)
    return str(path) == name != MARKER and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _is_plain_file(folder: pathlib.Path, name: str) -> bool:
    """Says whether a regular file stands there, reached through no symlink."""
    path = folder / name
    real = os.path.join(os.path.realpath(folder), name)
    return path.is_file() and not path.is_symlink() and os.path.realpath(path) == real


def _is_taken(folder: pathlib.Path, name: str) -> bool:
    """Says whether something stands where a file is to be written, or in the place of one of its folders."""
    above = [folder / parent for parent in pathlib.PurePosixPath(name).parents[:-1]]
    blocked = any(os.path.lexists(path) and (path.is_symlink() or not path.is_dir()) for path in above)
    return blocked or os.path.lexists(folder / name)


def _delete_dead_drafts(folder: pathlib.Path) -> bool:
    """Deletes the drafts that killed processes left in a folder; says whether a living process has one there."""
    alive = False
    for path in folder.iterdir():
        if not _DRAFT_NAME.fullmatch(path.name):
            continue
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # no folder, or just gone
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            alive = True
        except OSError:  # nothing is known of it
            pass
        finally:
            os.close(lock)
    return alive


def _own_descriptor(path: pathlib.Path) -> int | None:
    """Returns N for /dev/stdout, /dev/fd/N and the like: names of a file that this process has open."""
    place = os.path.join(os.getcwd(), path)
    for _ in range(40):  # as many symlinks as Linux follows
        folder, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
        if name.isdecimal() and re.fullmatch(rf"(/dev|/proc/{os.getpid()}(/task/\d+)?)/fd", folder):
            return int(name)
        place = os.path.join(folder, name)
        if not os.path.islink(place):
            return None
        place = os.path.join(folder, os.readlink(place))
    return None


def _read_state(path: pathlib.Path) -> os.stat_result | None:
    """Returns the state of the file behind a path; None where there is none yet."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _refuse_kind(path: pathlib.Path, state: os.stat_result) -> None:
    """Refuses what is neither a pipe nor a character device."""
    if stat.S_ISDIR(state.st_mode):
        raise UserError("a folder, not a file", str(path), "name a file")
    if not (stat.S_ISFIFO(state.st_mode) or stat.S_ISCHR(state.st_mode)):
        kind = "a block device" if stat.S_ISBLK(state.st_mode) else "a socket"
        raise UserError(f"{kind}, not a file", str(path), "name a file")


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _name_some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
