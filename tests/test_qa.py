# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The question-answering task: batches, scores, the data report and ceilings."""

import numpy as np
import pytest
from qa_toys import compute_outputs, make_question, make_word_tokenizer
from share_toys import run_on_all

from xlkd.errors import UserError
from xlkd.rows import Answer, Cell
from xlkd.tasks import Draw, qa, spans
from xlkd.tasks.ceilings import compute_ceilings
from xlkd.tasks.scores import find_rank, score, score_file
from xlkd.tasks.tokenization import TextTokenizer
from xlkd.tasks.windows import Settings, cut_into_windows

WORDS = [f"w{i}" for i in range(100)]
TOKENIZER = make_word_tokenizer(["q1", "q2", *WORDS])
LONG, SHORT = make_question(" ".join(WORDS[:16]), "w7 w8"), make_question("w1 w2 w3", "w2", key="k2", id="j")
SETTINGS = Settings(max_length=14, doc_stride=4)
FEATURES = cut_into_windows([LONG, SHORT], TextTokenizer(TOKENIZER), SETTINGS)


def test_a_batch_equals_the_tokenizers_own_encoding_of_the_pair():
    batch = qa.pad_windows(FEATURES, np.array([3]), 14)
    expected = TOKENIZER("q1 q2", "w1 w2 w3", padding="max_length", max_length=14, return_token_type_ids=True)
    assert batch["text"]["ids"][0].tolist() == expected["input_ids"]
    assert batch["text"]["mask"][0].tolist() == expected["attention_mask"]
    assert batch["text"]["types"][0].tolist() == expected["token_type_ids"]


def test_positions_of_a_batch_are_those_of_answers_and_contexts():
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


def test_a_longer_bucket_changes_only_the_padding():
    index = np.array([0, 3, -1, 2])
    short, long = qa.pad_windows(FEATURES, index, 14), qa.pad_windows(FEATURES, index, 40)
    for name in ("ids", "mask", "types"):
        np.testing.assert_array_equal(short["text"][name], long["text"][name][:, :14])
    for name in ("context_mask", "start_mask"):
        np.testing.assert_array_equal(short[name], long[name][:, :14])
        assert not long[name][:, 14:].any()
    assert not long["text"]["mask"][:, 14:].any()
    assert (long["text"]["ids"][:, 14:] == TOKENIZER.pad_token_id).all()


def test_a_padding_row_has_no_answer_and_no_weight():
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


def build_task(**changes):
    return qa.build(Settings(**{"max_length": 14, "doc_stride": 4} | changes), TOKENIZER)


def test_windows_without_the_answer_can_be_dropped_from_the_loss_but_are_scored():
    dropping = build_task(no_answer="drop")
    features = dropping.features([LONG, SHORT])
    index, lengths = np.arange(4), {"text": 14}
    assert dropping.arrays(features, index, lengths, Draw(0, 0))["mask"].tolist() == [1, 1, 0, 1]
    assert dropping.arrays(features, index, lengths, Draw(0, 0, "evaluation"))["mask"].tolist() == [1, 1, 1, 1]
    assert build_task().arrays(features, index, lengths, Draw(0, 0))["mask"].tolist() == [1, 1, 1, 1]


def test_all_windows_of_an_unanswerable_question_are_trained_at_the_first_position():
    """Dropping windows without the answer does not drop these: "no answer" is right in all of them."""
    absent = make_question(" ".join(WORDS[:16]), key="k3", id="l")
    for no_answer, answered in (("drop", [1, 1, 0]), ("first_token", [1, 1, 1])):
        task = build_task(no_answer=no_answer)
        features = task.features([LONG, absent])
        batch = task.arrays(features, np.array([0, 1, 2, 3, 4, 5, -1]), {"text": 14}, Draw(0, 0))
        assert batch["mask"].tolist() == [*answered, 1, 1, 1, 0]
        assert batch["start"].tolist()[3:] == batch["end"].tolist()[3:] == [0, 0, 0, 0]
        assert not batch["answerable"][3:].any()


