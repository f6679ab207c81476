# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masked and translation language modelling: one text or two, some of whose words are masked and predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xlkd.data.draw import draw_uniform, truncate_keys
from xlkd.data.share import Share
from xlkd.files import Json
from xlkd.languages import is_without_spaces
from xlkd.rows import Cell, Pair, Text, list_texts
from xlkd.spec.tasks import Masked as MaskedSettings
from xlkd.tasks import Batch, Draw, Features, Outputs, Progress, Records, Scores, report_nothing
from xlkd.tasks.ragged import pack, pad_rows, pad_texts, row_lengths
from xlkd.tasks.tokenization import JoinedTexts, TextTokenizer, TextTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROWS = "masked"
UNKNOWN_LIMIT = 0.05  # share of unknown tokens above which the tokenizer is said not to write a language
PER_WORD_LIMIT = 4.0  # tokens a word above which it is said to cut a language into small parts
PER_CHARACTER_LIMIT = 2.0  # the same where words are not separated


@dataclasses.dataclass(frozen=True)
class Masked:
    """Masked language modelling: whole words are drawn, and `mask_tokens` replaces their tokens."""

    tokenizer: TextTokenizer
    max_length: int
    share: float
    name: str = "masked"
    teacher_views: tuple[str, ...] = ()
    uncut_views: tuple[str, ...] = ()

    def identity(self) -> str:
        return f"masked 3 {self.tokenizer.identity} {self.max_length}"

    def features(
        self, rows: Sequence[Pair | Text], progress: Progress = report_nothing, share: Share | None = None
    ) -> Features:
        """Tokenizes one text or two a row; a row's language is that of its text, or of its second one."""
        texts = [(text, language) for row in rows for text, language in _list_parts(row)]
        tokens = iter(self.tokenizer.encode([text for text, _ in texts], progress, share))
        languages = sorted({language for _, language in texts})
        tally = np.zeros((len(languages), 3), np.int64)
        ids, words, types = [], [], []
        for row in rows:
            parts = _list_parts(row)
            encoded = [next(tokens) for _ in parts]
            joined = self._join(encoded)
            ids.append(joined.ids)
            types.append(joined.types)
            words.append(_number_words(joined, encoded, [language for _, language in parts]))
            for (text, language), text_tokens in zip(parts, encoded, strict=True):
                unknown = np.count_nonzero(text_tokens.ids == self.tokenizer.unknown_id)
                tally[languages.index(language)] += len(text_tokens.ids), unknown, _count_words(text, language)
        names = [_name_cell(row) for row in rows]
        cells = sorted(set(names))
        return {
            **pack("ids", ids, np.int32),
            **pack("words", words, np.int16),
            **pack("types", types, np.int8),
            "keys": truncate_keys([row.key for row in rows]),
            "cell": np.array([cells.index(name) for name in names], np.int32),
            "cells": np.array(cells),
            "language": np.array([languages.index(_list_parts(row)[-1][1]) for row in rows], np.int32),
            "languages": np.array(languages, np.str_),
            "tally": tally,  # [languages, 3]: tokens, unknown ones, and words
        }

    def _join(self, texts: Sequence[TextTokens]) -> JoinedTexts:
        """Puts the special tokens around one text or two, which are cut at `max_length`."""
        if len(texts) == 1:
            return self.tokenizer.join(texts[0].ids, self.max_length)
        return self.tokenizer.join_pair(texts[0].ids, texts[1].ids, self.max_length)

    def lengths(self, features: Features) -> dict[str, np.ndarray]:
        return {"text": np.diff(features["ids_at"]).astype(np.int32)}

    def arrays(self, features: Features, index: np.ndarray, lengths: dict[str, int], draw: Draw) -> Batch:
        length = lengths["text"]
        text = pad_texts(features, index, length, self.tokenizer.pad_id)
        words = pad_rows(features, "words", index, length, 0)
        keys = np.where(index >= 0, features["keys"][np.maximum(index, 0)], 0).astype(np.uint64)
        draws = draw_uniform(draw.seed, draw.purpose + " words", draw.step, keys, 1 + int(words.max(initial=0)))
        chosen = (np.take_along_axis(draws, words.astype(np.int64), 1) < self.share) & (words > 0)
        # By the row's own length, so that a row is masked alike in batches of any length; no word is masked in part
        over = chosen & (np.cumsum(chosen, 1) > self.max_masked(row_lengths(features, "ids", index))[:, None])
        chosen &= words < np.where(over, words, np.iinfo(words.dtype).max).min(1)[:, None]
        positions = np.argsort(~chosen, axis=1, kind="stable")[:, : int(self.max_masked(length))].astype(np.int32)
        masked = np.take_along_axis(chosen, positions, 1)
        labels = np.take_along_axis(text["ids"], positions, 1)
        text["ids"] = mask_tokens(self.tokenizer, text["ids"], chosen, draw, keys)
        present = (index >= 0).astype(np.float32)
        weights = masked.astype(np.float32) * present[:, None]
        return {"text": text, "positions": positions, "labels": labels, "weights": weights, "mask": present}

    def max_masked(self, length: int | np.ndarray) -> np.ndarray:
        """Returns the largest number of masked tokens that are scored in a row of this length.

        It depends on the length alone, so that the shapes of arrays are fixed.
        """
        return 4 * np.ceil(1.6 * self.share * np.asarray(length) / 4).astype(np.int64)

    def score(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair | Text], records: Records | None = None
    ) -> Scores:
        return score_masked(outputs, features)

    def records(
        self, outputs: Outputs, features: Features, rows: Sequence[Pair | Text], share: Share | None = None
    ) -> Records:
        return []  # single predicted tokens tell nothing

    def report(self, features: Features, rows: Sequence[Pair | Text]) -> dict[str, Json]:
        """Counts rows that fill `max_length`, and describes how the tokenizer writes each language."""
        full = int((self.lengths(features)["text"] >= self.max_length).sum())
        coverage = describe_coverage(features)
        shown = [f"{full} rows fill all {self.max_length} tokens", *advise(coverage)]
        return {"shown": "; ".join(shown), "full": full, "coverage": coverage}


