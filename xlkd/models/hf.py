# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Directories of Hugging Face's kind in and out: config.json, safetensors, tokenizer; nothing is unpickled or run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import operator
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from xlkd.errors import UserError
from xlkd.models import layout
from xlkd.models.encoder import Architecture, Params
from xlkd.models.layout import read_architecture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "added_tokens.json",
)
RECORD = "xlkd.json"
_WANTED = ("*.json", "*.txt", "*.safetensors", "sentencepiece.bpe.model")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a directory holds: `params` has `encoder` and those of `span`, `classifier`, `masked_lm` that are there."""

    architecture: Architecture
    params: Params
    labels: tuple[str, ...] | None
    config: dict[str, Any]


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Encoder and heads of a local directory, as numpy arrays in float32."""
    path = pathlib.Path(path)
    config = read_json(path / "config.json")
    architecture = read_architecture(config, path / "config.json")
    with _Tensors(path) as tensors:
        present = _present(architecture, tensors)
        names = [entry.name for part in present for entry in layout.entries(architecture, part, present[part])]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise UserError(
                f"the weights lack {_first(missing)}", str(path), "use the config.json that belongs to the weights"
            )
        params = {part: _collect(architecture, part, tree, tensors) for part, tree in present.items()}
    return Checkpoint(architecture, params, _labels(config), config)


def save(
    path: str | os.PathLike[str],
    architecture: Architecture,
    params: Params,
    *,
    labels: tuple[str, ...] | None = None,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerFast | None = None,
    card: str | None = None,
    record: dict[str, Any] | None = None,
    dtype: str = "float32",
) -> pathlib.Path:
    """A directory that `transformers` loads, whole or not at all; `tokenizer` is a folder to copy from, or one loaded.

    `record` goes beside config.json as `xlkd.json`: what evaluating the model needs to know of its training.
    Weights on disk are in `dtype`; config.json says float32 all the same: `transformers` computes in what it says.
    """
    from safetensors.numpy import save_file

    path = pathlib.Path(path)
    with replacing(path) as draft:
        tensors = {name: value.astype(dtype) for name, value in layout.to_tensors(architecture, params).items()}
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        _write_json(draft / "config.json", layout.write_config(architecture, params, labels))
        write_beside(draft, tokenizer=tokenizer, card=card, record=record)
    return path


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write in that takes the place of `path` at the end, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield draft
        draft.chmod(0o755)  # mkdtemp and safetensors leave both to the owner alone
        for file in draft.glob("*.safetensors"):
            file.chmod(0o644)
        _replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_beside(
    folder: pathlib.Path,
    *,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerFast | None = None,
    card: str | None = None,
    record: dict[str, Any] | None = None,
) -> None:
    """What stands beside the weights."""
    if tokenizer is not None:
        _save_tokenizer(folder, tokenizer)
    if card is not None:
        (folder / "README.md").write_text(card, encoding="utf-8")
    if record is not None:
        _write_json(folder / RECORD, record)


def _labels(config: dict[str, Any]) -> tuple[str, ...] | None:
    names = config.get("id2label")
    return tuple(names[i] for i in sorted(names, key=int)) if names else None


def _present(architecture: Architecture, tensors: _Tensors) -> Params:
    """Trees of shapes of what the file holds: the encoder, and each head that is there whole."""
    output = layout.FAMILIES[architecture.model_type].heads["classifier"]["output"]
    trees = layout.shapes(architecture, labels=tensors.rows(f"{output}.bias"))
    present = {"encoder": trees.pop("encoder")}
    for part, tree in trees.items():
        if all(entry.name in tensors for entry in layout.entries(architecture, part, tree)):
            present[part] = tree
    if "masked_lm" in present and not _tied(tensors):
        del present["masked_lm"]  # a decoder of its own: ours is the table of words
    return present


def _tied(tensors: _Tensors) -> bool:
    decoders = [name for name in layout.DECODERS if name in tensors]
    return all(np.array_equal(tensors[name], tensors[layout.WORDS]) for name in decoders)


