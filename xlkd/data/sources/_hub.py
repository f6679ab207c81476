# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists and downloads the parquet files of data sets of the Hugging Face hub, each at one commit.

Files are the data set's own or, if it has none, those that the hub has converted (`refs/convert/parquet`). They lie in
the hub's cache, where they are found again without a network.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import glob
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from xlkd import hub
from xlkd.data.sources import _layout
from xlkd.errors import UserError

CONVERTED = "refs/convert/parquet"  # the branch to which the hub writes data sets of other formats
_CARD = "README.md"
_SMALL = (_CARD, ".gitattributes")  # a repository has one at least; with it the list of files gets into the cache
_MOST_KINDS = 5  # endings of files that a refusal names


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The parquet files of a data set at a commit, and the folder of its card."""

    repository: hub.Repository
    name: str  # by which the hub calls it now
    commit: str
    configs: _layout.Configs
    default: str  # the config that the card marks as the default
    card: pathlib.Path

    def describe_commit(self) -> str:
        """Returns the commit, and whether the hub converted the files, for a line that says what was read."""
        files = (file for splits in self.configs.values() for names in splits.values() for file in names)
        return f"commit {self.commit}" + (", converted by the hub" if all(map(_layout.is_converted, files)) else "")


_DATA_SETS: dict[hub.Repository, DataSet] = {}


def resolve(repository: hub.Repository) -> DataSet:
    """Returns a data set at the commit that is recorded for it, or at that of its revision, which is then recorded."""
    if repository not in _DATA_SETS:
        data_set = hub.read_from_hub(
            repository, lambda: _find_online(repository), lambda: _find_cached(repository), _describe_remedy
        )
        hub.record_commit(repository, data_set.commit)
        _DATA_SETS[repository] = data_set
    return _DATA_SETS[repository]


def find_resolved(repository: hub.Repository) -> DataSet | None:
    """Returns the earlier result of `resolve`, without a request to the hub; None where there is none."""
    return _DATA_SETS.get(repository)


def download(data_set: DataSet, names: Sequence[str]) -> list[pathlib.Path]:
    """Returns the paths of these files, each of which is complete; those that are not in the cache are downloaded."""
    from huggingface_hub import HfApi, snapshot_download

    fetch = functools.partial(
        snapshot_download,
        data_set.name,
        repo_type=hub.DATA_SET,
        revision=data_set.commit,
        allow_patterns=[glob.escape(name) for name in names],
    )

    def find_cached() -> str | None:
        with contextlib.suppress(FileNotFoundError):
            return fetch(local_files_only=True)
        return None

    def fetch_missing() -> str:
        # Without a network this fails at once; a download would be tried again for half a minute
        HfApi().dataset_info(data_set.name, revision=data_set.commit, timeout=hub.TIMEOUT)
        return fetch()

    folder = find_cached() or hub.read_from_hub(data_set.repository, fetch_missing, find_cached, _describe_remedy)
    return [pathlib.Path(folder, name) for name in names]


class _Listing(NamedTuple):
    """The names of the files of a commit, and the folder in the cache, which has the name of the commit."""

    names: tuple[str, ...]
    folder: pathlib.Path

    def read_card(self) -> Mapping[str, Any]:
        """Returns the head of the card; empty where there is none, or none that can be read."""
        from huggingface_hub import metadata_load
        from yaml import YAMLError  # pyrefly: ignore[untyped-import]

        with contextlib.suppress(OSError, ValueError, YAMLError, RecursionError):
            return metadata_load(self.folder / _CARD) or {}
        return {}


def _find_online(repository: hub.Repository) -> DataSet:
    """Returns a data set as the hub has it now; only its card is downloaded."""
    from huggingface_hub import HfApi

    revision = hub.find_commit(repository) or repository.revision
    info = HfApi().dataset_info(repository.name, revision=revision, timeout=hub.TIMEOUT)  # one request, no retries
    hub.note_new_name(repository, info.id)
    return _find(repository, info.id)


def _find_cached(repository: hub.Repository) -> DataSet | None:
    """Returns a data set as the cache has it; None where its list of files is not there."""
    with contextlib.suppress(FileNotFoundError):
        return _find(repository, repository.name, cached=True)
    return None


def _find(repository: hub.Repository, name: str, *, cached: bool = False) -> DataSet:
    """Returns a data set with its own parquet files, or with those that the hub has converted from `main`."""
    from huggingface_hub import errors

    commit, revision = hub.find_commit(repository), repository.revision
    main = listing = _list_files(name, commit or revision, cached=cached)
    configs = _layout.find_configs(main.names, main.read_card())
    if not configs and not commit and revision in (None, "main"):
        with contextlib.suppress(errors.RevisionNotFoundError):
            listing = _list_files(name, CONVERTED, cached=cached)
            configs = _layout.find_configs(listing.names, {})
    if not configs:
        _refuse_without_parquet(repository, main.names)
    if commit and _CARD not in main.names:  # a commit of converted files
        with contextlib.suppress(errors.HTTPError, OSError):
            main = _list_files(name, revision, cached=cached)
    default = _layout.find_default(listing.read_card())  # not of another commit, which may change
    return DataSet(repository, name, listing.folder.name, configs, default, main.folder)


def _list_files(name: str, revision: str | None, *, cached: bool) -> _Listing:
    """Returns the files of a revision; where they are not to come from the cache, its card is downloaded."""
    from huggingface_hub import HfApi, errors, get_cached_repo_tree, snapshot_download

    path = snapshot_download(
        name, repo_type=hub.DATA_SET, revision=revision, allow_patterns=list(_SMALL), local_files_only=cached
    )
    folder = pathlib.Path(path)
    try:
        tree = get_cached_repo_tree(name, repo_type=hub.DATA_SET, revision=folder.name)
        names = [file.path for file in tree]
    except errors.CachedRepoTreeNotFoundError:
        if cached:
            raise FileNotFoundError(name) from None
        names = HfApi().list_repo_files(name, repo_type=hub.DATA_SET, revision=folder.name)  # the cache is read-only
    return _Listing(tuple(names), folder)


def _refuse_without_parquet(repository: hub.Repository, names: Sequence[str]) -> NoReturn:
    """Refuses a data set of other files, and names their endings."""
    counts = collections.Counter(pathlib.PurePosixPath(name).suffix for name in names if name not in _SMALL)
    kinds = ", ".join([kind for kind, _ in counts.most_common() if kind][:_MOST_KINDS]) or "none"
    what = f"has no parquet files, neither its own nor converted by the hub (its files: {kinds})"
    remedy = f"run: hf download {repository.name} --repo-type dataset, then read its files with tsv:, csv: or jsonl:"
    raise UserError(what, repository.name, f"{remedy}, or convert them and use parquet:")


def _describe_remedy() -> str:
    """Lists the data sets that need no network, for the end of an error message."""
    cached = hub.list_cached(hub.DATA_SET)
    here = f"in the cache there are: {', '.join(cached)}" if cached else "none is cached here"
    return f"start again with a network, which downloads only what is missing ({here})"
