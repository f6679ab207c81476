# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The order of the data is a pure function of (seed, step)."""

import itertools

import numpy as np
import pytest

from xlkd.data.batches import PAD, LanguagePlan, Plan, RedrawnPlan, plan_by_length


def make_plan(rows=103, batch=8, seed=0):
    lengths = np.random.default_rng(1).integers(5, 97, rows).astype(np.int32)
    return Plan({"text": lengths}, batch=batch, edges=(32, 64, 96), seed=seed), lengths


def list_epoch(batch_plan, number):
    steps = range(number * batch_plan.steps_per_epoch, (number + 1) * batch_plan.steps_per_epoch)
    return [batch_plan.at(step) for step in steps]


def test_an_epoch_has_every_row_once_in_as_few_steps_as_possible():
    p, _ = make_plan()
    batches = list_epoch(p, 0)
    assert len(batches) == -(-103 // 8)
    seen = np.concatenate([b.index for b in batches])
    assert sorted(seen[seen != PAD]) == list(range(103))
    assert sum((b.index == PAD).any() for b in batches) == 1, "one step is short"


def test_a_batch_has_the_first_shape_that_fits_it_and_shapes_are_few():
    p, lengths = make_plan()
    for b in list_epoch(p, 0):
        longest = lengths[b.index[b.index != PAD]].max()
        assert b.shape.lengths == (("text", next(edge for edge in (32, 64, 96) if edge >= longest)),)
    assert len({b.shape for b in list_epoch(p, 0) + list_epoch(p, 1)}) <= 3


def test_buckets_yield_full_batches_and_remaining_rows_are_sorted_by_length():
    p, lengths = make_plan()
    bucket = np.searchsorted((32, 64, 96), lengths)
    batches = [b.index[b.index != PAD] for b in list_epoch(p, 0)]
    alike = [int(bucket[rows[0]]) for rows in batches if len(rows) == 8 and len(set(bucket[rows])) == 1]
    assert (np.bincount(alike) >= np.bincount(bucket) // 8).all()
    rest = sorted(sorted(lengths[rows]) for rows in batches if len(rows) < 8 or len(set(bucket[rows])) > 1)
    assert len(rest) > 1
    assert all(a[-1] <= b[0] for a, b in itertools.pairwise(rest))


def test_the_order_depends_on_seed_and_epoch_only():
    a, b, other = make_plan()[0], make_plan()[0], make_plan(seed=1)[0]
    for step in (5, 30, 2, 17):  # in any order
        np.testing.assert_array_equal(a.at(step).index, b.at(step).index)
    assert any((a.at(s).index != other.at(s).index).any() for s in range(3))
    assert any((x.index != y.index).any() for x, y in zip(list_epoch(a, 0), list_epoch(a, 1), strict=True))


def test_a_second_view_has_its_own_maximum_in_each_bucket():
    lengths = {"text": np.array([10, 20, 50, 60]), "other": np.array([40, 8, 8, 20])}
    p = Plan(lengths, batch=2, edges=(32, 64), seed=0)
    assert [s.lengths for s in p.shapes] == [(("text", 32), ("other", 48)), (("text", 64), ("other", 48))]


@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_evaluation_reads_every_row_once_and_pads_the_last_batch(rows):
    lengths = np.arange(10, 10 + rows)
    batches = plan_by_length({"text": lengths}, batch=8, edges=(32,))
    seen = np.concatenate([b.index for b in batches])
    assert all(len(b.index) == 8 for b in batches)
    assert sorted(seen[seen != PAD]) == list(range(rows))


def test_evaluation_gives_each_batch_the_first_shape_that_fits_it():
    lengths = np.array([60, 5, 33, 20, 32, 90, 61])
    batches = plan_by_length({"text": lengths}, batch=2, edges=(32, 64, 96))
    lengths_and_edge = [(sorted(lengths[b.index[b.index != PAD]].tolist()), b.shape.lengths[0][1]) for b in batches]
    assert lengths_and_edge == [([5, 20], 32), ([32, 33], 64), ([60, 61], 64), ([90], 96)]


def test_threads_may_read_two_epochs_at_once():
    """The loop reads ahead in threads; at the boundary of two epochs they read both."""
    p, _ = make_plan()
    other_thread_epoch = (1, p._shuffle(1))

    class Raced(Plan):
        """A plan in which another thread always overwrites the stored epoch."""

        _current_epoch = property(lambda self: other_thread_epoch, lambda self, value: None)

    raced = Raced(p.lengths, batch=p.batch, edges=tuple(p.edges), seed=p.seed)
    for step in (3, 3 + p.steps_per_epoch):
        np.testing.assert_array_equal(raced.at(step).index, p.at(step).index)


COUNTS = np.repeat([0, 1, 2], [400, 100, 25])


def make_language_plan(exponent=0.5, mixed=True, batch=8, seed=0):
    lengths = np.random.default_rng(1).integers(5, 97, len(COUNTS)).astype(np.int32)
    options = {"languages": COUNTS, "exponent": exponent, "mixed": mixed}
    return LanguagePlan({"text": lengths}, batch=batch, edges=(32, 64, 96), seed=seed, **options)


def join_rows(planned):
    return np.concatenate([b.index[b.index != PAD] for b in planned])


@pytest.mark.parametrize(("exponent", "counts"), [(1, [400, 100, 25]), (0.5, [300, 150, 75]), (0, [175, 175, 175])])
def test_languages_have_their_shares(exponent, counts):
    for number in (0, 3):
        rows = join_rows(list_epoch(make_language_plan(exponent), number))
        assert np.bincount(COUNTS[rows]).tolist() == counts


@pytest.mark.parametrize(("exponent", "counts"), [(1, [6, 3, 1]), (0.5, [5, 3, 2]), (0, [4, 3, 3])])
def test_fractional_shares_are_rounded_by_the_largest_remainder(exponent, counts):
    languages = np.repeat([0, 1, 2], [6, 3, 1])  # at 0.5: 4.73, 3.34 and 1.93 rows
    p = LanguagePlan({"text": np.full(10, 9)}, batch=4, edges=(32,), seed=0, languages=languages, exponent=exponent)
    assert np.bincount(languages[join_rows(list_epoch(p, 0))]).tolist() == counts


def test_all_rows_of_a_language_are_used_before_any_is_repeated():
    p = make_language_plan(0)
    seen = np.concatenate([join_rows(list_epoch(p, number)) for number in range(4)])
    for language, times in ((0, {1, 2}), (1, {7}), (2, {28})):  # 700 draws of 400, of 100 and of 25 rows
        assert set(np.bincount(seen)[language == COUNTS].tolist()) == times


def test_unmixed_batches_have_one_language_each_in_a_seeded_order():
    p, same, other = (
        make_language_plan(mixed=False),
        make_language_plan(mixed=False),
        make_language_plan(mixed=False, seed=1),
    )
    batches = list_epoch(p, 2)
    languages = [set(COUNTS[b.index[b.index != PAD]].tolist()) for b in batches]
    assert all(len(languages_of_batch) == 1 for languages_of_batch in languages)
    assert len(batches) == -(-300 // 8) + -(-150 // 8) + -(-75 // 8)
    assert languages != sorted(languages, key=min)
    for step in (90, 3, 200):
        np.testing.assert_array_equal(p.at(step).index, same.at(step).index)
    assert any((p.at(s).index != other.at(s).index).any() for s in range(3))


def test_the_first_rows_of_a_language_are_drawn_at_random():
    first = [set(join_rows(list_epoch(make_language_plan(0, seed=seed), 0)).tolist()) for seed in (0, 1)]
    assert first[0] != first[1]
    assert not set(range(175)) <= first[0], "not the first 175 of the 400"


def test_without_rebalancing_an_epoch_has_every_row_once():
    p = LanguagePlan({"text": np.full(len(COUNTS), 9)}, batch=8, edges=(32,), seed=0, languages=COUNTS)
    for rows in (join_rows(list_epoch(p, 1)), join_rows(list_epoch(make_language_plan(1), 1))):
        assert sorted(rows.tolist()) == list(range(len(COUNTS)))


def test_redrawn_epochs_have_each_of_their_rows_once():
    lengths = np.random.default_rng(0).integers(5, 60, 100)
    members = tuple(np.random.default_rng(e).permutation(100)[:n] for e, n in enumerate((30, 41, 25)))
    plan = RedrawnPlan({"text": lengths}, batch=8, edges=(32, 64), seed=1, members=members)
    assert (plan.starts, plan.steps, plan.steps_per_epoch) == ((0, 4, 10), 14, 4)
    for rows, steps in zip(members, (range(4), range(4, 10), range(10, 14)), strict=True):
        seen = np.concatenate([plan.at(step).index for step in steps])
        assert sorted(seen[seen >= 0]) == sorted(rows)
