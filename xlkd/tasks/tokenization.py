# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokenizes texts, and joins one or two of them with the tokenizer's special tokens, whatever its family."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xlkd.compat import catch_panics
from xlkd.data.share import Share
from xlkd.errors import UserError
from xlkd.tasks import Progress, report_nothing

if TYPE_CHECKING:  # imported at run time only where a tokenizer is read from its folder
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerFast

_BLOCK = 1024  # texts tokenized at a time: aligning tokens with characters takes several words of memory a character
_SHARED_BLOCKS = 4  # that each process tokenizes before the results are exchanged
_WHITE = np.zeros(0x110000, bool)
_WHITE[[point for point in range(0x3001) if chr(point).isspace()]] = True


@dataclasses.dataclass(frozen=True)
class TextTokenizer:
    """A fast tokenizer of transformers, with the templates by which it joins one text and two."""

    fast: PreTrainedTokenizerFast

    @functools.cached_property
    def identity(self) -> str:
        """Returns a hash of everything that decides how a text is tokenized."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    @property
    def pad_id(self) -> int:
        """Returns the padding token; refuses a tokenizer without one."""
        if self.fast.pad_token_id is None:
            raise UserError("has no padding token", "tokenizer", "add pad_token to its tokenizer_config.json")
        return self.fast.pad_token_id

    @property
    def mask_id(self) -> int:
        """Returns the mask token; refuses a tokenizer without one."""
        if self.fast.mask_token_id is None:
            raise UserError("has no mask token", "tokenizer", "masked language modelling needs one")
        return self.fast.mask_token_id

    @property
    def unknown_id(self) -> int:
        """Returns the token for unknown words; -1 where there is none."""
        return -1 if self.fast.unk_token_id is None else self.fast.unk_token_id

    @functools.cached_property
    def single(self) -> Template:
        """Returns the template of one text, learned from how the tokenizer encodes one."""
        return _learn_template(self._backend.encode("a"), texts=1)

    @functools.cached_property
    def pair(self) -> Template:
        """Returns the template of two texts, learned from how the tokenizer encodes a pair."""
        return _learn_template(self._backend.encode("a", "a"), texts=2)

    def encode(self, texts: Sequence[str], progress: Progress = report_nothing, share: Share | None = None) -> Tokens:
        """Tokenizes each text by itself, without special tokens; equal texts are tokenized once.

        With a share this process tokenizes only its part of the texts, and all processes return all tokens.
        """
        index = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        unique, blocks = list(index), [self._encode_block([])]
        size = _BLOCK * _SHARED_BLOCKS * share.processes if share else _BLOCK
        for start in range(0, len(unique), size):  # the tokenizer's own threads share each block
            block = unique[start : start + size]
            blocks.append(self._encode_shared(block, share) if share else self._encode_block(block))
            progress(min(start + size, len(unique)), len(unique))
        tokens = _concatenate(blocks)
        return tokens if len(unique) == len(texts) else tokens.take(np.array([index[text] for text in texts]))

    def join(self, ids: np.ndarray, max_length: int) -> JoinedTexts:
        """Puts the special tokens around one text, which is cut at its end."""
        return self.single.join(ids[: max_length - self.single.specials_count])

    def join_pair(self, a: np.ndarray, b: np.ndarray, max_length: int) -> JoinedTexts:
        """Joins two texts; where they do not fit, the longer one is cut first."""
        room = max_length - self.pair.specials_count
        keep_a = min(len(a), max(room - len(b), (room + 1) // 2))
        keep_b = min(len(b), room - keep_a)
        return self.pair.join(a[:keep_a], b[:keep_b])

    def random_tokens(self, uniform: np.ndarray) -> np.ndarray:
        """Returns for each number in [0, 1) a token that is not a special one."""
        return self._ordinary[(uniform * len(self._ordinary)).astype(np.int64)]

    @functools.cached_property
    def _ordinary(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.fast)), self.fast.all_special_ids).astype(np.int32)

    @property
    def _backend(self) -> Tokenizer:
        """Returns the tokenizer proper, set to truncate and pad nothing: a call of `fast` sets both."""
        backend = self.fast.backend_tokenizer
        if backend.truncation is not None:
            backend.no_truncation()
        if backend.padding is not None:
            backend.no_padding()
        return backend

    @functools.cached_property
    def _blank_ids(self) -> list[int]:
        """Returns the lone metaspace, which at the start of a text claims the letter after it."""
        metaspace = self._backend.token_to_id("▁")
        return [] if metaspace is None or metaspace == self.fast.unk_token_id else [metaspace]

    def _encode_shared(self, texts: Sequence[str], share: Share) -> Tokens:
        """Tokenizes this process's part of the texts, and takes the tokens of the others from the other processes."""
        own = texts[share.process :: share.processes]

        def encode_own() -> bytes:
            starts = range(0, max(len(own), 1), _BLOCK)
            return _pack_tokens(_concatenate([self._encode_block(own[at : at + _BLOCK]) for at in starts]))

        parts = [_unpack_tokens(part) for part in share.gather(encode_own)]
        first = np.cumsum([0, *map(len, parts)])
        text = np.arange(len(texts))
        return _concatenate(parts).take(first[text % share.processes] + text // share.processes)

    def _encode_block(self, texts: Sequence[str]) -> Tokens:
        try:
            with catch_panics():
                encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        except ValueError as error:
            raise UserError(f"cannot tokenize a text ({error})", "tokenizer", "correct tokenizer.json") from error
        counts = np.array([len(encoding.ids) for encoding in encodings], np.int64)
        splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        ids = np.fromiter(itertools.chain.from_iterable(e.ids for e in encodings), np.int32, splits[-1])
        words = np.fromiter(_number_words(encodings), np.int32, splits[-1])
        edges = itertools.chain.from_iterable(span for e in encodings for span in e.offsets)
        spans = np.fromiter(edges, np.int64, 2 * splits[-1]).reshape(-1, 2)
        text_of = np.repeat(np.arange(len(texts)), counts)
        begin, end = _align_with_characters(texts, text_of, spans, np.isin(ids, self._blank_ids))
        return Tokens(ids, begin, end, words, splits)


@dataclasses.dataclass(frozen=True)
class Template:
    """The special tokens before, between and after texts, and the token type of each part."""

    specials: tuple[np.ndarray, ...]  # int32 ids: before, between and after the texts
    types: np.ndarray  # int32 [parts]: specials, text, specials and so on

    @property
    def specials_count(self) -> int:
        return sum(map(len, self.specials))

    def join(self, *texts: np.ndarray) -> JoinedTexts:
        """Returns the texts with the special tokens around them."""
        parts, spans, end = [self.specials[0]], [], len(self.specials[0])
        for text, specials in zip(texts, self.specials[1:], strict=True):
            parts += [text, specials]
            spans.append((end, end + len(text)))
            end += len(text) + len(specials)
        ids = np.concatenate(parts).astype(np.int32, copy=False)
        types = np.repeat(self.types, [len(part) for part in parts]).astype(np.int8)
        return JoinedTexts(ids, types, tuple(spans))


class JoinedTexts(NamedTuple):
    """A text or a pair of texts as the encoder reads it: ids, token types, and where each text begins and ends."""

    ids: np.ndarray  # int32 [length]
    types: np.ndarray  # int8 [length]
    spans: tuple[tuple[int, int], ...]


class TextTokens(NamedTuple):
    """The tokens of one text; see `Tokens`."""

    ids: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    words: np.ndarray

    def number_by_spans(self, text: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        """Returns for each token the number of the span of characters that it begins in, -1 where in none."""
        number_of = np.full(len(text) + 1, -1, np.int16)
        for number, (begin, end) in enumerate(spans):
            number_of[begin:end] = number
        return np.where(self.end > self.begin, number_of[self.begin], np.int16(-1))


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The tokens of many texts, one after another; those of text i are splits[i] to splits[i + 1].

    A token stands for the characters begin to end of its text: no white space at the ends, and what the tokenizer
    drops (a combining or a zero-width mark) belongs to the token before it in the word. A token that is white space
    alone has begin = end.
    """

    ids: np.ndarray  # int32 [tokens]
    begin: np.ndarray  # int32 [tokens]
    end: np.ndarray  # int32 [tokens]
    words: np.ndarray  # int32 [tokens]: the number of the token's word in its text, as the tokenizer cuts words
    splits: np.ndarray  # int64 [texts + 1]

    def __len__(self) -> int:
        return len(self.splits) - 1

    def __getitem__(self, text: int) -> TextTokens:
        tokens = slice(self.splits[text], self.splits[text + 1])
        return TextTokens(self.ids[tokens], self.begin[tokens], self.end[tokens], self.words[tokens])

    def __iter__(self) -> Iterator[TextTokens]:
        return map(self.__getitem__, range(len(self)))

    def take(self, texts: np.ndarray) -> Tokens:
        """Returns the tokens of these texts, in this order."""
        counts = np.diff(self.splits)[texts]
        splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        tokens = np.repeat(self.splits[texts] - splits[:-1], counts) + np.arange(splits[-1])
        return Tokens(self.ids[tokens], self.begin[tokens], self.end[tokens], self.words[tokens], splits)


def _learn_template(probe: Encoding, *, texts: int) -> Template:
    text_of = np.array([-1 if text is None else text for text in probe.sequence_ids])
    cuts = [place for text in range(texts) for place in np.flatnonzero(text_of == text)[[0, -1]] + (0, 1)]
    types = [part[0] if len(part) else 0 for part in np.split(np.array(probe.type_ids, np.int32), cuts)]
    return Template(tuple(np.split(np.array(probe.ids, np.int32), cuts)[::2]), np.array(types, np.int32))


def _number_words(encodings: Sequence[Encoding]) -> Iterator[int]:
    for encoding in encodings:
        for word in encoding.word_ids:
            yield -1 if word is None else word


def _concatenate(blocks: Sequence[Tokens]) -> Tokens:
    names = ("ids", "begin", "end", "words")
    ids, begin, end, words = (np.concatenate([getattr(block, name) for block in blocks]) for name in names)
    counts = np.concatenate([np.diff(block.splits) for block in blocks])
    return Tokens(ids, begin, end, words, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))


def _pack_tokens(tokens: Tokens) -> bytes:
    """Packs tokens for other processes, each kind of number in as few bytes as all of them need."""
    file = io.BytesIO()
    lengths = tokens.end - tokens.begin
    for numbers in (np.diff(tokens.splits), tokens.ids, tokens.begin, lengths, tokens.words):
        bounds = np.min_scalar_type(int(numbers.min(initial=0))), np.min_scalar_type(int(numbers.max(initial=0)))
        np.save(file, numbers.astype(np.result_type(*bounds)), allow_pickle=False)
    return file.getvalue()


def _unpack_tokens(content: bytes) -> Tokens:
    """Restores the tokens that `_pack_tokens` packed."""
    file = io.BytesIO(content)
    counts, ids, begin, lengths, words = (np.load(file, allow_pickle=False) for _ in range(5))
    begin = begin.astype(np.int32)
    splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    return Tokens(ids.astype(np.int32), begin, begin + lengths.astype(np.int32), words.astype(np.int32), splits)


def _align_with_characters(
    texts: Sequence[str], text_of: np.ndarray, spans: np.ndarray, blank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns begin and end of each token: its span without white space, widened by characters that no token covers."""
    # all texts end to end, one white character after each, so that no search leaves its text
    characters = np.frombuffer("".join(f"{text} " for text in texts).encode("utf-32-le"), np.uint32)
    lengths = np.array([len(text) for text in texts], np.int64)
    closing = np.cumsum(lengths + 1) - 1
    base = (closing - lengths)[text_of]
    white, place, after = _WHITE[characters], np.arange(len(characters)), len(characters)
    next_white = _find_next_flagged(white)
    next_solid = np.append(np.minimum(_find_next_flagged(~white), closing[np.searchsorted(closing, place)]), after)
    last_solid = np.maximum.accumulate(np.where(white, -1, place))

    first, stop = spans[:, 0] + base, spans[:, 1] + base
    begin = next_solid[first]
    end = last_solid[np.maximum(stop - 1, first)] + 1
    solid = (stop > first) & (end > begin) & ~blank
    end = np.where(solid, end, begin)
    # Dropped characters belong to the token before them; before the first token of a word they belong to none
    following = np.append(begin[1:], after)
    end = np.where(solid, np.maximum(end, np.minimum(next_white[end - 1], following)), end)
    return (begin - base).astype(np.int32), (end - base).astype(np.int32)


def _find_next_flagged(flags: np.ndarray) -> np.ndarray:
    """Returns for each place the first flagged place from there on, or the length."""
    places = np.where(flags, np.arange(len(flags)), len(flags))
    return np.minimum.accumulate(places[::-1])[::-1]