def _collect(architecture: Architecture, part: str, tree: Params, tensors: _Tensors) -> Params:
    """Arrays in the structure of `tree`, every tensor checked against its shape."""
    found: dict[tuple[str, ...], list[np.ndarray]] = {}
    for entry in layout.entries(architecture, part, tree):
        value = tensors[entry.name]
        value = value.T if entry.transposed else value
        expected = functools.reduce(operator.getitem, entry.path, tree).shape[entry.layer is not None :]
        if value.shape != expected:
            shapes = [list(shape[::-1] if entry.transposed else shape) for shape in (value.shape, expected)]
            raise UserError(
                f"tensor {entry.name} has shape {shapes[0]}, config.json asks for {shapes[1]}",
                tensors.where(entry.name),
                "use the config.json that belongs to the weights",
            )
        found.setdefault(entry.path, []).append(value)
    return _nested({path: _float32(values, stack=path[0] == "layers") for path, values in found.items()})


def _float32(values: list[np.ndarray], stack: bool) -> np.ndarray:
    return np.stack([v.astype(np.float32) for v in values]) if stack else np.array(values[0], np.float32, order="C")


def _nested(flat: dict[tuple[str, ...], np.ndarray]) -> Params:
    tree: Params = {}
    for (*parents, leaf), value in flat.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


class _Tensors:
    """The tensors of a directory by canonical name (no prefix; weight and bias), read when asked for."""

    def __init__(self, path: pathlib.Path) -> None:
        self._files = {}
        self._places: dict[str, tuple[pathlib.Path, str]] = {}
        for file in _weight_files(path):
            self._files[file] = _open(file)
            for name in self._files[file].keys():  # noqa: SIM118 (not a dict)
                self._places[layout.canonical(name)] = (file, name)

    def __enter__(self) -> _Tensors:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> np.ndarray:
        file, name = self._places[name]
        value = self._files[file].get_tensor(name)
        if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            raise UserError(f"tensor {name} is {value.dtype}", str(file), "use float32, float16 or bfloat16 weights")
        return value

    def rows(self, name: str) -> int:
        """Length of a tensor's first axis; 0 where it is absent."""
        if name not in self:
            return 0
        file, name = self._places[name]
        return self._files[file].get_slice(name).get_shape()[0]

    def where(self, name: str) -> str:
        return str(self._places[name][0])


def _weight_files(path: pathlib.Path) -> list[pathlib.Path]:
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shards = [path / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
        for shard in shards:
            if not shard.is_file():
                raise UserError(f"shard {shard.name} is missing", str(index), "copy the whole directory")
        return shards
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in path.glob(pattern))
    if pickles:
        raise UserError(
            f"holds {pickles[0]}, a pickle, which can run code when it is opened",
            str(path),
            'convert it where you trust it: python -c "from transformers import AutoModel as M; '
            f"M.from_pretrained('{path}').save_pretrained('{path}-safetensors')\" "
            "(AutoModelForQuestionAnswering and so on keep a head)",
        )
    raise UserError("no model.safetensors here", str(path), "point at a directory that `save_pretrained` wrote")