def test_the_task_decodes_and_scores_rows():
    qa_task = build_task()
    features = qa_task.features([LONG, SHORT])
    assert qa_task.lengths(features)["text"].tolist() == [14, 14, 13, 8]
    logits = np.zeros((4, 2, 14))
    logits[0, 0, 4 + 7] = logits[0, 1, 4 + 8] = 9.0  # w7 w8, whose start has its maximum context in the next window
    logits[1, 0, 4 + 3] = logits[1, 1, 4 + 4] = 8.0
    logits[3, 0, 5] = logits[3, 1, 6] = 7.0  # w2 w3
    logits[3, 0, 6], logits[3, 1, 5] = 6.0, 5.0  # then w3, then w2, which is right
    outputs = compute_outputs([tuple(side) for side in logits], 20, FEATURES, SETTINGS)
    assert qa_task.decode(outputs, features).texts == ["w7 w8", "w2 w3"]
    scores = qa_task.score(outputs, features, [LONG, SHORT])
    assert scores.main == "f1"
    records = qa_task.records(outputs, features, [LONG, SHORT])
    assert [(record["em"], record["rank"]) for record in records] == [(100.0, 1), (0.0, 3)]
    assert scores.cells == {Cell.parse("squad en-en"): {"f1": pytest.approx(100 * (1 + 2 / 3) / 2), "em": 50.0, "n": 2}}


@pytest.mark.parametrize("examples", [7, 2])
def test_processes_decode_a_part_each_and_all_have_the_records_of_one_process(examples, monkeypatch):
    qa_task = build_task()
    rows = [LONG if i % 2 else make_question("w1 w2 w3", "w2", key=f"k{i}", id=str(i)) for i in range(examples)]
    features = qa_task.features(rows)
    random = np.random.default_rng(0)
    windows = qa.Windows.from_arrays(features)
    logits = [tuple(random.normal(size=(2, 14)) * 3) for _ in range(len(windows))]
    outputs = compute_outputs(logits, 20, windows, SETTINGS)
    whole, decoded = qa_task.records(outputs, features, rows), []

    def decode_and_count(outputs, windows, settings):
        decoded.append(len(windows.question))
        return spans.decode(outputs, windows, settings)

    monkeypatch.setattr(qa, "decode", decode_and_count)
    for future in run_on_all(lambda share: qa_task.records(outputs, features, rows, share), 3):
        assert future.result() == whole
    assert sum(decoded) == examples
    assert max(decoded) - min(decoded) <= 1
    decoded.clear()
    assert qa_task.score(outputs, features, rows, whole) == qa_task.score(outputs, features, rows)
    assert decoded == [examples], "what is decoded already is not decoded again"


def test_the_identity_contains_what_features_depend_on():
    assert build_task().identity() == build_task(n_best=3, no_answer="drop").identity()
    assert build_task().identity() != build_task(doc_stride=5).identity()
    assert (
        build_task().identity()
        != qa.build(Settings(max_length=14, doc_stride=4), make_word_tokenizer(["a"])).identity()
    )


def test_mlqa_rows_are_scored_by_their_context_language():
    rows = [
        make_question("la casa", "casa", set="mlqa", question_language="en", context_language="es"),
        make_question("la casa", "casa", set="xquad", question_language="es", context_language="es"),
        make_question("la casa", "casa", set="mlqa", question_language="es", context_language="en"),
    ]
    scores = score(["la casa"] * 3, rows)
    assert scores.cells[Cell.parse("mlqa en-es")]["em"] == 100.0
    assert scores.cells[Cell.parse("xquad es-es")]["em"] == 0.0
    assert scores.cells[Cell.parse("mlqa es-en")]["em"] == 0.0


@pytest.mark.parametrize(
    ("candidates", "rank"),
    [
        (["Haus.", "das Haus"], 1),
        (["Hof", "im Haus", "ein HAUS!", "Haus"], 3),
        (["Hof"], 0),
        ([*map(str, range(9)), "Haus"], 10),
        ([*map(str, range(10)), "Haus"], 0),
        (["ein"], 0),
        (["0", "zweites Haus"], 2),
    ],
)
def test_the_rank_is_the_place_of_the_first_exactly_right_candidate_among_ten(candidates, rank):
    row = make_question("das Haus", "das Haus", set="mlqa", context_language="de")
    row = qa.dataclasses.replace(row, answers=(*row.answers, Answer("das zweite Haus", 0), Answer("zweites Haus", 0)))
    assert find_rank(candidates, row) == rank


def test_the_rank_follows_the_rules_of_the_data_set():
    spanish = make_question("la casa", "casa", set="mlqa", context_language="es")
    assert find_rank(["la casa", "casa"], spanish) == 1
    assert find_rank(["la casa", "casa"], qa.dataclasses.replace(spanish, set="xquad")) == 2
    french = qa.dataclasses.replace(spanish, context_language="fr")
    assert find_rank(["la casa", "casa"], french, mlqa_fallback=True) == 2


