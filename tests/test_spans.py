# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding of position scores to answers: golden windows, the order of candidates, and a plain decoder."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from qa_toys import compute_outputs, make_question, make_unigram_tokenizer, make_word_tokenizer

from xlkd.tasks import spans
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.tasks.windows import Settings, cut_into_windows

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "qa_decode.json").read_text(encoding="utf-8"))
TOKENIZER = make_word_tokenizer([*GOLDEN["question_tokens"], *GOLDEN["context"].split()])
SETTINGS = Settings(max_length=GOLDEN["max_length"], doc_stride=GOLDEN["doc_stride"])
FEATURES = cut_into_windows([make_question(GOLDEN["context"])], TextTokenizer(TOKENIZER), SETTINGS)
LOGITS = [(window["start_logits"], window["end_logits"]) for window in GOLDEN["windows"]]


def decode(logits, k, settings, windows=FEATURES):
    return spans.decode(compute_outputs(logits, k, windows, settings), windows, settings)


@pytest.mark.parametrize(("n_best", "tokens"), [(5, 3), (20, 30), (2, 30)])
def test_decode_golden(n_best, tokens):
    settings = dataclasses.replace(SETTINGS, n_best=n_best, max_answer_tokens=tokens, published_empty=True)
    golden = GOLDEN["results"][f"n_best={n_best},max_answer_length={tokens}"]
    (candidates,) = decode(LOGITS, n_best, settings).candidates
    assert [candidate.text for candidate in candidates] == [candidate["text"] for candidate in golden["n_best"]]
    for candidate, expected in zip(candidates, golden["n_best"], strict=True):
        assert candidate.probability == pytest.approx(expected["probability"], abs=1e-6)
        assert candidate.start_score == pytest.approx(expected["start_logit"], abs=1e-6)
        assert candidate.end_score == pytest.approx(expected["end_logit"], abs=1e-6)


def test_no_candidate_golden():
    golden = GOLDEN["results"]["no_candidate,n_best=2"]
    windows = cut_into_windows([make_question("w0 w1 x w3 w4 w5 w6 w7 w8")], TextTokenizer(TOKENIZER), SETTINGS)
    logits = [(golden["start_logits"], golden["end_logits"])]
    published = decode(logits, 2, dataclasses.replace(SETTINGS, n_best=2, published_empty=True), windows)
    assert published.texts == [golden["answer"]]
    ours = decode(logits, 2, SETTINGS, windows)
    assert ours.texts == ["w0"]  # All spans have equal scores, so the first one wins.
    assert ours.searched.tolist() == [True]
    assert ours.candidates[0][0].probability == 1.0


def test_the_search_takes_the_best_span_of_all_windows():
    starts, ends = np.zeros((3, 14)), np.zeros((3, 14))
    starts[:, 0] = ends[:, 0] = 9.0
    starts[1, 7], ends[1, 8] = 2.0, 3.0
    decoded_spans = decode(list(zip(starts, ends, strict=True)), 1, SETTINGS)
    assert decoded_spans.texts == ["w7 w8"]
    assert decoded_spans.searched.tolist() == [True]
    ((only,),) = decoded_spans.candidates
    assert (only.start_score, only.end_score) == (5.0, 0.0)  # The search gives one score for start and end together.
    assert GOLDEN["context"][only.start : only.end] == "w7 w8"
    assert decoded_spans.near_ties() == []  # A single candidate has no tie.


def test_a_context_without_tokens_gets_an_empty_answer():
    tokenizer = make_unigram_tokenizer(["▁ab", "▁", "▁q"])
    windows = cut_into_windows(
        [make_question("\u200b", text="q"), make_question("ab", text="q", key="2")],
        TextTokenizer(tokenizer),
        Settings(),
    )
    decoded_spans = decode([(np.zeros(5), np.zeros(5)), (np.zeros(6), np.zeros(6))], 20, Settings(), windows)
    assert decoded_spans.texts == ["", "ab"]
    assert decoded_spans.searched.tolist() == [True, False]
    ((empty,), _) = decoded_spans.candidates
    assert (empty.probability, empty.start, empty.end) == (1.0, -1, -1)