def _open(file: pathlib.Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise UserError(f"unreadable weights ({error})", str(file), "copy or download the file again") from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object of a file."""
    if not path.parent.is_dir():
        raise UserError(
            "no such directory", str(path.parent), "give a local directory or the name of a model on the hub"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such file", str(path), "point at a directory that `save_pretrained` wrote") from error
    except (ValueError, OSError) as error:
        raise UserError(f"unreadable ({error})", str(path), "copy or download the file again") from error
    if not isinstance(value, dict):
        raise UserError("not a JSON object", str(path), "copy or download the file again")
    return value


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(draft: pathlib.Path, path: pathlib.Path) -> None:
    """The draft takes the place of what was there."""
    if not path.exists():
        draft.rename(path)
        return
    old = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    path.rename(old / path.name)
    draft.rename(path)
    shutil.rmtree(old)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more tensors" if len(names) > 3 else "")


def tokenizer(path: str | os.PathLike[str], spec: dict[str, Any] | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer of a directory, built from tokenizer.json (or a WordPiece vocab.txt) without loading PyTorch.

    `spec` stands in for tokenizer.json, as `vocab.trim` gives it.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)  # else: "PyTorch was not found"
    from transformers import PreTrainedTokenizerFast

    path = pathlib.Path(path)
    config = _optional_json(path / "tokenizer_config.json")
    options = {
        "clean_up_tokenization_spaces": False,
        "model_input_names": config.get("model_input_names") or _input_names(path),
        "model_max_length": min(config.get("model_max_length") or 512, 10**9),
    }
    specials = _optional_json(path / "special_tokens_map.json") | config
    special_names = ("bos_token", "cls_token", "eos_token", "sep_token", "pad_token", "unk_token", "mask_token")
    options |= {name: _special(specials[name]) for name in special_names if specials.get(name)}
    return PreTrainedTokenizerFast(tokenizer_object=_backend(path, config, spec), **options)


def _optional_json(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _input_names(path: pathlib.Path) -> list[str]:
    """Token types only where the encoder has several."""
    config = _optional_json(path / "config.json")
    several = config.get("model_type") == "bert" and config.get("type_vocab_size", 2) > 1
    return ["input_ids", "token_type_ids", "attention_mask"] if several else ["input_ids", "attention_mask"]


def _special(token: str | dict[str, Any]) -> Any:
    from tokenizers import AddedToken

    if isinstance(token, str):
        return token
    names = ("content", "lstrip", "rstrip", "single_word", "normalized")
    return AddedToken(**{name: token[name] for name in names if name in token}, special=True)


def _backend(path: pathlib.Path, config: dict[str, Any], spec: dict[str, Any] | None) -> Any:
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    if spec is not None:
        return Tokenizer.from_str(json.dumps(spec))
    if (path / "tokenizer.json").is_file():
        try:
            return Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"unreadable ({error})", str(path / "tokenizer.json"), "copy the file again") from error
    if (path / "vocab.txt").is_file():
        lower = config.get("do_lower_case", True)
        made = BertWordPieceTokenizer(
            str(path / "vocab.txt"), lowercase=lower, strip_accents=config.get("strip_accents")
        )
        return Tokenizer.from_str(made.to_str())
    raise UserError(
        "no tokenizer.json here",
        str(path),
        'write one where it can be converted: python -c "from transformers import AutoTokenizer as T; '
        f"T.from_pretrained('{path}').save_pretrained('{path}')\"",
    )


def _save_tokenizer(folder: pathlib.Path, source: str | os.PathLike[str] | PreTrainedTokenizerFast) -> None:
    if not isinstance(source, str | os.PathLike):
        source.save_pretrained(folder)
        config = read_json(folder / "tokenizer_config.json")
        # transformers 4 does not know the name that 5 writes; both know this one
        _write_json(folder / "tokenizer_config.json", config | {"tokenizer_class": "PreTrainedTokenizerFast"})
        return
    source = pathlib.Path(source)
    if not (source / "tokenizer.json").is_file():
        _save_tokenizer(folder, tokenizer(source))
        return
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def resolve(name: str, revision: str | None = None) -> tuple[pathlib.Path, str | None]:
    """A local directory as it is, or a model of the hub brought here: (directory, commit of the hub or None)."""
    if pathlib.Path(name).is_dir():
        return pathlib.Path(name), None
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


def _download(name: str, revision: str | None) -> tuple[pathlib.Path, str]:
    from huggingface_hub import HfApi, snapshot_download

    commit = HfApi().model_info(name, revision=revision, timeout=4).sha  # one question, no retries
    return pathlib.Path(snapshot_download(name, revision=commit, allow_patterns=list(_WANTED))), commit


def _cached(name: str, revision: str | None, why: str) -> tuple[pathlib.Path, str]:
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
