# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Blocks of a large corpus: every row once an epoch, an order that depends on (seed, step) only, cheap restarts."""

import concurrent.futures
import dataclasses
import weakref

import numpy as np
import pytest

from xlkd.data import sources
from xlkd.data.batches import PAD
from xlkd.data.blocks import Blocks
from xlkd.data.composition import IdentityPairs, JoinedRows, compose
from xlkd.data.permutation import Permutation
from xlkd.models import hf, tokenizers
from xlkd.rows import Pair
from xlkd.tasks import Draw
from xlkd.tasks.masked import Masked
from xlkd.tasks.tokenization import TextTokenizer


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097, 70_001])
def test_a_permutation_is_a_bijection(size):
    places = Permutation(size, seed=3, purpose="t").at(np.arange(size))
    assert sorted(places) == list(range(size))


def test_golden_permutation():
    """A change here changes the order of every large corpus."""
    assert Permutation(1000, seed=7, purpose="t").at(np.arange(5)).tolist() == [295, 242, 906, 97, 52]
    assert Permutation(1000, seed=7, purpose="t", epoch=2).at(np.arange(5)).tolist() == [584, 713, 512, 4, 982]


def test_a_permutation_can_be_read_at_any_place():
    p = Permutation(10**9, seed=3, purpose="t")
    places = np.array([0, 1, 12345, 10**9 - 1])
    rows = p.at(places)
    assert rows.max() < 10**9
    assert [int(p.at(np.array([place]))[0]) for place in places] == rows.tolist()


def test_permutations_differ_by_seed_purpose_and_epoch():
    places = np.arange(1000)
    permutations = [
        Permutation(1000, seed=seed, purpose=purpose, epoch=epoch).at(places)
        for seed, purpose, epoch in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    ]
    for i, permutation in enumerate(permutations):
        assert (permutation == places).mean() < 0.02
        for other in permutations[:i]:
            assert (permutation == other).mean() < 0.02


def test_a_permutation_looks_shuffled():
    """Neighbours are separated, and each tenth of the places has about equally many of each tenth of the rows."""
    size = 50_000
    permuted = Permutation(size, seed=0, purpose="t").at(np.arange(size))
    assert abs(np.corrcoef(np.arange(size), permuted)[0, 1]) < 0.02
    assert abs(np.corrcoef(permuted[:-1], permuted[1:])[0, 1]) < 0.02
    cells = np.histogram2d(np.arange(size), permuted, bins=10)[0]
    assert (np.abs(cells - size / 100) < 6 * np.sqrt(size / 100)).all()


