# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A tokenizer's frame is learned by asking it; ragged rows come back padded."""

import numpy as np
import pytest
from qa_toys import pieces_tokenizer, words_tokenizer

from xlkd.errors import UserError
from xlkd.tasks import text
from xlkd.tasks.text import Template

WORDS = words_tokenizer([*"abcdefgh"])
PIECES = pieces_tokenizer(["▁a", "▁b", "b", "c", "▁c", "a", "▁"])


@pytest.mark.parametrize(
    ("tokenizer", "one", "two", "types"),
    [
        (WORDS, "[CLS] 1 1 [SEP]", "[CLS] 1 1 [SEP] 2 [SEP]", [0, 0, 0, 0, 1, 1]),
        (PIECES, "<s> 1 1 </s>", "<s> 1 1 </s> </s> 2 </s>", [0] * 7),
    ],
)
def test_the_frame_is_the_tokenizers_own(tokenizer, one, two, types):
    """In BERT's manner and in XLM-R's: what `tokenizer(a, b)` of transformers gives."""
    template = Template(tokenizer)
    a, b = (e.ids for e in template.encode(["a b", "c"]))
    assert (len(a), len(b)) == (2, 1)

    def ids(frame):
        lookup = {"1": iter(a), "2": iter(b)}
        named = {name: tokenizer.convert_tokens_to_ids(name) for name in frame.split() if name not in lookup}
        return [next(lookup[name]) if name in lookup else named[name] for name in frame.split()]

    single, pair = template.single(a, 99), template.pair(a, b, 99)
    assert single.ids.tolist() == ids(one) == tokenizer("a b")["input_ids"]
    assert pair.ids.tolist() == ids(two) == tokenizer("a b", "c")["input_ids"]
    assert pair.types.tolist() == types
    assert pair.ids[slice(*pair.spans[0])].tolist() == a
    assert pair.ids[slice(*pair.spans[1])].tolist() == b
    assert (template.specials(1), template.specials(2)) == (len(single.ids) - 2, len(pair.ids) - 3)


@pytest.mark.parametrize("tokenizer", [WORDS, PIECES])
@pytest.mark.parametrize("room", range(1, 12))
def test_the_longer_text_is_cut_first(tokenizer, room):
    """Taking one piece at a time from the longer text, the second of equals."""
    template = Template(tokenizer)
    for n_a in range(1, 9):
        for n_b in range(0, 9):
            keep_a, keep_b = n_a, n_b
            while keep_a + keep_b > room:
                keep_a, keep_b = (keep_a - 1, keep_b) if keep_a > keep_b else (keep_a, keep_b - 1)
            a, b = list(range(10, 10 + n_a)), list(range(30, 30 + n_b))
            pair = template.pair(a, b, room + template.specials(2))
            assert pair.ids[slice(*pair.spans[0])].tolist() == a[:keep_a]
            assert pair.ids[slice(*pair.spans[1])].tolist() == b[:keep_b]
            assert len(pair.ids) == len(pair.types) == keep_a + keep_b + template.specials(2)


def test_one_text_is_cut_at_its_end():
    assert len(Template(WORDS).single(range(10, 20), 6).ids) == 6
    assert Template(WORDS).single(range(10, 20), 6).ids.tolist()[1:-1] == [10, 11, 12, 13]


def test_each_text_is_encoded_as_if_alone():
    template = Template(WORDS)
    texts = ["a b c", "h", "a b c", ""]
    alone = [template.encode([t])[0] for t in texts]
    assert template.encode(texts) == alone
    assert alone[0].words == [0, 1, 2]
    assert alone[0].offsets == [(0, 1), (2, 3), (4, 5)]
    assert alone[3].ids == []


def test_a_tokenizers_own_truncation_and_padding_are_off():
    tokenizer = words_tokenizer([*"abc"])
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert len(Template(tokenizer).encode(["a b c a b c"])[0].ids) == 6


def test_another_tokenizer_has_another_identity():
    assert Template(WORDS).identity == Template(words_tokenizer([*"abcdefgh"])).identity
    assert Template(WORDS).identity != Template(words_tokenizer([*"abcdefhg"])).identity


def test_random_pieces_are_never_specials_and_all_can_be_drawn():
    drawn = Template(WORDS).random_piece(np.linspace(0, 1, 1000, endpoint=False))
    assert set(drawn.tolist()) == set(range(4, 12))
    assert Template(WORDS).random_piece(np.array([1 - 2.0**-53])).tolist() == [11]


def test_a_missing_mask_token_is_said():
    with pytest.raises(UserError, match="has no mask token"):
        _ = Template(WORDS).mask


def test_ragged_rows_come_back_padded():
    rows = [[5, 6, 7], [], [8]]
    features = text.ragged("x", rows, np.int16)
    assert features["x"].dtype == np.int16
    assert features["x_at"].tolist() == [0, 3, 3, 4]
    found = text.take(features, "x", np.array([2, -1, 0, 1]), 4, pad=-9)
    assert found.tolist() == [[8, -9, -9, -9], [-9] * 4, [5, 6, 7, -9], [-9] * 4]
    assert found.dtype == np.int16
    assert text.take(features, "x", np.array([0]), 2, pad=0).tolist() == [[5, 6]]
    assert text.counts(features, "x", np.array([0, 2, -1])).tolist() == [3, 1, 1]
    assert text.ragged("x", [], np.int32)["x"].dtype == np.int32
