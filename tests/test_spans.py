# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""From scores of positions to answers: golden windows, the order of candidates, and a plain decoder beside it."""

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


def decoded(logits, k, settings, held=FEATURES):
    return spans.decode(compute_outputs(logits, k, held, settings), held, settings)


@pytest.mark.parametrize(("n_best", "tokens"), [(5, 3), (20, 30), (2, 30)])
def test_decode_golden(n_best, tokens):
    settings = dataclasses.replace(SETTINGS, n_best=n_best, max_answer_tokens=tokens, published_empty=True)
    golden = GOLDEN["results"][f"n_best={n_best},max_answer_length={tokens}"]
    (found,) = decoded(LOGITS, n_best, settings).candidates
    assert [one.text for one in found] == [one["text"] for one in golden["n_best"]]
    for one, expected in zip(found, golden["n_best"], strict=True):
        assert one.probability == pytest.approx(expected["probability"], abs=1e-6)
        assert one.start_score == pytest.approx(expected["start_logit"], abs=1e-6)
        assert one.end_score == pytest.approx(expected["end_logit"], abs=1e-6)


def test_no_candidate_golden():
    golden = GOLDEN["results"]["no_candidate,n_best=2"]
    held = cut_into_windows([make_question("w0 w1 x w3 w4 w5 w6 w7 w8")], TextTokenizer(TOKENIZER), SETTINGS)
    logits = [(golden["start_logits"], golden["end_logits"])]
    published = decoded(logits, 2, dataclasses.replace(SETTINGS, n_best=2, published_empty=True), held)
    assert published.texts == [golden["answer"]]
    ours = decoded(logits, 2, SETTINGS, held)
    assert ours.texts == ["w0"]  # all spans are equal: the first one
    assert ours.searched.tolist() == [True]
    assert ours.candidates[0][0].probability == 1.0


def test_the_search_takes_the_best_span_of_all_windows():
    starts, ends = np.zeros((3, 14)), np.zeros((3, 14))
    starts[:, 0] = ends[:, 0] = 9.0
    starts[1, 7], ends[1, 8] = 2.0, 3.0
    found = decoded(list(zip(starts, ends, strict=True)), 1, SETTINGS)
    assert found.texts == ["w7 w8"]
    assert found.searched.tolist() == [True]
    ((only,),) = found.candidates
    assert (only.start_score, only.end_score) == (5.0, 0.0)  # the search gives one score, of both
    assert GOLDEN["context"][only.start : only.end] == "w7 w8"
    assert found.near_ties() == []  # one alone ties with none


def test_a_context_without_a_token_is_answered_by_nothing():
    tokenizer = make_unigram_tokenizer(["▁ab", "▁", "▁q"])
    held = cut_into_windows(
        [make_question("\u200b", text="q"), make_question("ab", text="q", key="2")],
        TextTokenizer(tokenizer),
        Settings(),
    )
    found = decoded([(np.zeros(5), np.zeros(5)), (np.zeros(6), np.zeros(6))], 20, Settings(), held)
    assert found.texts == ["", "ab"]
    assert found.searched.tolist() == [True, False]
    ((nothing,), _) = found.candidates
    assert (nothing.probability, nothing.start, nothing.end) == (1.0, -1, -1)


def plain(logits, held, settings):
    """The published decoder, one candidate at a time."""
    pool = []
    for w, (start, end) in enumerate(logits):
        start, end = (np.asarray(side, np.float32)[: held.lengths[w]] for side in (start, end))
        low = held.context_offset()[w] - held.first[w]
        inside = range(held.first[w], held.first[w] + held.count[w])
        best = range(held.best_first[w], held.best_first[w] + held.best_count[w])
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
    # few different values: many joint scores are equal, so that the order of equals is tested
    logits = [tuple(rng.integers(0, 4, (2, 14)).astype(np.float32)) for _ in range(len(FEATURES))]
    settings = dataclasses.replace(SETTINGS, max_answer_tokens=4, max_context=max_context)
    (found,) = decoded(logits, 20, settings).candidates
    assert [one.text for one in found] == plain(logits, FEATURES, settings)


def test_rows_are_decoded_apart_and_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [make_question(GOLDEN["context"], key=str(n), text="q1 " * (1 + n % 3)) for n in range(7)]
    held = cut_into_windows(rows, TextTokenizer(TOKENIZER), SETTINGS)
    logits = [tuple(rng.normal(size=(2, n))) for n in held.lengths]
    together = decoded(logits, 20, SETTINGS, held)
    monkeypatch.setattr(spans, "_BLOCK", 4)
    assert decoded(logits, 20, SETTINGS, held).candidates == together.candidates
    for n, row in enumerate(rows):
        alone = cut_into_windows([row], TextTokenizer(TOKENIZER), SETTINGS)
        mine = [logits[w] for w in np.flatnonzero(held.row_of == n)]
        assert decoded(mine, 20, SETTINGS, alone).candidates[0] == together.candidates[n]


def test_text_is_cut_from_the_context_as_it_stands():
    tokenizer = make_unigram_tokenizer(["▁ab", "▁", "c", "北京", "市", "▁q"])
    context = "ab\u200b  北京市"  # ▁ab, ▁, ▁, 北京, 市 from position 4
    held = cut_into_windows([make_question(context, text="q")], TextTokenizer(tokenizer), Settings())
    for ends, text in [((4, 4), "ab\u200b"), ((4, 7), "ab\u200b  北京"), ((5, 8), "北京市"), ((4, 5), "ab\u200b")]:
        logits = np.zeros((2, int(held.lengths[0])))
        logits[0, ends[0]] = logits[1, ends[1]] = 9.0
        (best, *_) = decoded([tuple(logits)], 20, Settings(), held).candidates[0]
        assert best.text == text
        assert context[best.start : best.end] == text


def test_a_lone_metaspace_is_no_answer():
    tokenizer = make_unigram_tokenizer(["▁ab", "▁", "北京", "▁q"])
    held = cut_into_windows([make_question("ab 北京", text="q")], TextTokenizer(tokenizer), Settings())
    logits = np.zeros((2, int(held.lengths[0])))
    logits[:, 5] = 9.0
    found = decoded([tuple(logits)], 20, Settings(), held).candidates[0]
    assert all(one.text for one in found)


def test_near_ties_are_named():
    starts, ends = np.full((3, 14), -9.0), np.full((3, 14), -9.0)
    starts[0, 4], starts[0, 5], ends[0, 5] = 1.0, 1.0 + 5e-5, 1.0
    assert decoded(list(zip(starts, ends, strict=True)), 20, SETTINGS).near_ties() == [0]
    starts[0, 5] = 1.0 + 1.5e-4
    assert decoded(list(zip(starts, ends, strict=True)), 20, SETTINGS).near_ties() == []
