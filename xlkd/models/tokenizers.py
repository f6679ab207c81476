# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers from given texts: SentencePiece's manner for the RoBERTa family, WordPiece for BERT."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

from xlkd import files

BERT_SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_SPECIALS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def train(folder: pathlib.Path, texts: Iterable[str], *, kind: str, size: int) -> None:
    """Write tokenizer.json and tokenizer_config.json; the same texts give the same bytes."""
    texts = list(texts)
    tokenizer, specials = (_wordpiece if kind == "bert" else _pieces)(texts, size)
    folder.mkdir(parents=True, exist_ok=True)
    config = {f"{name}_token": token for name, token in specials.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    # transformers would else leave out the token types that BERT is trained with
    types = ["token_type_ids"] if kind == "bert" else []
    config["model_input_names"] = ["input_ids", *types, "attention_mask"]
    files.write_text(folder / "tokenizer_config.json", json.dumps(config, indent=1) + "\n")
    # Last, and whole or not at all: by it a restart knows that all is there
    files.write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False))


def _wordpiece(texts: list[str], size: int):
    """WordPiece over byte-pair merges of ▁-marked words: ▁ab is ab there, and ab is ##ab.

    The library's own trainer numbers ##letters in the order of a hash map, another in each process.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    words = pre_tokenizers.BertPreTokenizer()
    merges = Tokenizer(models.BPE())
    merges.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    merges.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Metaspace(split=False)])
    merges.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    found = merges.get_vocab()
    pieces = [piece for piece in sorted(found, key=found.__getitem__) if piece != "▁"]
    letters = [piece for piece in pieces if len(piece) == 1]
    marked = [piece[1:] if piece.startswith("▁") else f"##{piece}" for piece in pieces]
    specials = list(BERT_SPECIALS.values())
    vocabulary = {piece: i for i, piece in enumerate(list(dict.fromkeys([*specials, *letters, *marked]))[:size])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = merges.normalizer, words
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(specials)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer, BERT_SPECIALS


def _pieces(texts: list[str], size: int):
    """Byte-pair merges over ▁-marked text, cut at punctuation and around each Han character.

    So no piece straddles the edge of an answer in a script without spaces. A unigram model would give names that it
    saw one piece and all others five: two different tasks.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(),
            pre_tokenizers.Split(Regex(r"\p{P}|\p{Han}"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    specials = list(ROBERTA_SPECIALS.values())
    letters = sorted({c for text in texts for c in text if not c.isspace()} | {"▁"})
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=specials, initial_alphabet=letters, limit_alphabet=size, show_progress=False
        ),
    )
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    return tokenizer, ROBERTA_SPECIALS
