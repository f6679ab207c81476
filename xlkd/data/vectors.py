# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads files of sentence vectors, found by the SHA-256 of their text, with memory that does not grow with the file.

`FILE.npy` is an array of rows with the fields `key` (64 hexadecimal digits, `S64`) and `vector` (float32 or float16, of
one width); it is mapped from disk. `FILE.parquet` has the same as columns, a text and a fixed-size list; its vectors
are copied to the cache once, row group by row group, and mapped from there. docs/own-teacher.md shows how to write one.
"""

from __future__ import annotations

import binascii
import contextlib
import hashlib
import pathlib
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from xlkd import files
from xlkd.data import cache
from xlkd.errors import UserError
from xlkd.spec import shorten

if TYPE_CHECKING:
    import pyarrow

DIGEST = "S32"  # the type of a SHA-256; numpy orders such values, whose zero bytes at the end it does not store
_KEY = re.compile(rb"[0-9a-fA-F]{64}")  # the same in hexadecimal
_CHUNK = 1 << 24  # bytes of vectors that are checked at a time
_HELP = "docs/own-teacher.md shows how to write one"

Digests = Shaped[np.ndarray, " rows"]  # of type DIGEST
Vectors = Float[np.ndarray, "rows width"]


def hash_texts(texts: Iterable[str]) -> Digests:
    """Returns the SHA-256 of each text in UTF-8."""
    return np.array([hashlib.sha256(text.encode()).digest() for text in texts], DIGEST)


class VectorFile:
    """The vectors of a file by the hash of their text; a sound file is checked once, and its index is cached."""

    def __init__(self, path: pathlib.Path) -> None:
        kind = _READERS.get(path.suffix)
        if kind is None:
            raise UserError("neither .npy nor .parquet", str(path), _HELP)
        with _explain_damage(path):
            self.path, self.sha256 = path, _compute_sha256(path)
            entry = cache.make_name("vectors", ["1", path.suffix, self.sha256])
            self._keys, self._places, self._rows = kind(path, entry)
        self.width = int(self._rows.shape[1])

    def contains(self, digests: Digests) -> Bool[np.ndarray, " rows"]:
        """Returns which texts have a vector."""
        return self._keys[self._find(digests)] == digests

    def take(self, digests: Digests) -> Float[np.ndarray, "rows width"]:
        """Returns the vectors of texts as float32; each text must have one."""
        assert self.contains(digests).all(), "all texts are looked up before the training"
        return self._rows[self._places[self._find(digests)]].astype(np.float32)

    def _find(self, digests: Digests) -> Shaped[np.ndarray, " rows"]:
        """Returns the positions among the sorted keys at which the texts are, or would be."""
        return np.minimum(np.searchsorted(self._keys, digests), len(self._keys) - 1)


def check_exists(path: pathlib.Path) -> None:
    """Refuses a path that is not a regular file; nothing is read."""
    if not path.is_file():
        raise UserError("no such file", str(path), "check the path")


def _compute_sha256(path: pathlib.Path) -> str:
    check_exists(path)
    return files.compute_sha256(path)


@contextlib.contextmanager
def _explain_damage(path: pathlib.Path) -> Generator[None, None, None]:
    """Turns the errors of numpy and pyarrow into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror or shorten(error)}", str(path), "check the path") from error
    except (ValueError, EOFError) as error:  # pyarrow's errors are such too
        raise UserError(f"not a sound file of vectors: {shorten(error)}", str(path), _HELP) from error


# The two forms: each is read as sorted digests, the row of each, and all vectors [rows, width]

Parts = tuple[Digests, Shaped[np.ndarray, " rows"], Vectors]
Chunk = tuple[list[bytes], Vectors]  # the keys and the vectors of some rows


def _read_npy(path: pathlib.Path, entry: str) -> Parts:
    """Maps an npy file; its index is cached."""
    rows = np.lib.format.open_memmap(path, mode="r")
    if not {"key", "vector"} <= set(rows.dtype.names or ()):
        raise UserError("no array with the fields key and vector", str(path), _HELP)
    if rows.ndim != 1:
        raise UserError(f"an array of {rows.ndim} dimensions, not of rows", str(path), _HELP)
    if rows.dtype["key"] != np.dtype("S64"):
        raise UserError(f"the field key is of type {rows.dtype['key']}, not S64", str(path), _HELP)
    base, shape = rows.dtype["vector"].subdtype or (rows.dtype["vector"], ())
    _check_form(path, len(rows), base, shape)

    def iterate() -> Iterator[Chunk]:
        for start in range(0, len(rows), step := _count_chunk_rows(rows["vector"])):
            part = rows[start : start + step]
            yield part["key"].tolist(), part["vector"]

    index = cache.load_or_build(entry, lambda: _build_index(path, iterate(), rows["vector"]), upload=False)
    return index["keys"], index["places"], rows["vector"]


