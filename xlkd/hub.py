# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reaches the Hugging Face hub for models and data sets, and keeps the commit of each repository that was read.

What cannot be had is refused in one line; without a network the hub's own cache is read.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from xlkd.errors import UserError, escape_controls

MODEL, DATA_SET = "model", "dataset"  # kinds of repositories, as the hub calls them
TIMEOUT = 4  # seconds until the hub counts as unreachable
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
            _refuse_access(repository, error)
            why = f"the hub cannot be reached, or the connection broke ({type(error).__name__}),"
    if (cached := find_cached()) is not None:
        return cached
    raise UserError(f"{why} and the {noun} is not in the cache", name, describe_remedy())


def _refuse_access(repository: Repository, error: Exception) -> None:
    """Raises a UserError where the hub was reached but refuses, or where the cache cannot be written."""
    from huggingface_hub import constants

    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        what = f"the hub refuses access (HTTP {status})"
        raise UserError(what, repository.name, "log in with a valid token: hf auth login") from error
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