def decode_plainly(logits, windows, settings):
    """Decodes as the published decoder does, one candidate at a time."""
    pool = []
    for w, (start, end) in enumerate(logits):
        start, end = (np.asarray(side, np.float32)[: windows.lengths[w]] for side in (start, end))
        low = windows.context_offset()[w] - windows.first[w]
        inside = range(windows.first[w], windows.first[w] + windows.count[w])
        best = range(windows.best_first[w], windows.best_first[w] + windows.best_count[w])
        for i in np.argsort(-start, kind="stable")[:20]:
            for j in np.argsort(-end, kind="stable")[:20]:
                starts = best if settings.max_context else inside
                if i - low in starts and j - low in inside and i <= j < i + settings.max_answer_tokens:
                    pool.append((float(start[i]) + float(end[j]), i - low, j - low))
    words, texts = GOLDEN["context"].split(), []
    for _, i, j in sorted(pool, key=lambda candidate: -candidate[0]):
        text = " ".join(words[i : j + 1])
        if text not in texts:
            texts.append(text)
    return texts[: settings.n_best]


@pytest.mark.parametrize("max_context", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_candidates_equal_those_of_a_plain_decoder(seed, max_context):
    rng = np.random.default_rng(seed)
    # With few different values many joint scores are equal, so that the order of ties is tested.
    logits = [tuple(rng.integers(0, 4, (2, 14)).astype(np.float32)) for _ in range(len(FEATURES))]
    settings = dataclasses.replace(SETTINGS, max_answer_tokens=4, max_context=max_context)
    (candidates,) = decode(logits, 20, settings).candidates
    assert [candidate.text for candidate in candidates] == decode_plainly(logits, FEATURES, settings)


def test_rows_are_decoded_independently_and_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [make_question(GOLDEN["context"], key=str(n), text="q1 " * (1 + n % 3)) for n in range(7)]
    windows = cut_into_windows(rows, TextTokenizer(TOKENIZER), SETTINGS)
    logits = [tuple(rng.normal(size=(2, n))) for n in windows.lengths]
    together = decode(logits, 20, SETTINGS, windows)
    monkeypatch.setattr(spans, "_BLOCK", 4)
    assert decode(logits, 20, SETTINGS, windows).candidates == together.candidates
    for n, row in enumerate(rows):
        alone = cut_into_windows([row], TextTokenizer(TOKENIZER), SETTINGS)
        row_logits = [logits[w] for w in np.flatnonzero(windows.row_of == n)]
        assert decode(row_logits, 20, SETTINGS, alone).candidates[0] == together.candidates[n]


def test_answer_text_is_an_unchanged_substring_of_the_context():
    tokenizer = make_unigram_tokenizer(["▁ab", "▁", "c", "北京", "市", "▁q"])
    context = "ab\u200b  北京市"  # ▁ab, ▁, ▁, 北京, 市 from position 4
    windows = cut_into_windows([make_question(context, text="q")], TextTokenizer(tokenizer), Settings())
    for ends, text in [((4, 4), "ab\u200b"), ((4, 7), "ab\u200b  北京"), ((5, 8), "北京市"), ((4, 5), "ab\u200b")]:
        logits = np.zeros((2, int(windows.lengths[0])))
        logits[0, ends[0]] = logits[1, ends[1]] = 9.0
        (best, *_) = decode([tuple(logits)], 20, Settings(), windows).candidates[0]
        assert best.text == text
        assert context[best.start : best.end] == text


def test_a_single_metaspace_is_not_an_answer():
    tokenizer = make_unigram_tokenizer(["▁ab", "▁", "北京", "▁q"])
    windows = cut_into_windows([make_question("ab 北京", text="q")], TextTokenizer(tokenizer), Settings())
    logits = np.zeros((2, int(windows.lengths[0])))
    logits[:, 5] = 9.0
    candidates = decode([tuple(logits)], 20, Settings(), windows).candidates[0]
    assert all(candidate.text for candidate in candidates)


def test_near_ties_are_listed():
    starts, ends = np.full((3, 14), -9.0), np.full((3, 14), -9.0)
    starts[0, 4], starts[0, 5], ends[0, 5] = 1.0, 1.0 + 5e-5, 1.0
    assert decode(list(zip(starts, ends, strict=True)), 20, SETTINGS).near_ties() == [0]
    starts[0, 5] = 1.0 + 1.5e-4
    assert decode(list(zip(starts, ends, strict=True)), 20, SETTINGS).near_ties() == []
