# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trims a vocabulary, so that given texts keep their tokens and outputs, and restores the full table."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from xlkd.compat import catch_panics
from xlkd.data.share import Share
from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models.hf import Checkpoint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Spec = dict[str, Json]  # tokenizer.json


def trim_vocabulary(
    checkpoint: Checkpoint, spec: Spec, texts: Iterable[str], share: Share | None = None
) -> tuple[Checkpoint, Spec, Int[np.ndarray, " vocabulary"]]:
    """Returns encoder and tokenizer with fewer tokens: those that the texts use, their single characters, special ones.

    On these texts the ids are the old ones renumbered. The third value has the old id of each new one, ascending. With
    a share this process tokenizes only its part of the texts.
    """
    if spec["model"]["type"] not in _NEEDED:
        known = ", ".join(_NEEDED)
        raise UserError(
            f"a {spec['model']['type']} tokenizer cannot be trimmed", "tokenizer.json", f"one of {known} can"
        )
    ids = sorted(_select_ids(checkpoint, spec, texts, share))
    new_id = {old: new for new, old in enumerate(ids)}
    return select_tokens(checkpoint, np.array(ids)), _renumber_tokens(spec, new_id), np.array(ids)


def select_tokens(checkpoint: Checkpoint, ids: Int[np.ndarray, " vocabulary"]) -> Checkpoint:
    """Returns the checkpoint with only the tokens of these ascending ids, which must include the padding token."""
    params = copy.copy(checkpoint.params)
    tables = params["encoder"]["embeddings"]
    params["encoder"] = params["encoder"] | {"embeddings": tables | {"words": tables["words"][ids]}}
    if "bias" in params.get("masked_lm", ()):
        params["masked_lm"] = params["masked_lm"] | {"bias": params["masked_lm"]["bias"][ids]}
    pad = int(np.searchsorted(ids, checkpoint.architecture.pad_id))
    return dataclasses.replace(
        checkpoint,
        architecture=dataclasses.replace(checkpoint.architecture, vocab_size=len(ids), pad_id=pad),
        params=params,
        config=checkpoint.config | {"vocab_size": len(ids), "pad_token_id": pad},
    )


def restore_table(
    full: Float[np.ndarray, "full ..."],
    trimmed: Float[np.ndarray, "vocabulary ..."],
    ids: Int[np.ndarray, " vocabulary"],
) -> Float[np.ndarray, "full ..."]:
    """Returns the full table, in which the rows of the trimmed table replace the rows of these ids."""
    table = np.array(full)
    table[ids] = trimmed
    return table


