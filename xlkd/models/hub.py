# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Models of the hub brought here: the files of ours to read, at one commit, or what is cached without a network."""

from __future__ import annotations

import contextlib
import pathlib

from xlkd.errors import UserError

WANTED = ("*.json", "*.txt", "*.safetensors", "sentencepiece.bpe.model", "README.md")

Resolved = tuple[pathlib.Path, str | None]
_BROUGHT: dict[tuple[str, str | None], Resolved] = {}  # all stages of a run begin with the same commit


def resolve(name: str, revision: str | None = None) -> Resolved:
    """A local directory as it is, or a model of the hub brought here: (directory, commit of the hub or None)."""
    if (folder := pathlib.Path(name).expanduser()).is_dir():
        return folder, None
    if (name, revision) not in _BROUGHT:
        _BROUGHT[name, revision] = _ask(name, revision)
    return _BROUGHT[name, revision]


def brought(name: str, revision: str | None = None) -> tuple[pathlib.Path | None, str | None]:
    """What `resolve` gave before, or a local directory; nothing is asked of the hub."""
    if (folder := pathlib.Path(name).expanduser()).is_dir():
        return folder, None
    return _BROUGHT.get((name, revision), (None, None))


def _ask(name: str, revision: str | None) -> Resolved:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError("no such directory", name, "give a local directory or the name of a model on the hub")
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return _cached(name, revision, "HF_HUB_OFFLINE is set")
    try:
        return _download(name, revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise UserError(f"the hub has no such model ({type(error).__name__})", name, _local_options()) from error
    except (errors.HTTPError, OSError) as error:  # whichever HTTP library this hub client has
        return _cached(name, revision, f"the hub cannot be reached ({type(error).__name__})")


def _download(name: str, revision: str | None) -> Resolved:
    from huggingface_hub import HfApi, snapshot_download

    commit = HfApi().model_info(name, revision=revision, timeout=4).sha  # one question, no retries
    return pathlib.Path(snapshot_download(name, revision=commit, allow_patterns=list(WANTED))), commit


def _cached(name: str, revision: str | None, why: str) -> Resolved:
    from huggingface_hub import snapshot_download

    try:
        path = pathlib.Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        raise UserError(f"{why} and the model is not in the cache", name, _local_options()) from error
    return path, path.name


def _local_options() -> str:
    """What there is without a network, for the end of an error's line."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    folders = sorted((pathlib.Path(__file__).parent / "encoders").glob("*/config.json"))
    options = [str(file.parent) for file in folders]
    with contextlib.suppress(CacheNotFound):
        options += sorted(repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model")
    here = f"here there are: {', '.join(options)}" if options else "none is cached here"
    return f"give a local directory with config.json, model.safetensors and tokenizer.json ({here})"
