# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Word links from tokens: how words are counted, what a batch contains, what is scored; and pictures of vectors."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from qa_toys import make_unigram_tokenizer

from xlkd.data import sources
from xlkd.data.sources.align import AlignedPair
from xlkd.errors import UserError
from xlkd.metrics import picture
from xlkd.models.pooling import find_nearest, pool
from xlkd.rows import Cell, Pair
from xlkd.tasks import Draw
from xlkd.tasks.alignment import SIDES, WordAlignment, build
from xlkd.tasks.parallel import Parallel
from xlkd.tasks.tokenization import TextTokenizer

TOKENIZER = TextTokenizer(make_unigram_tokenizer(["▁", "▁a", "b", "▁c", "▁d", "e", "▁f"]))
ROW = AlignedPair(
    "1", "1" * 32, "g", "toy", "ab c", "f de", "en", "fr", links=((0, 1), (1, 0)), possible=((1, 1),)
)  # source tokens a b | c, target tokens f | d e
TASK = WordAlignment(TOKENIZER, 8)


def test_each_token_is_assigned_to_its_word():
    features = TASK.features([ROW])
    assert features["source_words"].tolist() == [-1, 0, 0, 1, -1]
    assert features["target_words"].tolist() == [-1, 0, 1, 1, -1]
    batch = TASK.arrays(features, np.array([0, -1]), {"source": 6, "target": 8}, Draw(0, 0))
    assert batch["source"]["inside"].tolist() == [[False, True, True, True, False, False], [False] * 6]
    assert batch["target"]["ids"].shape == (2, 8)
    assert batch["mask"].tolist() == [1, 0]


def test_links_are_scored_by_pair_of_languages():
    """Tokens a and e are each other's nearest, as are c and f; b's nearest is e, whose nearest is not b."""
    forth, back = np.zeros((1, 8), int), np.zeros((1, 8), int)
    forth[0, 1:4], back[0, 1:4] = [3, 3, 1], [3, 1, 1]
    scores = TASK.score({"forth": forth, "back": back}, TASK.features([ROW]), [ROW])
    assert scores.cells == {Cell.parse("en-fr"): {"aer": 0.0, "precision": 100.0, "recall": 100.0, "n": 1}}
    forth[0, 3], back[0, 2] = 2, 3  # c with d: possible, not sure
    cell = TASK.score({"forth": forth, "back": back}, TASK.features([ROW]), [ROW]).cells[Cell.parse("en-fr")]
    assert cell["aer"] == pytest.approx(100 * (1 - 3 / 4))
    assert (cell["precision"], cell["recall"]) == (100.0, 50.0)


def test_words_of_the_atlas_are_characters_in_languages_without_spaces():
    rows = list(sources.read("atlas?split=train&size=6&languages=en,zh", "parallel"))
    features = TASK.features(rows)
    for i, row in enumerate(rows):
        for side, at in zip(SIDES, (0, 1), strict=True):
            words = features[f"{side}_words"][features[f"{side}_words_at"][i] : features[f"{side}_words_at"][i + 1]]
            assert words.max() <= max(link[at] for link in row.links) + len(getattr(row, side))
    assert max(j for row in rows for _, j in row.links) > 5


def test_rows_without_links_are_refused():
    with pytest.raises(UserError, match="without word links"):
        TASK.features([dataclasses.replace(ROW, links=None)])
    config = dataclasses.make_dataclass("C", ["max_length"])
    assert build(config(8), TOKENIZER.fast).identity() == TASK.identity()


def test_masked_tokens_are_never_the_nearest():
    x = jnp.array([[[1.0, 0], [0, 2], [3, 3]]])
    y = jnp.array([[[0.0, 1], [5, 0.1], [1, 1.1]]])
    every, some = jnp.ones((1, 3), bool), jnp.array([[True, True, False]])
    forth, back = find_nearest(x, y, every, every)
    assert (forth.tolist(), back.tolist()) == ([[1, 0, 2]], [[1, 0, 2]])
    forth, _ = find_nearest(x, y, every, some)
    assert forth[0, 2] in (0, 1)


def test_pooling_takes_the_first_token_or_the_mean_of_unmasked_tokens():
    hidden, mask = jnp.arange(12.0).reshape(1, 3, 4), jnp.array([[1, 1, 0]])
    assert pool(hidden, mask, "cls").tolist() == [[0, 1, 2, 3]]
    assert pool(hidden, mask, "mean").tolist() == [[2, 3, 4, 5]]


def test_a_picture_can_reuse_the_axes_of_another():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20, 6)) * [9, 5, 1, 1, 1, 1]
    within = picture.fit_axes(vectors)
    assert (within.directions[np.arange(2), np.abs(within.directions).argmax(1)] > 0).all()
    assert np.abs(within.directions).argmax(1).tolist() == [0, 1]
    again = picture.fit_axes(vectors[::-1])
    np.testing.assert_allclose(within.directions, again.directions, atol=1e-9)
    written = picture.make_picture("t", vectors[:2], ["en", "de"], ["1", "1"], [(0, 1)], within)
    assert written["kind"] == "picture"
    np.testing.assert_allclose(picture.read_axes(written).directions, within.directions, atol=1e-6)
    place = (vectors[1] - vectors.mean(0)) @ within.directions.T
    assert [written["points"][1][key] for key in "xy"] == pytest.approx(place.tolist(), abs=1e-3)


def make_pairs(n, languages):
    return [
        Pair(f"{i}", f"{i:031x}{k}", f"g{i}", "toy", f"e{i}", f"{language}{i}", "en", language)
        for i in range(n)
        for k, language in enumerate(languages)
    ]


def test_the_picture_of_a_set_draws_english_once_for_all_its_translations():
    rows = make_pairs(20, ["de", "fr"])
    vectors = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    task = Parallel(TOKENIZER, 8)
    before = task.picture({"vectors": vectors}, rows, "before")
    assert len(before["points"]) == 12 * 3
    assert len(before["links"]) == 12 * 2
    for a, b in before["links"]:
        assert before["points"][a]["language"] == "en"
        assert before["points"][a]["id"] == before["points"][b]["id"]
    after = task.picture({"vectors": 2 * vectors}, rows, "after", picture.read_axes(before))
    assert after["axes"] == before["axes"]
    assert after["points"] != before["points"]


def test_structure_is_compared_with_the_reference():
    rows = make_pairs(30, ["de"])
    random = np.random.default_rng(0)
    english, noise = random.normal(size=(2, 30, 5))
    rotated = english @ np.linalg.qr(random.normal(size=(5, 5)))[0]
    outputs = {"vectors": np.concatenate([english, rotated]), "cls": np.concatenate([english, noise])}
    task = Parallel(TOKENIZER, 8, reference=english)
    cell = task.score(outputs, task.features(rows), rows).cells[Cell.parse("en-de")]
    assert cell["structure"] == pytest.approx(100)
    assert cell["cka"] == pytest.approx(100)
    assert cell["structure_en"] == pytest.approx(100)
    assert cell["retrieval"] < 50, "a rotation keeps the structure and moves the vectors"
    assert cell["cls"] < 20
    assert "margin" in cell
    without_reference = (
        Parallel(TOKENIZER, 8)
        .score({"vectors": outputs["vectors"]}, task.features(rows), rows)
        .cells[Cell.parse("en-de")]
    )
    assert not {"structure", "cka", "cls"} & set(without_reference)
