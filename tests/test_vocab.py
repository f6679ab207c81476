# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A trimmed vocabulary gives the same tokens and outputs for the given texts, and trained rows can be restored."""

import json

import jax
import numpy as np
import pytest
from share_toys import run_on_all
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from xlkd.models import hf, vocab
from xlkd.models.encoder import Encoder, init
from xlkd.models.family import Architecture
from xlkd.models.heads import MaskedLMHead, init_head

CORPUS = [
    "the house stands by the river and the river runs to the sea",
    "houses and rivers and seas, 1984 or 2001; other others mother",
    "ein Haus steht am Fluss, und der Fluss läuft ins Meer",
    "дом стоит у реки, а река бежит к морю",
] * 3
TEXTS = ["the houses stand by a river", "other seas: 2001", "дом у моря", "☃ the ☃☃ house"]


def train_wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=specials))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def train_unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=specials, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<mask>"])  # the last id, as in XLM-R
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def train_byte_pairs():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


@pytest.fixture(scope="module", params=[train_wordpiece, train_unigram, train_byte_pairs])
def case(request):
    """Returns (checkpoint, tokenizer.json, trimmed checkpoint, trimmed tokenizer.json, kept token ids)."""
    tokenizer = request.param()
    pad = tokenizer.token_to_id("[PAD]" if request.param is train_wordpiece else "<pad>")
    kind, offset = ("bert", 0) if request.param is train_wordpiece else ("roberta", pad + 1)
    # The table has eight rows more than tokens, since tables are padded to round sizes.
    architecture = Architecture(kind, tokenizer.get_vocab_size() + 8, 16, 1, 2, 24, 64, 1, pad, offset)
    params = {"encoder": init(architecture, jax.random.key(0), embedding_scale=1.0)}
    params["masked_lm"] = init_head(MaskedLMHead(architecture), jax.random.key(1))
    params["masked_lm"]["bias"] += np.arange(architecture.vocab_size)
    checkpoint = hf.Checkpoint(architecture, jax.device_get(params), None, {"vocab_size": architecture.vocab_size})
    spec = json.loads(tokenizer.to_str())
    return checkpoint, spec, *vocab.trim_vocabulary(checkpoint, spec, iter(TEXTS))


def test_the_texts_have_the_same_tokens_with_a_smaller_vocabulary(case):
    _, spec, _, trimmed, kept_tokens = case
    before, after = (Tokenizer.from_str(json.dumps(s)) for s in (spec, trimmed))
    assert len(kept_tokens) < 0.9 * before.get_vocab_size()
    for text in TEXTS:
        full_encoding, trimmed_encoding = before.encode(text, text), after.encode(text, text)
        assert full_encoding.tokens == trimmed_encoding.tokens
        assert full_encoding.ids == kept_tokens[trimmed_encoding.ids].tolist()
        assert full_encoding.offsets == trimmed_encoding.offsets
    assert {t["content"] for t in spec["added_tokens"]} == {t["content"] for t in trimmed["added_tokens"]}
    assert all(after.token_to_id(t["content"]) == t["id"] for t in trimmed["added_tokens"])


def test_processes_that_share_the_texts_keep_the_same_tokens(case):
    checkpoint, spec, _, trimmed, kept_tokens = case

    def trim(share):
        return vocab.trim_vocabulary(checkpoint, spec, iter(TEXTS), share)

    for future in run_on_all(trim, 3):
        np.testing.assert_array_equal(future.result()[2], kept_tokens)
        assert future.result()[1] == trimmed


def test_outputs_are_unchanged(case):
    checkpoint, spec, trimmed, new_spec, kept_tokens = case
    assert trimmed.architecture.vocab_size == len(kept_tokens) == trimmed.config["vocab_size"]
    outputs = []
    for c, s in ((checkpoint, spec), (trimmed, new_spec)):
        ids = np.array([Tokenizer.from_str(json.dumps(s)).encode(TEXTS[0]).ids])
        last = Encoder(c.architecture, scan=True).apply({"params": c.params["encoder"]}, ids, np.ones_like(ids))[-1]
        words = c.params["encoder"]["embeddings"]["words"]
        outputs.append((last, MaskedLMHead(c.architecture).apply({"params": c.params["masked_lm"]}, last, words)))
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])
    np.testing.assert_allclose(outputs[0][1][..., kept_tokens], outputs[1][1], atol=1e-4)


