# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Downloads models of the Hugging Face hub at one commit, or finds them in its cache without a network."""

from __future__ import annotations

import contextlib
import pathlib

from xlkd import files
from xlkd.errors import UserError

WANTED = ("*.json", "*.txt", "*.safetensors", "sentencepiece.bpe.model", "README.md")

Resolved = tuple[pathlib.Path, str | None]
_RESOLVED: dict[tuple[str, str | None], Resolved] = {}  # all stages of a run start from the same commit


def resolve(name: str, revision: str | None = None, commit: str | None = None) -> Resolved:
    """Returns a local directory, or downloads a model of the hub: (directory, commit of the hub or None).

    `commit` is what the revision was resolved to before, by another process.
    """
    if (folder := files.expand_path(name)).is_dir():
        return folder, None
    if (name, revision) not in _RESOLVED:
        _RESOLVED[name, revision] = _find_on_hub(name, commit or revision)
    return _RESOLVED[name, revision]


def find_resolved(name: str, revision: str | None = None) -> tuple[pathlib.Path | None, str | None]:
    """Returns a local directory or the earlier result of `resolve`, without a request to the hub; else two None."""
    if (folder := files.expand_path(name)).is_dir():
        return folder, None
    return _RESOLVED.get((name, revision), (None, None))


def _find_on_hub(name: str, revision: str | None) -> Resolved:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError("no such directory", name, "give a local directory or the name of a model on the hub")
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return _find_in_cache(name, revision, "HF_HUB_OFFLINE is set")
    try:
        return _download(name, revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise UserError(f"the hub has no such model ({type(error).__name__})", name, _list_local_options()) from error
    except (errors.HTTPError, OSError) as error:  # whichever HTTP library this hub client uses
        return _find_in_cache(name, revision, f"the hub cannot be reached ({type(error).__name__})")


def _download(name: str, revision: str | None) -> Resolved:
    from huggingface_hub import HfApi, snapshot_download

    commit = HfApi().model_info(name, revision=revision, timeout=4).sha  # one request, no retries
    return pathlib.Path(snapshot_download(name, revision=commit, allow_patterns=list(WANTED))), commit


def _find_in_cache(name: str, revision: str | None, why: str) -> Resolved:
    from huggingface_hub import snapshot_download

    try:
        path = pathlib.Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise UserError(f"{why} and the model is not in the cache", name, _list_local_options()) from error
    return path, path.name


def _list_local_options() -> str:
    """Lists the models that need no network, for the end of an error message."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    folders = sorted((pathlib.Path(__file__).parent / "encoders").glob("*/config.json"))
    options = [str(file.parent) for file in folders]
    with contextlib.suppress(CacheNotFound):
        options += sorted(repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model")
    here = f"here there are: {', '.join(options)}" if options else "none is cached here"
    return f"give a local directory with config.json, model.safetensors and tokenizer.json ({here})"