def _read_parquet(path: pathlib.Path, entry: str) -> Parts:
    """Copies the vectors of a parquet file into the cache, and maps them from there."""
    import pyarrow
    from pyarrow import parquet

    with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows
        if missing := [name for name in ("key", "vector") if name not in schema.names]:
            raise UserError(f"no column {missing[0]}", str(path), _HELP)
        kind, list_type = schema.field("key").type, schema.field("vector").type
        if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
            raise UserError(f"the column key is of type {kind}, not string", str(path), _HELP)
        if not pyarrow.types.is_fixed_size_list(list_type):
            raise UserError(f"the column vector is of type {list_type}, not a fixed-size list", str(path), _HELP)
        base = _find_float_type(list_type.value_type)
        _check_form(path, count, base, (list_type.list_size,))

        def build() -> dict[str, np.ndarray]:
            cache.get_folder().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache.get_folder()) as scratch:
                vectors = np.memmap(scratch, base, "w+", shape=(count, list_type.list_size))

                def iterate() -> Iterator[Chunk]:
                    done = 0
                    for batch in file.iter_batches(_count_chunk_rows(vectors), columns=["key", "vector"]):
                        keys, part = _read_batch(path, batch, done)
                        vectors[done : done + len(part)] = part
                        done += len(part)
                        yield keys, part

                return {**_build_index(path, iterate(), vectors), "vectors": vectors}

        stored = cache.load_or_build(entry, build, upload=False)
    return stored["keys"], stored["places"], stored["vectors"]


_READERS: dict[str, Callable[[pathlib.Path, str], Parts]] = {".npy": _read_npy, ".parquet": _read_parquet}


def _find_float_type(kind: pyarrow.DataType) -> Any:
    """Returns the numpy type of a parquet type; `object` for one that numpy lacks."""
    try:
        return np.dtype(kind.to_pandas_dtype())
    except NotImplementedError:
        return np.dtype(object)


def _read_batch(path: pathlib.Path, batch: pyarrow.RecordBatch, first: int) -> Chunk:
    """Returns the keys and the vectors of rows of a parquet file, of which the first has this number."""
    keys, lists = batch.column("key"), batch.column("vector")
    values = lists.flatten()
    if keys.null_count or lists.null_count or values.null_count:
        raise UserError(f"a null in rows {first} to {first + len(keys) - 1}", str(path), _HELP)
    return [key.encode() for key in keys.to_pylist()], values.to_numpy(zero_copy_only=False).reshape(len(keys), -1)


def _count_chunk_rows(vectors: Vectors) -> int:
    """Returns how many rows are checked at a time."""
    return max(1, _CHUNK // (vectors.shape[1] * vectors.itemsize))


# Checks


def _check_form(path: pathlib.Path, count: int, base: Any, shape: tuple[int, ...]) -> None:
    """Refuses files without vectors, and vectors that are not of one width in float32 or float16."""
    if base not in (np.float32, np.float16):
        raise UserError(f"the vectors are of type {base}, not float32 or float16", str(path), _HELP)
    if len(shape) != 1 or shape[0] < 1:
        raise UserError(f"each vector has the shape {shape}, not (width,)", str(path), _HELP)
    if not count:
        raise UserError("has no vectors", str(path), _HELP)


def _build_index(path: pathlib.Path, chunks: Iterable[Chunk], vectors: Vectors) -> dict[str, np.ndarray]:
    """Checks all rows of a file; returns its distinct digests in their order (`keys`), and their rows (`places`)."""
    digests, first = [], 0
    for keys, part in chunks:
        digests.append(_parse_keys(path, keys, first))
        if not (finite := np.isfinite(part).all(1)).all():
            what = f"the vector of row {first + int(np.argmin(finite))} is not finite"
            raise UserError(what, str(path), "write it again; xlkd reads no NaN and no infinity")
        first += len(part)
    keys = np.concatenate(digests)
    places = np.argsort(keys, kind="stable")
    keys = keys[places]
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    for at in repeated.tolist():
        a, b = int(places[at]), int(places[at + 1])
        if not np.array_equal(vectors[a], vectors[b]):
            what = f"rows {a} and {b} have the same key and different vectors"
            raise UserError(what, str(path), "write one vector for each text")
    return {"keys": np.delete(keys, repeated + 1), "places": np.delete(places, repeated + 1)}


def _parse_keys(path: pathlib.Path, keys: list[bytes], first: int) -> Digests:
    """Returns the digests that keys have in hexadecimal; `first` is the number of their first row."""
    for number, key in enumerate(keys, first):
        if not _KEY.fullmatch(key):
            what = f"the key of row {number} is {shorten(key.decode(errors='replace'))!r}, not a SHA-256 in hexadecimal"
            raise UserError(what, str(path), _HELP)
    return np.frombuffer(binascii.unhexlify(b"".join(keys)), DIGEST)
