# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads corpora of tens of millions of pairs or texts: cleaned once into an index of offsets, then read by row.

The index is in the cache and says where each remaining pair or text is in its files; text without a place in a plain
file (compressed files, XML) is stored beside it. Building and reading use memory for a few pieces only.
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
from xlkd.data.sources import BadRows
from xlkd.errors import UserError
from xlkd.rows import Pair, Text, make_key

_VERSION = "3"
_PIECE = 1 << 23  # bytes of an array of the cache
_CHUNK = 1 << 9  # rows of the index that are read together
_FIELDS = ("starts", "sizes", "number")  # of an index entry
_SHOWN = 100  # corrupt lines that are listed; further ones are only counted


class RawRow(NamedTuple):
    """A pair, or a text, as a format yields it: its number in the file, its stripped texts, their place if unpacked."""

    number: int
    texts: tuple[str, ...]
    place: tuple[int, ...] | None = None  # the offset of each text, then the size of each in bytes


class CorruptLine(NamedTuple):
    """A line that cannot be read: the index of the file, the line, and the reason."""

    file: int
    line: int
    reason: str


@dataclasses.dataclass(frozen=True)
class CorpusOrigin:
    """A corpus before it is read: its files, the names of its rows, and the function that reads it."""

    set: str
    name: str  # of the corpus in keys and groups, without folders, so that it is the same on every machine
    languages: tuple[str, ...]  # of its texts: two of pairs
    files: tuple[pathlib.Path, ...]
    read: Callable[[], Iterator[RawRow | CorruptLine]]
    selection: str = ""  # the options that decide which rows are read
    unit: str = "line"  # by which places in the files count

    @property
    def index_type(self) -> np.dtype:
        """Returns the type of an index entry: where each text begins, their sizes, and the number of the row."""
        texts = (len(self.languages),)
        return np.dtype([("starts", "<i8", texts), ("sizes", "<u4", texts), ("number", "<u4")])


