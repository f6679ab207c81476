# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Masking: whole words, a share of them, 80/10/10, and the same draw in every batch that contains an example."""

import numpy as np
import pytest

from xlkd.data.batches import LanguagePlan
from xlkd.inputs.data import plan_batches
from xlkd.models import hf, tokenizers
from xlkd.models.family import Architecture
from xlkd.rows import Pair, Text, make_key
from xlkd.spec.stage import Data
from xlkd.tasks import Draw
from xlkd.tasks.masked import Masked, advise, build
from xlkd.tasks.tokenization import TextTokenizer

TEXTS = {
    "en": ["the capital of the country", "a currency, in which people pay every day", "northern languages there"],
    "de": ["die Hauptstadt des Landes", "eine Währung, in der die Leute jeden Tag bezahlen", "nördliche Sprachen dort"],
    "zh": ["这个国家的首都是", "人们每天用这种货币付款", "北方语言在那里"],
}


def make_pair(a: str, b: str, i: int, j: int) -> Pair:
    texts = TEXTS[a][i % 3] + (f" {i}" if a != "zh" else str(i)), TEXTS[b][j % 3]
    return Pair(f"{i}", make_key(a, b, i, j), f"{i}", "toy", *texts, a, b)


ROWS = [make_pair(a, b, i, i + 1) for i in range(40) for a, b in (("en", "en"), ("de", "en"), ("de", "zh"))]


