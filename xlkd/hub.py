# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reaches the Hugging Face hub: reads models and data sets, and keeps the commit of each; uploads models in one commit.

What cannot be had is refused in one line; without a network the hub's own cache is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import TypeVar

from xlkd import files
from xlkd.errors import UserError, escape_controls

MODEL, DATA_SET = "model", "dataset"  # kinds of repositories, as the hub calls them
TIMEOUT = 4  # seconds until the hub counts as unreachable
_LONGEST_REASON = 300  # characters that an error line repeats of the hub's answer
_NOUNS = {MODEL: "model", DATA_SET: "data set"}
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)  # errors of the disk, not of the network
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Repository:
    """A repository of the hub at a revision: a branch, a tag or a commit; None is the branch `main`."""

    name: str
    revision: str | None = None
    kind: str = MODEL

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


_COMMITS: dict[Repository, str] = {}  # all stages of a run read the same commit


def record_commit(repository: Repository, commit: str) -> None:
    """Records the commit that a revision was resolved to, which is read from now on."""
    _COMMITS[repository] = commit


def find_commit(repository: Repository) -> str | None:
    """Returns the recorded commit of a revision; None where there is none."""
    return _COMMITS.get(repository)


def list_commits(kind: str) -> dict[str, str]:
    """Returns the recorded commits of all models or of all data sets, by NAME or NAME@REVISION."""
    return {
        str(repository): _COMMITS[repository] for repository in sorted(_COMMITS, key=str) if repository.kind == kind
    }


def restore_commits(kind: str, commits: Mapping[str, str]) -> None:
    """Records commits that `list_commits` returned when a run began."""
    for key, commit in commits.items():
        name, _, revision = key.partition("@")
        record_commit(Repository(name, revision or None, kind), commit)


def read_from_hub(
    repository: Repository,
    download: Callable[[], _T],
    find_cached: Callable[[], _T | None],
    describe_remedy: Callable[[], str],
) -> _T:
    """Returns what `download` returns, or what `find_cached` finds where the hub cannot be reached.

    Every error is one line. `describe_remedy` says what can be read without the hub.
    """
    from huggingface_hub import constants, errors

    name, noun = repository.name, _NOUNS[repository.kind]
    if constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE is set"
    else:
        try:
            return download()
        except errors.GatedRepoError as error:  # which is a RepositoryNotFoundError too
            what = "is gated: the hub gives its files only to accounts that were granted access"
            remedy = f"accept its conditions on {make_page_url(repository)}, then log in: hf auth login"
            raise UserError(what, name, remedy) from error
        except errors.RevisionNotFoundError as error:
            revision = find_commit(repository) or repository.revision
            remedy = "give a branch, a tag or a commit of the repository"
            raise UserError(f"the hub has no revision {revision} of this {noun}", name, remedy) from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            what = f"the hub has no such {noun}, or it is private ({type(error).__name__})"
            remedy = f"for a private one log in: hf auth login; else {describe_remedy()}"
            raise UserError(what, name, remedy) from error
        except (errors.HTTPError, OSError) as error:  # whichever HTTP library this hub client uses
            _refuse_access(repository, error, "log in with a valid token: hf auth login")
            why = f"the hub cannot be reached, or the connection broke ({type(error).__name__}),"
    if (cached := find_cached()) is not None:
        return cached
    raise UserError(f"{why} and the {noun} is not in the cache", name, describe_remedy())


@dataclasses.dataclass(frozen=True)
class RemoteModel:
    """A model as the hub has it before an upload: the commit and the files of the branch, and those of an export."""

    private: bool
    commit: str
    files: frozenset[str]
    exported: frozenset[str] | None  # what an earlier upload sent; None where nothing says so


@dataclasses.dataclass(frozen=True)
class Upload:
    """Files of a folder that become one commit of a model of the hub; `deleted` are those of an earlier upload."""

    repository: Repository
    folder: pathlib.Path
    names: tuple[str, ...]
    deleted: tuple[str, ...]
    private: bool
    message: str
    remote: RemoteModel | None  # None where the model is to be created