class BulkRows(Sequence, abc.ABC):
    """Rows that are read faster many at a time."""

    @property
    @abc.abstractmethod
    def identity(self) -> str:
        """Returns the text that identifies these rows in the names of cache entries."""

    @abc.abstractmethod
    def read_many(self, index: np.ndarray) -> list[Any]:
        """Returns the rows of these numbers, in this order."""

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.read_many(np.arange(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.read_many(np.array([index % len(self)]))[0]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _CHUNK):
            yield from self[start : start + _CHUNK]


class Corpus(BulkRows):
    """The rows of a corpus that pass the rules, in the order of the file, and `counts` of dropped ones by rule."""

    def __init__(self, origin: CorpusOrigin, rules: Rules, bad_rows: BadRows) -> None:
        self.languages, self._origin = origin.languages, origin
        selection = [origin.selection] if origin.selection else []
        parts = (_VERSION, str(rules), *origin.languages, *selection, *map(_fingerprint_file, origin.files))
        self._name = cache.make_name("corpus", parts)
        stored = cache.load_or_build(self._name, lambda: _build_entry(origin, rules, bad_rows))
        about = json.loads(bytes(stored["about"]))
        self.counts: dict[str, int] = about["counts"]
        self._content = cache.make_name("corpus", (str(rules), *origin.languages, about["content"]))
        for corrupt in about["corrupt"]:
            bad_rows.report(*_describe_corruption(origin, CorruptLine(*corrupt)))
        if (more := self.counts[CORRUPT] - len(about["corrupt"])) > 0:
            bad_rows.report(f"{more} more {origin.unit}s are corrupt", str(origin.files[0]))
        rows = "texts" if len(origin.languages) == 1 else "pairs"
        for rule in RULES[1:]:
            if count := self.counts[rule]:
                bad_rows.leave_out(f"{rule}: {count:,} of {self.counts['lines']:,} {rows}", str(origin.files[-1]))
        self._rows = _PieceReader([stored[name] for name in stored if name.startswith("rows-")])
        inside = [stored[name] for name in stored if name.startswith("text-")]
        self._type = origin.index_type
        files = [_PieceReader([file]) for file in origin.files]
        self._texts = [_PieceReader(inside)] * len(origin.languages) if inside else files
        self._open = () if inside else origin.files  # read again later, so they must not change
        self._opened_times = _read_times(self._open)

    def __len__(self) -> int:
        return self.counts["kept"]

    @property
    def identity(self) -> str:
        """Returns the text that identifies these rows by their content, whenever the files were written."""
        return f"{self._content} {self._origin.set}/{self._origin.name}"

    def read_many(self, index: np.ndarray) -> list[Pair] | list[Text]:
        """Returns the rows of these numbers in this order; the files are read in the order of their rows."""
        if _read_times(self._open) != self._opened_times:
            raise UserError("changed while it was read", str(self._open[0]), "start again")
        index = np.asarray(index, np.int64)
        order = np.argsort(index, kind="stable")
        rows: list[Any] = [None] * len(index)
        for at, entry in zip(order, self._read_entries(index[order]), strict=True):
            rows[at] = self._read_row(*entry)
        return rows

    def _read_entries(self, index: np.ndarray) -> Iterator[tuple[Sequence[int], Sequence[int], int]]:
        """Yields the index entries of ascending row numbers, as plain values."""
        chunks, starts = np.unique(index // _CHUNK, return_index=True)
        for chunk, members in zip(chunks, np.split(index, starts[1:]), strict=True):
            first = int(chunk) * _CHUNK
            size = min(_CHUNK, len(self) - first)
            data = self._rows.read(first * self._type.itemsize, size * self._type.itemsize)
            entries = np.frombuffer(data, self._type)[members - first]
            yield from zip(*(entries[field].tolist() for field in _FIELDS), strict=True)

    def _read_row(self, starts: Sequence[int], sizes: Sequence[int], number: int) -> Pair | Text:
        """Reads the texts of an index entry and returns the row."""
        places = zip(self._texts, starts, sizes, strict=True)
        texts = [strip_text(text.read(at, size).decode("utf-8")) for text, at, size in places]
        origin = self._origin
        key = make_key(origin.set, origin.name, *self.languages, number, *texts)
        names = str(number), key, f"{origin.set}/{origin.name}/{number}", origin.set
        if len(texts) == 1:
            return Text(*names, texts[0], self.languages[0])
        return Pair(*names, texts[0], texts[1], self.languages[0], self.languages[1])


def strip_text(text: str) -> str:
    """Removes white space, line ends and byte-order marks around a text."""
    return text.strip().strip("\ufeff").strip() if "\ufeff" in text else text.strip()


def _read_times(files: Sequence[pathlib.Path]) -> list[int]:
    """Returns the modification times of the files that exist."""
    return [file.stat().st_mtime_ns for file in files if file.exists()]


def _describe_corruption(origin: CorpusOrigin, corrupt: CorruptLine) -> tuple[str, str]:
    """Returns the reason and the place of a corrupt line."""
    return corrupt.reason, f"{origin.files[corrupt.file]}: {origin.unit} {corrupt.line}"


def _fingerprint_file(path: pathlib.Path) -> str:
    """Identifies the content of a large file without reading all of it: size, modification time and samples."""
    digest = hashlib.sha256()
    try:
        state = path.stat()
        with path.open("rb") as file:
            for at in np.linspace(0, max(state.st_size - 65536, 0), 16).astype(int):
                file.seek(at)
                digest.update(file.read(65536))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", str(path), "check the path") from None
    return f"{state.st_size} {state.st_mtime_ns} {digest.hexdigest()}"


def _build_entry(origin: CorpusOrigin, rules: Rules, bad_rows: BadRows) -> _IndexArrays:
    """Builds the index; scratch files have a name that the cache cleans up if a kill leaves them behind."""
    folder = cache.get_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
            return _build_index(origin, rules, bad_rows, pathlib.Path(scratch))
    except OSError as error:
        what = f"the index cannot be written: {error.strerror or error}"
        raise UserError(what, str(folder), "free disk space, or set XLKD_CACHE to another folder") from error


def _build_index(origin: CorpusOrigin, rules: Rules, bad_rows: BadRows, scratch: pathlib.Path) -> _IndexArrays:
    """Reads the corpus once from end to end, then drops duplicates from the index; the first occurrence stays."""
    rows, text, duplicates = _Spool(scratch), _Spool(scratch), _DuplicateFinder(scratch)
    counts, corrupt = collections.Counter(dict.fromkeys(("lines", "kept", *RULES), 0)), []
    content, entry_size = hashlib.sha256(), origin.index_type.itemsize
    pack = struct.Struct(f"<{len(origin.languages)}q{len(origin.languages) + 1}I").pack
    for raw in origin.read():
        counts["lines"] += 1
        if isinstance(raw, CorruptLine):
            if bad_rows.policy == "stop":
                bad_rows.report(*_describe_corruption(origin, raw))
            counts[CORRUPT] += 1
            corrupt += [raw] if len(corrupt) < _SHOWN else []
        elif fault := rules.find_fault(raw.texts, origin.languages):
            counts[fault] += 1
        else:
            place = raw.place or text.append_texts([part.encode() for part in raw.texts])
            rows.write(pack(*place, raw.number))
            joined = "\n".join(raw.texts)
            duplicates.add(joined)
            content.update(f"{raw.number}\n{joined}\n".encode())
    remaining = rows if rules.only_empty else _drop_marked(rows, duplicates.mark_repeats(), entry_size, scratch)
    counts["kept"] = remaining.size // entry_size
    counts[DUPLICATE] = (rows.size - remaining.size) // entry_size
    about = json.dumps({"counts": counts, "corrupt": corrupt, "content": content.hexdigest()}).encode()
    return _IndexArrays(about, {"rows": remaining, "text": text})


def _drop_marked(rows: _Spool, marked: np.ndarray, entry_size: int, folder: pathlib.Path) -> _Spool:
    """Returns the index without the marked rows."""
    remaining = _Spool(folder)
    per_chunk = 8 * _CHUNK  # so that a chunk covers complete bytes of the bit field
    for number, chunk in enumerate(rows.read_chunks(per_chunk * entry_size)):
        bits = np.unpackbits(marked[number * _CHUNK : (number + 1) * _CHUNK], bitorder="little")
        entries = np.frombuffer(chunk, f"V{entry_size}")
        remaining.write(entries[bits[: len(entries)] == 0].tobytes())
    return remaining


class _Spool:
    """A temporary file without a name, written once from end to end."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.size = 0
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed when it is garbage-collected)

    def write(self, data: bytes) -> None:
        """Appends bytes."""
        self._file.write(data)
        self.size += len(data)

    def append_texts(self, texts: Sequence[bytes]) -> tuple[int, ...]:
        """Appends texts and returns the offset of each, then the size of each."""
        sizes = [len(text) for text in texts]
        starts = itertools.accumulate(sizes[:-1], initial=self.size)
        place = (*starts, *sizes)
        self.write(b"".join(texts))
        return place

    def read_chunks(self, size: int) -> Iterator[bytes]:
        """Yields the content in chunks of this size."""
        return (self.read_chunk(number, size) for number in range(-(-self.size // size)))

    def read_chunk(self, number: int, size: int) -> bytes:
        """Reads the chunk with this number."""
        self._file.seek(number * size)
        return self._file.read(size)


class _IndexArrays(Mapping[str, np.ndarray]):
    """The arrays of the index, each created when it is asked for, so that two are never in memory during writing."""

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
        return np.frombuffer(self._spools[kind].read_chunk(number, _PIECE), np.uint8)


class _DuplicateFinder:
    """Finds repeated rows by a 64-bit hash of each, sorted into parts on disk first, so that memory stays constant."""

    _PARTS, _BUFFERED = 256, 1 << 16

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._count = folder, 0
        self._buffer = np.zeros(self._BUFFERED, [("hash", "<u8"), ("row", "<i8")])

    def add(self, text: str) -> None:
        """Adds the text of the next row."""
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self._buffer[self._count % self._BUFFERED] = int.from_bytes(digest, "little"), self._count
        self._count += 1
        if self._count % self._BUFFERED == 0:
            self._flush(self._buffer)

    def mark_repeats(self) -> np.ndarray:
        """Returns one bit for each row, set where the same text occurred before."""
        self._flush(self._buffer[: self._count % self._BUFFERED])
        marked = np.zeros(-(-self._count // 8), np.uint8)
        for path in sorted(self._folder.glob("part-*")):
            part = np.fromfile(path, self._buffer.dtype)
            _, first = np.unique(part["hash"], return_index=True)  # first in the file: rows ascend
            repeats = np.delete(part["row"], first)
            np.bitwise_or.at(marked, repeats >> 3, np.left_shift(1, repeats & 7).astype(np.uint8))
        return marked

    def _flush(self, buffer: np.ndarray) -> None:
        """Appends buffered hashes to the files of their parts."""
        if not len(buffer):
            return
        part = buffer["hash"] % self._PARTS
        order = np.argsort(part, kind="stable")
        numbers, starts = np.unique(part[order], return_index=True)
        for number, entries in zip(numbers, np.split(buffer[order], starts[1:]), strict=True):
            with (self._folder / f"part-{number:03}").open("ab") as file:
                file.write(entries.tobytes())


class _PieceReader:
    """Reads by offset from a file, or from the pieces of one in the cache, without mapping it into memory.

    One piece is open at a time: a reader with ascending offsets opens each once, however many there are.
    """

    def __init__(self, pieces: Sequence[pathlib.Path | np.ndarray]) -> None:
        self._is_one_file = not any(isinstance(piece, np.ndarray) for piece in pieces)
        self._pieces = [_locate_data(piece) for piece in pieces]
        self._current: tuple[int, _OpenFile | None] = (-1, None)

    def read(self, at: int, size: int) -> bytes:
        """Reads `size` bytes at an offset, across pieces."""
        if self._is_one_file:
            return self._open_piece(0).read(at, size)
        number, inside = divmod(at, _PIECE)
        data = b""
        while len(data) < size:
            _, start = self._pieces[number]
            data += self._open_piece(number).read(start + inside, min(size - len(data), _PIECE - inside))
            number, inside = number + 1, 0
        return data

    def _open_piece(self, number: int) -> _OpenFile:
        """Opens a piece, or returns it where it is the one that is open."""
        current, file = self._current  # read once: another thread may replace it
        if file is None or current != number:
            file = _OpenFile(self._pieces[number][0])
            self._current = (number, file)
        return file


class _OpenFile:
    """An open file that several threads may read; it is closed when it is garbage-collected."""

    def __init__(self, path: str) -> None:
        try:
            self._number = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise UserError("deleted while it was read", path, "start again") from None
        weakref.finalize(self, os.close, self._number)

    def read(self, at: int, size: int) -> bytes:
        """Reads `size` bytes at an offset."""
        return os.pread(self._number, size, at)


def _locate_data(piece: pathlib.Path | np.ndarray) -> tuple[str, int]:
    """Returns the path of a file or a mapped array, and the offset of its data."""
    return (str(piece.filename), piece.offset) if isinstance(piece, np.memmap) else (str(piece), 0)
