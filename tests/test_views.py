# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The four views of a pair: texts and tokenizers, words that two tokenizers share, masking and scoring."""

import dataclasses
import hashlib

import numpy as np
import pytest
from stages import read_stage

from xlkd.data import sources
from xlkd.errors import UserError
from xlkd.models import hf, tokenizers
from xlkd.rows import Pair, make_key
from xlkd.spec.tasks import Views
from xlkd.tasks import Draw, views
from xlkd.tasks.tokenization import TextTokenizer

TEXTS = list(sources.read("atlas?split=train&size=30&languages=en,de,zh", "parallel"))


@pytest.fixture(scope="module")
def tokenizer_pair(tmp_path_factory):
    """Trains a student tokenizer with a metaspace and a teacher tokenizer with ## tokens."""
    folder, trained = tmp_path_factory.mktemp("tokenizers"), []
    for kind, texts in (("xlm-roberta", [t for r in TEXTS for t in (r.source, r.target)]), ("bert", [TEXTS[0].source])):
        tokenizers.train(folder / kind, texts, kind=kind, size=400 if kind == "xlm-roberta" else 120)
        trained.append(TextTokenizer(hf.load_tokenizer(folder / kind)))
    return trained


def build_task(tokenizer_pair, **options):
    return views.Views(*tokenizer_pair, **({"max_length": 96, "share": 0.15} | options))


