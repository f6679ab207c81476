# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens the files of sources: only regular files, and packed ones (.gz) as streams of bounded size."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import pathlib
import stat
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from xlkd.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_FREE = 1 << 24  # bytes that any packed file may expand to
_EXPANSION = 200  # times its own size that a larger one may expand to: text is packed 3 to 40 times
_MOST_LISTED = 20_000  # files of a folder
_HEAD = 4096  # bytes by which the kind of a file is recognised
_PACKED = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_SPECIAL = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_text(path: pathlib.Path) -> io.BufferedReader:
    """Opens a text file for reading its bytes; refuses UTF-16 and a file that begins with zero bytes."""
    file = _open_plain(path)
    head = file.peek(_HEAD)[:_HEAD]
    fault, remedy = "", "save it as UTF-8"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        fault = "UTF-16, not UTF-8"
    elif head.count(b"\0") * 4 > len(head):
        fault, remedy = "consists of zero bytes, or is UTF-16", "copy it again, or save it as UTF-8"
    if fault:
        file.close()
        raise UserError(fault, str(path), remedy)
    return file


def open_corpus(path: pathlib.Path) -> io.BufferedReader:
    """Opens a file for reading bytes, unpacked where its name ends in .gz."""
    if path.suffix != ".gz":
        return _open_plain(path)
    check_regular(path)
    return io.BufferedReader(_Unpacker(path), 1 << 16)


def _open_plain(path: pathlib.Path) -> io.BufferedReader:
    """Opens a file for reading bytes; refuses one that is packed."""
    check_regular(path)
    file = _open(path)
    head = file.peek(_HEAD)[:_HEAD]
    for start, name in _PACKED.items():
        if head.startswith(start):
            file.close()
            raise UserError(f"a packed file ({name})", str(path), "unpack it first")
    return file


def _open(path: pathlib.Path) -> io.BufferedReader:
    """Opens a file for reading bytes."""
    try:
        return io.BufferedReader(path.open("rb", buffering=0), 1 << 20)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "check its permissions") from None


def list_unread(folder: pathlib.Path, read: Collection[pathlib.Path]) -> list[str]:
    """Returns the names of the files below a folder that are not read, those of the kinds that are read first.

    Hidden files and folders do not count. Of a very large folder only the first files are looked at.
    """
    paths = (
        pathlib.Path(base, name) for base, folders, names in os.walk(folder) for name in _list_visible(folders, names)
    )
    unread = {path for path in itertools.islice(paths, _MOST_LISTED) if path not in read}
    kinds = {path.suffix for path in read}
    ordered = sorted(unread, key=lambda path: (path.suffix not in kinds, path))
    return [path.relative_to(folder).as_posix() for path in ordered]


def _list_visible(folders: list[str], names: list[str]) -> list[str]:
    """Returns the names that are not hidden, and removes hidden folders from those that are still to be listed."""
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(name for name in names if not name.startswith("."))


def check_regular(path: pathlib.Path) -> None:
    """Refuses a path that leads to no regular file: opening a pipe or a device could wait for ever."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError("no such file", str(path), "check the path") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "check the path") from None
    for is_kind, name in _SPECIAL:
        if is_kind(mode):
            remedy = "check the path" if name == "a folder" else "write its content to a file and name that"
            raise UserError(f"{name}, not a file", str(path), remedy)


class _Unpacker(io.RawIOBase):
    """Unpacks a file as it is read, and refuses one that expands far beyond what text does."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path, self._packed = path, _open(path)
        self._file = gzip.GzipFile(fileobj=self._packed, mode="rb")
        self._largest = max(_FREE, _EXPANSION * path.stat().st_size)
        self._size = 0

    def readable(self) -> bool:
        """Returns whether the file can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Reads and unpacks the next bytes; returns their number."""
        size = self._file.readinto(buffer)
        self._size += size
        if self._size > self._largest:
            what = f"expands to more than {_EXPANSION} times its size and {_FREE:,} bytes"
            raise UserError(what, str(self._path), "if that is right, unpack it yourself")
        return size

    def close(self) -> None:
        """Closes both files."""
        self._file.close()
        self._packed.close()
        super().close()


def iterate_lines(file: io.BufferedReader, longest: int) -> Iterator[tuple[int, bytes, int]]:
    """Yields offset, bytes and size of each line; of a line above `longest` bytes only the beginning."""
    at = 0
    while line := file.readline(longest + 1):
        size, chunk = len(line), line
        while not chunk.endswith(b"\n") and (chunk := file.readline(longest)):
            size += len(chunk)
        yield at, line, size
        at += size
