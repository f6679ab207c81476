# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tokens and the characters that they cover; templates are read from the tokenizer."""

import numpy as np
import pytest
from qa_toys import make_unigram_tokenizer, make_word_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from xlkd.errors import UserError
from xlkd.tasks import tokenization
from xlkd.tasks.tokenization import TextTokenizer

WORDS = make_word_tokenizer([*"abcdefgh"])
UNIGRAM_FAST = make_unigram_tokenizer(["▁a", "▁b", "b", "c", "▁c", "a", "▁"])
UNIGRAM = TextTokenizer(make_unigram_tokenizer(["▁ab", "▁", "c", "▁d", "ef", "北京", "市"]))


def make_bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer of bytes with the pairs of RoBERTa: <s> a </s> </s> b </s>."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    machine = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    machine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    machine.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = zip(("bos_token", "pad_token", "eos_token", "unk_token"), specials, strict=True)
    return PreTrainedTokenizerFast(tokenizer_object=machine, **dict(names))


@pytest.mark.parametrize(
    ("fast", "single_template", "pair_template", "types"),
    [
        (WORDS, "[CLS] 1 1 [SEP]", "[CLS] 1 1 [SEP] 2 [SEP]", [0, 0, 0, 0, 1, 1]),
        (UNIGRAM_FAST, "<s> 1 1 </s>", "<s> 1 1 </s> </s> 2 </s>", [0] * 7),
        (make_bytes_tokenizer(), "<s> 1 1 1 </s>", "<s> 1 1 1 </s> </s> 2 </s>", [0] * 8),
    ],
)
def test_the_template_is_that_of_the_tokenizer(fast, single_template, pair_template, types):
    """Templates of BERT, XLM-R and RoBERTa give the ids of `tokenizer(a, b)` in transformers."""
    tokenizer = TextTokenizer(fast)
    a, b = (text.ids for text in tokenizer.encode(["a b", "c"]))

    def ids(template):
        lookup = {"1": iter(a), "2": iter(b)}
        named = {name: fast.convert_tokens_to_ids(name) for name in template.split() if name not in lookup}
        return [next(lookup[name]) if name in lookup else named[name] for name in template.split()]

    single, pair = tokenizer.join(a, 99), tokenizer.join_pair(a, b, 99)
    assert single.ids.tolist() == ids(single_template) == fast("a b")["input_ids"]
    assert pair.ids.tolist() == ids(pair_template) == fast("a b", "c")["input_ids"]
    assert pair.types.tolist() == types
    assert pair.ids[slice(*pair.spans[0])].tolist() == a.tolist()
    assert pair.ids[slice(*pair.spans[1])].tolist() == b.tolist()
    counts = tokenizer.single.specials_count, tokenizer.pair.specials_count
    assert counts == (len(single.ids) - len(a), len(pair.ids) - len(a) - len(b))


def test_a_template_has_parts_before_between_and_after():
    bert, roberta = TextTokenizer(make_word_tokenizer(["a"])), UNIGRAM
    assert [part.tolist() for part in bert.pair.specials] == [[2], [3], [3]]
    assert [part.tolist() for part in roberta.pair.specials] == [[0], [2, 2], [2]]
    assert (bert.pair.types.tolist(), roberta.pair.types.tolist()) == ([0, 0, 0, 1, 1], [0] * 5)
    assert (bert.pad_id, roberta.pad_id) == (0, 1)


@pytest.mark.parametrize("fast", [WORDS, UNIGRAM_FAST])
@pytest.mark.parametrize("room", range(1, 12))
def test_the_longer_text_is_cut_first(fast, room):
    """Removes one token at a time from the longer text, or from the second if both are equally long."""
    tokenizer = TextTokenizer(fast)
    for n_a in range(1, 9):
        for n_b in range(0, 9):
            keep_a, keep_b = n_a, n_b
            while keep_a + keep_b > room:
                keep_a, keep_b = (keep_a - 1, keep_b) if keep_a > keep_b else (keep_a, keep_b - 1)
            a, b = np.arange(10, 10 + n_a), np.arange(30, 30 + n_b)
            pair = tokenizer.join_pair(a, b, room + tokenizer.pair.specials_count)
            assert pair.ids[slice(*pair.spans[0])].tolist() == a[:keep_a].tolist()
            assert pair.ids[slice(*pair.spans[1])].tolist() == b[:keep_b].tolist()
            assert len(pair.ids) == len(pair.types) == keep_a + keep_b + tokenizer.pair.specials_count


