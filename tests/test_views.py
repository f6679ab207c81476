# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The four views of a pair: who reads what, which words two tokenizers share, what is masked and what is scored."""

import dataclasses

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
    """A student whose tokens have a metaspace, a teacher whose tokens begin with ##."""
    folder, found = tmp_path_factory.mktemp("tokenizers"), []
    for kind, texts in (("xlm-roberta", [t for r in TEXTS for t in (r.source, r.target)]), ("bert", [TEXTS[0].source])):
        tokenizers.train(folder / kind, texts, kind=kind, size=400 if kind == "xlm-roberta" else 120)
        found.append(TextTokenizer(hf.load_tokenizer(folder / kind)))
    return found


def task(tokenizer_pair, **options):
    return views.Views(*tokenizer_pair, **({"max_length": 96, "share": 0.15} | options))


def batch(of, index, step=0, seed=0, **lengths):
    features = of.features(TEXTS)
    longest = {view: int(-(-v.max() // 16) * 16) for view, v in of.lengths(features).items()}
    return of.arrays(features, np.asarray(index), longest | lengths, Draw(seed, step))


def original(tokenizer, texts):
    return tokenizer.fast(*texts)["input_ids"]


def test_each_side_reads_with_its_own_tokenizer(tokenizer_pair):
    student, teacher = tokenizer_pair
    found = batch(task(tokenizer_pair, share=0.0, max_length=200), [1, -1])
    row = TEXTS[1]
    for view, of, texts in (
        ("token", student, (row.source, row.target)),
        ("sentence", student, (row.target,)),
        ("teacher", teacher, (row.source,)),
    ):
        size = int(found[view]["mask"][0].sum())
        assert found[view]["ids"][0, :size].tolist() == original(of, texts), view
        assert (found[view]["ids"][0, size:] == of.pad_id).all()
    assert found["mask"].tolist() == [1, 0]
    assert not found["exists"][1].any()
    assert not found["counted"][1].any()


def test_english_goes_first_whichever_side_it_stands_on(tokenizer_pair):
    row = TEXTS[0]
    turned = dataclasses.replace(
        row, source=row.target, target=row.source, source_language=row.target_language, target_language="en"
    )
    a, b = (task(tokenizer_pair).features([one]) for one in (row, turned))
    assert all((a[name] == b[name]).all() for name in a)
    with pytest.raises(UserError, match="no English side"):
        task(tokenizer_pair).features([dataclasses.replace(row, source_language="fr")])


def test_words_are_shared_by_characters(tokenizer_pair):
    """Each kept word begins, for both, at a token that begins at its first character."""
    of = task(tokenizer_pair, max_length=200)
    found = batch(of, np.arange(8))
    for i in range(8):
        text = TEXTS[i].source
        cut = views._cut_words(text)
        starts = {begin for begin, _ in cut}
        count = int(found["exists"][i].sum())
        assert count == len(cut) + 2, "nothing is lost in these"
        for tokenizer, view, rank in ((of.student, "word", 0), (of.teacher, "teacher", 1)):
            encoded = tokenizer._backend.encode(text, add_special_tokens=False)
            first = found[view]["first"][i, 1 : count - 1] - 1  # one special before them
            begins = [encoded.offsets[p] for p in first]
            begins = [b + (e - b - len(text[b:e].lstrip())) for b, e in begins]
            assert begins == sorted(starts), (view, rank)
        last = found["teacher"]["first"][i, count - 1]
        assert found["teacher"]["ids"][i, last] == of.teacher.fast.sep_token_id


def test_a_word_that_one_side_cuts_off_is_dropped_on_both(tokenizer_pair):
    short = task(tokenizer_pair, max_length=24)
    found, whole = (one.features(TEXTS) for one in (short, task(tokenizer_pair, max_length=400)))
    lost = found["lost"]
    assert lost.sum() > 0
    assert whole["lost"].sum() == 0
    words = np.diff(found["first_at"])
    assert (words + lost == np.diff(whole["first_at"])).all()
    assert (np.diff(found["teacher_first_at"]) == words).all()


def test_words_are_cut_at_blanks_and_punctuation():
    text = "Zürich's lake_side: 3.5 km, don't"
    expected = ["Zürich", "'", "s", "lake", "_", "side", ":", "3", ".", "5", "km", ",", "don", "'", "t"]
    assert [text[a:b] for a, b in views._cut_words(text)] == expected


def test_golden_number_of_drawn_words():
    golden = [0, 0, 0, 0] + [1] * 6 + [2] * 7 + [3] * 7 + [4] * 7 + [5] * 6 + [6] * 7 + [7] * 6 + [8] * 7 + [9] * 4
    assert views.count_drawn_words(np.arange(61), 0.15).tolist() == golden


def test_words_are_masked_whole_and_only_in_english(tokenizer_pair):
    of = task(tokenizer_pair)
    features = of.features(TEXTS)
    found = batch(of, np.arange(len(TEXTS)), step=3)
    plain = batch(task(tokenizer_pair, share=0.0), np.arange(len(TEXTS)))["token"]["ids"]
    kept = masked = 0
    for i in range(len(TEXTS)):
        at = slice(features["words_at"][i], features["words_at"][i + 1])
        numbers = features["words"][at]
        drawn = found["word"]["drawn"][i, : len(numbers)]
        words = {int(n) for n in numbers[drawn]}
        assert drawn.tolist() == [int(n) in words for n in numbers], "all tokens of a word or none"
        assert 0 not in words
        assert -1 not in words
        assert len(words) == views.count_drawn_words(np.array(len(set(numbers[numbers > 0].tolist()))), 0.15)
        ids = found["word"]["ids"][i, : len(numbers)]
        assert (ids[~drawn] == plain[i, : len(numbers)][~drawn]).all()
        masked += int((ids[drawn] == of.student.mask_id).sum())
        kept += int(drawn.sum())
    assert 0.65 < masked / kept < 0.92


def test_tokens_are_drawn_on_both_sides_and_labelled_with_what_stood_there(tokenizer_pair):
    of = task(tokenizer_pair, share=0.3)
    found = batch(of, np.arange(len(TEXTS)), step=1)
    plain = batch(task(tokenizer_pair, share=0.0), np.arange(len(TEXTS)))["token"]
    at, counted = found["positions"], found["counted"]
    assert (np.take_along_axis(plain["ids"], at, 1) == found["labels"]).all()
    special = np.isin(found["labels"], of.student.fast.all_special_ids)
    assert not (counted & special).any()
    real = plain["mask"].sum()
    assert 0.25 < counted.sum() / real < 0.32
    changed = found["token"]["ids"] != plain["ids"]
    masked = np.zeros_like(changed)
    np.put_along_axis(masked, at, counted, 1)
    assert not (changed & ~masked).any()


def test_a_row_is_masked_alike_in_any_batch(tokenizer_pair):
    of = task(tokenizer_pair)
    one, many = batch(of, [4], step=2), batch(of, [0, 4, 2], step=2, token=256, words=64, teacher=128)
    size = int(one["token"]["mask"].sum())
    for view in ("token", "word"):
        assert (one[view]["ids"][0, :size] == many[view]["ids"][1, :size]).all()
    assert (one["token"]["ids"] != batch(of, [4], step=3)["token"]["ids"]).any()
    assert (one["token"]["ids"] != batch(of, [4], step=2, seed=1)["token"]["ids"]).any()


@pytest.mark.parametrize("labels", ["attended", "all"])
def test_published_labels_are_at_every_position(tokenizer_pair, labels):
    found = batch(task(tokenizer_pair, tlm_labels=labels), [0, -1], token=128)
    plain = batch(task(tokenizer_pair, share=0.0), [0], token=128)["token"]
    assert found["counted"][0].sum() == (128 if labels == "all" else plain["mask"].sum())
    assert not found["counted"][1].any(), "a row that is not there has no labels"
    assert (found["labels"][0] == plain["ids"][0]).all()


def test_the_word_view_is_cut_unless_told_not_to(tokenizer_pair):
    cut, whole = task(tokenizer_pair, max_length=40), task(tokenizer_pair, max_length=40, word_truncate=False)
    assert cut.lengths(cut.features(TEXTS)).keys() == {"token", "sentence", "teacher", "words"}
    lengths = whole.lengths(whole.features(TEXTS))
    assert lengths["word"].max() > 40 >= lengths["token"].max()
    found = batch(whole, [0])
    assert found["word"]["ids"].shape[1] > found["token"]["ids"].shape[1]
    assert cut.identity() != whole.identity()


def test_what_is_predicted_is_scored_by_language(tokenizer_pair):
    of = task(tokenizer_pair)
    features = of.features(TEXTS[:4])
    scores = of.score({"right": np.array([1, 2, 3, 4.0]), "count": np.array([2, 4, 3, 8.0])}, features, TEXTS[:4])
    assert {str(name): cell["accuracy"] for name, cell in scores.cells.items()} == {"de": 80.0, "zh": 50.0}


def test_a_build_without_a_teacher_or_with_an_unknown_label_is_refused(tokenizer_pair):
    with pytest.raises(UserError, match="no teacher"):
        views.build(Views(max_length=8), tokenizer_pair[0].fast)
    with pytest.raises(UserError, match="choose one of masked, attended, all"):
        read_stage("configs/mmkd.py", "full", "task.tlm_labels=some")


def test_an_unknown_token_is_in_no_drawn_word(tokenizer_pair):
    row = Pair("1", make_key("u"), "1", "toy", "one two \U0001f980 three four five six seven eight", "eins", "en", "de")
    features = task(tokenizer_pair).features([row])
    unknown = features["token_ids"] == tokenizer_pair[0].fast.unk_token_id
    assert unknown.any()
    assert not (features["words"][unknown] > 0).any()
