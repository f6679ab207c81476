# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Directories of Hugging Face's kind in and out: config.json, safetensors, tokenizer; nothing is unpickled or run."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xlkd.compat import import_tokenizer_class
from xlkd.errors import UserError
from xlkd.files import replace_folder
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
RECORD, CARD = "xlkd.json", "README.md"


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
    return Checkpoint(architecture, params, _labels(config, path / "config.json"), config)


def save(
    path: str | os.PathLike[str],
    architecture: Architecture,
    params: Params,
    *,
    labels: tuple[str, ...] | None = None,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerFast | None = None,
    card: str | None = None,
    record: dict[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes a directory that `transformers` loads, as `files.replace_folder` writes one.

    `tokenizer` is a folder to copy from, or one loaded. `record` goes beside config.json as `xlkd.json`: what
    evaluating the model needs to know of its training; `files` are other JSON files by name.
    Weights on disk are in `dtype`; config.json says float32 all the same: `transformers` computes in what it says.
    """
    from safetensors.numpy import save_file

    path = pathlib.Path(path)
    with replace_folder(path) as draft:
        tensors = {name: value.astype(dtype) for name, value in layout.to_tensors(architecture, params).items()}
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        _write_json(draft / "config.json", layout.write_config(architecture, params, labels))
        write_beside(draft, tokenizer=tokenizer, card=card, record=record)
        for name, value in (files or {}).items():
            (draft / name).parent.mkdir(exist_ok=True)
            _write_json(draft / name, value)
    return path


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
        (folder / CARD).write_text(card, encoding="utf-8")
    if record is not None:
        _write_json(folder / RECORD, record)


def _labels(config: dict[str, Any], where: pathlib.Path) -> tuple[str, ...] | None:
    names = config.get("id2label")
    if not names:
        return None
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise UserError("id2label does not number the labels from 0", str(where), "mend it")
    found = tuple(names[str(i)] for i in range(len(names)))
    if not all(isinstance(name, str) for name in found) or len(set(found)) < len(found):
        raise UserError("id2label does not give each label a name of its own", str(where), "mend it")
    return found


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
    return layout.WORDS in tensors and all(np.array_equal(tensors[n], tensors[layout.WORDS]) for n in decoders)


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
        try:
            value = self._files[file].get_tensor(name)
        except Exception as error:  # a type that numpy has not; the library raises what it likes
            raise UserError(f"tensor {name} cannot be read ({error})", str(file), "copy the file again") from error
        if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
            raise UserError(f"tensor {name} is {value.dtype}", str(file), "use float32, float16 or bfloat16 weights")
        return value

    def rows(self, name: str) -> int:
        """Length of a tensor's first axis; 0 where it is absent."""
        if name not in self:
            return 0
        file, name = self._places[name]
        return next(iter(self._files[file].get_slice(name).get_shape()), 0)

    def where(self, name: str) -> str:
        return str(self._places[name][0])


def _weight_files(path: pathlib.Path) -> list[pathlib.Path]:
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        named = read_json(index).get("weight_map")
        names = set(map(str, named.values())) if isinstance(named, dict) else set()
        if not names or any(name != pathlib.Path(name).name for name in names):
            raise UserError("names no files of this folder", str(index), "copy the whole directory")
        shards = [path / name for name in sorted(names)]
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


def read_json(path: pathlib.Path, kind: type = dict) -> Any:
    """The JSON object, or the list, of a file."""
    if not path.parent.is_dir():
        raise UserError(
            "no such directory", str(path.parent), "give a local directory or the name of a model on the hub"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such file", str(path), "point at a directory that `save_pretrained` wrote") from error
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"unreadable ({error})", str(path), "copy or download the file again") from error
    if not isinstance(value, kind):
        what = "not a JSON object" if kind is dict else "not a JSON list"
        raise UserError(what, str(path), "copy or download the file again")
    return value


def _write_json(path: pathlib.Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more tensors" if len(names) > 3 else "")


def tokenizer(path: str | os.PathLike[str], spec: dict[str, Any] | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer of a directory, built from tokenizer.json (or a WordPiece vocab.txt) without loading PyTorch.

    `spec` stands in for tokenizer.json, as `vocab.trim` gives it.
    """
    tokenizer_class = import_tokenizer_class()
    path = pathlib.Path(path)
    config = _optional_json(path / "tokenizer_config.json")
    backend = _backend(path, config, spec)
    longest, names = config.get("model_max_length"), config.get("model_input_names")
    options = {
        "clean_up_tokenization_spaces": False,
        "model_input_names": names if _are_texts(names) else _input_names(path),
        "model_max_length": int(min(longest, 10**9)) if type(longest) in (int, float) and longest > 0 else 512,
    }
    specials = _optional_json(path / "special_tokens_map.json") | config
    special_names = ("bos_token", "cls_token", "eos_token", "sep_token", "pad_token", "unk_token", "mask_token")
    options |= {name: _special(specials[name], name, path) for name in special_names if specials.get(name)}
    try:
        return tokenizer_class(tokenizer_object=backend, **options)
    except Exception as error:  # a special that no tokenizer can take
        where = str(path / "tokenizer_config.json")
        raise UserError(f"unreadable ({error})", where, "copy or download the file again") from error


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def _optional_json(path: pathlib.Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _input_names(path: pathlib.Path) -> list[str]:
    """Token types only where the encoder has several."""
    config = _optional_json(path / "config.json")
    several = config.get("model_type") == "bert" and config.get("type_vocab_size", 2) > 1
    return ["input_ids", "token_type_ids", "attention_mask"] if several else ["input_ids", "attention_mask"]


def _special(token: Any, name: str, path: pathlib.Path) -> Any:
    from tokenizers import AddedToken

    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise UserError(f"{name} is no token", str(path / "tokenizer_config.json"), "copy or download the file again")
    names = ("lstrip", "rstrip", "single_word", "normalized")
    flags = {name: bool(token[name]) for name in names if name in token} if isinstance(token, dict) else {}
    return AddedToken(content, special=True, **flags) if flags else content


def _backend(path: pathlib.Path, config: dict[str, Any], spec: dict[str, Any] | None) -> Any:
    from tokenizers import Tokenizer

    if spec is not None:
        return Tokenizer.from_str(json.dumps(spec))
    file = next((path / name for name in ("tokenizer.json", "vocab.txt") if (path / name).is_file()), None)
    if file is None:
        raise UserError(
            "no tokenizer.json here",
            str(path),
            'write one where it can be converted: python -c "from transformers import AutoTokenizer as T; '
            f"T.from_pretrained('{path}').save_pretrained('{path}')\"",
        )
    try:
        found = Tokenizer.from_file(str(file)) if file.suffix == ".json" else _word_pieces(file, config)
        found.encode("a \U000f0000", "b")  # what is wrong inside shows only when it is used
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises bare Exception, and its panics are not even that
        raise UserError(f"unreadable ({error})", str(file), "copy the file again") from error
    return found


def _word_pieces(file: pathlib.Path, config: dict[str, Any]) -> Any:
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    lower, accents = config.get("do_lower_case", True), config.get("strip_accents")
    accents = accents if isinstance(accents, bool) else None
    made = BertWordPieceTokenizer(str(file), lowercase=bool(lower), strip_accents=accents)
    return Tokenizer.from_str(made.to_str())


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
