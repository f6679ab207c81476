# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads and writes Hugging Face directories: config.json, safetensors, tokenizer; nothing is unpickled or run."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import jax
import numpy as np

from xlkd.compat import catch_panics, import_tokenizer_class
from xlkd.errors import UserError, escape_controls
from xlkd.files import Json, find_repeated_key, replace_folder, write_text
from xlkd.models import layout, sentencepiece
from xlkd.models.families import find_form
from xlkd.models.family import Architecture, Form, Params
from xlkd.models.layout import read_architecture
from xlkd.models.tensors import Tensors, check_adapters, list_unused
from xlkd.models.tokenizer_spec import check_spec, check_tokenizer

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spm.model",
    "added_tokens.json",
)
RECORD, CARD = "xlkd.json", "README.md"
_PROBE = "a \U000f0000 " + "".join(map(chr, range(0x20, 0x3100, 11)))  # letters, signs and marks of many scripts


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a directory: `params` has `encoder`, and `span`, `classifier`, `masked_lm` where it has them."""

    architecture: Architecture
    params: Params
    labels: tuple[str, ...] | None
    config: dict[str, Json]


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads the encoder and the heads of a local directory, as numpy arrays in float32."""
    path = pathlib.Path(path)
    config = read_json(path / "config.json")
    architecture = read_architecture(config, path / "config.json")
    labels = _read_labels(config, path / "config.json")
    with Tensors(_list_weight_files(path), find_form(architecture).simplify_name) as tensors:
        check_adapters(tensors, path)
        present = _find_parts(architecture, tensors, config)
        names = [entry.name for part in present for entry in layout.list_entries(architecture, part, present[part])]
        missing = [name for name in names if name not in tensors]
        if missing:
            raise UserError(
                f"the weights lack {_name_some(missing)}", str(path), "use the config.json that belongs to the weights"
            )
        if unused := list_unused(architecture, list(tensors), names, str(path)):
            _announce_unused(str(path), _name_some(unused))
        params = {part: _collect_arrays(architecture, part, tree, tensors) for part, tree in present.items()}
    count = len(params["classifier"]["output"]["bias"]) if "classifier" in params else 0
    if labels and count and len(labels) != count:
        what = f"id2label names {len(labels)} labels, the classification head has {count}"
        raise UserError(what, str(path / "config.json"), "use the config.json that belongs to the weights")
    return Checkpoint(architecture, params, labels, config)


@functools.cache
def _announce_unused(where: str, names: str) -> None:
    """Prints which tensors of a folder are not used, once."""
    print(escape_controls(f"note: {where}: not used: {names}"), file=sys.stderr)


