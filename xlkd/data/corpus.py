# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Parallel corpora of tens of millions of pairs: cleaned once into an index of offsets, then read by row.

The index lies in the cache and names where each kept pair stands in its files; text that has no place in a plain
file (packed files, XML) lies beside it. Neither building nor reading holds more than a few pieces in memory.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
import struct
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xlkd.data import cache
from xlkd.data.cleaning import CORRUPT, DUPLICATE, RULES, Rules
from xlkd.data.sources import Bad
from xlkd.errors import UserError
from xlkd.rows import Pair, make_key

_VERSION = "1"
_PIECE = 1 << 23  # bytes of an array of the cache
_ROW = np.dtype([("source", "<i8"), ("target", "<i8"), ("sizes", "<u4", 2), ("number", "<u4")])
_PACK = struct.Struct("<qqIII").pack
_CHUNK = 1 << 9  # rows of the index that are read at once
_SHOWN = 100  # corrupt lines that are named; the others are only counted


class Raw(NamedTuple):
    """A pair as a format yields it: its number in the file, both texts stripped, and where they lie, if in the open."""

    number: int
    source: str
    target: str
    place: tuple[int, int, int, int] | None = None  # offset of both, bytes of both


class Corrupt(NamedTuple):
    """A line that cannot be read: which of the files, which line, and why."""

    file: int
    line: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Origin:
    """A corpus before it is read: its files, what its rows are called, and how it is read."""

    set: str
    name: str  # of the corpus in keys and groups: no folder, so that it is the same on every machine
    languages: tuple[str, str]
    files: tuple[pathlib.Path, ...]
    read: Callable[[], Iterator[Raw | Corrupt]]