def build(settings: MaskedSettings, tokenizer: PreTrainedTokenizerFast) -> Masked:
    return Masked(TextTokenizer(tokenizer), settings.max_length, settings.share)


def mask_tokens(
    tokenizer: TextTokenizer, ids: np.ndarray, chosen: np.ndarray, draw: Draw, keys: np.ndarray
) -> np.ndarray:
    """Replaces 80% of the chosen tokens by the mask and 10% by another token; 10% stay."""
    length = ids.shape[1]
    fate = draw_uniform(draw.seed, draw.purpose + " fate", draw.step, keys, length)
    other = tokenizer.random_tokens(draw_uniform(draw.seed, draw.purpose + " other", draw.step, keys, length))
    replaced = np.where(fate < 0.8, tokenizer.mask_id, np.where(fate < 0.9, other, ids))
    return np.where(chosen, replaced, ids).astype(np.int32)


def score_masked(outputs: Outputs, features: Features) -> Scores:
    """Returns by cell the share of the masked tokens that are predicted."""
    cells = {}
    for i, name in enumerate(features["cells"]):
        own = features["cell"] == i
        right, count = (float(outputs[key][own].sum()) for key in ("right", "count"))
        cells[Cell.parse(str(name))] = {"accuracy": 100 * right / max(count, 1.0), "n": int(own.sum())}
    return Scores(cells, "accuracy")


def describe_coverage(features: Features) -> dict[str, dict[str, float]]:
    """Describes by language how the tokenizer writes it, before texts are cut.

    Where words are not separated by spaces, `tokens_per_word` is the number of tokens per character.
    """
    return {
        language: {
            "tokens": tokens,
            "unknown_percent": round(100 * unknown / max(tokens, 1), 2),
            "tokens_per_word": round(tokens / max(words, 1), 2),
        }
        for language, (tokens, unknown, words) in zip(
            features["languages"].tolist(), features["tally"].tolist(), strict=True
        )
    }


def advise(coverage: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns a line for each language that the tokenizer does not write well; else one for the worst language."""
    lines, faults = {}, {}
    for language, values in coverage.items():
        spaced = not is_without_spaces(language)
        unknown, per_word = values["unknown_percent"], values["tokens_per_word"]
        unit = "word" if spaced else "character"
        lines[language] = f"{language}: {per_word:.1f} tokens a {unit}, {unknown:.1f}% of them unknown"
        if unknown > 100 * UNKNOWN_LIMIT:
            faults[language] = "the encoder's tokenizer does not write this language, so choose another encoder"
        elif per_word > (PER_WORD_LIMIT if spaced else PER_CHARACTER_LIMIT):
            faults[language] = (
                "the tokenizer cuts the words into small parts, so an encoder that knows the language suits it better"
            )
    if faults:
        return [f"{lines[language]}: {fault}" for language, fault in faults.items()]
    worst = sorted(coverage, key=lambda tag: (coverage[tag]["unknown_percent"], coverage[tag]["tokens_per_word"]))
    return [lines[worst[-1]]] if worst else []


def _list_parts(row: Pair | Text) -> list[tuple[str, str]]:
    """Returns the texts of a row, each with its language."""
    languages = (row.language,) if isinstance(row, Text) else (row.source_language, row.target_language)
    return list(zip(list_texts(row), languages, strict=True))


def _count_words(text: str, language: str) -> int:
    """Counts the words of a text; where words are not separated, its characters."""
    words = text.split()
    return sum(map(len, words)) if is_without_spaces(language) else len(words)


def _name_cell(row: Pair | Text) -> str:
    """Returns the language of a row; for a row in two languages the second, with an arrow before it."""
    *first, (_, language) = _list_parts(row)
    return language if all(other == language for _, other in first) else f"→{language}"


def _number_words(joined: JoinedTexts, texts: Sequence[TextTokens], languages: Sequence[str]) -> np.ndarray:
    """Returns the number of each token's word, from 1; 0 for specials. Without spaces each token counts as a word."""
    words, last = np.zeros(len(joined.ids), np.int16), 0
    for (start, stop), text, language in zip(joined.spans, texts, languages, strict=True):
        count = stop - start
        within = np.arange(count) if is_without_spaces(language) else text.words[:count]
        words[start:stop] = within + 1 + last
        last = int(words[start:stop].max(initial=last))
    return words
