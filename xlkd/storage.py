# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the objects of a Google Cloud Storage bucket, which the extra `xlkd[gcs]` makes possible.

A request that fails for the moment (no connection, too many requests, errors of the server) is sent again until it
succeeds or `PATIENCE` has passed. The bytes of an object are compared with its CRC-32C, which the bucket computes too.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import pathlib
import random
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple, TypeVar

from xlkd import files
from xlkd.errors import Stopped, UserError

SCHEME = "gs://"
SMALL = 1 << 23  # bytes up to which a file is read as a whole
PATIENCE = 600.0  # seconds for which a request is sent again
_TIMEOUT = (10.0, 120.0)  # seconds to connect, and between two parts of an answer
_LONGEST_PAUSE = 8.0  # seconds
_TRANSIENT = (None, 408, 429, 500, 502, 503, 504)  # codes of failures for a moment; None: the answer did not arrive
# How gcsfs, TensorStore and the packages below them report a refusal, and the end of their patience
_REFUSED = re.compile(r"^(PERMISSION_DENIED|UNAUTHENTICATED)|^Forbidden: |Invalid Credentials")
_GIVEN_UP = "retry attempts failed"
_NETWORK_MODULES = ("gcsfs", "aiohttp", "requests")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")

Result = TypeVar("Result")


class Object(NamedTuple):
    """The size of an object, its CRC-32C (base64), and its generation, which each write changes."""

    size: int
    crc32c: str
    generation: int


class ChangedError(Exception):
    """Reports that an object is not of the expected generation: another process wrote it."""


def is_remote(place: str) -> bool:
    """Returns whether a path is a URL, of a bucket or of something that is not supported."""
    return "://" in place or place.startswith("gs:")


class RemoteFolder:
    """Reads and writes the objects of a bucket whose names begin with one prefix; `a/b.json` is the rest of a name.

    May be used by several threads.
    """

    def __init__(self, url: str, patience: float | None = None) -> None:
        """Opens a folder; a request that fails for the moment is sent again for `patience` seconds (`PATIENCE`)."""
        bucket, _, prefix = url.removeprefix(SCHEME).rstrip("/").partition("/")
        if not url.startswith(SCHEME) or not _BUCKET_NAME.fullmatch(bucket) or not _is_prefix(prefix):
            raise UserError("not a folder in a bucket", url, "write gs://BUCKET/FOLDER")
        self.url = f"{SCHEME}{bucket}/{prefix}".rstrip("/")
        self._bucket_name, self._prefix = bucket, prefix + "/" if prefix else ""
        self._patience = patience
        _import_client()

    def hurry(self, patience: float = 30.0) -> None:
        """Shortens the time for which requests are sent again, those in progress included: the process ends."""
        self._patience = patience

    def list_objects(self, under: str = "") -> dict[str, Object]:
        """Returns all objects whose name begins with `under`, by name."""
        prefix = self._prefix + under

        def list_all() -> dict[str, Object]:
            blobs = _get_client().list_blobs(self._bucket_name, prefix=prefix, timeout=_TIMEOUT, retry=None)
            return {blob.name.removeprefix(self._prefix): _describe_blob(blob) for blob in blobs}

        return self._send(list_all, under)

    def read(self, name: str) -> tuple[bytes, Object] | None:
        """Returns the content of a small object, and what is known of it; None where it does not exist."""

        def download() -> tuple[bytes, Object] | None:
            while True:
                blob = self._get_blob(name)
                try:
                    blob.reload(timeout=_TIMEOUT, retry=None)
                except _import_client().NotFound:
                    self._check_bucket_exists()
                    return None
                with contextlib.suppress(_import_client().NotFound):  # replaced by another generation meanwhile
                    data = blob.download_as_bytes(timeout=_TIMEOUT, retry=None, checksum="crc32c")
                    return data, _describe_blob(blob)

        return self._send(download, name)

    def write(self, name: str, data: bytes, generation: int | None = None) -> Object:
        """Writes a small object; with `generation` only if it still has that one (0: only if it does not exist).

        Raises ChangedError where it has another one. Where an earlier attempt of ours may have succeeded without an
        answer, the content decides: equal content counts as written.
        """

        def upload() -> Object:
            blob = self._get_blob(name)
            try:
                blob.upload_from_string(
                    data, timeout=_TIMEOUT, retry=None, checksum="crc32c", if_generation_match=generation
                )
            except _import_client().PreconditionFailed:
                current = self.read(name)
                if current is None or current[0] != data:
                    raise ChangedError(name) from None
                return current[1]
            return _describe_blob(blob)

        return self._send(upload, name)

    def upload(self, path: pathlib.Path, name: str) -> Object:
        """Uploads a file; the object appears when it is complete."""

        def upload() -> Object:
            blob = self._get_blob(name)
            blob.upload_from_filename(str(path), timeout=_TIMEOUT, retry=None, checksum="crc32c")
            return _describe_blob(blob)

        return self._send(upload, name)

    def download(self, name: str, path: pathlib.Path) -> None:
        """Downloads an object as a file, which appears when it is complete; raises FileNotFoundError for no object."""

        def download() -> None:
            draft = files.name_draft(path)
            try:
                self._get_blob(name).download_to_filename(str(draft), timeout=_TIMEOUT, retry=None, checksum="crc32c")
                draft.replace(path)
            except _import_client().NotFound:
                raise FileNotFoundError(f"{self.url}/{name}") from None
            finally:
                draft.unlink(missing_ok=True)

        path.parent.mkdir(parents=True, exist_ok=True)
        self._send(download, name)

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; one that does not exist is none to delete."""

        def delete(name: str) -> None:
            try:
                self._get_blob(name).delete(timeout=_TIMEOUT, retry=None)
            except _import_client().NotFound:
                return

        for name in names:
            self._send(functools.partial(delete, name), name)

    def copy(self, name: str, new_name: str) -> None:
        """Copies an object to another name in this folder, without downloading it."""

        def copy() -> None:
            bucket = _get_client().bucket(self._bucket_name)
            bucket.copy_blob(self._get_blob(name), bucket, self._prefix + new_name, timeout=_TIMEOUT, retry=None)

        self._send(copy, name)

    def _get_blob(self, name: str) -> Any:
        return _get_client().bucket(self._bucket_name).blob(self._prefix + name)

    def _check_bucket_exists(self) -> None:
        next(iter(_get_client().list_blobs(self._bucket_name, max_results=1, timeout=_TIMEOUT, retry=None)), None)

    def _send(self, request: Callable[[], Result], name: str) -> Result:
        """Sends a request until it succeeds; a refusal is a UserError, and a bucket that stays silent ends the run."""
        google, pause, began = _import_client(), 0.25, time.monotonic()
        where = f"{self.url}/{name}" if name else self.url
        while True:
            try:
                return request()
            except google.Refused as error:
                raise _make_refusal(error, where) from error
            except google.NotFound as error:
                remedy = "create it (gcloud storage buckets create), or correct the name"
                raise UserError("no such bucket, or no such object", where, remedy) from error
            except google.Failed as error:
                if getattr(error, "code", None) not in _TRANSIENT:
                    raise
                if time.monotonic() - began > (PATIENCE if self._patience is None else self._patience):
                    raise _make_silence(error, where) from error
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)


def compute_crc32c(path: pathlib.Path) -> str:
    """Returns the CRC-32C of a file in the form that buckets have for objects."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()


