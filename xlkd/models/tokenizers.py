# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains small tokenizers: byte-pair merges on marked words for the RoBERTa family, WordPiece for BERT."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from xlkd import files
from xlkd.files import Json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BERT_SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_SPECIALS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


def train(folder: pathlib.Path, texts: Iterable[str], *, kind: str, size: int) -> None:
    """Trains on texts, then writes tokenizer.json and tokenizer_config.json; the same texts give the same bytes."""
    texts = list(texts)
    tokenizer, specials = (_train_wordpiece if kind == "bert" else _train_byte_pairs)(texts, size)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Json] = {f"{name}_token": token for name, token in specials.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    # Without these transformers would leave out the token types that BERT is trained with
    types = ["token_type_ids"] if kind == "bert" else []
    config["model_input_names"] = ["input_ids", *types, "attention_mask"]
    files.write_text(folder / "tokenizer_config.json", json.dumps(config, indent=1) + "\n")
    files.write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False))


def _train_wordpiece(texts: list[str], size: int) -> tuple[Tokenizer, dict[str, str]]:
    """Trains WordPiece from byte-pair merges of ▁-marked words: ▁ab becomes ab, and ab becomes ##ab.

    The library's own trainer numbers ##letters in the order of a hash map, which differs between processes.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    words = pre_tokenizers.BertPreTokenizer()
    merges = Tokenizer(models.BPE())
    merges.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    merges.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Metaspace(split=False)])
    merges.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    ids_of_tokens = merges.get_vocab()
    tokens = [token for token in sorted(ids_of_tokens, key=ids_of_tokens.__getitem__) if token != "▁"]
    letters = [token for token in tokens if len(token) == 1]
    marked = [token[1:] if token.startswith("▁") else f"##{token}" for token in tokens]
    specials = list(BERT_SPECIALS.values())
    vocabulary = {token: i for i, token in enumerate(list(dict.fromkeys([*specials, *letters, *marked]))[:size])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = merges.normalizer, words
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(specials)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer, BERT_SPECIALS


def _train_byte_pairs(texts: list[str], size: int) -> tuple[Tokenizer, dict[str, str]]:
    """Trains byte-pair merges over ▁-marked text, split at punctuation and around each Han character.

    So no token crosses the edge of an answer in a script without spaces. A unigram model would give names seen in
    training one token and all others five: two different tasks.
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
