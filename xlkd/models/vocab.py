# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A smaller vocabulary with the same cut and the same outputs on given texts, and the way back to the full table."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from xlkd.errors import UserError
from xlkd.models.hf import Checkpoint

Spec = dict[str, Any]  # tokenizer.json


def trim(checkpoint: Checkpoint, spec: Spec, texts: Iterable[str]) -> tuple[Checkpoint, Spec, np.ndarray]:
    """Encoder and tokenizer with the pieces that the texts use, special pieces and single characters of those.

    On these texts the ids are the old ones renumbered. `kept` holds the old id of each new one, in ascending order.
    """
    if spec["model"]["type"] not in _NEEDED:
        known = ", ".join(_NEEDED)
        raise UserError(
            f"a {spec['model']['type']} tokenizer cannot be trimmed", "tokenizer.json", f"one of {known} can"
        )
    kept = sorted(_kept(checkpoint, spec, texts))
    rows = checkpoint.architecture.vocab_size
    if kept[-1] >= rows:
        raise UserError(
            f"the texts use piece {kept[-1]}, the table of words has {rows} rows",
            "tokenizer.json",
            "use the tokenizer that belongs to the weights",
        )
    new_id = {old: new for new, old in enumerate(kept)}
    return select(checkpoint, np.array(kept)), _renumber(spec, new_id), np.array(kept)


def select(checkpoint: Checkpoint, kept: np.ndarray) -> Checkpoint:
    """The checkpoint with these rows of its tables, ascending; padding must be among them."""
    params = copy.copy(checkpoint.params)
    tables = params["encoder"]["embeddings"]
    params["encoder"] = params["encoder"] | {"embeddings": tables | {"words": tables["words"][kept]}}
    if "masked_lm" in params:
        params["masked_lm"] = params["masked_lm"] | {"bias": params["masked_lm"]["bias"][kept]}
    pad = int(np.searchsorted(kept, checkpoint.architecture.pad_id))
    return dataclasses.replace(
        checkpoint,
        architecture=dataclasses.replace(checkpoint.architecture, vocab_size=len(kept), pad_id=pad),
        params=params,
        config=checkpoint.config | {"vocab_size": len(kept), "pad_token_id": pad},
    )


