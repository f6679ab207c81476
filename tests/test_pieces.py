# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Pieces and the characters they stand for; the frame of a pair."""

import numpy as np
import pytest
from qa_toys import pieces_tokenizer, words_tokenizer

from xlkd.errors import UserError
from xlkd.tasks import pieces

UNIGRAM = pieces_tokenizer(["▁ab", "▁", "c", "▁d", "ef", "北京", "市"])


def spans(tokenizer, text):
    found = pieces.encode(tokenizer, [text])
    return [text[b:e] for b, e in zip(found.begin, found.end, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab c def", ["ab", "", "c", "d", "ef"]),  # a metaspace in the middle covers the space
        ("北京市 d", ["", "北京", "市", "d"]),  # at the start of a text it claims the letter after it
        ("ab\u200b c", ["ab\u200b", "", "c"]),  # what is let fall ends the piece before it
        ("\ufeffab", ["ab"]),  # at the start of a word it belongs to none
        ("ab  \u200b", ["ab", ""]),
        ("", []),
        ("  ", ["", ""]),
    ],
)
def test_spans_stand_for_their_own_characters(text, expected):
    found = spans(UNIGRAM, text)
    assert [span for span in found if span] == [span for span in expected if span]
    assert "".join(found) == "".join(expected)


def test_a_blank_piece_points_at_what_follows_it():
    found = pieces.encode(UNIGRAM, ["ab c"])
    assert list(zip(found.begin, found.end, strict=True))[1] == (3, 3)


def test_a_text_has_the_same_pieces_whatever_stands_beside_it(monkeypatch):
    texts = ["ab c def", "北京市", "", "d\u200b ab", " ab "] * 3
    together = pieces.encode(UNIGRAM, texts)
    for i, text in enumerate(texts):
        alone, of = pieces.encode(UNIGRAM, [text]), slice(*together.splits[i : i + 2])
        for name in ("ids", "begin", "end"):
            np.testing.assert_array_equal(getattr(together, name)[of], getattr(alone, name))
    monkeypatch.setattr(pieces, "_BLOCK", 2)
    in_blocks = pieces.encode(UNIGRAM, texts)
    for name, value in vars(together).items():
        np.testing.assert_array_equal(value, getattr(in_blocks, name))


def test_join_is_encoding_together():
    parts = pieces.join([pieces.encode(UNIGRAM, ["ab"]), pieces.encode(UNIGRAM, ["c", "北京市"])])
    for name, value in vars(pieces.encode(UNIGRAM, ["ab", "c", "北京市"])).items():
        np.testing.assert_array_equal(value, getattr(parts, name))


def test_the_frame_is_the_tokenizers_own():
    bert, roberta = pieces.frame(words_tokenizer(["a"])), pieces.frame(UNIGRAM)
    assert (bert.first.tolist(), bert.middle.tolist(), bert.last.tolist()) == ([2], [3], [3])
    assert (roberta.first.tolist(), roberta.middle.tolist(), roberta.last.tolist()) == ([0], [2, 2], [2])
    assert (bert.types.tolist(), roberta.types.tolist()) == ([0, 0, 0, 1, 1], [0] * 5)
    assert (int(bert.pad), int(roberta.pad)) == (0, 1)


def test_cutting_and_padding_set_in_the_tokenizer_change_nothing():
    tokenizer = pieces_tokenizer(["▁ab", "▁", "c"])
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert spans(tokenizer, "ab c ab ab") == ["ab", "", "c", "ab", "ab"]


def test_a_tokenizer_without_padding_is_refused():
    tokenizer = words_tokenizer(["a"])
    tokenizer.pad_token = None
    with pytest.raises(UserError, match="no padding token"):
        pieces.frame(tokenizer)