def test_mlqa_refuses_a_language_without_rules_unless_the_fallback_is_set():
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
        make_question("w1 w2", context_language="de"),  # unanswerable
        make_question(" ".join(WORDS[:12]), " ".join(WORDS[:11]), context_language="de"),  # longer than a window
    ]
    counts = qa.count_spans(
        cut_into_windows(rows, TextTokenizer(TOKENIZER), Settings(max_length=14, doc_stride=4, max_query_length=1))
    )
    assert counts["en"] | {"windows": 3, "unanswerable": 0} == counts["en"]
    assert counts["de"]["rows"] == 4
    assert {name: counts["de"][name] for name in ("exact", "wide", "beyond", "lost", "unanswerable")} == {
        "exact": 1, "wide": 1, "beyond": 1, "lost": 0, "unanswerable": 1,
    }  # fmt: skip
    assert (counts["de"]["questions_cut"], counts["de"]["question_tokens_cut"]) == (4, 4)


def test_the_data_report_counts_unanswerable_questions_where_there_are_some():
    absent = [make_question("w1 w2", key=f"k{i}", id=f"l{i}", context_language="de") for i in range(2)]
    rows = [LONG, SHORT, *absent]
    report = build_task().report(build_task().features(rows), rows)
    assert report["shown"] == "answers kept by tokens and windows: en 100.0%; 2 of 4 questions are unanswerable"
    assert report["ceilings"]["de"] == {"em": 100.0, "f1": 100.0, "n": 2, "unreachable": 0}
    plain = build_task().report(build_task().features(rows[:2]), rows[:2])
    assert plain["shown"] == "answers kept by tokens and windows: en 100.0%"
    assert "unanswerable" not in plain["spans"]["en"]


@pytest.mark.parametrize(("words", "f1"), [(30, 100.0), (31, 98.3607), (40, 85.7143), (60, 66.6667)])
def test_ceiling_golden(words, f1):
    row = make_question(" ".join(["w98", *WORDS[:words], "w99"]), " ".join(WORDS[:words]))
    windows = cut_into_windows([row], TextTokenizer(TOKENIZER), Settings())
    ceiling = compute_ceilings(windows, [row], Settings())["en"]
    assert ceiling["f1"] == pytest.approx(f1, abs=5e-5)
    assert (ceiling["em"], ceiling["unreachable"]) == ((100.0, 0) if words <= 30 else (0.0, 1))


def test_ceiling_of_a_language_golden():
    rows = [make_question(" ".join(WORDS[:n]), " ".join(WORDS[:n]), key=str(n)) for n in (1, 2, 40, 3)]
    ceiling = compute_ceilings(cut_into_windows(rows, TextTokenizer(TOKENIZER), Settings()), rows, Settings())["en"]
    assert (ceiling["f1"], ceiling["em"], ceiling["n"]) == (pytest.approx(96.4286, abs=5e-5), 75.0, 4)


def test_a_later_gold_answer_can_be_the_reachable_one():
    row = make_question(" ".join(WORDS[:40]), " ".join(WORDS[:40]))
    with_two_answers = qa.dataclasses.replace(row, answers=(*row.answers, Answer("w3", row.context.index("w3"))))
    ceiling = compute_ceilings(
        cut_into_windows([with_two_answers], TextTokenizer(TOKENIZER), Settings()), [with_two_answers], Settings()
    )["en"]
    assert (ceiling["em"], ceiling["unreachable"]) == (100.0, 0)


def test_the_best_part_of_an_answer_longer_than_every_window_is_searched_for():
    row = make_question(" ".join(WORDS[:12]), " ".join(WORDS[:12]))
    settings = Settings(max_length=11, doc_stride=3)
    ceiling = compute_ceilings(cut_into_windows([row], TextTokenizer(TOKENIZER), settings), [row], settings)["en"]
    assert ceiling["f1"] == pytest.approx(100 * 2 * 0.5 / 1.5)  # six of twelve words fit a window
    assert ceiling["unreachable"] == 1


def test_an_answer_is_unreachable_if_its_start_lacks_maximum_context_in_its_window():
    row = make_question(
        " ".join(WORDS[:16]), " ".join(WORDS[5:13])
    )  # complete in the second window, cut off in the first
    windows = cut_into_windows([row], TextTokenizer(TOKENIZER), SETTINGS)
    for strict, unreachable in ((True, 1), (False, 0)):
        settings = qa.dataclasses.replace(SETTINGS, max_context=strict)
        assert compute_ceilings(windows, [row], settings)["en"]["unreachable"] == unreachable


def test_the_search_includes_spans_that_end_in_the_first_token_of_the_gold_answer():
    row = make_question("w1 . w2", "w1 .")
    settings = Settings(max_answer_tokens=1)
    ceiling = compute_ceilings(cut_into_windows([row], TextTokenizer(TOKENIZER), settings), [row], settings)["en"]
    assert (ceiling["f1"], ceiling["em"], ceiling["unreachable"]) == (100.0, 100.0, 1)
