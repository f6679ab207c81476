# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Downloads models of the Hugging Face hub at one commit, or finds them in its cache without a network.

Only what xlkd reads is downloaded: the JSON and text files of a repository, and its weights in safetensors, never
pickles, nor the folders of other formats.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from xlkd import files, hub
from xlkd.errors import UserError
from xlkd.hub import Repository

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BRANCHES = "branches.safetensors"  # of a student with several branches
SMALL = ("*.json", "*.txt", "sentencepiece.bpe.model", "spm.model", "README.md", "LICENSE*")  # in the folder itself
POOLING = "[0-9]_*/config.json"  # of sentence-transformers
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_MOST_REVISIONS = 8  # that are searched for safetensors

Resolved = tuple[pathlib.Path, str | None]
_FOLDERS: dict[Repository, pathlib.Path] = {}


def resolve(name: str, revision: str | None = None, commit: str | None = None) -> Resolved:
    """Returns a local directory, or downloads a model of the hub: (directory, commit of the hub or None).

    `commit` is what the revision was resolved to before, by another process.
    """
    if (folder := files.expand_path(name)).is_dir():
        return folder, None
    repository = Repository(name, revision)
    if commit:
        hub.record_commit(repository, commit)
    if repository not in _FOLDERS:
        _FOLDERS[repository], commit = _find_on_hub(repository)
        hub.record_commit(repository, commit)
    return _FOLDERS[repository], hub.find_commit(repository)


def find_resolved(name: str, revision: str | None = None) -> tuple[pathlib.Path | None, str | None]:
    """Returns a local directory or the earlier result of `resolve`, without a request to the hub; else two None."""
    if (folder := files.expand_path(name)).is_dir():
        return folder, None
    repository = Repository(name, revision)
    return (_FOLDERS[repository], hub.find_commit(repository)) if repository in _FOLDERS else (None, None)


def _find_on_hub(repository: Repository) -> tuple[pathlib.Path, str]:
    """Downloads a model, or finds it in the cache where the hub cannot be reached."""
    name, revision = repository.name, hub.find_commit(repository) or repository.revision
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError("no such directory", name, "give a local directory or the name of a model on the hub")
    return hub.read_from_hub(
        repository,
        lambda: _download(repository, revision),
        lambda: _find_in_cache(name, revision),
        _list_local_options,
    )


def _download(repository: Repository, revision: str | None) -> tuple[pathlib.Path, str]:
    """Downloads what xlkd reads of a model; the hub's own cache remembers the commit of the revision."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi().model_info(repository.name, revision=revision, timeout=hub.TIMEOUT)  # one request, no retries
    current, names = info.id, list_files(info)
    hub.note_new_name(repository, current)
    if not has_weights(names):
        _refuse_without_weights(current, names)
    folder = pathlib.Path(snapshot_download(current, revision=revision, allow_patterns=list(choose_small_files(names))))
    snapshot_download(current, revision=folder.name, allow_patterns=list_weights(folder, names))
    return folder, folder.name


def list_files(info: ModelInfo) -> list[str]:
    """Returns the names of the files of a repository."""
    return [file.rfilename for file in info.siblings or ()]


def has_weights(names: Iterable[str]) -> bool:
    """Returns whether a repository has weights that xlkd can read."""
    return not {WEIGHTS, INDEX, BRANCHES}.isdisjoint(names)


def list_weights(folder: pathlib.Path, names: Iterable[str]) -> list[str]:
    """Lists the files of weights: a single one of `names`, or the shards that the index in the folder names."""
    return [name for name in (WEIGHTS, BRANCHES) if name in names] or list(_read_shards(folder / INDEX))


def choose_small_files(names: Iterable[str]) -> Iterator[str]:
    """Yields the files beside the weights that xlkd reads."""
    for name in names:
        patterns = (POOLING,) if "/" in name else SMALL
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            yield name


def _read_shards(index: pathlib.Path) -> Iterator[str]:
    """Yields the shards that an index names; a damaged index names none, and loading says what is wrong with it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        yield from {str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}


def _refuse_without_weights(name: str, names: Sequence[str]) -> NoReturn:
    """Refuses a model without safetensors, and names a revision that has them."""
    is_pickled = any(fnmatch.fnmatchcase(file, pattern) for file in names for pattern in PICKLES if "/" not in file)
    what = (
        "has only pickles, which can run code when they are opened" if is_pickled else "has no weights in safetensors"
    )
    remedy = 'convert them, if you trust them: python -c "from transformers import AutoModel as M; '
    remedy += f"M.from_pretrained('{name}').save_pretrained('FOLDER')\""
    if revision := _find_revision_with_weights(name):
        where = "encoder.revision, start_revision or --revision"
        remedy = f"its revision {revision} has safetensors: look at it, then set it as {where}"
    raise UserError(what, name, remedy)


def _find_revision_with_weights(name: str) -> str:
    """Returns a converted revision, a pull request or a branch that has safetensors, the latest first; "" if none."""
    from huggingface_hub import HfApi, errors

    api = HfApi()
    with contextlib.suppress(errors.HTTPError, OSError, KeyError):
        refs = api.list_repo_refs(name, include_pull_requests=True)
        requests = sorted(refs.pull_requests or (), key=lambda ref: -int(re.sub(r"\D", "", ref.ref) or 0))
        candidates = [ref.ref for ref in (*refs.converts, *requests)] + [branch.name for branch in refs.branches]
        for revision in candidates[:_MOST_REVISIONS]:
            with contextlib.suppress(errors.HTTPError, OSError):
                if has_weights(list_files(api.model_info(name, revision=revision, timeout=hub.TIMEOUT))):
                    return revision
    return ""


def _find_in_cache(name: str, revision: str | None) -> tuple[pathlib.Path, str] | None:
    """Returns the folder of a complete download of this revision, and its commit; None where there is none."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    with contextlib.suppress(CacheNotFound):
        repositories = (repo for repo in scan_cache_dir().repos if repo.repo_type == hub.MODEL and repo.repo_id == name)
        for cached in (cached for repo in repositories for cached in repo.revisions):
            if (revision or "main") in (cached.commit_hash, *cached.refs) and _is_complete(cached.snapshot_path):
                return cached.snapshot_path, cached.commit_hash
    return None


def _is_complete(folder: pathlib.Path) -> bool:
    """Returns whether a download of the weights into a folder was not interrupted."""
    weights = list_weights(folder, [file.name for file in folder.iterdir()])
    return bool(weights) and all((folder / name).exists() for name in weights)


def _list_local_options() -> str:
    """Lists the models that need no network, for the end of an error message."""
    folders = sorted((pathlib.Path(__file__).parent / "encoders").glob("*/config.json"))
    options = [*(str(file.parent) for file in folders), *hub.list_cached(hub.MODEL)]
    here = f"here there are: {', '.join(options)}" if options else "none is cached here"
    return f"give a local directory with config.json, model.safetensors and tokenizer.json ({here})"