def _select_ids(checkpoint: Checkpoint, spec: Spec, texts: Iterable[str], share: Share | None) -> set[int]:
    """Returns the ids of all tokens that the trimmed vocabulary needs."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = _read_vocabulary(spec)
    ids = {token["id"] for token in spec["added_tokens"]} | {checkpoint.architecture.pad_id}
    if checkpoint.architecture.position_offset:
        ids |= set(range(checkpoint.architecture.pad_id))  # positions count from the padding's id: it must not change
    own = itertools.islice(texts, share.process, None, share.processes) if share else texts

    def find_used_ids() -> bytes:
        used: set[int] = set()
        for chunk in _cut_in_chunks(own):
            try:
                with catch_panics():
                    encoded = tokenizer.encode_batch(chunk, add_special_tokens=False)
            except ValueError as error:
                raise UserError(f"cannot tokenize a text ({error})", "tokenizer.json", "correct the file") from error
            used.update(*(set(e.ids) for e in encoded))
            if spec["model"]["type"] == "WordPiece":
                unknown = vocabulary[spec["model"]["unk_token"]]
                failed = [text for text, e in zip(chunk, encoded, strict=True) if unknown in e.ids]
                used |= _find_failures(tokenizer, spec["model"], failed)
        return np.array(sorted(used), np.int64).tobytes()

    for part in share.gather(find_used_ids) if share else [find_used_ids()]:
        ids.update(np.frombuffer(part, np.int64).tolist())
    ids |= _NEEDED[spec["model"]["type"]](spec["model"], vocabulary, ids)
    return ids | _list_characters(spec, vocabulary, ids)


def _read_vocabulary(spec: Spec) -> dict[str, int]:
    vocabulary = spec["model"]["vocab"]
    if spec["model"]["type"] == "Unigram":
        return {token: i for i, (token, _) in enumerate(vocabulary)}
    return vocabulary


def _cut_in_chunks(texts: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == size:
            yield chunk
            chunk = []
    yield chunk


def _find_needed_by_unigram(model: Spec, vocabulary: dict[str, int], ids: set[int]) -> set[int]:
    """Returns unknown token, bytes, and the token of the lowest score, which sets the cost of unknown characters."""
    scores = [score for _, score in model["vocab"]]
    bytes_ = {i for token, i in vocabulary.items() if model.get("byte_fallback") and _is_byte(token)}
    return {model["unk_id"], scores.index(min(scores))} | bytes_


def _find_needed_by_wordpiece(model: Spec, vocabulary: dict[str, int], ids: set[int]) -> set[int]:
    return {vocabulary[model["unk_token"]]}


def _find_needed_by_bpe(model: Spec, vocabulary: dict[str, int], ids: set[int]) -> set[int]:
    """Returns the smaller tokens from which each of these tokens is merged, and those for unknown characters."""
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        what = "byte pairs that mark continued or final words cannot be trimmed"
        raise UserError(what, "tokenizer.json", "leave out --texts, or set config.encoder.trim_vocab=False")
    ranks = {pair: rank for rank, pair in enumerate(_read_merges(model))}
    tokens = {i: token for token, i in vocabulary.items()}
    parts = {part for i in ids & set(tokens) for part in _list_parts(tokens[i], ranks)}
    needed = {vocabulary[part] for part in parts if part in vocabulary}
    if model.get("unk_token") is not None:
        needed.add(vocabulary[model["unk_token"]])
    return needed | {i for token, i in vocabulary.items() if model.get("byte_fallback") and _is_byte(token)}


_NEEDED = {"Unigram": _find_needed_by_unigram, "WordPiece": _find_needed_by_wordpiece, "BPE": _find_needed_by_bpe}


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x")


def _read_merges(model: Spec) -> list[tuple[str, str]]:
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _list_parts(token: str, ranks: dict[tuple[str, str], int]) -> set[str]:
    """Returns the token, and every token that exists while it is merged from its characters."""
    parts = list(token)
    seen = set(parts)
    while len(parts) > 1:
        rank, i = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(itertools.pairwise(parts)))
        if rank == len(ranks):
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        seen.add(parts[i])
    return seen | {token}


def _find_failures(tokenizer: Tokenizer, model: Spec, texts: list[str]) -> set[int]:
    """Returns the tokens that are matched in words before they fail; without these a word might no longer fail."""
    ids: set[int] = set()
    for text in texts:
        text = tokenizer.normalizer.normalize_str(text) if tokenizer.normalizer else text
        words = tokenizer.pre_tokenizer.pre_tokenize_str(text) if tokenizer.pre_tokenizer else [(text, None)]
        for word, _ in words:
            if len(word) <= model.get("max_input_chars_per_word", 100):
                ids |= _match_longest(word, model["vocab"], model["continuing_subword_prefix"])
    return ids


def _match_longest(word: str, vocabulary: dict[str, int], prefix: str) -> set[int]:
    """Matches the longest token from left to right, until none matches; returns the ids of the tokens."""
    ids: set[int] = set()
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1)
        end = next((e for e in ends if (prefix if start else "") + word[start:e] in vocabulary), None)
        if end is None:
            break
        ids.add(vocabulary[(prefix if start else "") + word[start:end]])
        start = end
    return ids


def _list_characters(spec: Spec, vocabulary: dict[str, int], ids: set[int]) -> set[int]:
    """Returns the single characters of these tokens, from which new words of the same scripts can be built."""
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    seen = {character for token, i in vocabulary.items() if i in ids for character in token}
    if "ByteLevel" in json.dumps(spec["pre_tokenizer"]):
        seen = {character for token in vocabulary for character in token if len(token) == 1}  # the 256 bytes
    singles = seen | {prefix + character for character in seen}
    return {vocabulary[token] for token in singles if token in vocabulary}


def _renumber_tokens(spec: Spec, new_id: dict[int, int]) -> Spec:
    """Returns the tokenizer with new ids and without the tokens that have none."""
    spec = copy.deepcopy(spec)
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new_id]
        model["unk_id"] = new_id[model["unk_id"]]
    else:
        order = sorted(model["vocab"].items(), key=lambda item: item[1])
        model["vocab"] = {token: new_id[i] for token, i in order if i in new_id}
    if model["type"] == "BPE":
        vocabulary = model["vocab"]
        model["merges"] = [[a, b] for a, b in _read_merges(model) if {a, b, a + b} <= vocabulary.keys()]
    for token in spec["added_tokens"]:
        token["id"] = new_id[token["id"]]
    spec["truncation"] = spec["padding"] = None  # batching decides both
    _renumber_processor(spec["post_processor"], new_id)
    return spec


def _renumber_processor(processor: Spec | None, new_id: dict[int, int]) -> None:
    """Renumbers in place the special tokens that the processor adds by id."""
    processor = processor or {}
    for inner in processor.get("processors", ()):
        _renumber_processor(inner, new_id)
    if isinstance(processor.get("special_tokens"), dict):  # TemplateProcessing
        for token in processor["special_tokens"].values():
            token["ids"] = [new_id[i] for i in token["ids"]]
    for side in ("sep", "cls"):  # BertProcessing, RobertaProcessing
        if side in processor:
            processor[side] = [processor[side][0], new_id[processor[side][1]]]