def find_remote(repository: Repository) -> RemoteModel | None:
    """Returns the model that an upload would change, None where there is none; refuses where nothing can be sent.

    A branch that does not exist yet has the files of `main`, from which an upload creates it.
    """
    from huggingface_hub import HfApi, constants, errors, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set", repository.name, "unset it to send something")
    if not get_token():
        remedy = "log in with one that may write: hf auth login, or set HF_TOKEN"
        raise UserError("no token of the hub", repository.name, remedy)

    def find() -> RemoteModel | None:
        api = HfApi()
        try:
            info = api.model_info(repository.name, timeout=TIMEOUT)
        except errors.RepositoryNotFoundError:
            return None
        if info.id != repository.name:
            raise UserError(f"is called {info.id} on the hub now", repository.name, "give this name")
        if repository.revision:
            with contextlib.suppress(errors.RevisionNotFoundError):
                info = api.model_info(repository.name, revision=repository.revision, timeout=TIMEOUT)
        names = frozenset(file.rfilename for file in info.siblings or ())
        exported = None
        if files.MARKER in names:
            with tempfile.TemporaryDirectory(prefix="xlkd-push-") as scratch:
                api.hf_hub_download(repository.name, files.MARKER, revision=info.sha, local_dir=scratch)
                exported = files.read_marker(pathlib.Path(scratch))
        return RemoteModel(bool(info.private), str(info.sha), names, exported)

    return _send(repository, find)


def upload(plan: Upload) -> str:
    """Sends an upload as one commit, and returns the address of the commit; after a refusal there is no commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import disable_progress_bars, logging

    repository, api = plan.repository, HfApi()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()

    def send() -> str:
        additions = [CommitOperationAdd(name, plan.folder / name) for name in plan.names]
        if plan.remote is None:
            _create(repository, private=plan.private)
        if repository.revision:
            api.create_branch(repository.name, branch=repository.revision, exist_ok=True)
        commit = api.create_commit(
            repository.name,
            [*additions, *map(CommitOperationDelete, plan.deleted)],
            commit_message=plan.message,
            revision=repository.revision,
            parent_commit=plan.remote.commit if plan.remote else None,
        )
        return commit.commit_url

    return _send(repository, send)


def _create(repository: Repository, *, private: bool) -> None:
    """Creates a model without files; refuses a name that is taken."""
    from huggingface_hub import HfApi, errors

    try:
        HfApi().create_repo(repository.name, private=private)
    except errors.HTTPError as error:
        if _get_status(error) != 409:
            raise
        what = "the name is taken, by a model that this token may not see or that was just created"
        raise UserError(what, repository.name, "give another name") from error


def _send(repository: Repository, send: Callable[[], _T]) -> _T:
    """Returns what `send` returns; an error of the hub, of the network or of a local file is one line."""
    from huggingface_hub import errors

    try:
        return send()
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.ENOENT):
            raise UserError(f"cannot be read: {error.strerror}", str(error.filename), "export it again") from error
        cause = next((cause for cause in files.list_causes(error) if _get_status(cause)), error)
        _refuse_access(repository, cause, "log in with a token that may write to it: hf auth login")
        if (status := _get_status(cause)) in (409, 412):
            what = f"was changed by another commit meanwhile (HTTP {status})"
            raise UserError(what, repository.name, "start the same command again") from error
        if status:
            reason = getattr(cause, "server_message", None) or type(cause).__name__
            what = f"the hub refuses this (HTTP {status}): {reason[:_LONGEST_REASON]}"
            raise UserError(what, repository.name, "correct it, or start the same command again later") from error
        if isinstance(error, ValueError):
            what = f"the hub client refuses this: {str(error)[:_LONGEST_REASON]}"
            raise UserError(what, repository.name, "correct it") from error
        what = f"the hub cannot be reached, or the connection broke ({type(error).__name__})"
        remedy = "start the same command again; files that arrived are not sent twice"
        raise UserError(what, repository.name, remedy) from error


def _get_status(error: BaseException) -> int:
    """Returns the HTTP status that an error carries; 0 where it has none."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _refuse_access(repository: Repository, error: BaseException, remedy: str) -> None:
    """Raises a UserError where the hub was reached but refuses, or where the cache cannot be written."""
    from huggingface_hub import constants

    if (status := _get_status(error)) in (401, 403):
        raise UserError(f"the hub refuses access (HTTP {status})", repository.name, remedy) from error
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        what = f"the cache of the hub cannot be written: {error.strerror}"
        raise UserError(what, constants.HF_HUB_CACHE, "free disk space, or set HF_HOME to another disk") from error


def make_page_url(repository: Repository) -> str:
    """Returns the address of a repository's page."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if repository.kind == DATA_SET else ''}{repository.name}"


def note_new_name(repository: Repository, current: str) -> None:
    """Prints a note where the hub calls a repository by another name now."""
    if current != repository.name:
        note = f"note: {repository.name} is called {current} on the hub now"
        print(escape_controls(note), file=sys.stderr)


def list_cached(kind: str) -> list[str]:
    """Returns the names of the models or data sets in the cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return sorted(repository.repo_id for repository in scan_cache_dir().repos if repository.repo_type == kind)
    except CacheNotFound:
        return []