class CountingFeatures(list):
    """Makes features of toy rows, and counts the tokenized rows."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __call__(self, rows, share):
        self.rows += len(rows)
        self.append(len(rows))
        values = np.array(rows)
        return {"row": values, "text": 5 + values * 7 % 90, "other": 3 + values * 11 % 40}


def select_lengths(features):
    return {"text": features["text"], "other": features["other"]}


def make_blocks(rows=1003, batch=8, block=200, seed=0, features=None, **options):
    options = {"edges": (32, 64, 96), "limits": {"text": 96, "other": 48}} | options
    return Blocks(
        range(rows), features or CountingFeatures(), select_lengths, batch=batch, block=block, seed=seed, **options
    )


def read_rows(b, step):
    index = b.at(step).index
    return b.features(step)["row"][index[index != PAD]]


def test_an_epoch_has_every_row_once_in_as_few_steps_as_possible():
    b = make_blocks()
    assert b.steps_per_epoch == -(-1003 // 8)
    for epoch in (0, 1):
        steps = range(epoch * b.steps_per_epoch, (epoch + 1) * b.steps_per_epoch)
        assert sorted(np.concatenate([read_rows(b, step) for step in steps])) == list(range(1003))


def test_a_step_is_located_by_arithmetic():
    b = make_blocks()
    assert b.locate(0) == (0, 0, 0)
    assert b.locate(24) == (0, 0, 24)
    assert b.locate(25) == (0, 1, 0)
    assert b.locate(125) == (0, 5, 0), "the last block has 3 rows"
    assert b.locate(126) == (1, 0, 0)


def test_the_order_depends_on_seed_and_step_only():
    a, b, other = make_blocks(), make_blocks(), make_blocks(seed=1)
    for step in (130, 7, 60, 8, 300, 7):  # in any order
        np.testing.assert_array_equal(read_rows(a, step), read_rows(b, step))
        assert b.at(step).shape == a.at(step).shape
    assert any(set(read_rows(a, s)) != set(read_rows(other, s)) for s in range(3))
    assert any(set(read_rows(a, s)) != set(read_rows(a, s + a.steps_per_epoch)) for s in range(3))
    assert set(a.list_rows(0, 0)) != set(a.list_rows(1, 0)), "a block of the next epoch contains other rows"


def test_golden_order():
    """A change here changes every run on a large corpus."""
    assert read_rows(make_blocks(), 30).tolist() == [870, 1001, 151, 615, 975, 819, 37, 808]


def test_a_row_longer_than_every_shape_is_a_bug():
    with pytest.raises(ValueError, match="longer than 8 × text 64, other 48"):
        make_blocks(edges=(32, 64)).at(0)


def test_threads_read_the_same_order():
    a, b = make_blocks(), make_blocks()
    steps = list(range(20, 160))
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        rows_of_steps = list(threads.map(lambda step: read_rows(a, step), steps))
    for step, rows in zip(steps, rows_of_steps, strict=True):
        np.testing.assert_array_equal(rows, read_rows(b, step))


def test_a_restart_reads_one_block_and_starts_the_next():
    features = CountingFeatures()
    b = make_blocks(rows=10_000, features=features)
    sample = features.rows
    b.at(700)
    b.close()
    assert features.rows - sample <= 2 * 200
    assert sample <= 2048


def test_used_blocks_are_freed():
    alive = []

    def features(rows, share):
        values = np.array(rows)
        alive.append(weakref.ref(values))
        return {"row": values, "text": values % 90 + 1, "other": values % 40 + 1}

    b = make_blocks(rows=2000, features=features)
    for step in range(0, b.steps_per_epoch, 5):
        b.features(step)
    b.close()
    assert len(alive) > 10
    assert sum(values() is not None for values in alive) <= 3


def test_rows_fit_their_shapes_and_shapes_are_fixed_in_advance():
    b = make_blocks()
    assert [dict(shape.lengths)["text"] for shape in b.shapes] == [32, 64, 96]
    for step in range(b.steps_per_epoch):
        planned, features = b.at(step), b.features(step)
        assert planned.shape in b.shapes
        assert len(planned.index) == 8
        rows = planned.index[planned.index != PAD]
        longest = {view: features[view][rows].max() for view in ("text", "other")}
        fits = [all(longest[view] <= length for view, length in shape.lengths) for shape in b.shapes]
        assert planned.shape == b.shapes[fits.index(True)]


def test_a_row_with_a_long_second_view_gets_a_longer_shape():
    def features(rows, share):
        rows = np.array(rows)
        return {"row": rows, "text": np.full(len(rows), 10), "other": np.where(rows == 4999, 40, 9)}

    b = make_blocks(rows=5000, features=features, seed=3)
    assert [dict(shape.lengths)["other"] for shape in b.shapes] == [16, 16, 48]
    with_long = [step for step in range(b.steps_per_epoch) if 4999 in read_rows(b, step)]
    assert [dict(b.at(step).shape.lengths)["other"] for step in with_long] == [48]


def test_a_small_corpus_is_one_block():
    b = make_blocks(rows=5)
    assert b.steps_per_epoch == b.blocks_per_epoch == 1
    assert sorted(read_rows(b, 0)) == list(range(5))


def test_a_task_reads_a_corpus_block_by_block(tmp_path, monkeypatch):
    """Reads files, an index, blocks and features up to the arrays of a step."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    sides = {
        "en": [f"the dog number {n} sleeps" for n in range(90)],
        "de": [f"der Hund {n} schläft" for n in range(90)],
    }
    for language, texts in sides.items():
        (tmp_path / f"c.{language}").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    tokenizers.train(tmp_path / "tokenizer", [*sides["en"], *sides["de"]], kind="bert", size=120)
    task = Masked(TextTokenizer(hf.load_tokenizer(tmp_path / "tokenizer")), max_length=64, share=0.3)
    rows = compose(sources.read(f"moses:{tmp_path}/c?languages=en,de", "parallel").parts, identities=True)
    b = Blocks(
        rows,
        lambda rows, share: task.features(rows, share=share),
        task.lengths,
        batch=8,
        block=40,
        edges=(16, 64),
        limits={"text": 64},
        seed=0,
    )
    seen = []
    for step in range(b.steps_per_epoch):
        planned, features = b.at(step), b.features(step)
        arrays = task.arrays(features, planned.index, dict(planned.shape.lengths), Draw(0, step))
        assert arrays["text"]["ids"].shape == (8, planned.shape.lengths[0][1])
        seen += features["keys"][planned.index[planned.index != PAD]].tolist()
    assert sorted(seen) == sorted(int(row.key[:16], 16) for row in rows)
    assert len(seen) == 180


