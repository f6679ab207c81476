# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers: the same bytes in every process, whole files, and no piece across the edge of an answer."""

import hashlib
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


def test_the_same_texts_give_the_same_bytes_in_other_processes(trained, tmp_path):
    """Also under other hash seeds, another locale and another number of threads."""
    kind, folder, _ = trained
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_tokenizers import train\n"
        "train(pathlib.Path(sys.argv[2]), sys.argv[3])"
    )
    for i, (locale, threads) in enumerate((("C", "1"), ("de_DE.UTF-8", "4"))):
        environment = os.environ | {"PYTHONHASHSEED": str(i), "LC_ALL": locale, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", code, os.path.dirname(__file__), str(tmp_path / str(i)), kind]
        subprocess.run(command, env=environment, check=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            ours, theirs = (hashlib.sha256((f / name).read_bytes()).hexdigest() for f in (folder, tmp_path / str(i)))
            assert ours == theirs, name


def test_specials_stand_first_and_frame_a_text(trained):
    kind, _, tokenizer = trained
    names = tokenizers.BERT_SPECIALS if kind == "bert" else tokenizers.ROBERTA_SPECIALS
    assert tokenizer.convert_tokens_to_ids(list(names.values())) == [0, 1, 2, 3, 4]
    for name, token in names.items():
        assert getattr(tokenizer, f"{name}_token") == token
    found = tokenizer.convert_ids_to_tokens(tokenizer("Berg", "Гора")["input_ids"])
    assert (found[0], found[-1]) == (names["cls"], names["sep"])
    assert found.count(names["sep"]) == (2 if kind == "bert" else 3)
    assert tokenizer.encode(names["mask"], add_special_tokens=False) == [tokenizer.mask_token_id]


def test_the_vocabulary_has_the_size_and_no_gap(trained):
    _, _, tokenizer = trained
    assert len(tokenizer) <= SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_what_it_was_trained_on_has_no_unknown_piece_and_comes_back(trained):
    _, _, tokenizer = trained
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
    assert tokenizer.encode("ж", add_special_tokens=False).count(tokenizer.unk_token_id) <= 1


def test_letters_are_known_in_the_middle_of_a_word_and_at_its_beginning(trained):
    _, _, tokenizer = trained
    for word in ("k", "kk", "ии", "yx"):
        known = all(letter in "".join(TEXTS) for letter in word)
        found = tokenizer.encode(word, add_special_tokens=False)
        assert (tokenizer.unk_token_id not in found) == known, word


def test_merges_were_learned(trained):
    """Frequent words are few pieces: the texts take well under one piece a letter."""
    _, _, tokenizer = trained
    pieces = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in TEXTS[:2])
    assert pieces < 0.7 * sum(len(text.replace(" ", "")) for text in TEXTS[:2])


def stands_alone(character: str) -> bool:
    return unicodedata.category(character).startswith("P") or "CJK UNIFIED" in unicodedata.name(character, "")


def test_no_piece_straddles_punctuation_or_a_chinese_character(trained):
    """The edge of an answer is then the edge of a piece, with spaces around it or without."""
    _, _, tokenizer = trained
    alone = 0
    for text in TEXTS:
        encoded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        for start, end in encoded.offsets:
            piece = text[start:end].strip()
            if any(stands_alone(c) for c in piece):
                assert len(piece) == 1, (text, piece)
                alone += 1
    assert alone > 30


def test_a_trainer_that_dies_leaves_no_half_tokenizer(tmp_path, monkeypatch):
    """tokenizer.json says that all is there; it takes its name when it is whole."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenizers.pathlib.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "bert")
    monkeypatch.undo()
    assert not (tmp_path / "tokenizer.json").exists()
    assert len(train(tmp_path, "bert")) <= SIZE