def test_a_new_word_of_known_letters_still_has_tokens(case):
    _, spec, _, trimmed, _ = case
    before, after = (Tokenizer.from_str(json.dumps(s)) for s in (spec, trimmed))
    word = "sotto"  # not in the texts
    assert "[UNK]" not in after.encode(word, add_special_tokens=False).tokens
    assert len(after.encode(word).ids) >= len(before.encode(word).ids)


def test_the_input_is_unchanged_and_trimming_again_changes_nothing(case):
    checkpoint, _, trimmed, new_spec, kept_tokens = case
    assert checkpoint.params["encoder"]["embeddings"]["words"].shape[0] == checkpoint.architecture.vocab_size
    trimmed_again, spec_again, kept_again = vocab.trim_vocabulary(trimmed, new_spec, TEXTS)
    assert trimmed_again.architecture == trimmed.architecture
    assert spec_again == new_spec
    assert kept_again.tolist() == list(range(len(kept_tokens)))


def test_trained_rows_are_restored_to_their_ids(case):
    checkpoint, _, trimmed, _, kept_tokens = case
    full = checkpoint.params["encoder"]["embeddings"]["words"]
    table = vocab.restore_table(full, trimmed.params["encoder"]["embeddings"]["words"] + 1, kept_tokens)
    others = np.setdiff1d(np.arange(len(full)), kept_tokens)
    np.testing.assert_array_equal(table[kept_tokens], full[kept_tokens] + 1)
    np.testing.assert_array_equal(table[others], full[others])


def test_an_unknown_word_stays_unknown():
    """Greedy matching takes "ab" and fails; without "ab" in the vocabulary it would find "a" and "##bc"."""
    tokens = ["[PAD]", "[UNK]", "a", "ab", "##bc", "x", "##x"]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    architecture = Architecture("bert", 7, 4, 1, 1, 4, 8, 1, 0, 0)
    params = {"encoder": jax.device_get(init(architecture, jax.random.key(0)))}
    checkpoint = hf.Checkpoint(architecture, params, None, {})
    texts = ["abc x", "a ##bc"]
    _, spec, kept_tokens = vocab.trim_vocabulary(checkpoint, json.loads(tokenizer.to_str()), texts)
    assert tokens.index("ab") in kept_tokens
    assert Tokenizer.from_str(json.dumps(spec)).encode(texts[0]).tokens == ["[UNK]", "x"]


def test_the_lowest_score_is_kept_since_it_sets_the_score_of_unknown_characters():
    spec = json.loads(train_unigram().to_str())
    scores = [score for _, score in spec["model"]["vocab"]]
    architecture = Architecture("roberta", len(scores) + 1, 4, 1, 1, 4, 8, 1, 1, 2)
    params = {"encoder": jax.device_get(init(architecture, jax.random.key(0)))}
    _, trimmed, _ = vocab.trim_vocabulary(hf.Checkpoint(architecture, params, None, {}), spec, ["the"])
    assert min(score for _, score in trimmed["model"]["vocab"]) == min(scores)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "multilingual-e5-small"])
def test_real_vocabularies_give_the_golden_tokens(shared, name, tmp_path):
    folder = shared / "models" / name
    cases = json.loads((folder / "golden_tokens.json").read_text())
    texts = [text for case in cases for text in (case["text"], case["pair"]) if text]
    checkpoint = hf.load(folder)
    trimmed, spec, kept_tokens = vocab.trim_vocabulary(checkpoint, hf.read_json(folder / "tokenizer.json"), texts)
    hf.save(tmp_path / "out", trimmed.architecture, trimmed.params, tokenizer=hf.load_tokenizer(folder, spec))
    tokenizer, table = (
        hf.load_tokenizer(tmp_path / "out"),
        hf.load(tmp_path / "out").params["encoder"]["embeddings"]["words"],
    )
    assert len(kept_tokens) < 1000
    np.testing.assert_array_equal(table, checkpoint.params["encoder"]["embeddings"]["words"][kept_tokens])
    for case in cases:
        assert kept_tokens[tokenizer(case["text"], case["pair"])["input_ids"]].tolist() == case["ids"]
