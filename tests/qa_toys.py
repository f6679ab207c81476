# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers and questions for the tests of question answering."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from xlkd.rows import Answer, Question

SPECIALS = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def make_word_tokenizer(words: list[str]) -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token per word; pairs as in BERT: [CLS] a [SEP] b [SEP], types 0 and 1."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIALS)


def make_unigram_tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    """Returns a Unigram tokenizer with a metaspace; pairs as in XLM-R: <s> a </s> </s> b </s>. Drops U+200B, U+FEFF."""
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    scores = [(name, 0.0) for name in names.values()] + [(token, -float(i)) for i, token in enumerate(tokens)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(mark, "") for mark in "\u200b\ufeff"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def make_question(context: str, answer: str = "", *, text: str = "q1 q2", start: int = -1, **changes) -> Question:
    """Returns an example over a context; the answer's first occurrence is its start unless `start` is set."""
    answers = (Answer(answer, context.index(answer) if start < 0 else start),) if answer else ()
    defaults = {
        "id": "i",
        "key": "k",
        "group": "g",
        "set": "squad",
        "question_language": "en",
        "context_language": "en",
    }
    return Question(question=text, context=context, answers=answers, **(defaults | changes))


def compute_outputs(logits, k: int, features, settings) -> dict[str, np.ndarray]:
    """Computes a method's outputs for the decoder from [(start, end)] logits, one window at a time."""
    candidates = {name: [] for name in ("start_scores", "start_index", "end_scores", "end_index")}
    best, nulls = [], []
    for w, sides in enumerate(logits):
        sides = [np.asarray(side, np.float32)[: features.lengths[w]] for side in sides]
        nulls.append([side[0] for side in sides])
        for name, side in zip(("start", "end"), sides, strict=True):
            order = np.argsort(-side, kind="stable")[:k]
            pad = k - len(order)
            candidates[f"{name}_index"].append(np.pad(order, (0, pad)))
            candidates[f"{name}_scores"].append(np.pad(side[order], (0, pad), constant_values=-np.inf))
        low = features.context_offset()[w]
        spans = [
            (sides[0][i] + sides[1][j], -i, -j)
            for i in range(low, low + features.count[w])
            for j in range(i, min(i + settings.max_answer_tokens, low + features.count[w]))
        ]
        score, i, j = max(spans, default=(-np.inf, 0, 0))
        best.append((score, -i, -j))
    outputs = {name: np.array(values) for name, values in candidates.items()} | {"null_scores": np.array(nulls)}
    score, first, last = np.array(best, np.float64).T
    return outputs | {"best_score": score, "best_start": first.astype(np.int32), "best_end": last.astype(np.int32)}
