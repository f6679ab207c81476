# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what tokenizer.json asks for, and that the encoder has a row for every id.

The tokenizers library ends the process, or fills its memory, on some values: they are refused before it reads them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from xlkd.errors import UserError
from xlkd.files import Json
from xlkd.models.family import Architecture
from xlkd.models.layout import MOST_ROWS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_LONGEST_WORD = 1000  # the time to cut a word into tokens grows with the cube of its length
_LARGEST_GROWTH = 1000  # of a text by its normalizer
_MOST_SPECIALS = 16
# Expressions that certainly match at least one character; there are others
_CONSUMING = re.compile(r"(?:[^*?|^$(){}\\]|\\[sSwWdDnrt.]|\\p\{\w+\}|\{[1-9]\d*,?\d*\})+")
_DAMAGED = "copy or download the file again"


def check_spec(spec: dict[str, Json], where: str, architecture: Architecture | None) -> None:
    """Refuses the content of a tokenizer.json that would take unbounded memory or time, or has ids without a row.

    Values of wrong types are left to the library, which names them.
    """
    model = spec.get("model")
    if isinstance(model, dict):
        _check_vocabulary(model.get("vocab"), where, architecture)
        longest = model.get("max_input_chars_per_word")
        if isinstance(longest, int) and longest > _LONGEST_WORD:
            what = f"max_input_chars_per_word is {longest}"
            raise UserError(what, where, f"set it to {_LONGEST_WORD} or less; 100 is usual")
        if model.get("dropout"):
            raise UserError(f"model.dropout={model['dropout']} makes tokens random", where, "set it to null")
    growth = 1
    for component in _list_components([spec.get("normalizer"), spec.get("pre_tokenizer"), spec.get("decoder")]):
        if isinstance(component.get("precompiled_charsmap"), str):
            _check_charsmap(component["precompiled_charsmap"], where)
        growth *= _measure_growth(component)
        if growth > _LARGEST_GROWTH:
            what = f"its normalizer can make a text more than {_LARGEST_GROWTH} times longer"
            raise UserError(what, where, "shorten the texts that it inserts")


def check_tokenizer(
    tokenizer: PreTrainedTokenizerFast, added: Iterable[Json], where: str, architecture: Architecture | None
) -> None:
    """Refuses a tokenizer that adds ids, token types or a padding that the encoder has no rows for.

    `added` are the added tokens of its file, which the library may number otherwise.
    """
    backend = tokenizer.backend_tokenizer
    actual = {token.content: number for number, token in backend.get_added_tokens_decoder().items()}
    _check_ids(actual, where, architecture)
    for token in added:
        content, number = (token.get("content"), token.get("id")) if isinstance(token, dict) else (None, None)
        if content in actual and actual[content] != number:
            what = f"added token {content!r} has id {number}, but follows the vocabulary as {actual[content]}"
            raise UserError(what, where, "number the added tokens on from the last token of the vocabulary")
    _check_templates(backend, where, architecture)
    if not architecture or not architecture.position_offset or tokenizer.pad_token_id in (None, architecture.pad_id):
        return
    what = f"pad_token_id is {architecture.pad_id} in config.json, but the tokenizer pads with {tokenizer.pad_token_id}"
    raise UserError(what, where, "use the tokenizer that belongs to the weights: positions are counted from this id")