def make_batch(task, index, step=0, seed=0, **lengths):
    features = task.features(TEXTS)
    longest = {view: int(-(-v.max() // 16) * 16) for view, v in task.lengths(features).items()}
    return task.arrays(features, np.asarray(index), longest | lengths, Draw(seed, step))


def encode_with_transformers(tokenizer, texts):
    return tokenizer.fast(*texts)["input_ids"]


def test_each_view_is_encoded_with_its_own_tokenizer(tokenizer_pair):
    student, teacher = tokenizer_pair
    batch = make_batch(build_task(tokenizer_pair, share=0.0, max_length=200), [1, -1])
    row = TEXTS[1]
    for view, tokenizer, texts in (
        ("token", student, (row.source, row.target)),
        ("sentence", student, (row.target,)),
        ("teacher", teacher, (row.source,)),
    ):
        size = int(batch[view]["mask"][0].sum())
        assert batch[view]["ids"][0, :size].tolist() == encode_with_transformers(tokenizer, texts), view
        assert (batch[view]["ids"][0, size:] == tokenizer.pad_id).all()
    assert batch["mask"].tolist() == [1, 0]
    assert not batch["exists"][1].any()
    assert not batch["counted"][1].any()


def test_english_is_the_first_side_wherever_it_is_in_the_pair(tokenizer_pair):
    row = TEXTS[0]
    swapped = dataclasses.replace(
        row, source=row.target, target=row.source, source_language=row.target_language, target_language="en"
    )
    a, b = (build_task(tokenizer_pair).features([pair]) for pair in (row, swapped))
    assert all((a[name] == b[name]).all() for name in a)
    with pytest.raises(UserError, match="no English side"):
        build_task(tokenizer_pair).features([dataclasses.replace(row, source_language="fr")])


def test_words_of_both_tokenizers_are_matched_by_characters(tokenizer_pair):
    """Every shared word starts, in both tokenizers, at a token that begins with its first character."""
    task = build_task(tokenizer_pair, max_length=200)
    batch = make_batch(task, np.arange(8))
    for i in range(8):
        text = TEXTS[i].source
        cut = views._cut_words(text)
        starts = {begin for begin, _ in cut}
        count = int(batch["exists"][i].sum())
        assert count == len(cut) + 2, "nothing is lost in these"
        for tokenizer, view, rank in ((task.student, "word", 0), (task.teacher, "teacher", 1)):
            encoded = tokenizer._backend.encode(text, add_special_tokens=False)
            first = batch[view]["first"][i, 1 : count - 1] - 1  # one special token comes before them
            begins = [encoded.offsets[p] for p in first]
            begins = [b + (e - b - len(text[b:e].lstrip())) for b, e in begins]
            assert begins == sorted(starts), (view, rank)
        last = batch["teacher"]["first"][i, count - 1]
        assert batch["teacher"]["ids"][i, last] == task.teacher.fast.sep_token_id


def test_a_word_that_one_side_truncates_is_dropped_on_both(tokenizer_pair):
    short = build_task(tokenizer_pair, max_length=24)
    features, untruncated = (task.features(TEXTS) for task in (short, build_task(tokenizer_pair, max_length=400)))
    lost = features["lost"]
    assert lost.sum() > 0
    assert untruncated["lost"].sum() == 0
    words = np.diff(features["first_at"])
    assert (words + lost == np.diff(untruncated["first_at"])).all()
    assert (np.diff(features["teacher_first_at"]) == words).all()


def test_words_are_split_at_blanks_and_punctuation():
    text = "Zürich's lake_side: 3.5 km, don't"
    expected = ["Zürich", "'", "s", "lake", "_", "side", ":", "3", ".", "5", "km", ",", "don", "'", "t"]
    assert [text[a:b] for a, b in views._cut_words(text)] == expected


def test_golden_number_of_drawn_words():
    golden = [0, 0, 0, 0] + [1] * 6 + [2] * 7 + [3] * 7 + [4] * 7 + [5] * 6 + [6] * 7 + [7] * 6 + [8] * 7 + [9] * 4
    assert views.count_drawn_words(np.arange(61), 0.15).tolist() == golden


def test_only_whole_english_words_are_masked(tokenizer_pair):
    task = build_task(tokenizer_pair)
    features = task.features(TEXTS)
    batch = make_batch(task, np.arange(len(TEXTS)), step=3)
    plain = make_batch(build_task(tokenizer_pair, share=0.0), np.arange(len(TEXTS)))["token"]["ids"]
    drawn_count = masked = 0
    for i in range(len(TEXTS)):
        at = slice(features["words_at"][i], features["words_at"][i + 1])
        numbers = features["words"][at]
        drawn = batch["word"]["drawn"][i, : len(numbers)]
        words = {int(n) for n in numbers[drawn]}
        assert drawn.tolist() == [int(n) in words for n in numbers], "all tokens of a word or none"
        assert 0 not in words
        assert -1 not in words
        assert len(words) == views.count_drawn_words(np.array(len(set(numbers[numbers > 0].tolist()))), 0.15)
        ids = batch["word"]["ids"][i, : len(numbers)]
        assert (ids[~drawn] == plain[i, : len(numbers)][~drawn]).all()
        masked += int((ids[drawn] == task.student.mask_id).sum())
        drawn_count += int(drawn.sum())
    assert 0.65 < masked / drawn_count < 0.92


def test_tokens_are_drawn_on_both_sides_and_labelled_with_the_originals(tokenizer_pair):
    task = build_task(tokenizer_pair, share=0.3)
    batch = make_batch(task, np.arange(len(TEXTS)), step=1)
    plain = make_batch(build_task(tokenizer_pair, share=0.0), np.arange(len(TEXTS)))["token"]
    positions, counted = batch["positions"], batch["counted"]
    assert (np.take_along_axis(plain["ids"], positions, 1) == batch["labels"]).all()
    special = np.isin(batch["labels"], task.student.fast.all_special_ids)
    assert not (counted & special).any()
    real = plain["mask"].sum()
    assert 0.25 < counted.sum() / real < 0.32
    changed = batch["token"]["ids"] != plain["ids"]
    masked = np.zeros_like(changed)
    np.put_along_axis(masked, positions, counted, 1)
    assert not (changed & ~masked).any()


def test_an_example_is_masked_the_same_in_any_batch(tokenizer_pair):
    task = build_task(tokenizer_pair)
    alone = make_batch(task, [4], step=2)
    among_others = make_batch(task, [0, 4, 2], step=2, token=256, words=64, teacher=128)
    size = int(alone["token"]["mask"].sum())
    for view in ("token", "word"):
        assert (alone[view]["ids"][0, :size] == among_others[view]["ids"][1, :size]).all()
    assert (alone["token"]["ids"] != make_batch(task, [4], step=3)["token"]["ids"]).any()
    assert (alone["token"]["ids"] != make_batch(task, [4], step=2, seed=1)["token"]["ids"]).any()


@pytest.mark.parametrize("labels", ["attended", "all"])
def test_labels_can_be_counted_at_attended_or_all_positions(tokenizer_pair, labels):
    batch = make_batch(build_task(tokenizer_pair, tlm_labels=labels), [0, -1], token=128)
    plain = make_batch(build_task(tokenizer_pair, share=0.0), [0], token=128)["token"]
    assert batch["counted"][0].sum() == (128 if labels == "all" else plain["mask"].sum())
    assert not batch["counted"][1].any(), "a padding row has no labels"
    assert (batch["labels"][0] == plain["ids"][0]).all()


def test_the_word_view_is_truncated_unless_disabled(tokenizer_pair):
    cut = build_task(tokenizer_pair, max_length=40)
    untruncated = build_task(tokenizer_pair, max_length=40, word_truncate=False)
    assert cut.lengths(cut.features(TEXTS)).keys() == {"token", "sentence", "teacher", "words"}
    lengths = untruncated.lengths(untruncated.features(TEXTS))
    assert lengths["word"].max() > 40 >= lengths["token"].max()
    batch = make_batch(untruncated, [0])
    assert batch["word"]["ids"].shape[1] > batch["token"]["ids"].shape[1]
    assert cut.identity() != untruncated.identity()


def test_predictions_are_scored_by_language(tokenizer_pair):
    task = build_task(tokenizer_pair)
    features = task.features(TEXTS[:4])
    scores = task.score({"right": np.array([1, 2, 3, 4.0]), "count": np.array([2, 4, 3, 8.0])}, features, TEXTS[:4])
    assert {str(name): cell["accuracy"] for name, cell in scores.cells.items()} == {"de": 80.0, "zh": 50.0}


def test_without_a_teacher_encoder_the_english_texts_are_hashed(tokenizer_pair):
    task = views.build(Views(max_length=8), tokenizer_pair[0].fast)
    assert task.features(TEXTS[:2])["english"].tolist() == [
        hashlib.sha256(views.put_english_first(row)[0].encode()).digest() for row in TEXTS[:2]
    ]
    with_teacher = views.build(Views(max_length=8), tokenizer_pair[0].fast, tokenizer_pair[0].fast)
    assert "english" not in with_teacher.features(TEXTS[:2])
    assert with_teacher.identity() != task.identity()


def test_a_build_with_an_unknown_label_is_refused():
    with pytest.raises(UserError, match="choose one of masked, attended, all"):
        read_stage("configs/mmkd.py", "full", "task.tlm_labels=some")


def test_an_unknown_token_is_in_no_drawn_word(tokenizer_pair):
    row = Pair("1", make_key("u"), "1", "toy", "one two \U0001f980 three four five six seven eight", "eins", "en", "de")
    features = build_task(tokenizer_pair).features([row])
    unknown = features["token_ids"] == tokenizer_pair[0].fast.unk_token_id
    assert unknown.any()
    assert not (features["words"][unknown] > 0).any()
