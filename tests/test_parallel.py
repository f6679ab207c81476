# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sentence pairs: each side is a row, and retrieval is scored in both directions by pair of languages."""

import numpy as np
import pytest
from qa_toys import make_word_tokenizer

from xlkd.rows import Pair
from xlkd.tasks import Draw
from xlkd.tasks.parallel import Parallel, build
from xlkd.tasks.tokenization import TextTokenizer

TOKENIZER = TextTokenizer(make_word_tokenizer([*"abcdefgh"]))


def make_pair(i, source, target, languages=("en", "de")):
    return Pair(f"{i}", f"{i:032x}", f"{i}", "toy", source, target, *languages)


ROWS = [
    make_pair(1, "a b c d", "e"),
    make_pair(2, "f", "g h"),
    make_pair(3, "b", "c", ("en", "ru")),
    make_pair(4, "a", "d", ("en", "ru")),
]
TASK = Parallel(TOKENIZER, max_length=5)


def test_sources_come_first_and_long_texts_are_cut():
    features = TASK.features(ROWS)
    assert TASK.lengths(features)["text"].tolist() == [5, 3, 3, 3, 3, 4, 3, 3]
    assert features["keys"].tolist() == [0] * 8, "the first 64 bits"
    batch = TASK.arrays(features, np.array([4, 0, -1]), {"text": 6}, Draw(0, 0))
    cls, sep, a, e = TOKENIZER.fast.convert_tokens_to_ids(["[CLS]", "[SEP]", "a", "e"])
    assert batch["text"]["ids"].tolist() == [
        [cls, e, sep, 0, 0, 0],
        [cls, a, a + 1, a + 2, sep, 0],
        [0] * 6,
    ]
    assert batch["text"]["mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]]
    assert batch["mask"].tolist() == [1, 1, 0]


def make_vectors(angles):
    return np.stack([np.cos(angles), np.sin(angles)], -1).astype(np.float32)


def test_accuracy_is_scored_in_both_directions_by_pair_of_languages():
    """en-ru: both translations lie nearest to the first source, and each source has its own translation nearest."""
    sources, targets = np.radians([0, 90, 0, 100]), np.radians([5, 80, 2, 40])
    outputs = {"vectors": make_vectors(np.concatenate([sources, targets]))}
    scores = TASK.score(outputs, TASK.features(ROWS), ROWS)
    names = ("retrieval", "to_target", "to_source", "n")
    assert {str(name): [cell[key] for key in names] for name, cell in scores.cells.items()} == {
        "en-de": [100, 100, 100, 2],
        "en-ru": [75, 100, 50, 2],
    }
    assert scores.main == "retrieval"
    assert scores.mean() == 87.5


def test_the_identity_contains_what_features_depend_on():
    other = TextTokenizer(make_word_tokenizer([*"abcdefhg"]))
    identities = {Parallel(t, n).identity() for t in (TOKENIZER, other) for n in (5, 6)}
    assert len(identities) == 4
    config = type("Config", (), {"max_length": 5})
    assert build(config, TOKENIZER.fast).identity() == TASK.identity()


def test_the_report_counts_rows_at_the_limit():
    assert TASK.report(TASK.features(ROWS), ROWS)["full"] == 1
    assert Parallel(TOKENIZER, 9).report(Parallel(TOKENIZER, 9).features(ROWS), ROWS)["full"] == 0


@pytest.mark.parametrize("index", [[-1], [-1, -1]])
def test_padding_rows_weigh_nothing(index):
    batch = TASK.arrays(TASK.features(ROWS), np.array(index), {"text": 16}, Draw(0, 0))
    assert batch["mask"].sum() == 0
    assert batch["text"]["ids"].shape == (len(index), 16)