def test_a_single_text_is_cut_at_its_end():
    ids = TextTokenizer(WORDS).join(np.arange(10, 20), 6).ids
    assert len(ids) == 6
    assert ids.tolist()[1:-1] == [10, 11, 12, 13]


def list_spans(tokenizer, text):
    tokens = tokenizer.encode([text])
    return [text[b:e] for b, e in zip(tokens.begin, tokens.end, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ab c def", ["ab", "", "c", "d", "ef"]),  # a metaspace in the middle covers the space
        ("北京市 d", ["", "北京", "市", "d"]),  # at the start of a text it has the offsets of the letter after it
        ("ab\u200b c", ["ab\u200b", "", "c"]),  # a dropped character belongs to the token before it
        ("\ufeffab", ["ab"]),  # at the start of a word it belongs to no token
        ("ab  \u200b", ["ab", ""]),
        ("", []),
        ("  ", ["", ""]),
    ],
)
def test_tokens_cover_their_own_characters(text, expected):
    covered = list_spans(UNIGRAM, text)
    assert [span for span in covered if span] == [span for span in expected if span]
    assert "".join(covered) == "".join(expected)


def test_a_blank_token_points_at_the_character_after_it():
    tokens = UNIGRAM.encode(["ab c"])
    assert list(zip(tokens.begin, tokens.end, strict=True))[1] == (3, 3)


def test_the_tokens_of_a_text_do_not_depend_on_other_texts(monkeypatch):
    texts = ["ab c def", "北京市", "", "d\u200b ab", " ab "] * 3
    together = UNIGRAM.encode(texts)
    assert len(together) == len(texts)
    for text, own in zip(texts, together, strict=True):
        for in_batch, alone in zip(own, UNIGRAM.encode([text])[0], strict=True):
            np.testing.assert_array_equal(in_batch, alone)
    monkeypatch.setattr(tokenization, "_BLOCK", 2)
    in_blocks = UNIGRAM.encode(texts)
    for name, value in vars(together).items():
        np.testing.assert_array_equal(value, getattr(in_blocks, name))
        assert value.dtype == getattr(in_blocks, name).dtype


def test_equal_texts_are_tokenized_once_and_an_empty_list_is_allowed():
    progress = []
    UNIGRAM.encode(["ab", "c", "ab"], lambda done, total: progress.append((done, total)))
    assert progress == [(2, 2)]
    assert len(UNIGRAM.encode([])) == 0


def test_words_come_from_the_tokenizer_or_from_given_spans():
    (tokens,) = UNIGRAM.encode(["ab c def"])
    assert tokens.words.tolist() == [0, 1, 1, 2, 2]
    assert tokens.number_by_spans("ab c def", [(0, 2), (5, 8)]).tolist() == [0, -1, -1, 1, 1]


def test_truncation_and_padding_set_in_the_tokenizer_change_nothing():
    fast = make_unigram_tokenizer(["▁ab", "▁", "c"])
    tokenizer = TextTokenizer(fast)
    for _ in range(2):  # A call of the tokenizer sets them again.
        fast.backend_tokenizer.enable_truncation(2)
        fast.backend_tokenizer.enable_padding(length=9)
        assert list_spans(tokenizer, "ab c ab ab") == ["ab", "", "c", "ab", "ab"]
    assert tokenizer.pair.specials_count == 4


def test_another_tokenizer_has_another_identity():
    identity = TextTokenizer(WORDS).identity
    assert identity == TextTokenizer(make_word_tokenizer([*"abcdefgh"])).identity
    assert identity != TextTokenizer(make_word_tokenizer([*"abcdefhg"])).identity


def test_random_tokens_are_never_specials_and_all_can_be_drawn():
    drawn = TextTokenizer(WORDS).random_tokens(np.linspace(0, 1, 1000, endpoint=False))
    assert set(drawn.tolist()) == set(range(4, 12))
    assert TextTokenizer(WORDS).random_tokens(np.array([1 - 2.0**-53])).tolist() == [11]


def test_a_tokenizer_without_mask_or_padding_is_refused():
    with pytest.raises(UserError, match="has no mask token"):
        _ = TextTokenizer(WORDS).mask_id
    fast = make_word_tokenizer(["a"])
    fast.pad_token = None
    with pytest.raises(UserError, match="has no padding token"):
        _ = TextTokenizer(fast).pad_id
