# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Windows and gold spans: invariants for every length, and the positions of answers."""

import json
import pathlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from qa_toys import make_question, make_unigram_tokenizer, make_word_tokenizer

from xlkd.errors import UserError
from xlkd.spec import read_block
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.tasks.windows import EXACT, LOST, WIDE, Settings, Windows, cut_into_windows, lay_windows

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "qa_decode.json").read_text(encoding="utf-8"))
WORDS = [f"w{i}" for i in range(200)]
TOKENIZER = make_word_tokenizer(["q1", "q2", "x", *WORDS])


def make_windows(*rows, **changes):
    return cut_into_windows(rows, TextTokenizer(TOKENIZER), Settings(**({"max_length": 14, "doc_stride": 4} | changes)))


def test_maximum_context_golden():
    for (first, count, best, many), window in zip(lay_windows(16, 9, 4).tolist(), GOLDEN["windows"], strict=True):
        assert (first, count) == (window["first_word"], window["words"])
        flags = [best <= token < best + many for token in range(first, first + count)]
        assert flags == window["max_context"]


@given(tokens=st.integers(0, 300), room=st.integers(1, 60), step=st.integers(1, 60))
def test_windows_cover_every_token_and_each_has_its_maximum_context_once(tokens, room, step):
    step = min(step, room)
    covered, best_covered = np.zeros(tokens, int), np.zeros(tokens, int)
    windows = lay_windows(tokens, room, step)
    for first, count, best_first, best_count in windows.tolist():
        assert 0 <= count <= room
        assert first <= best_first or not best_count
        assert best_first + best_count <= first + count or not best_count
        covered[first : first + count] += 1
        best_covered[best_first : best_first + best_count] += 1
    assert (covered >= 1).all()
    assert (best_covered == 1).all()
    # No window follows the first that reaches the end.
    assert sum(first + count == tokens for first, count, *_ in windows) == 1


@given(tokens=st.integers(1, 120), room=st.integers(2, 40), step=st.integers(1, 40))
@example(tokens=520, room=300, step=160)  # The last window is 100 tokens shorter: this tests the 0.01 per token.
def test_maximum_context_is_the_published_rule(tokens, room, step):
    windows = lay_windows(tokens, room, min(step, room)).tolist()
    for token in range(tokens):
        scores = [
            min(token - first, first + count - 1 - token) + 0.01 * count if first <= token < first + count else -1
            for first, count, *_ in windows
        ]
        _, _, best_first, best_count = windows[int(np.argmax(scores))]
        assert best_first <= token < best_first + best_count


def test_golden_windows_have_the_known_first_tokens_and_lengths():
    windows = make_windows(make_question(GOLDEN["context"], "w7 w8"))
    assert windows.first.tolist() == [0, 4, 8]
    assert windows.count.tolist() == [9, 9, 8]
    assert windows.lengths.tolist() == [14, 14, 13]


def test_a_window_without_the_complete_answer_points_at_the_first_token():
    windows = make_windows(make_question(GOLDEN["context"], "w8 w9"))
    assert windows.answerable.tolist() == [False, True, True]
    assert windows.start.tolist() == [0, 4 + 4, 4]
    assert windows.end.tolist() == [0, 4 + 5, 5]


def test_doc_stride_is_a_step_or_an_overlap():
    assert make_windows(make_question(GOLDEN["context"])).first.tolist() == [0, 4, 8]
    assert make_windows(make_question(GOLDEN["context"]), doc_stride_means="overlap").first.tolist() == [0, 5, 10]


def test_a_step_wider_than_the_window_skips_no_token():
    windows = make_windows(make_question(GOLDEN["context"]), doc_stride=100)
    assert windows.first.tolist() == [0, 9]


def test_a_truncated_question_leaves_its_room_to_the_context():
    windows = make_windows(make_question(" ".join(WORDS[:20]), text="q1 q2 q1 q2"), max_query_length=1)
    assert windows.query.tolist() == [1]
    assert windows.count[0] == 14 - 3 - 1
    assert make_windows(make_question("w1", text="q1 q2 q1 q2"), max_query_length=0).query.tolist() == [4]