def _check_templates(backend: Tokenizer, where: str, architecture: Architecture | None) -> None:
    """Refuses special tokens around texts without rows in the encoder's tables, and texts in another order."""
    count = len(backend.encode("a", add_special_tokens=False).ids)
    if not count:
        raise UserError("drops the letter a, which it has no token for", where, "add a token for unknown letters")
    for kind, second in (("one text", None), ("a pair", "a")):
        encoding = backend.encode("a", second)
        numbers = [number for number in encoding.sequence_ids if number is not None]
        expected = [number for number in range(1 if second is None else 2) for _ in range(count)]
        if numbers != expected or len(encoding.tokens) != len(encoding.ids):
            what = f"its template for {kind} does not have each text once, in their order"
            raise UserError(what, where, _DAMAGED)
        if len(encoding.ids) - len(numbers) > _MOST_SPECIALS:
            what = f"its template for {kind} adds {len(encoding.ids) - len(numbers)} special tokens"
            raise UserError(what, where, f"at most {_MOST_SPECIALS} are possible")
        _check_ids(dict(zip(encoding.tokens, encoding.ids, strict=True)), where, architecture)
        if architecture and 1 < architecture.types <= max(encoding.type_ids):
            what = f"token type {max(encoding.type_ids)}, but config.json has type_vocab_size {architecture.types}"
            raise UserError(what, where, "use the tokenizer that belongs to the weights")


def _check_vocabulary(vocabulary: Json, where: str, architecture: Architecture | None) -> None:
    """Refuses a vocabulary with ids beyond the table, or with one id for two tokens."""
    if isinstance(vocabulary, list):  # Unigram: tokens are numbered by their places
        rows = architecture.vocab_size if architecture else MOST_ROWS
        names = [entry[0] if isinstance(entry, list) and entry else entry for entry in vocabulary[rows:]]
        _check_ids({str(name): number for number, name in enumerate(names, rows)}, where, architecture)
    if not isinstance(vocabulary, dict) or not all(type(number) is int for number in vocabulary.values()):
        return
    _check_ids(vocabulary, where, architecture)
    if len(set(vocabulary.values())) < len(vocabulary):
        seen: dict[int, str] = {}
        for token, number in vocabulary.items():
            if number in seen:
                raise UserError(f"tokens {seen[number]!r} and {token!r} have the same id {number}", where, _DAMAGED)
            seen[number] = token


def _check_ids(ids: dict[str, int], where: str, architecture: Architecture | None) -> None:
    rows = architecture.vocab_size if architecture else MOST_ROWS
    if max(ids.values(), default=0) < rows:
        return
    beyond = sorted((number, token) for token, number in ids.items() if number >= rows)
    shown = ", ".join(f"{token!r} {number}" for number, token in beyond[:3]) + (", …" if len(beyond) > 3 else "")
    raise UserError(
        f"{len(beyond)} tokens have ids beyond the {rows} rows of the embedding table: {shown}",
        where,
        "use the tokenizer that belongs to the weights, or resize the table and save the model again "
        "(`model.resize_token_embeddings(len(tokenizer))` in transformers)",
    )


def _list_components(value: Json) -> Iterator[dict[str, Json]]:
    """Yields all objects inside a value; nesting was bounded when the file was read."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            yield value
        if isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value


def _measure_growth(component: dict[str, Json]) -> int:
    """Returns how many times longer a component can make a text of one character."""
    if isinstance(component.get("prepend"), str):
        return 1 + len(component["prepend"])
    content, pattern = component.get("content"), component.get("pattern")
    if component.get("type") != "Replace" or not isinstance(content, str):
        return 1
    text, expression = (pattern.get("String"), pattern.get("Regex")) if isinstance(pattern, dict) else ("", "")
    if isinstance(text, str) and text:
        return max(1, len(content) // len(text))
    # An empty pattern, and an expression that can match nothing, insert the content beside every character
    consumes = isinstance(expression, str) and _CONSUMING.fullmatch(expression)
    return max(1, len(content)) if consumes else 1 + len(content)


def _check_charsmap(text: str, where: str) -> None:
    """Refuses a table of characters whose stated size exceeds its content, for which memory would be reserved."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"unreadable precompiled_charsmap ({error})", where, _DAMAGED) from error
    if len(data) < 4 or int.from_bytes(data[:4], "little") > len(data) - 4:
        raise UserError("unreadable precompiled_charsmap (truncated)", where, _DAMAGED)