class Gathered(Sequence, abc.ABC):
    """Rows that are best read many at a time."""

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """What names these rows in a cache."""

    @abc.abstractmethod
    def many(self, index: np.ndarray) -> list[Any]:
        """The rows of these numbers, in this order."""

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.many(np.arange(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.many(np.array([index % len(self)]))[0]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]


class Corpus(Gathered):
    """The kept pairs of a corpus in the order of the file, and `counts` of what was left out by rule."""

    def __init__(self, origin: Origin, rules: Rules, bad: Bad) -> None:
        self.languages, self._origin = origin.languages, origin
        parts = (_VERSION, str(rules), *origin.languages, *map(_stamp, origin.files))
        self._name = cache.name_of("corpus", parts)
        stored = cache.arrays(self._name, lambda: _build(origin, rules, bad))
        about = json.loads(bytes(stored["about"]))
        self.counts: dict[str, int] = about["counts"]
        for corrupt in about["corrupt"]:
            bad(*_told(origin, Corrupt(*corrupt)))
        if (more := self.counts[CORRUPT] - len(about["corrupt"])) > 0:
            bad(f"{more} more lines are corrupt", str(origin.files[0]))
        for rule in RULES[1:]:
            if count := self.counts[rule]:
                bad.leave_out(f"{rule}: {count:,} of {self.counts['lines']:,} pairs", str(origin.files[-1]))
        self._rows = _Bytes([stored[name] for name in stored if name.startswith("rows-")])
        inside = [stored[name] for name in stored if name.startswith("text-")]
        self._texts = [_Bytes(inside)] * 2 if inside else [_Bytes([file]) for file in origin.files]
        self._open = () if inside else origin.files  # read again later, so they must stay as they are
        self._written = _times(self._open)

    def __len__(self) -> int:
        return self.counts["kept"]

    @property
    def identity(self) -> str:
        return f"{self._name} {self._origin.set}/{self._origin.name}"

    def many(self, index: np.ndarray) -> list[Pair]:
        """Read in the order of the file, whatever the order asked for."""
        if _times(self._open) != self._written:
            raise UserError("changed while it was read", str(self._open[0]), "start again")
        index = np.asarray(index, np.int64)
        order = np.argsort(index, kind="stable")
        found: list[Any] = [None] * len(index)
        for at, row in zip(order, self._places(index[order]), strict=True):
            found[at] = self._pair(*row)
        return found

    def _places(self, index: np.ndarray) -> Iterator[tuple[int, int, tuple[int, int], int]]:
        """The entries of rising row numbers, as plain values."""
        chunks, starts = np.unique(index // _CHUNK, return_index=True)
        for chunk, mine in zip(chunks, np.split(index, starts[1:]), strict=True):
            first = int(chunk) * _CHUNK
            size = min(_CHUNK, len(self) - first)
            entries = np.frombuffer(self._rows.read(first * _ROW.itemsize, size * _ROW.itemsize), _ROW)
            yield from entries[mine - first].tolist()

    def _pair(self, source_at: int, target_at: int, sizes: Sequence[int], number: int) -> Pair:
        places = zip(self._texts, (source_at, target_at), sizes, strict=True)
        source, target = (clean(text.read(at, size).decode("utf-8")) for text, at, size in places)
        of, (a, b) = self._origin, self.languages
        return Pair(
            id=str(number),
            key=make_key(of.set, of.name, a, b, number, source, target),
            group=f"{of.set}/{of.name}/{number}",
            set=of.set,
            source=source,
            target=target,
            source_language=a,
            target_language=b,
        )


def clean(text: str) -> str:
    """Without the blanks, line ends and byte-order marks around it."""
    return text.strip().strip("\ufeff").strip() if "\ufeff" in text else text.strip()


def _times(files: Sequence[pathlib.Path]) -> list[int]:
    return [file.stat().st_mtime_ns for file in files if file.exists()]


def _told(origin: Origin, corrupt: Corrupt) -> tuple[str, str]:
    return corrupt.reason, f"{origin.files[corrupt.file]}: line {corrupt.line}"


def _stamp(path: pathlib.Path) -> str:
    """What names the content of a file that is too large to be read for its name: size, time and samples."""
    digest = hashlib.sha256()
    try:
        state = path.stat()
        with path.open("rb") as file:
            for at in np.linspace(0, max(state.st_size - 65536, 0), 16).astype(int):
                file.seek(at)
                digest.update(file.read(65536))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "look at the path") from None
    return f"{state.st_size} {state.st_mtime_ns} {digest.hexdigest()}"


def _build(origin: Origin, rules: Rules, bad: Bad) -> _Stored:
    """Read once from end to end; duplicates are taken out of the index afterwards, the first one stays."""
    folder = cache.folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # So named, the cache clears it away if a kill leaves it behind
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
            return _indexed(origin, rules, bad, pathlib.Path(scratch))
    except OSError as error:
        what = f"the index cannot be written: {error.strerror or error}"
        raise UserError(what, str(folder), "make room, or set XLKD_CACHE to elsewhere") from error


def _indexed(origin: Origin, rules: Rules, bad: Bad, scratch: pathlib.Path) -> _Stored:
    rows, text, duplicates = _Spool(scratch), _Spool(scratch), _Duplicates(scratch)
    counts, corrupt = collections.Counter(dict.fromkeys(("lines", "kept", *RULES), 0)), []
    for raw in origin.read():
        counts["lines"] += 1
        if isinstance(raw, Corrupt):
            if bad.policy == "stop":
                bad(*_told(origin, raw))
            counts[CORRUPT] += 1
            corrupt += [raw] if len(corrupt) < _SHOWN else []
        elif fault := rules.find_fault(raw.source, raw.target, origin.languages):
            counts[fault] += 1
        else:
            place = raw.place or text.put(raw.source.encode(), raw.target.encode())
            rows.write(_PACK(*place, raw.number))
            duplicates.add(raw.source, raw.target)
    kept = rows if rules.only_empty else _without(rows, duplicates.marks(), scratch)
    counts["kept"] = kept.size // _ROW.itemsize
    counts[DUPLICATE] = (rows.size - kept.size) // _ROW.itemsize
    about = json.dumps({"counts": counts, "corrupt": corrupt}).encode()
    return _Stored(about, {"rows": kept, "text": text})


def _without(rows: _Spool, marked: np.ndarray, folder: pathlib.Path) -> _Spool:
    kept = _Spool(folder)
    per_chunk = 8 * _CHUNK  # whole bytes of the bit field
    for number, chunk in enumerate(rows.chunks(per_chunk * _ROW.itemsize)):
        bits = np.unpackbits(marked[number * _CHUNK : (number + 1) * _CHUNK], bitorder="little")
        entries = np.frombuffer(chunk, _ROW)
        kept.write(entries[bits[: len(entries)] == 0].tobytes())
    return kept


class _Spool:
    """Bytes that are written once from end to end, in a file without a name."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.size = 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed when nobody holds it)

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)

    def put(self, source: bytes, target: bytes) -> tuple[int, int, int, int]:
        at = self.size
        self.write(source + target)
        return at, at + len(source), len(source), len(target)

    def chunks(self, size: int) -> Iterator[bytes]:
        return (self.piece(number, size) for number in range(-(-self.size // size)))

    def piece(self, number: int, size: int) -> bytes:
        self._file.seek(number * size)
        return self._file.read(size)


class _Stored(Mapping):
    """The arrays of the index, each made when asked for, so that no two are in memory while they are written."""

    def __init__(self, about: bytes, spools: dict[str, _Spool]) -> None:
        self._about, self._spools = about, spools
        self._names = {
            f"{kind}-{number:05}": (kind, number)
            for kind, spool in spools.items()
            for number in range(-(-spool.size // _PIECE))
        }

    def __len__(self) -> int:
        return 1 + len(self._names)

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(["about"], self._names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "about":
            return np.frombuffer(self._about, np.uint8)
        kind, number = self._names[name]
        return np.frombuffer(self._spools[kind].piece(number, _PIECE), np.uint8)


class _Duplicates:
    """Which pairs came before, by 64 bits of each: sorted into parts on disk first, so that memory stays flat."""

    _PARTS, _HELD = 256, 1 << 16

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._count = folder, 0
        self._held = np.zeros(self._HELD, [("hash", "<u8"), ("row", "<i8")])

    def add(self, source: str, target: str) -> None:
        digest = hashlib.blake2b(f"{source}\n{target}".encode(), digest_size=8).digest()
        self._held[self._count % self._HELD] = int.from_bytes(digest, "little"), self._count
        self._count += 1
        if self._count % self._HELD == 0:
            self._flush(self._held)

    def marks(self) -> np.ndarray:
        """A bit a row, set where the same pair stands further up."""
        self._flush(self._held[: self._count % self._HELD])
        marked = np.zeros(-(-self._count // 8), np.uint8)
        for path in sorted(self._folder.glob("part-*")):
            part = np.fromfile(path, self._held.dtype)
            _, first = np.unique(part["hash"], return_index=True)  # the first: rows rise in a part
            again = np.delete(part["row"], first)
            np.bitwise_or.at(marked, again >> 3, np.left_shift(1, again & 7).astype(np.uint8))
        return marked

    def _flush(self, held: np.ndarray) -> None:
        if not len(held):
            return
        part = held["hash"] % self._PARTS
        order = np.argsort(part, kind="stable")
        numbers, starts = np.unique(part[order], return_index=True)
        for number, mine in zip(numbers, np.split(held[order], starts[1:]), strict=True):
            with (self._folder / f"part-{number:03}").open("ab") as file:
                file.write(mine.tobytes())


class _Bytes:
    """A file, or the pieces of one in the cache, by offset; read and not mapped, so that no page of it stays.

    One piece is open at a time: who reads in rising order opens each once, however many there are.
    """

    def __init__(self, pieces: Sequence[pathlib.Path | np.ndarray]) -> None:
        self._whole = not any(isinstance(piece, np.ndarray) for piece in pieces)
        self._pieces = [_file_of(piece) for piece in pieces]
        self._kept: tuple[int, _File | None] = (-1, None)

    def read(self, at: int, size: int) -> bytes:
        if self._whole:
            return self._file(0).read(at, size)
        number, inside = divmod(at, _PIECE)
        found = b""
        while len(found) < size:
            found += self._file(number).read(self._pieces[number][1] + inside, min(size - len(found), _PIECE - inside))
            number, inside = number + 1, 0
        return found

    def _file(self, number: int) -> _File:
        kept, file = self._kept  # read once: another thread may be in another piece
        if file is None or kept != number:
            file = _File(self._pieces[number][0])
            self._kept = (number, file)
        return file


class _File:
    """An open file that several threads may read; closed when nobody holds it."""

    def __init__(self, path: str) -> None:
        try:
            self._number = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise UserError("deleted while it was read", path, "start again") from None
        weakref.finalize(self, os.close, self._number)

    def read(self, at: int, size: int) -> bytes:
        return os.pread(self._number, size, at)


def _file_of(piece: pathlib.Path | np.ndarray) -> tuple[str, int]:
    """Where a file or a mapped array lies, and the bytes before its data."""
    return (str(piece.filename), piece.offset) if isinstance(piece, np.memmap) else (str(piece), 0)