def restore(full: np.ndarray, trimmed: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The full table with the trained rows of the trimmed one in their old places."""
    table = np.array(full)
    table[kept] = trimmed
    return table


def _kept(checkpoint: Checkpoint, spec: Spec, texts: Iterable[str]) -> set[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = _vocabulary(spec)
    kept = {token["id"] for token in spec["added_tokens"]} | {checkpoint.architecture.pad_id}
    if checkpoint.architecture.position_offset:
        kept |= set(range(checkpoint.architecture.pad_id))  # positions count from the padding's id: it must not move
    for chunk in _chunks(texts):
        encoded = tokenizer.encode_batch(chunk, add_special_tokens=False)
        kept.update(*(set(e.ids) for e in encoded))
        if spec["model"]["type"] == "WordPiece":
            unknown = vocabulary[spec["model"]["unk_token"]]
            failed = [text for text, e in zip(chunk, encoded, strict=True) if unknown in e.ids]
            kept |= _failures(tokenizer, spec["model"], failed)
    kept |= _NEEDED[spec["model"]["type"]](spec["model"], vocabulary, kept)
    return kept | _characters(spec, vocabulary, kept)


def _vocabulary(spec: Spec) -> dict[str, int]:
    vocabulary = spec["model"]["vocab"]
    if spec["model"]["type"] == "Unigram":
        return {piece: i for i, (piece, _) in enumerate(vocabulary)}
    return vocabulary


def _chunks(texts: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    chunk = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == size:
            yield chunk
            chunk = []
    yield chunk


def _needed_unigram(model: Spec, vocabulary: dict[str, int], kept: set[int]) -> set[int]:
    """A kept path stays the best path; but the price of an unknown character hangs on the lowest score."""
    scores = [score for _, score in model["vocab"]]
    bytes_ = {i for piece, i in vocabulary.items() if model.get("byte_fallback") and _is_byte(piece)}
    return {model["unk_id"], scores.index(min(scores))} | bytes_


def _needed_wordpiece(model: Spec, vocabulary: dict[str, int], kept: set[int]) -> set[int]:
    return {vocabulary[model["unk_token"]]}


def _needed_bpe(model: Spec, vocabulary: dict[str, int], kept: set[int]) -> set[int]:
    """The smaller pieces of which each kept one is merged."""
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UserError("byte pairs with a prefix or suffix cannot be trimmed", "tokenizer.json", "keep the vocabulary")
    ranks = {pair: rank for rank, pair in enumerate(_merges(model))}
    pieces = {i: piece for piece, i in vocabulary.items()}
    parts = {part for i in kept & set(pieces) for part in _parts(pieces[i], ranks)}
    needed = {vocabulary[part] for part in parts if part in vocabulary}
    if model.get("unk_token") is not None:
        needed.add(vocabulary[model["unk_token"]])
    return needed | {i for piece, i in vocabulary.items() if model.get("byte_fallback") and _is_byte(piece)}


_NEEDED = {"Unigram": _needed_unigram, "WordPiece": _needed_wordpiece, "BPE": _needed_bpe}


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x")


def _merges(model: Spec) -> list[tuple[str, str]]:
    return [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]


def _parts(piece: str, ranks: dict[tuple[str, str], int]) -> set[str]:
    """Every piece that stands while this one is merged from its characters, itself included."""
    now = list(piece)
    seen = set(now)
    while len(now) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(itertools.pairwise(now)))
        if rank == len(ranks):
            break
        now[at : at + 2] = [now[at] + now[at + 1]]
        seen.add(now[at])
    return seen | {piece}


def _failures(tokenizer: Any, model: Spec, texts: list[str]) -> set[int]:
    """Pieces that a longest match takes before it fails: without them it might go another way and not fail."""
    found = set()
    for text in texts:
        text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        words = tokenizer.pre_tokenizer.pre_tokenize_str(text) if tokenizer.pre_tokenizer else [(text, None)]
        for word, _ in words:
            if len(word) <= model.get("max_input_chars_per_word", 100):
                found |= _longest_match(word, model["vocab"], model["continuing_subword_prefix"])
    return found


def _longest_match(word: str, vocabulary: dict[str, int], prefix: str) -> set[int]:
    found, start = set(), 0
    while start < len(word):
        ends = range(len(word), start, -1)
        end = next((e for e in ends if (prefix if start else "") + word[start:e] in vocabulary), None)
        if end is None:
            break
        found.add(vocabulary[(prefix if start else "") + word[start:end]])
        start = end
    return found


def _characters(spec: Spec, vocabulary: dict[str, int], kept: set[int]) -> set[int]:
    """Single characters that occur in a kept piece: what a new word of these alphabets falls back on."""
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    seen = {character for piece, i in vocabulary.items() if i in kept for character in piece}
    if "ByteLevel" in json.dumps(spec["pre_tokenizer"]):
        seen = {character for piece in vocabulary for character in piece if len(piece) == 1}  # the 256 bytes
    singles = seen | {prefix + character for character in seen}
    return {vocabulary[piece] for piece in singles if piece in vocabulary}


def _renumber(spec: Spec, new_id: dict[int, int]) -> Spec:
    spec = copy.deepcopy(spec)
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new_id]
        model["unk_id"] = new_id[model["unk_id"]]
    else:
        order = sorted(model["vocab"].items(), key=lambda item: item[1])
        model["vocab"] = {piece: new_id[i] for piece, i in order if i in new_id}
    if model["type"] == "BPE":
        vocabulary = model["vocab"]
        model["merges"] = [[a, b] for a, b in _merges(model) if {a, b, a + b} <= vocabulary.keys()]
    for token in spec["added_tokens"]:
        token["id"] = new_id[token["id"]]
    spec["truncation"] = spec["padding"] = None  # both belong to who batches
    _renumber_processor(spec["post_processor"], new_id)
    return spec


def _renumber_processor(processor: Spec | None, new_id: dict[int, int]) -> None:
    """In place: special pieces that the processor adds by id."""
    processor = processor or {}
    for inner in processor.get("processors", ()):
        _renumber_processor(inner, new_id)
    if isinstance(processor.get("special_tokens"), dict):  # TemplateProcessing
        for token in processor["special_tokens"].values():
            token["ids"] = [new_id[i] for i in token["ids"]]
    for side in ("sep", "cls"):  # BertProcessing, RobertaProcessing
        if side in processor:
            processor[side] = [processor[side][0], new_id[processor[side][1]]]
