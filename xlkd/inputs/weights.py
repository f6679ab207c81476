# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Resolves where a stage's weights come from: a folder, a hub id, the package, an earlier stage, or a seed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from xlkd import files
from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.methods import Start
from xlkd.models import encoder as encoders
from xlkd.models import hf, hub, vocab
from xlkd.models.branches import WHOLE
from xlkd.models.family import Architecture
from xlkd.rows import list_texts
from xlkd.runtime import distributed
from xlkd.runtime.workdir import has_trained
from xlkd.settings import check_start
from xlkd.spec.stage import AnySettings, NewEncoder, list_starts
from xlkd.spec.stage import Encoder as EncoderSettings

TRAINED_ON = "trained_on.json"  # beside a new tokenizer: the hashes of its texts and of its files
PACKAGED = pathlib.Path(hf.__file__).parent / "encoders"


@dataclasses.dataclass(frozen=True)
class Weights:
    """An encoder to start from, without its arrays, which `load` reads."""

    architecture: Architecture
    tokenizer: Any
    folder: pathlib.Path | None  # in Hugging Face's format; None where the weights are new
    revision: str | None
    averaged_with: tuple[pathlib.Path, ...] = ()  # folders of further models; the weights are the mean of all
    embedding_scale: float = 0.02
    untrimmed: Weights | None = None  # the same weights with their full vocabulary, where it was trimmed
    kept_tokens: np.ndarray | None = None  # the old ids of the tokens that were not trimmed away

    def load(self, seed: int) -> Start:
        """Loads the arrays; new weights are drawn from the seed."""
        if self.folder is None:
            key = jax.random.key(seed)
            return Start(self.architecture, encoders.init(self.architecture, key, self.embedding_scale), {})
        checkpoint = self.load_checkpoint()
        if self.kept_tokens is not None:
            checkpoint = vocab.select_tokens(checkpoint, self.kept_tokens)
        heads = {name: tree for name, tree in checkpoint.params.items() if name != "encoder"}
        return Start(self.architecture, checkpoint.params["encoder"], heads, checkpoint.labels or ())

    @property
    def folders(self) -> tuple[pathlib.Path, ...]:
        """Returns the folders of all models; none where the weights are new."""
        return (self.folder, *self.averaged_with) if self.folder else ()

    def load_checkpoint(self) -> hf.Checkpoint:
        """Loads the model, or the mean of several, with its whole vocabulary."""
        return average_checkpoints(self.folders)


def average_checkpoints(folders: Sequence[pathlib.Path]) -> hf.Checkpoint:
    """Returns the mean of the weights of models that have the same heads and labels."""
    mean = hf.load(folders[0])
    for count, folder in enumerate(folders[1:], 2):
        other = hf.load(folder)
        shapes = [jax.tree.map(np.shape, checkpoint.params) for checkpoint in (mean, other)]
        _check_alike({"heads": shapes, "labels": [mean.labels, other.labels]}, folders[0], folder)
        params = jax.tree.map(lambda m, x, count=count: m + (x - m) / np.float32(count), mean.params, other.params)
        mean = dataclasses.replace(mean, params=params)
    return mean


def resolve_weights(
    settings: AnySettings,
    earlier: dict[str, pathlib.Path],
    fresh: pathlib.Path,
    share: Callable[[pathlib.Path], None] = lambda folder: None,
) -> Weights:
    """Resolves the weights that the config names.

    `earlier` has the exports of finished stages by name; `fresh` is the folder of a new encoder's tokenizer, which the
    primary process writes and `share` gives to the others.
    """
    weights = _find_weights(settings, earlier, fresh, share)
    return dataclasses.replace(weights, architecture=override_dropout(weights.architecture, settings.encoder))


def _find_weights(
    settings: AnySettings,
    earlier: dict[str, pathlib.Path],
    fresh: pathlib.Path,
    share: Callable[[pathlib.Path], None],
) -> Weights:
    """Finds the weights that the config names, with the dropout rates of their own."""
    check_start(settings, earlier)
    if settings.start == "encoder" and settings.encoder.path == "new":
        return _prepare_new_encoder(settings.encoder.new, fresh, share)
    if settings.start == "encoder":
        models = [locate_model(settings.encoder.path, settings.encoder.revision or None)]
    else:
        models = [
            (earlier[name], None) if name in earlier else locate_model(name, settings.start_revision or None)
            for name in list_starts(settings.start)
        ]
    first, *others = [_read_weights(folder, revision) for folder, revision in models]
    for other, (folder, _) in zip(others, models[1:], strict=True):
        tokenizers = [weights.tokenizer.backend_tokenizer.to_str() for weights in (first, other)]
        architectures = [override_dropout(weights.architecture, settings.encoder) for weights in (first, other)]
        _check_alike({"tokenizer": tokenizers, "architecture": architectures}, models[0][0], folder)
    return dataclasses.replace(first, averaged_with=tuple(folder for folder, _ in models[1:]))


def _check_alike(parts: Mapping[str, Sequence[Any]], first: pathlib.Path, other: pathlib.Path) -> None:
    """Refuses to average two models of which a part differs."""
    for name, (a, b) in parts.items():
        if a != b:
            remedy = "join stages or folders with the same start"
            raise UserError(f"cannot be averaged with {first}: other {name}", str(other), remedy)


