# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The question-answering task: batches, figures, the data report and ceilings."""

import numpy as np
import pytest
from qa_toys import compute_outputs, make_question, make_word_tokenizer

from xlkd.errors import UserError
from xlkd.rows import Answer, Cell
from xlkd.tasks import Draw, qa
from xlkd.tasks.ceilings import compute_ceilings
from xlkd.tasks.scores import score, score_file
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.tasks.windows import Settings, cut_into_windows

WORDS = [f"w{i}" for i in range(100)]
TOKENIZER = make_word_tokenizer(["q1", "q2", *WORDS])
LONG, SHORT = make_question(" ".join(WORDS[:16]), "w7 w8"), make_question("w1 w2 w3", "w2", key="k2", id="j")
SETTINGS = Settings(max_length=14, doc_stride=4)
FEATURES = cut_into_windows([LONG, SHORT], TextTokenizer(TOKENIZER), SETTINGS)


def test_a_batch_is_what_the_tokenizer_itself_makes_of_the_pair():
    batch = qa.pad_windows(FEATURES, np.array([3]), 14)
    expected = TOKENIZER("q1 q2", "w1 w2 w3", padding="max_length", max_length=14, return_token_type_ids=True)
    assert batch["text"]["ids"][0].tolist() == expected["input_ids"]
    assert batch["text"]["mask"][0].tolist() == expected["attention_mask"]
    assert batch["text"]["types"][0].tolist() == expected["token_type_ids"]


def test_positions_of_a_batch():
    batch = qa.pad_windows(FEATURES, np.array([0, 2, 3]), 14)
    tokens = [TOKENIZER.convert_ids_to_tokens(row) for row in batch["text"]["ids"]]
    assert [t[s : e + 1] for t, s, e in zip(tokens, batch["start"], batch["end"], strict=True)] == [
        ["w7", "w8"],
        ["[CLS]"],
        ["w2"],
    ]
    assert batch["answerable"].tolist() == [True, False, True]
    for row, words in zip(range(3), (WORDS[0:9], WORDS[8:16], ["w1", "w2", "w3"]), strict=True):
        assert [tokens[row][i] for i in np.flatnonzero(batch["context_mask"][row])] == words
    assert not (batch["start_mask"] & ~batch["context_mask"]).any()
    assert [tokens[1][i] for i in np.flatnonzero(batch["start_mask"][1])] == WORDS[11:16]


def test_padding_further_changes_nothing_under_the_mask():
    index = np.array([0, 3, -1, 2])
    near, far = qa.pad_windows(FEATURES, index, 14), qa.pad_windows(FEATURES, index, 40)
    for name in ("ids", "mask", "types"):
        np.testing.assert_array_equal(near["text"][name], far["text"][name][:, :14])
    for name in ("context_mask", "start_mask"):
        np.testing.assert_array_equal(near[name], far[name][:, :14])
        assert not far[name][:, 14:].any()
    assert not far["text"]["mask"][:, 14:].any()
    assert (far["text"]["ids"][:, 14:] == TOKENIZER.pad_token_id).all()


def test_a_row_that_is_not_there():
    batch = qa.pad_windows(FEATURES, np.array([3, -1]), 16)
    assert batch["mask"].tolist() == [1.0, 0.0]
    assert batch["text"]["mask"][1].tolist() == [True] + [False] * 15
    assert (batch["text"]["ids"][1] == TOKENIZER.pad_token_id).all()
    assert (batch["start"][1], batch["end"][1], batch["answerable"][1]) == (0, 0, False)
    assert not batch["context_mask"][1].any()
    assert not batch["start_mask"][1].any()


def test_a_window_that_does_not_fit_is_a_bug():
    with pytest.raises(ValueError, match="14 tokens"):
        qa.pad_windows(FEATURES, np.array([0]), 13)


def task(**changes):
    return qa.build(Settings(**{"max_length": 14, "doc_stride": 4} | changes), TOKENIZER)


def test_drop_gives_windows_without_the_answer_no_loss_and_scores_them_all():
    dropping = task(no_answer="drop")
    held = dropping.features([LONG, SHORT])
    index, lengths = np.arange(4), {"text": 14}
    assert dropping.arrays(held, index, lengths, Draw(0, 0))["mask"].tolist() == [1, 1, 0, 1]
    assert dropping.arrays(held, index, lengths, Draw(0, 0, "evaluation"))["mask"].tolist() == [1, 1, 1, 1]
    assert task().arrays(held, index, lengths, Draw(0, 0))["mask"].tolist() == [1, 1, 1, 1]


def test_the_task_from_rows_to_scores():
    one = task()
    held = one.features([LONG, SHORT])
    assert one.lengths(held)["text"].tolist() == [14, 14, 13, 8]
    logits = np.zeros((4, 2, 14))
    logits[0, 0, 4 + 7] = logits[0, 1, 4 + 8] = 9.0  # w7 w8, whose start has its maximum context in the next window
    logits[1, 0, 4 + 3] = logits[1, 1, 4 + 4] = 8.0
    logits[3, 0, 5] = logits[3, 1, 6] = 7.0  # w2 w3
    outputs = compute_outputs([tuple(side) for side in logits], 20, FEATURES, SETTINGS)
    assert one.decode(outputs, held).texts == ["w7 w8", "w2 w3"]
    scores = one.score(outputs, held, [LONG, SHORT])
    assert scores.main == "f1"
    assert [record["em"] for record in one.records(outputs, held, [LONG, SHORT])] == [100.0, 0.0]
    assert scores.cells == {Cell.parse("squad en-en"): {"f1": pytest.approx(100 * (1 + 2 / 3) / 2), "em": 50.0, "n": 2}}