def save(
    path: str | os.PathLike[str],
    architecture: Architecture,
    params: Params,
    *,
    labels: tuple[str, ...] | None = None,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerFast | None = None,
    card: str | None = None,
    record: dict[str, Json] | None = None,
    files: Mapping[str, Json] | None = None,
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes a directory that `transformers` loads, as `files.replace_folder` writes one.

    `tokenizer` is a folder to copy from, or a loaded tokenizer. `record` is written beside config.json as `xlkd.json`:
    what evaluating the model needs to know of its training; `files` are other JSON files by name.
    Weights on disk are in `dtype`; config.json always says float32, the type in which `transformers` then computes.
    """
    from safetensors.numpy import save_file

    path = pathlib.Path(path)
    with replace_folder(path) as draft:
        tensors = {name: value.astype(dtype) for name, value in layout.to_tensors(architecture, params).items()}
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        _write_json(draft / "config.json", layout.write_config(architecture, params, labels))
        write_side_files(draft, tokenizer=tokenizer, card=card, record=record)
        for name, value in (files or {}).items():
            (draft / name).parent.mkdir(exist_ok=True)
            _write_json(draft / name, value)
    return path


def write_side_files(
    folder: pathlib.Path,
    *,
    tokenizer: str | os.PathLike[str] | PreTrainedTokenizerFast | None = None,
    card: str | None = None,
    record: dict[str, Json] | None = None,
) -> None:
    """Writes the files beside the weights."""
    if tokenizer is not None:
        _save_tokenizer(folder, tokenizer)
    if card is not None:
        write_text(folder / CARD, card)
    if record is not None:
        _write_json(folder / RECORD, record)


def _read_labels(config: dict[str, Json], where: pathlib.Path) -> tuple[str, ...] | None:
    names = config.get("id2label")
    if not names:
        return None
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise UserError("id2label does not number the labels from 0", str(where), "fix it")
    labels = tuple(names[str(i)] for i in range(len(names)))
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise UserError("id2label does not give each label a different name", str(where), "fix it")
    return labels


def _find_parts(architecture: Architecture, tensors: Tensors, config: dict[str, Json]) -> Params:
    """Returns trees of shapes of the file's content: the encoder, and each head with all of its tensors.

    Where a family gives tensors of several heads the same name, config.json says whose they are.
    """
    form = find_form(architecture)
    output = form.heads["classifier"]["output"]
    trees = layout.list_shapes(architecture, labels=tensors.count_rows(f"{output}.bias"))
    names = {part: {entry.name for entry in layout.list_entries(architecture, part, trees[part])} for part in trees}
    names = {part: own for part, own in names.items() if part == "encoder" or all(name in tensors for name in own)}
    classes = config["architectures"][:1] if isinstance(config.get("architectures"), list) else []
    present = {}
    for part, own in names.items():
        is_shared = any(own & others for other, others in names.items() if other != part)
        if not is_shared or form.classes + layout.CLASSES[part] in classes:
            present[part] = trees[part]
    if "masked_lm" in present and not _is_tied(form, tensors):
        del present["masked_lm"]  # it has a decoder of its own; ours is the table of words
    return present


def _is_tied(form: Form, tensors: Tensors) -> bool:
    """Says whether the decoders of masked tokens are equal to the table of words."""
    decoders = [name for name in form.decoders if name in tensors]
    return form.words in tensors and all(np.array_equal(tensors[n], tensors[form.words]) for n in decoders)


def _collect_arrays(architecture: Architecture, part: str, tree: Params, tensors: Tensors) -> Params:
    """Reads arrays into the structure of `tree` and checks the shape of every tensor."""
    arrays: dict[tuple[tuple[str, ...], int | None], np.ndarray] = {}
    for entry in layout.list_entries(architecture, part, tree):
        value = entry.cut(tensors[entry.name])
        value = value.T if entry.transposed else value
        leaf = cast(jax.ShapeDtypeStruct, functools.reduce(operator.getitem, entry.path, tree))
        expected = leaf.shape[entry.layer is not None :]
        if value.shape != expected:
            shapes = [list(shape[::-1] if entry.transposed else shape) for shape in (value.shape, expected)]
            raise UserError(
                f"tensor {entry.name} has shape {shapes[0]}, config.json asks for {shapes[1]}",
                tensors.find_file(entry.name),
                "use the config.json that belongs to the weights",
            )
        arrays[entry.path, entry.layer] = value

    def place(keys: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        path = tuple(key.key for key in keys)
        if path[0] != "layers":
            return np.array(arrays[path, None], order="C")
        neutral = np.full(leaf.shape[1:], float(path[-1] == "scale"), np.float32)  # where a layer lacks the module
        return np.stack([arrays.get((path, i), neutral) for i in range(leaf.shape[0])])

    return jax.tree_util.tree_map_with_path(place, tree)


def _list_weight_files(path: pathlib.Path) -> list[pathlib.Path]:
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shard_of = read_json(index).get("weight_map")
        names = set(map(str, shard_of.values())) if isinstance(shard_of, dict) else set()
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
            f"contains {pickles[0]}, a pickle, which can run code when it is opened",
            str(path),
            'if you trust it, convert it: python -c "from transformers import AutoModel as M; '
            f"M.from_pretrained('{path}').save_pretrained('{path}-safetensors')\" "
            "(AutoModelForQuestionAnswering and so on keep a head)",
        )
    raise UserError("no model.safetensors here", str(path), "point at a directory that `save_pretrained` wrote")


def read_json(path: pathlib.Path, kind: type = dict) -> Json:
    """Reads the JSON object, or the list, of a file."""
    if not path.parent.is_dir():
        raise UserError(
            "no such directory", str(path.parent), "give a local directory or the name of a model on the hub"
        )
    if not path.is_file():  # reading a pipe could wait for ever
        raise UserError("no such file", str(path), "point at a directory that `save_pretrained` wrote")
    try:
        value = json.loads(
            path.read_text(encoding="utf-8"), object_pairs_hook=_join_pairs, parse_constant=_refuse_constant
        )
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"unreadable ({error})", str(path), "copy or download the file again") from error
    if not isinstance(value, kind):
        what = "not a JSON object" if kind is dict else "not a JSON list"
        raise UserError(what, str(path), "copy or download the file again")
    return value


def _join_pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Returns the object of these pairs; refuses a repeated key, of which other software may read another value."""
    if (key := find_repeated_key(pairs)) is not None:
        raise ValueError(f"the key {key[:100]!r} occurs twice")
    return dict(pairs)


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is not valid JSON")


def _write_json(path: pathlib.Path, value: Json) -> None:
    """Writes JSON as `transformers` indents it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _name_some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more tensors" if len(names) > 3 else "")


def load_tokenizer(
    path: str | os.PathLike[str], spec: dict[str, Json] | None = None, architecture: Architecture | None = None
) -> PreTrainedTokenizerFast:
    """Builds the tokenizer of a directory from tokenizer.json, vocab.txt or DeBERTa's spm.model, without PyTorch.

    `spec` replaces the content of tokenizer.json, as `vocab.trim_vocabulary` returns it. A tokenizer is refused if its
    ids do not fit the tables of `architecture`, by default that of the directory's config.json.
    """
    tokenizer_class = import_tokenizer_class()
    path = pathlib.Path(path)
    if architecture is None and (path / "config.json").is_file():
        architecture = read_architecture(read_json(path / "config.json"), path / "config.json")
    config = _read_optional_json(path / "tokenizer_config.json")
    file = next((path / name for name in ("tokenizer.json", "vocab.txt", "spm.model") if (path / name).is_file()), None)
    backend, added = _build_backend(path, file, config, spec, architecture)
    longest, names = config.get("model_max_length"), config.get("model_input_names")
    is_number = isinstance(longest, int | float) and not isinstance(longest, bool)
    options = {
        "clean_up_tokenization_spaces": False,
        "model_input_names": names if _are_texts(names) else _list_input_names(architecture),
        "model_max_length": math.floor(min(longest, 10**9)) if is_number and longest > 0 else 512,
    }
    specials = _read_optional_json(path / "special_tokens_map.json") | config
    if file is not None and file.suffix == ".model":
        specials = sentencepiece.SPECIALS | specials
    special_names = ("bos_token", "cls_token", "eos_token", "sep_token", "pad_token", "unk_token", "mask_token")
    options |= {name: _read_special(specials[name], name, path) for name in special_names if specials.get(name)}
    try:
        with catch_panics():
            tokenizer = tokenizer_class(tokenizer_object=backend, **options)
    except ValueError as error:  # a special token that the library refuses
        where = str(path / "tokenizer_config.json")
        raise UserError(
            f"unreadable ({error})", where, "correct its special tokens, or download the file again"
        ) from error
    check_tokenizer(tokenizer, added, str(file), architecture)
    return tokenizer


def _are_texts(values: Json) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def _read_optional_json(path: pathlib.Path) -> dict[str, Json]:
    return read_json(path) if path.is_file() else {}


def _list_input_names(architecture: Architecture | None) -> list[str]:
    """Returns the inputs of the encoder; token types are one only where it has several."""
    several = architecture is not None and not architecture.position_offset and architecture.types > 1
    return ["input_ids", "token_type_ids", "attention_mask"] if several else ["input_ids", "attention_mask"]


def _read_special(token: Json, name: str, path: pathlib.Path) -> str | AddedToken:
    from tokenizers import AddedToken

    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise UserError(
            f"{name} is neither a text nor an object with a text under 'content'",
            str(path / "tokenizer_config.json"),
            "copy or download the file again",
        )
    names = ("lstrip", "rstrip", "single_word", "normalized")
    flags = {name: bool(token[name]) for name in names if name in token} if isinstance(token, dict) else {}
    return AddedToken(content, special=True, **flags) if flags else content


def _build_backend(
    path: pathlib.Path,
    file: pathlib.Path | None,
    config: dict[str, Json],
    spec: dict[str, Json] | None,
    architecture: Architecture | None,
) -> tuple[Tokenizer, list[Json]]:
    """Builds the tokenizer proper, which neither truncates nor pads; returns also the added tokens of its file."""
    from tokenizers import Tokenizer

    if file is None:
        raise UserError(
            "no tokenizer.json here",
            str(path),
            'convert it: python -c "from transformers import AutoTokenizer as T; '
            f"T.from_pretrained('{path}').save_pretrained('{path}')\"",
        )
    if spec is None:
        readers = {".txt": _read_wordpiece, ".model": sentencepiece.read_spec}
        spec = read_json(file) if file.suffix == ".json" else readers[file.suffix](file, config)
    check_spec(spec, str(file), architecture)
    try:
        with catch_panics():
            # Batching decides on truncation and padding
            tokenizer = Tokenizer.from_str(json.dumps(spec | {"truncation": None, "padding": None}))
            for second in (None, "a"):  # a damaged tokenizer fails only when it is used
                tokenizer.encode(_PROBE, second)
    except ValueError as error:
        raise UserError(f"unreadable ({error})", str(file), "copy the file again") from error
    added = spec.get("added_tokens")
    return tokenizer, added if isinstance(added, list) else []


def _read_wordpiece(file: pathlib.Path, config: dict[str, Json]) -> dict[str, Json]:
    """Returns the tokenizer.json that a WordPiece vocabulary stands for."""
    from tokenizers import BertWordPieceTokenizer

    lower, accents = config.get("do_lower_case", True), config.get("strip_accents")
    accents = accents if isinstance(accents, bool) else None
    try:
        with catch_panics():
            return json.loads(BertWordPieceTokenizer(str(file), lowercase=bool(lower), strip_accents=accents).to_str())
    except ValueError as error:
        raise UserError(f"unreadable ({error})", str(file), "copy the file again") from error


def _save_tokenizer(folder: pathlib.Path, source: str | os.PathLike[str] | PreTrainedTokenizerFast) -> None:
    if not isinstance(source, str | os.PathLike):
        source.save_pretrained(folder)
        config = read_json(folder / "tokenizer_config.json")
        # transformers 4 does not know the name that 5 writes; both know this one
        _write_json(folder / "tokenizer_config.json", config | {"tokenizer_class": "PreTrainedTokenizerFast"})
        return
    source = pathlib.Path(source)
    if not (source / "tokenizer.json").is_file():
        _save_tokenizer(folder, load_tokenizer(source))
        return
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