def reject_branch_folder(folder: pathlib.Path) -> None:
    """Refuses the export of a student with several branches as a whole: each branch has a folder of its own."""
    exports = folder.parent if folder.name == WHOLE else folder
    if (folder / "config.json").exists() or not (exports / WHOLE).is_dir():
        return
    folders = ", ".join(str(file.parent) for file in sorted(exports.glob("*/config.json")))
    remedy = f"take one of them: {folders}" if folders else "take the folder of a language that was exported beside it"
    raise UserError("a student with several branches, not one encoder", str(folder), remedy)


def resolve_teacher(settings: AnySettings) -> Weights | None:
    """Resolves the weights of `config.teacher.path`; None where the config names no teacher encoder."""
    if not settings.teacher.path:
        return None
    return _read_weights(*locate_model(settings.teacher.path, settings.teacher.revision or None))


def locate_model(name: str, revision: str | None = None) -> tuple[pathlib.Path, str | None]:
    """Returns the Hugging Face folder of a path, a hub id or `package:NAME`, and a hub id's commit.

    Process 0 resolves the revision of a hub id, and each host downloads that commit.
    """
    if not name.startswith("package:"):
        share = distributed.open_share(name)
        if share is None:
            return hub.resolve(name, revision)
        commit = distributed.broadcast_from_primary(name, lambda: hub.resolve(name, revision)[1])
        share.gather(lambda: str(hub.resolve(name, revision, commit)[1]).encode())
        return hub.resolve(name, revision, commit)
    known = sorted(f"package:{file.parent.name}" for file in PACKAGED.glob("*/config.json"))
    if name not in known:
        raise UserError("no such encoder in the package", name, f"known: {', '.join(known) or 'none'}")
    return PACKAGED / name.removeprefix("package:"), None


def read_folder_architecture(folder: pathlib.Path) -> Architecture:
    """Reads the architecture of a folder without its weights."""
    return hf.read_architecture(hf.read_json(folder / "config.json"), folder / "config.json")


def build_encoder(settings: EncoderSettings, architecture: Architecture) -> encoders.Encoder:
    """Builds an encoder of this architecture, computed as the settings say."""
    scan = encoders.scan_by_device() if settings.layers_as == "auto" else settings.layers_as == "scanned"
    return encoders.Encoder(architecture, dtype=settings.dtype, scan=scan, remat=settings.remat)


def override_dropout(architecture: Architecture, settings: EncoderSettings) -> Architecture:
    """Overrides all dropout rates, and that of attention weights; -1 keeps the encoder's own."""
    rates: dict[str, Any] = {}
    if settings.dropout >= 0:
        fields = dataclasses.fields(architecture)
        rates = {field.name: settings.dropout for field in fields if field.name.endswith("dropout")}
    if settings.attention_dropout >= 0:
        rates["attention_dropout"] = settings.attention_dropout
    return dataclasses.replace(architecture, **rates)


def _read_weights(folder: pathlib.Path, revision: str | None) -> Weights:
    """Reads architecture and tokenizer of a folder."""
    reject_branch_folder(folder)
    return Weights(read_folder_architecture(folder), hf.load_tokenizer(folder), folder, revision)


def _prepare_new_encoder(new: NewEncoder, folder: pathlib.Path, share: Callable[[pathlib.Path], None]) -> Weights:
    """Prepares a new encoder; its tokenizer is trained on `new.texts` and saved, so that a restart uses the same."""
    distributed.broadcast_from_primary("tokenizer", lambda: _train_tokenizer(new, folder))
    share(folder)
    tokenizer = hf.load_tokenizer(folder)
    architecture = Architecture(
        model_type=new.model_type,
        vocab_size=len(tokenizer),
        hidden_size=new.hidden_size,
        layers=new.layers,
        heads=new.heads,
        intermediate_size=4 * new.hidden_size,
        positions=new.positions,
        types=2 if new.model_type == "bert" else 1,
        pad_id=tokenizer.pad_token_id,
        position_offset=0 if new.model_type == "bert" else tokenizer.pad_token_id + 1,
        norm_eps=1e-12 if new.model_type == "bert" else 1e-5,
    )
    return Weights(architecture, tokenizer, None, None, embedding_scale=new.embedding_scale)


def _train_tokenizer(new: NewEncoder, folder: pathlib.Path) -> None:
    """Trains the tokenizer of a new encoder, unless it was trained on the same texts and its files are intact."""
    from xlkd.models import tokenizers

    record, names = folder / TRAINED_ON, ("tokenizer.json", "tokenizer_config.json")
    if not record.exists() and has_trained(folder.parent):  # by version 0.1, which wrote no record
        return
    rows = sources.read(new.texts, "masked")
    inputs = {"texts": rows.compute_hash(), "model_type": new.model_type, "vocabulary": new.vocabulary}
    with contextlib.suppress(OSError, ValueError):
        sums = {name: files.compute_sha256(folder / name) for name in names}
        if json.loads(record.read_text(encoding="utf-8")) == inputs | sums:
            return
    texts = (text for row in rows for text in list_texts(row))
    tokenizers.train(folder, texts, kind=new.model_type, size=new.vocabulary)
    files.write_json(record, inputs | {name: files.compute_sha256(folder / name) for name in names})
