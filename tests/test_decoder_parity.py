# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Answers to real questions, compared with a plain PyTorch decoder on the same weights.

XLKD_PARITY_QUESTIONS=40 asks 200 questions instead of 20.
"""

import dataclasses
import os

import jax
import numpy as np
import pytest

import xlkd
from xlkd.data import sources
from xlkd.models import hf

LANGUAGES = ("en", "de", "zh", "ar", "th")
LENGTH, STRIDE, QUERY, LONGEST, BEST = 384, 128, 64, 30, 20
pytestmark = [pytest.mark.torch, pytest.mark.shared]


@pytest.fixture(autouse=True, scope="module")
def optimized():
    """Compiles with optimizations, because a real encoder computes longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def model(shared, tmp_path_factory):
    """Saves a real encoder with a span head whose logits are far apart, so that last bits do not decide."""
    base = hf.load(shared / "models" / "multilingual-e5-small")
    random = np.random.default_rng(0)
    output = {"kernel": random.normal(0, 1, (base.architecture.hidden_size, 2)), "bias": np.zeros(2)}
    span = {"output": {name: value.astype(np.float32) for name, value in output.items()}}
    folder = tmp_path_factory.mktemp("model") / "e5"
    hf.save(
        folder,
        base.architecture,
        {"encoder": base.params["encoder"], "span": span},
        tokenizer=shared / "models" / "multilingual-e5-small",
    )
    return folder


def find_answer_plainly(model, tokenizer, torch, question, context) -> str:
    """Answers by a loop over windows and over all pairs of the 20 best starts and ends."""
    q = tokenizer(question, add_special_tokens=False)["input_ids"][:QUERY]
    c = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    room = LENGTH - len(q) - 4
    windows, first = [], 0
    while True:
        windows.append(range(first, min(first + room, len(c["input_ids"]))))
        if first + room >= len(c["input_ids"]):
            break
        first += STRIDE

    def most_context(token):
        scores = [min(token - w.start, w.stop - 1 - token) + 0.01 * len(w) if token in w else -1.0 for w in windows]
        return max(range(len(windows)), key=lambda i: (scores[i], -i))

    candidates = []
    for number, window in enumerate(windows):
        ids = [0, *q, 2, 2, *(c["input_ids"][t] for t in window), 2]
        with torch.no_grad():
            out = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
        before = len(q) + 3
        starts, ends = (np.argsort(-x[0].numpy(), kind="stable")[:BEST] for x in (out.start_logits, out.end_logits))
        for rank_s, s in enumerate(starts):
            for rank_e, e in enumerate(ends):
                inside = before <= s < before + len(window) and before <= e < before + len(window)
                if not inside or e < s or e - s + 1 > LONGEST or most_context(window[s - before]) != number:
                    continue
                score = float(out.start_logits[0, s] + out.end_logits[0, e])
                offsets, last = c["offset_mapping"], window[e - before]
                begin, stop = offsets[window[s - before]][0], offsets[last][1]
                if last + 1 < len(offsets):  # a lone ▁ also spans the first character of the next token
                    stop = min(stop, offsets[last + 1][0])
                candidates.append((-score, number, rank_s, rank_e, context[begin:stop].strip()))
    return min(candidates)[-1] if candidates else None


@pytest.mark.long
def test_answers_equal_those_of_a_plain_decoder(model, shared_data):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForQuestionAnswering

    theirs = AutoModelForQuestionAnswering.from_pretrained(model, attn_implementation="eager").eval()
    ours, tokenizer = xlkd.load(str(model)), hf.load_tokenizer(model)
    each = int(os.environ.get("XLKD_PARITY_QUESTIONS", "4"))
    rows = []
    for language in LANGUAGES:
        all_rows = sources.read(f"xquad:{shared_data / 'xquad'}?languages={language}", "qa")
        rows += [all_rows[i] for i in range(0, len(all_rows), len(all_rows) // each)][:each]
    settings = {"max_length": LENGTH, "doc_stride": STRIDE, "max_query_length": QUERY}
    reader = dataclasses.replace(ours, record={"task": {"name": "qa", **settings}})
    answers = reader._reader.answer_questions([(row.question, row.context) for row in rows])
    without_answer = 0
    for row, answer in zip(rows, answers, strict=True):
        expected = find_answer_plainly(theirs, tokenizer, torch, row.question, row.context)
        without_answer += expected is None
        if expected is not None:
            assert answer["answer"] == expected, (row.id, row.context_language)
    assert without_answer < len(rows) / 4