def test_each_text_is_tokenized_once():
    rows = [make_question("w1 w2", text=t, key=t) for t in ("q1", "q2", "q1")]
    windows = make_windows(*rows)
    assert len(windows.token_splits) - 1 == 3
    assert windows.context.tolist() == [1, 1, 1]
    assert len(set(windows.keys)) == 2  # same row key, same window: the same name


@pytest.mark.parametrize(
    ("context", "answer", "gold", "text"),
    [
        ("北京市 ab", "北京", EXACT, "北京"),  # not the metaspace before it
        ("ab 北京市", "市", EXACT, "市"),
        ("ab c d", " c ", EXACT, "c"),  # blanks at the ends of an answer
        ("ab\u200b c", "ab\u200b", EXACT, "ab\u200b"),
        ("\ufeffab c", "ab", EXACT, "ab"),
        ("ab c", "b", WIDE, "ab"),  # inside a token
        ("ab \u200b c", "\u200b", LOST, ""),  # no token covers it
    ],
)
def test_gold_spans_are_located_by_characters(context, answer, gold, text):
    tokenizer = make_unigram_tokenizer(["▁ab", "▁", "c", "▁d", "北京", "市", "▁q"])
    windows = cut_into_windows([make_question(context, answer, text="q")], TextTokenizer(tokenizer), Settings())
    assert windows.gold.tolist() == [gold]
    if gold != LOST:
        base = windows.token_splits[windows.context[0]]
        low, high = windows.token_begin[base + windows.gold_first[0]], windows.token_end[base + windows.gold_last[0]]
        assert context[low:high] == text
        assert windows.start[0] == windows.context_offset()[0] + windows.gold_first[0]


def test_the_offset_selects_the_occurrence_of_the_answer():
    windows = make_windows(make_question("x w1 x", "x", start=5))
    assert windows.gold_first.tolist() == [2]


def test_windows_survive_conversion_to_arrays_and_back():
    windows = make_windows(make_question(GOLDEN["context"], "w7 w8"), make_question("w1 w2", "w2", key="k2"))
    arrays = windows.to_arrays()
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in arrays.values())
    restored = Windows.from_arrays(arrays)
    for name, value in restored.to_arrays().items():
        np.testing.assert_array_equal(value, arrays[name])
    assert restored.text_of(int(restored.context[0])) == GOLDEN["context"]


def test_the_features_of_a_row_do_not_depend_on_the_others():
    rows = [make_question(GOLDEN["context"], "w7 w8"), make_question("w1 w2", "w2", key="k2")]
    all_windows, second_windows = make_windows(*rows), make_windows(rows[1])
    of_second = all_windows.row_of == 1
    for name in ("keys", "first", "count", "lengths", "start", "end", "answerable"):
        np.testing.assert_array_equal(getattr(all_windows, name)[of_second], getattr(second_windows, name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_stride_means": "both"}, "choose one of step, overlap"),
        ({"no_answer": "zero"}, "choose one of first_token, drop"),
        ({"candidates": "some"}, "choose one of all, context"),
        ({"max_length": 0}, "max_length=0 .*give 4 to 65536"),
        ({"doc_stride": 0}, "doc_stride=0 .*give 1 to 65536"),
        ({"n_best": 0}, "n_best=0 "),
        ({"max_answer_tokens": 0}, "max_answer_tokens=0 "),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        read_block(Settings, changes, "task")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 5}, "squad, id 'row 7': max_length=5 leaves 0 tokens"),
        ({"max_length": 9, "doc_stride_means": "overlap", "doc_stride": 8}, "raise max_length"),
    ],
)
def test_settings_that_leave_no_window_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_windows(make_question("w1 w2", id="row 7"), **changes)


def test_windowing_contains_only_settings_that_features_depend_on():
    rows = (make_question(GOLDEN["context"], "w7 w8"),)
    for name, value in {"n_best": 3, "max_answer_tokens": 2, "max_context": False, "no_answer": "drop"}.items():
        changed = make_windows(*rows, **{name: value}).to_arrays()
        for key, array in make_windows(*rows).to_arrays().items():
            np.testing.assert_array_equal(array, changed[key])
        assert name not in Settings().windowing()
