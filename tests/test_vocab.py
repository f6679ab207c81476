# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A trimmed vocabulary cuts the given texts as before and computes the same; trained rows find their way back."""

import json

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from xlkd.errors import UserError
from xlkd.models import hf, vocab
from xlkd.models.encoder import Architecture, Encoder, init
from xlkd.models.heads import MaskedLMHead, init_head

CORPUS = [
    "the house stands by the river and the river runs to the sea",
    "houses and rivers and seas, 1984 or 2001; other others mother",
    "ein Haus steht am Fluss, und der Fluss läuft ins Meer",
    "дом стоит у реки, а река бежит к морю",
] * 3
TEXTS = ["the houses stand by a river", "other seas: 2001", "дом у моря", "☃ the ☃☃ house"]


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=150, special_tokens=specials))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def unigram():
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


def byte_pairs():
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


@pytest.fixture(scope="module", params=[wordpiece, unigram, byte_pairs])
def case(request):
    """(checkpoint, tokenizer.json, trimmed checkpoint, trimmed tokenizer.json, kept)."""
    tokenizer = request.param()
    pad = tokenizer.token_to_id("[PAD]" if request.param is wordpiece else "<pad>")
    kind, offset = ("bert", 0) if request.param is wordpiece else ("roberta", pad + 1)
    # Eight rows more than pieces: tables are padded to round sizes
    architecture = Architecture(kind, tokenizer.get_vocab_size() + 8, 16, 1, 2, 24, 64, 1, pad, offset)
    params = {"encoder": init(architecture, jax.random.key(0), embedding_scale=1.0)}
    params["masked_lm"] = init_head(MaskedLMHead(architecture), jax.random.key(1))
    params["masked_lm"]["bias"] += np.arange(architecture.vocab_size)
    checkpoint = hf.Checkpoint(architecture, jax.device_get(params), None, {"vocab_size": architecture.vocab_size})
    spec = json.loads(tokenizer.to_str())
    return checkpoint, spec, *vocab.trim_vocabulary(checkpoint, spec, iter(TEXTS))


def test_the_texts_are_cut_as_before_in_fewer_pieces(case):
    _, spec, _, trimmed, kept = case
    before, after = (Tokenizer.from_str(json.dumps(s)) for s in (spec, trimmed))
    assert len(kept) < 0.9 * before.get_vocab_size()
    for text in TEXTS:
        one, other = before.encode(text, text), after.encode(text, text)
        assert one.tokens == other.tokens
        assert one.ids == kept[other.ids].tolist()
        assert one.offsets == other.offsets
    assert {t["content"] for t in spec["added_tokens"]} == {t["content"] for t in trimmed["added_tokens"]}
    assert all(after.token_to_id(t["content"]) == t["id"] for t in trimmed["added_tokens"])


def test_outputs_are_unchanged(case):
    checkpoint, spec, trimmed, new_spec, kept = case
    assert trimmed.architecture.vocab_size == len(kept) == trimmed.config["vocab_size"]
    outputs = []
    for c, s in ((checkpoint, spec), (trimmed, new_spec)):
        ids = np.array([Tokenizer.from_str(json.dumps(s)).encode(TEXTS[0]).ids])
        last = Encoder(c.architecture, scan=True).apply({"params": c.params["encoder"]}, ids, np.ones_like(ids))[-1]
        words = c.params["encoder"]["embeddings"]["words"]
        outputs.append((last, MaskedLMHead(c.architecture).apply({"params": c.params["masked_lm"]}, last, words)))
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])
    np.testing.assert_allclose(outputs[0][1][..., kept], outputs[1][1], atol=1e-4)


def test_a_new_word_of_known_letters_is_still_spelled(case):
    _, spec, _, trimmed, _ = case
    before, after = (Tokenizer.from_str(json.dumps(s)) for s in (spec, trimmed))
    word = "sotto"  # not in the texts
    assert "[UNK]" not in after.encode(word, add_special_tokens=False).tokens
    assert len(after.encode(word).ids) >= len(before.encode(word).ids)