def test_identity_goes_with_what_features_depend_on():
    assert task().identity() == task(n_best=3, no_answer="drop").identity()
    assert task().identity() != task(doc_stride=5).identity()
    assert task().identity() != qa.build(Settings(max_length=14, doc_stride=4), make_word_tokenizer(["a"])).identity()


def test_mlqa_rows_go_by_their_contexts_language():
    rows = [
        make_question("la casa", "casa", set="mlqa", question_language="en", context_language="es"),
        make_question("la casa", "casa", set="xquad", question_language="es", context_language="es"),
        make_question("la casa", "casa", set="mlqa", question_language="es", context_language="en"),
    ]
    scores = score(["la casa"] * 3, rows)
    assert scores.cells[Cell.parse("mlqa en-es")]["em"] == 100.0
    assert scores.cells[Cell.parse("xquad es-es")]["em"] == 0.0
    assert scores.cells[Cell.parse("mlqa es-en")]["em"] == 0.0


def test_mlqa_refuses_a_language_without_rules_unless_told():
    row = make_question("a b", "b", set="mlqa", context_language="fr")
    with pytest.raises(UserError, match="'fr'"):
        score(["b"], [row])
    assert score(["b"], [row], mlqa_fallback=True).cells[Cell.parse("mlqa en-fr")]["em"] == 100.0


def test_a_prediction_file_may_lack_ids():
    scores, missing = score_file({"i": "w7 w8", "other": "x"}, [LONG, SHORT])
    assert (scores.cells[Cell.parse("squad en-en")]["em"], missing) == (50.0, 1)


def test_counts_account_for_every_row():
    rows = [
        LONG,  # three windows, one of them without the answer
        make_question("w1 w2", "w2", context_language="de"),
        make_question("w1 w22", "w2", start=3, context_language="de"),  # inside a word
        make_question("w1 w2", context_language="de"),  # no answer
        make_question(" ".join(WORDS[:12]), " ".join(WORDS[:11]), context_language="de"),  # longer than a window
    ]
    found = qa.count_spans(
        cut_into_windows(rows, TextTokenizer(TOKENIZER), Settings(max_length=14, doc_stride=4, max_query_length=1))
    )
    assert found["en"] | {"windows": 3} == found["en"]
    assert found["de"]["rows"] == 4
    assert {name: found["de"][name] for name in ("exact", "wide", "beyond", "lost")} == {
        "exact": 1, "wide": 1, "beyond": 1, "lost": 1,
    }  # fmt: skip
    assert (found["de"]["questions_cut"], found["de"]["question_tokens_cut"]) == (4, 4)


@pytest.mark.parametrize(("words", "f1"), [(30, 100.0), (31, 98.3607), (40, 85.7143), (60, 66.6667)])
def test_ceiling_golden(words, f1):
    row = make_question(" ".join(["w98", *WORDS[:words], "w99"]), " ".join(WORDS[:words]))
    held = cut_into_windows([row], TextTokenizer(TOKENIZER), Settings())
    found = compute_ceilings(held, [row], Settings())["en"]
    assert found["f1"] == pytest.approx(f1, abs=5e-5)
    assert (found["em"], found["unreachable"]) == ((100.0, 0) if words <= 30 else (0.0, 1))


def test_ceiling_of_a_language_golden():
    rows = [make_question(" ".join(WORDS[:n]), " ".join(WORDS[:n]), key=str(n)) for n in (1, 2, 40, 3)]
    found = compute_ceilings(cut_into_windows(rows, TextTokenizer(TOKENIZER), Settings()), rows, Settings())["en"]
    assert (found["f1"], found["em"], found["n"]) == (pytest.approx(96.4286, abs=5e-5), 75.0, 4)


def test_a_later_gold_may_be_the_one_that_is_reached():
    row = make_question(" ".join(WORDS[:40]), " ".join(WORDS[:40]))
    both = qa.dataclasses.replace(row, answers=(*row.answers, Answer("w3", row.context.index("w3"))))
    found = compute_ceilings(cut_into_windows([both], TextTokenizer(TOKENIZER), Settings()), [both], Settings())["en"]
    assert (found["em"], found["unreachable"]) == (100.0, 0)


def test_an_answer_that_no_window_holds_is_searched_for():
    row = make_question(" ".join(WORDS[:12]), " ".join(WORDS[:12]))
    settings = Settings(max_length=11, doc_stride=3)
    found = compute_ceilings(cut_into_windows([row], TextTokenizer(TOKENIZER), settings), [row], settings)["en"]
    assert found["f1"] == pytest.approx(100 * 2 * 0.5 / 1.5)  # six of twelve words fit a window
    assert found["unreachable"] == 1


def test_a_window_may_hold_an_answer_that_its_start_may_not_begin():
    row = make_question(" ".join(WORDS[:16]), " ".join(WORDS[5:13]))  # whole in the second window, begun in the first
    held = cut_into_windows([row], TextTokenizer(TOKENIZER), SETTINGS)
    for strict, unreachable in ((True, 1), (False, 0)):
        settings = qa.dataclasses.replace(SETTINGS, max_context=strict)
        assert compute_ceilings(held, [row], settings)["en"]["unreachable"] == unreachable


def test_the_search_begins_with_spans_that_end_in_the_golds_first_token():
    row = make_question("w1 . w2", "w1 .")
    settings = Settings(max_answer_tokens=1)
    found = compute_ceilings(cut_into_windows([row], TextTokenizer(TOKENIZER), settings), [row], settings)["en"]
    assert (found["f1"], found["em"], found["unreachable"]) == (100.0, 100.0, 1)
