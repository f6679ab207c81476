# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers: the same bytes in every process, complete files, and no token across the edge of an answer."""

import itertools
import os
import subprocess
import sys
import unicodedata

import pytest

from xlkd.models import hf, tokenizers

TEXTS = [
    "The capital of Norland is Berg, and people pay in crowns.",
    "Die Hauptstadt von Nordland ist Berg; bezahlt wird in Kronen (seit 1901).",
    "La capitale du pays est «Montagne», n’est-ce pas ?",
    "Столица страны — Гора. Валюта: крона.",
    "北国的首都是山城，货币是克朗。",
    "राजधानी पर्वत है। मुद्रा क्रोन है।",
    "عاصمة البلاد هي الجبل، والعملة كرون.",
]
KINDS = ["bert", "xlm-roberta"]
SIZE = 260


def train(folder, kind, size=SIZE):
    tokenizers.train(folder, TEXTS, kind=kind, size=size)
    return hf.load_tokenizer(folder)


@pytest.fixture(scope="module", params=KINDS)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, train(folder, request.param)


def test_the_same_texts_give_the_same_bytes_in_other_processes(tmp_path):
    """The bytes do not depend on the hash seed, the locale and the number of threads."""
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_tokenizers import KINDS, train\n"
        "for kind in KINDS: train(pathlib.Path(sys.argv[2]) / kind, kind)"
    )
    for kind in KINDS:
        train(tmp_path / "here" / kind, kind)
    for i, (locale, threads) in enumerate((("C", "1"), ("de_DE.UTF-8", "4"))):
        environment = os.environ | {"PYTHONHASHSEED": str(i), "LC_ALL": locale, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", code, os.path.dirname(__file__), str(tmp_path / str(i))]
        subprocess.run(command, env=environment, check=True)
        for kind, name in itertools.product(KINDS, ("tokenizer.json", "tokenizer_config.json")):
            here, elsewhere = ((tmp_path / where / kind / name).read_bytes() for where in ("here", str(i)))
            assert here == elsewhere, (kind, name)


def test_special_tokens_have_the_first_ids_and_enclose_a_text(trained):
    kind, _, tokenizer = trained
    names = tokenizers.BERT_SPECIALS if kind == "bert" else tokenizers.ROBERTA_SPECIALS
    assert tokenizer.convert_tokens_to_ids(list(names.values())) == [0, 1, 2, 3, 4]
    for name, token in names.items():
        assert getattr(tokenizer, f"{name}_token") == token
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Berg", "Гора")["input_ids"])
    assert (tokens[0], tokens[-1]) == (names["cls"], names["sep"])
    assert tokens.count(names["sep"]) == (2 if kind == "bert" else 3)
    assert tokenizer.encode(names["mask"], add_special_tokens=False) == [tokenizer.mask_token_id]


def test_the_vocabulary_has_the_given_size_and_no_gap(trained):
    _, _, tokenizer = trained
    assert len(tokenizer) <= SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_training_texts_have_no_unknown_token_and_decode_to_themselves(trained):
    _, _, tokenizer = trained
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    assert tokenizer.encode("ж", add_special_tokens=False).count(tokenizer.unk_token_id) <= 1


def test_letters_are_known_at_the_beginning_and_in_the_middle_of_a_word(trained):
    _, _, tokenizer = trained
    for word in ("k", "kk", "ии", "yx"):
        known = all(letter in "".join(TEXTS) for letter in word)
        ids = tokenizer.encode(word, add_special_tokens=False)
        assert (tokenizer.unk_token_id not in ids) == known, word


def test_merges_were_learned(trained):
    """Frequent words have few tokens: the texts have well under one token per letter."""
    _, _, tokenizer = trained
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in TEXTS[:2])
    assert tokens < 0.7 * sum(len(text.replace(" ", "")) for text in TEXTS[:2])


def is_single_token(character: str) -> bool:
    return unicodedata.category(character).startswith("P") or "CJK UNIFIED" in unicodedata.name(character, "")


def test_no_token_crosses_punctuation_or_a_chinese_character(trained):
    """The edge of an answer is then the edge of a token, with or without spaces around it."""
    _, _, tokenizer = trained
    alone = 0
    for text in TEXTS:
        encoded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        for start, end in encoded.offsets:
            token = text[start:end].strip()
            if any(is_single_token(c) for c in token):
                assert len(token) == 1, (text, token)
                alone += 1
    assert alone > 30


def test_a_trainer_that_is_killed_leaves_no_incomplete_tokenizer(tmp_path, monkeypatch):
    """tokenizer.json marks a complete tokenizer; it is renamed into place when it is written completely."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizers.pathlib.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "bert")
    monkeypatch.undo()
    assert not (tmp_path / "tokenizer.json").exists()
    assert len(train(tmp_path, "bert")) <= SIZE