@contextlib.contextmanager
def explain_errors(url: str) -> Generator[None, None, None]:
    """Turns errors of gcsfs and TensorStore, with which Orbax uses a bucket, into those that `RemoteFolder` raises."""
    try:
        yield
    except (Stopped, UserError):
        raise
    except Exception as error:
        for cause in files.list_causes(error):
            if isinstance(cause, (OSError, ValueError)) and _REFUSED.search(str(cause)):
                raise _make_refusal(cause, url) from error
            if type(cause).__module__.partition(".")[0] in _NETWORK_MODULES or _GIVEN_UP in str(cause):
                raise _make_silence(cause, url) from error
        RemoteFolder(url).list_objects()  # gcsfs takes an object that it cannot read for one that does not exist
        raise


def _make_refusal(error: BaseException, where: str) -> UserError:
    """Returns the error of a request that is not allowed."""
    remedy = "give this machine's account the role roles/storage.objectAdmin on the bucket"
    return UserError(f"access refused: {_describe_error(error)}", where, remedy)


def _make_silence(error: BaseException, where: str) -> Stopped:
    """Returns the error of a request that was sent again and again without success."""
    what = f"{where} has not answered for minutes ({_describe_error(error)})"
    return Stopped(f"{what}; the same command resumes from its last save")


class _Client(NamedTuple):
    """The parts of google-cloud-storage that are used."""

    make: Callable[[], Any]
    NotFound: type[Exception]
    PreconditionFailed: type[Exception]
    Refused: tuple[type[Exception], ...]
    Failed: tuple[type[Exception], ...]


@functools.cache
def _import_client() -> _Client:
    try:
        import gcsfs  # noqa: F401 (Orbax and jax read and write buckets with it)
        import requests
        from google.api_core import exceptions as api
        from google.auth import exceptions as auth
        from google.cloud import storage
        from google.cloud.storage.exceptions import DataCorruption
    except ImportError as error:
        remedy = "install it: python -m pip install 'xlkd[gcs]'"
        raise UserError(f"a bucket needs the package {error.name}", SCHEME, remedy) from error
    logging.getLogger("google.auth").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    failed = (
        *(api.GoogleAPICallError, DataCorruption, auth.TransportError),
        *(requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError),
    )
    refused = (api.Unauthorized, api.Forbidden, auth.RefreshError, auth.DefaultCredentialsError)
    return _Client(storage.Client, api.NotFound, api.PreconditionFailed, refused, failed)


_CLIENT = threading.local()


def _get_client() -> Any:
    """Returns the client of this thread, whose connections are not shared with other threads."""
    if not hasattr(_CLIENT, "client"):
        _CLIENT.client = _import_client().make()
    return _CLIENT.client


def _describe_blob(blob: Any) -> Object:
    return Object(blob.size, blob.crc32c, blob.generation)


def _describe_error(error: BaseException) -> str:
    """Returns the first line of an error of the client, shortened."""
    message = getattr(error, "message", "") or str(error)
    return message.splitlines()[0][:200] if message else type(error).__name__


def _is_prefix(prefix: str) -> bool:
    """Returns whether a prefix can be a folder: no empty part, no dots, no control characters or wildcards."""
    parts = prefix.split("/") if prefix else []
    return all(part not in ("", ".", "..") and not re.search(r"[\x00-\x1f\x7f\[\]*?#]", part) for part in parts)