@pytest.fixture(scope="module", params=["bert", "xlm-roberta"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizers.train(folder, [t for texts in TEXTS.values() for t in texts], kind=request.param, size=140)
    return TextTokenizer(hf.load_tokenizer(folder))


def make_task(tokenizer, share=0.3, max_length=64):
    task = Masked(tokenizer, max_length=max_length, share=share)
    return task, task.features(ROWS)


def make_arrays(task, features, index, length=64, step=0):
    return task.arrays(features, np.asarray(index), {"text": length}, Draw(1, step))


def read_masked_tokens(task, features, index, length=64, step=0):
    """Returns {position: (token that the model sees, label)} for each row."""
    batch = make_arrays(task, features, index, length, step)
    masked_tokens = []
    for ids, positions, labels, weights in zip(
        batch["text"]["ids"], batch["positions"], batch["labels"], batch["weights"], strict=True
    ):
        scored = weights > 0
        masked_tokens.append(
            {int(p): (int(ids[p]), int(v)) for p, v in zip(positions[scored], labels[scored], strict=True)}
        )
    return masked_tokens


def test_a_row_joins_both_texts_in_the_tokenizers_template(tokenizer):
    task, features = make_task(tokenizer)
    a, b = (tokenizer.encode([side])[0].ids for side in (ROWS[1].source, ROWS[1].target))
    expected = tokenizer.join_pair(a, b, 64).ids
    offsets = features["ids_at"]
    np.testing.assert_array_equal(features["ids"][offsets[1] : offsets[2]], expected)
    assert task.lengths(features)["text"][1] == len(expected)
    assert sorted(set(features["cells"])) == ["en", "→en", "→zh"]


def test_labels_are_the_original_tokens_and_other_tokens_are_unchanged(tokenizer):
    task, features = make_task(tokenizer)
    index = np.arange(len(ROWS))
    batch = make_arrays(task, features, index)
    for r, chosen in enumerate(read_masked_tokens(task, features, index)):
        offsets = features["ids_at"]
        own = features["ids"][offsets[r] : offsets[r + 1]]
        seen = batch["text"]["ids"][r]
        assert all(own[p] == label for p, (_, label) in chosen.items())
        untouched = [p for p in range(len(own)) if p not in chosen]
        np.testing.assert_array_equal(seen[untouched], own[untouched])
        assert (seen[len(own) :] == tokenizer.pad_id).all()
        assert batch["text"]["mask"][r].tolist() == [1] * len(own) + [0] * (64 - len(own))


def test_special_tokens_are_never_masked_and_words_only_as_a_whole(tokenizer):
    task, features = make_task(tokenizer)
    offsets, several = features["ids_at"], 0
    for step in range(4):
        for r, chosen in enumerate(read_masked_tokens(task, features, np.arange(len(ROWS)), step=step)):
            words = features["words"][offsets[r] : offsets[r + 1]]
            assert all(words[p] > 0 for p in chosen)
            for word in {words[p] for p in chosen}:
                whole = np.flatnonzero(words == word)
                several += len(whole) > 1
                assert set(whole.tolist()) <= chosen.keys()
    assert several > 50, "the test must have met words of several tokens"


def test_words_come_from_the_tokenizer_and_in_chinese_each_token_is_one(tokenizer):
    _, features = make_task(tokenizer)
    row = next(i for i, row in enumerate(ROWS) if row.target_language == "zh")
    a, b = (tokenizer.encode([side])[0] for side in (ROWS[row].source, ROWS[row].target))
    offsets = features["ids_at"]
    sequenced = tokenizer.join_pair(a.ids, b.ids, 64)
    words = features["words"][offsets[row] : offsets[row + 1]]
    first, second = (words[slice(*span)] for span in sequenced.spans)
    assert (first - 1).tolist() == a.words.tolist()
    assert len(set(first.tolist())) < len(a.ids), "German words have several tokens"
    assert (second - first.max() - 1).tolist() == list(range(len(b.ids)))


def test_masked_words_and_their_replacements_have_the_expected_shares(tokenizer):
    """Masks `share` of the words; 80% of their tokens become the mask, 10% another token, 10% stay."""
    task, features = make_task(tokenizer, share=0.2)
    words = hits = 0
    fates = {"mask": 0, "same": 0, "other": 0}
    offsets = features["ids_at"]
    for step in range(60):
        for r, chosen in enumerate(read_masked_tokens(task, features, np.arange(len(ROWS)), step=step)):
            own = features["words"][offsets[r] : offsets[r + 1]]
            words += len(set(own[own > 0].tolist()))
            hits += len({own[p] for p in chosen})
            for seen, label in chosen.values():
                fates["mask" if seen == tokenizer.mask_id else "same" if seen == label else "other"] += 1
    total = sum(fates.values())
    assert hits / words == pytest.approx(0.2, abs=0.015), "the limit takes a few from full rows"
    assert fates["mask"] / total == pytest.approx(0.8, abs=0.015)
    assert fates["other"] / total == pytest.approx(0.1, abs=0.015)
    assert fates["same"] / total == pytest.approx(0.1, abs=0.015)


def test_an_example_is_masked_the_same_in_every_batch(tokenizer):
    """The draw depends on seed, purpose, step and the example's key, not on other examples or the bucket."""
    task, features = make_task(tokenizer, share=0.5)
    longest = int(task.lengths(features)["text"].max())
    together = read_masked_tokens(task, features, np.arange(len(ROWS)), length=longest)
    for index, length in (([7], longest), ([7, -1], 64), ([60, 7, 3], 128), ([3, 60, 7, 11], longest + 1)):
        masked_tokens = read_masked_tokens(task, features, index, length)
        assert [masked_tokens[i] for i, r in enumerate(index) if r >= 0] == [together[r] for r in index if r >= 0]


def test_another_step_or_purpose_gives_another_draw(tokenizer):
    task, features = make_task(tokenizer)
    index = np.arange(8)
    first = make_arrays(task, features, index)["text"]["ids"]
    np.testing.assert_array_equal(first, make_arrays(task, features, index)["text"]["ids"])
    assert (first != make_arrays(task, features, index, step=1)["text"]["ids"]).any()
    other = task.arrays(features, index, {"text": 64}, Draw(1, 0, "evaluation"))
    assert (first != other["text"]["ids"]).any()


@pytest.mark.parametrize("length", [16, 32, 64, 100])
def test_a_limit_bounds_the_scored_tokens_and_fixes_the_shape(tokenizer, length):
    task, features = make_task(tokenizer, share=0.6, max_length=length)
    lengths = task.lengths(features)["text"]
    full = 0
    for step in range(8):
        batch = make_arrays(task, features, np.arange(len(ROWS)), length, step)
        assert (
            batch["positions"].shape == batch["weights"].shape == (len(ROWS), min(int(task.max_masked(length)), length))
        )
        scored = batch["weights"].sum(1)
        assert (scored <= task.max_masked(lengths)).all()
        full += int((scored == task.max_masked(lengths)).sum())
    assert task.max_masked(16) == 16
    assert Masked(tokenizer, 64, 0.15).max_masked(100) == 24


def test_the_last_words_that_exceed_the_limit_are_not_masked(tokenizer):
    task, features = make_task(tokenizer, share=0.95)
    small = type("Small", (Masked,), {"max_masked": lambda self, length: np.asarray(length) // 2})(tokenizer, 64, 0.95)
    offsets, cut = features["ids_at"], 0
    for r, chosen in enumerate(read_masked_tokens(small, features, np.arange(len(ROWS)))):
        words = features["words"][offsets[r] : offsets[r + 1]]
        assert len(chosen) <= (offsets[r + 1] - offsets[r]) // 2
        for word in {words[p] for p in chosen}:
            assert set(np.flatnonzero(words == word).tolist()) <= chosen.keys()
        cut += len(chosen) < len(read_masked_tokens(task, features, [r])[0])
    assert cut > len(ROWS) / 2, "the test must have met the limit"


def test_padding_rows_weigh_nothing(tokenizer):
    task, features = make_task(tokenizer)
    batch = make_arrays(task, features, [-1, 5, -1])
    assert batch["mask"].tolist() == [0, 1, 0]
    assert batch["weights"][[0, 2]].sum() == 0
    assert batch["weights"][1].sum() > 0
    assert (batch["text"]["ids"][[0, 2]] == tokenizer.pad_id).all()
    assert batch["text"]["mask"].sum(1).min() >= 1, "attention has a key"
    empty = make_arrays(task, features, [-1, -1])
    assert empty["weights"].sum() == 0
    assert empty["text"]["ids"].shape == (2, 64)


def test_dtypes_and_shapes_depend_on_the_bucket_alone(tokenizer):
    task, features = make_task(tokenizer)
    full, part, none = (make_arrays(task, features, index) for index in ([0, 1], [5, -1], [-1, -1]))
    for view in ((lambda batch: batch["text"]), (lambda batch: {k: v for k, v in batch.items() if k != "text"})):
        shapes = [{name: (a.dtype, a.shape) for name, a in view(batch).items()} for batch in (full, part, none)]
        assert shapes[0] == shapes[1] == shapes[2]


def test_scores_are_grouped_by_cell(tokenizer):
    task, features = make_task(tokenizer)
    right, count = np.zeros(len(ROWS)), np.full(len(ROWS), 4.0)
    right[features["cell"] == list(features["cells"]).index("→zh")] = 1.0
    scores = task.score({"right": right, "count": count}, features, ROWS)
    assert {str(name): cell["accuracy"] for name, cell in scores.cells.items()} == {"en": 0, "→en": 0, "→zh": 25}
    assert scores.mean() == pytest.approx(25 / 3)


def test_the_identity_contains_what_features_depend_on(tokenizer):
    identities = {Masked(tokenizer, 64, 0.3).identity(), Masked(tokenizer, 32, 0.3).identity()}
    assert len(identities) == 2
    assert build(type("C", (), {"max_length": 64, "share": 0.1}), tokenizer.fast).identity() in identities


def make_text(text: str, language: str, number: int = 0) -> Text:
    return Text(str(number), make_key(number, text), f"{number}", "toy", text, language)


def test_a_text_alone_is_joined_as_one_text_and_masked_by_its_words(tokenizer):
    row = make_text(TEXTS["de"][1], "de")
    task = Masked(tokenizer, 64, 0.5)
    features = task.features([row, ROWS[1]])
    tokens = tokenizer.encode([row.text])[0]
    joined = tokenizer.join(tokens.ids, 64)
    np.testing.assert_array_equal(features["ids"][: len(joined.ids)], joined.ids)
    (start, stop), words = joined.spans[0], features["words"][: len(joined.ids)]
    assert (words[start:stop] - 1).tolist() == tokens.words.tolist()
    assert not words[:start].any()
    assert not words[stop:].any()
    assert features["cells"][features["cell"]].tolist() == ["de", "→en"]
    assert read_masked_tokens(task, features, [0])[0]
    assert task.lengths(Masked(tokenizer, 8, 0.5).features([row]))["text"].tolist() == [8]


def test_languages_are_sampled_by_exponent_and_translations_count_for_their_second_language(tokenizer):
    rows = [make_text(f"the country {i}", "en", i) for i in range(90)]
    rows += [make_text(f"dieses Land {i}", "de", i) for i in range(6)] + [make_pair("en", "de", i, i) for i in range(4)]
    task = Masked(tokenizer, 64, 0.3)
    features = task.features(rows)
    architecture = Architecture("bert", 140, 8, 1, 1, 16, 64, 2, 0, 0)
    plan = plan_batches(Data(batch=10, exponent=0.0), 0, task, features, architecture)
    assert isinstance(plan, LanguagePlan)
    index = np.concatenate([plan.at(step).index for step in range(plan.steps_per_epoch)])
    assert sum(i < 90 for i in index) == sum(i >= 90 for i in index) == 50
    assert set(range(90, 100)) <= set(index.tolist())


def test_the_report_says_how_the_tokenizer_writes_each_language(tokenizer):
    rows = [make_text("the capital of the country", "en"), make_text("☃☃☃ ☂☂", "ru"), ROWS[2]]
    task = Masked(tokenizer, 64, 0.3)
    coverage = task.report(task.features(rows), rows)["coverage"]
    assert list(coverage) == ["de", "en", "ru", "zh"]
    tokens = [token for text in tokenizer.encode([rows[0].text]) for token in text.ids.tolist()]
    expected = {"tokens": len(tokens), "unknown_percent": 0.0, "tokens_per_word": round(len(tokens) / 5, 2)}
    assert coverage["en"] == expected
    assert coverage["ru"]["unknown_percent"] >= 50
    chinese = tokenizer.encode([ROWS[2].target])[0].ids
    assert coverage["zh"]["tokens_per_word"] == round(len(chinese) / len(ROWS[2].target), 2), "of a character"
    shown = task.report(task.features(rows), rows)["shown"]
    assert "the encoder's tokenizer does not write this language" in shown
    assert "en: " not in shown


@pytest.mark.parametrize(
    ("language", "unknown", "per_word", "advice"),
    [
        ("am", 6.0, 1.2, "am: 1.2 tokens a word, 6.0% of them unknown: the encoder's tokenizer does not write"),
        ("yo", 0.1, 4.5, "yo: 4.5 tokens a word, 0.1% of them unknown: the tokenizer cuts the words into small parts"),
        ("th", 0.0, 2.5, "th: 2.5 tokens a character, 0.0% of them unknown: the tokenizer cuts"),
        ("yo", 0.1, 3.5, ""),
        ("zh", 0.0, 1.0, ""),
    ],
)
def test_advice_depends_on_unknown_tokens_and_on_tokens_per_word(language, unknown, per_word, advice):
    good = {"tokens": 100, "unknown_percent": 0.0, "tokens_per_word": 1.1}
    coverage = {"en": good, language: good | {"unknown_percent": unknown, "tokens_per_word": per_word}}
    (line,) = advise(coverage)
    assert advice in line
    assert line.startswith(f"{language}: ") or not advice
    assert bool(advice) == (line.count(":") == 2)
