# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads DeBERTa's `spm.model`, a Unigram model of SentencePiece, as the tokenizer.json that it stands for.

`transformers` needs two more packages for this, and its version 5 normalises texts in another way than SentencePiece,
with which the models were trained.
"""

from __future__ import annotations

import base64
import pathlib
import struct
from collections.abc import Iterator

from xlkd.errors import UserError
from xlkd.files import Json

MASK = "[MASK]"  # follows the pieces of the file, if it is not one of them
_SPECIALS = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
SPECIALS = _SPECIALS | {"mask_token": MASK}  # by their names in tokenizer_config.json
# Numbers of fields in sentencepiece_model.proto
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE, SCORE, KIND = 1, 2, 3
MODEL_TYPE, UNK_ID, BYTE_FALLBACK = 3, 40, 35
CHARSMAP, DUMMY_PREFIX, REMOVE_SPACES, ESCAPE_SPACES = 2, 3, 4, 5
UNIGRAM, NORMAL, USER_DEFINED = 1, 1, 4

Value = int | bytes


def read_spec(file: pathlib.Path, config: dict[str, Json]) -> dict[str, Json]:
    """Returns the content of a tokenizer.json; `config` is that of tokenizer_config.json."""
    try:
        return _make_spec(file.read_bytes(), config, str(file))
    except (ValueError, IndexError, struct.error) as error:
        raise UserError(f"unreadable ({error})", str(file), "copy the file again") from error


def _make_spec(data: bytes, config: dict[str, Json], where: str) -> dict[str, Json]:
    fields = list(_list_fields(data))
    trainer, normalizer = (
        {number: value for part, content in fields if part == name for number, value in _list_fields(content)}
        for name in (TRAINER, NORMALIZER)
    )
    if trainer.get(MODEL_TYPE, UNIGRAM) != UNIGRAM or trainer.get(BYTE_FALLBACK):
        raise UserError("not a Unigram model without bytes", where, "use a model with tokenizer.json")
    if not all(normalizer.get(number, 1) for number in (DUMMY_PREFIX, REMOVE_SPACES, ESCAPE_SPACES)):
        raise UserError("treats spaces in an unusual way", where, "use a model with tokenizer.json")
    pieces = [_read_piece(content) for part, content in fields if part == PIECES]
    vocabulary: list[Json] = [[piece, score] for piece, score, _ in pieces]
    numbers = {piece: number for number, (piece, _, _) in enumerate(pieces)}
    if missing := [piece for piece in _SPECIALS.values() if piece not in numbers]:
        raise UserError(f"has no token {missing[0]}", where, "use a model with tokenizer.json")
    special = {numbers[piece]: piece for piece in _SPECIALS.values()} | {numbers.get(MASK, len(pieces)): MASK}
    added = {number: piece for number, (piece, _, kind) in enumerate(pieces) if kind == USER_DEFINED} | special
    return {
        "version": "1.0",
        "added_tokens": [_describe_added(number, added[number], number in special) for number in sorted(added)],
        "normalizer": _describe_normalizer(normalizer.get(CHARSMAP, b""), bool(config.get("do_lower_case"))),
        "pre_tokenizer": _describe_words(bool(config.get("split_by_punct"))),
        "post_processor": _describe_template(numbers),
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {"type": "Unigram", "unk_id": trainer.get(UNK_ID, 0), "vocab": vocabulary, "byte_fallback": False},
    }


def _list_fields(data: Value) -> Iterator[tuple[int, Value]]:
    """Yields the fields of a message of protocol buffers: numbers, or bytes."""
    if isinstance(data, int):
        raise ValueError("a number in place of a message")
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag & 7 == 0:
            value, at = _read_varint(data, at)
        else:
            sizes = {1: 8, 5: 4}
            size, at = _read_varint(data, at) if tag & 7 == 2 else (sizes.get(tag & 7, len(data) + 1), at)
            value, at = data[at : at + size], at + size
        if at > len(data):
            raise ValueError("truncated")
        yield tag >> 3, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number of seven bits a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _read_piece(data: Value) -> tuple[str, float, int]:
    """Returns the text of a piece, its score and its kind."""
    fields = {PIECE: b"", SCORE: bytes(4), KIND: NORMAL} | dict(_list_fields(data))
    text, score, kind = (fields[number] for number in (PIECE, SCORE, KIND))
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece without a text or a score")
    return text.decode(), struct.unpack("<f", score)[0], kind


def _describe_added(number: int, content: str, special: bool) -> dict[str, Json]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": content, **flags, "special": special}


def _describe_normalizer(charsmap: Value, lower: bool) -> dict[str, Json]:
    parts: list[Json] = [{"type": "Lowercase"}] if lower else []
    parts.append({"type": "Strip", "strip_left": True, "strip_right": True})
    if charsmap and isinstance(charsmap, bytes):
        parts.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()})
    parts.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    return {"type": "Sequence", "normalizers": parts}


def _describe_words(split_by_punct: bool) -> dict[str, Json]:
    parts: list[Json] = [{"type": "Punctuation", "behavior": "Isolated"}] if split_by_punct else []
    parts.append({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True})
    return {"type": "Sequence", "pretokenizers": parts}


def _describe_template(numbers: dict[str, int]) -> dict[str, Json]:
    first, last = SPECIALS["cls_token"], SPECIALS["sep_token"]

    def special(content: str, kind: int) -> Json:
        return {"SpecialToken": {"id": content, "type_id": kind}}

    def sequence(name: str, kind: int) -> Json:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [special(first, 0), sequence("A", 0), special(last, 0)]
    tokens = {content: {"id": content, "ids": [numbers[content]], "tokens": [content]} for content in (first, last)}
    pair = [*single, sequence("B", 1), special(last, 1)]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}