def make_pairs(language, count):
    template = Pair("", "", "", "toy", "", "", "en", language)
    return [
        dataclasses.replace(template, id=f"{language}{j}", key=f"{language}{j}", source=f"{j}") for j in range(count)
    ]


@pytest.mark.parametrize("counts", [(5, 5, 8, 2, 4, 6, 1), (3,), (0, 7), (1, 1, 1), (10, 2)])
def test_identity_pairs_follow_the_published_rule(counts):
    parts = [
        make_pairs(language, n) for language, n in zip(("fr", "bg", "de", "es", "ar", "zh", "hi"), counts, strict=False)
    ]
    parts = [part for part in parts if part]
    expected = []
    for j in range(max(map(len, parts))):
        part = parts[j % len(parts)]
        expected += [part[j].id] if j < len(part) else []
    identity_pairs = IdentityPairs(parts)
    assert sorted(row.id for row in identity_pairs) == sorted(expected)
    assert all(row.source == row.target and row.target_language == "en" for row in identity_pairs)


def test_identity_pairs_use_the_english_side_on_either_side():
    row = Pair("7", "k", "g", "toy", "der Hund", "the dog", "de", "en")
    (same,) = IdentityPairs([[row]])
    assert (same.source, same.target, same.source_language, same.target_language) == ("the dog", "the dog", "en", "en")
    assert (same.id, same.group) == ("7", "g")
    assert same.key != row.key


def test_the_identity_of_a_composition_depends_on_all_its_options():
    def make_identity(counts=(5, 8), **options):
        return compose(
            [make_pairs(language, n) for language, n in zip(("de", "fr"), counts, strict=True)], **options
        ).identity

    options_of_head = {"cap": 4, "take": "head", "seed": 1}
    others = [
        {},
        {"cap": 3},
        options_of_head,
        options_of_head | {"seed": 2},
        options_of_head | {"take": "random"},
        {"identities": True},
    ]
    names = [
        make_identity(),
        *(make_identity(**options) for options in others[1:]),
        make_identity((5, 9)),
        make_identity((6, 8)),
    ]
    assert len(set(names)) == len(names)
    assert make_identity(**options_of_head) == make_identity(**options_of_head)


def test_joined_rows_are_composed_by_their_parts():
    rows = compose(
        [JoinedRows([make_pairs("de", 1), make_pairs("fr", 3)]), JoinedRows([make_pairs("de", 4)])], cap=2, take="head"
    )
    assert [row.id for row in rows] == ["de0", "de0", "fr0", "fr1"]


def test_joined_rows_are_indexed_by_number():
    rows = JoinedRows([range(3), [], range(10, 12)])
    assert list(rows) == [0, 1, 2, 10, 11]
    assert rows.read_many(np.array([4, 0, 3])) == [11, 0, 10]
