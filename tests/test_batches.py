# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Order of the data: a pure function of (seed, step)."""

import numpy as np
import pytest

from xlkd.data.batches import PAD, Plan, in_order_of_length


def plan(rows=103, batch=8, seed=0):
    lengths = np.random.default_rng(1).integers(5, 97, rows).astype(np.int32)
    return Plan({"text": lengths}, batch=batch, edges=(32, 64, 96), seed=seed), lengths


def epoch(plan, number):
    steps = range(number * plan.steps_per_epoch, (number + 1) * plan.steps_per_epoch)
    return [plan.at(step) for step in steps]


def test_every_row_once_an_epoch_in_as_few_steps_as_possible():
    p, _ = plan()
    batches = epoch(p, 0)
    assert len(batches) == -(-103 // 8)
    seen = np.concatenate([b.index for b in batches])
    assert sorted(seen[seen != PAD]) == list(range(103))
    assert sum((b.index == PAD).any() for b in batches) == 1, "one step is short"


def test_a_row_fits_its_shape_and_shapes_are_few():
    p, lengths = plan()
    for b in epoch(p, 0):
        assert lengths[b.index[b.index != PAD]].max() <= dict(b.shape.lengths)["text"]
    assert len({b.shape for b in epoch(p, 0) + epoch(p, 1)}) <= 3


def test_order_depends_on_seed_and_epoch_alone():
    a, b, other = plan()[0], plan()[0], plan(seed=1)[0]
    for step in (5, 30, 2, 17):  # asked in any order
        np.testing.assert_array_equal(a.at(step).index, b.at(step).index)
    assert any((a.at(s).index != other.at(s).index).any() for s in range(3))
    assert any((x.index != y.index).any() for x, y in zip(epoch(a, 0), epoch(a, 1), strict=True))


def test_second_view_takes_its_own_maximum_in_the_bucket():
    lengths = {"text": np.array([10, 20, 50, 60]), "other": np.array([40, 8, 8, 20])}
    p = Plan(lengths, batch=2, edges=(32, 64), seed=0)
    assert [dict(s.lengths) for s in p.shapes] == [{"text": 32, "other": 48}, {"text": 64, "other": 48}]


@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_evaluation_reads_every_row_once_and_pads_the_last_batch(rows):
    lengths = np.arange(10, 10 + rows)
    batches = in_order_of_length({"text": lengths}, batch=8, edges=(32,))
    seen = np.concatenate([b.index for b in batches])
    assert all(len(b.index) == 8 for b in batches)
    assert sorted(seen[seen != PAD]) == list(range(rows))


def test_a_thread_that_is_in_the_next_epoch_does_not_disturb():
    """The loop reads ahead by threads, and at the boundary they stand in two epochs."""
    p, _ = plan()
    there = (1, p._shuffled(1))

    class Raced(Plan):
        """Whatever one thread keeps, the other has at once kept its own."""

        _kept = property(lambda self: there, lambda self, value: None)

    raced = Raced(p.lengths, batch=p.batch, edges=tuple(p.edges), seed=p.seed)
    for step in (3, 3 + p.steps_per_epoch):
        np.testing.assert_array_equal(raced.at(step).index, p.at(step).index)