def test_what_was_given_is_left_alone_and_trimming_again_changes_nothing(case):
    checkpoint, _, trimmed, new_spec, kept = case
    assert checkpoint.params["encoder"]["embeddings"]["words"].shape[0] == checkpoint.architecture.vocab_size
    again, again_spec, all_kept = vocab.trim_vocabulary(trimmed, new_spec, TEXTS)
    assert again.architecture == trimmed.architecture
    assert again_spec == new_spec
    assert all_kept.tolist() == list(range(len(kept)))


def test_trained_rows_go_back_to_their_places(case):
    checkpoint, _, trimmed, _, kept = case
    full = checkpoint.params["encoder"]["embeddings"]["words"]
    table = vocab.restore_table(full, trimmed.params["encoder"]["embeddings"]["words"] + 1, kept)
    others = np.setdiff1d(np.arange(len(full)), kept)
    np.testing.assert_array_equal(table[kept], full[kept] + 1)
    np.testing.assert_array_equal(table[others], full[others])


def test_a_word_that_failed_fails_again():
    """Greedy matching takes "ab" and fails; without it, "a" and "##bc" would be found."""
    pieces = ["[PAD]", "[UNK]", "a", "ab", "##bc", "x", "##x"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    architecture = Architecture("bert", 7, 4, 1, 1, 4, 8, 1, 0, 0)
    params = {"encoder": jax.device_get(init(architecture, jax.random.key(0)))}
    checkpoint = hf.Checkpoint(architecture, params, None, {})
    texts = ["abc x", "a ##bc"]
    _, spec, kept = vocab.trim_vocabulary(checkpoint, json.loads(tokenizer.to_str()), texts)
    assert pieces.index("ab") in kept
    assert Tokenizer.from_str(json.dumps(spec)).encode(texts[0]).tokens == ["[UNK]", "x"]


def test_the_lowest_score_stays_for_the_price_of_unknown_characters():
    spec = json.loads(unigram().to_str())
    scores = [score for _, score in spec["model"]["vocab"]]
    architecture = Architecture("roberta", len(scores) + 1, 4, 1, 1, 4, 8, 1, 1, 2)
    params = {"encoder": jax.device_get(init(architecture, jax.random.key(0)))}
    _, trimmed, _ = vocab.trim_vocabulary(hf.Checkpoint(architecture, params, None, {}), spec, ["the"])
    assert min(score for _, score in trimmed["model"]["vocab"]) == min(scores)


def test_a_tokenizer_of_other_weights_is_refused(case):
    checkpoint, spec, *_ = case
    small = Architecture("bert", 5, 16, 1, 2, 24, 64, 1, 0, 0)
    with pytest.raises(UserError, match="the embedding table has 5 rows"):
        vocab.trim_vocabulary(hf.Checkpoint(small, checkpoint.params, None, {}), spec, TEXTS)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "multilingual-e5-small"])
def test_real_vocabularies(shared, name, tmp_path):
    folder = shared / "models" / name
    cases = json.loads((folder / "golden_tokens.json").read_text())
    texts = [text for case in cases for text in (case["text"], case["pair"]) if text]
    checkpoint = hf.load(folder)
    trimmed, spec, kept = vocab.trim_vocabulary(checkpoint, hf.read_json(folder / "tokenizer.json"), texts)
    hf.save(tmp_path / "out", trimmed.architecture, trimmed.params, tokenizer=hf.load_tokenizer(folder, spec))
    tokenizer, table = (
        hf.load_tokenizer(tmp_path / "out"),
        hf.load(tmp_path / "out").params["encoder"]["embeddings"]["words"],
    )
    assert len(kept) < 1000
    np.testing.assert_array_equal(table, checkpoint.params["encoder"]["embeddings"]["words"][kept])
    for case in cases:
        assert kept[tokenizer(case["text"], case["pair"])["input_ids"]].tolist() == case["ids"]
