# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Statistics over the draws of a study, and the small files that keep their numbers."""

import math

import numpy as np
import pytest
from scipy import stats

from xlkd.errors import UserError
from xlkd.reports import draws


def make_record(seed, primary=("skd:ce", "skd_map:ce"), **differences):
    """Returns a record as a sweep keeps it, with a value for each difference on one average."""
    comparisons = {
        pair.replace("_over_", ":"): {"gxlt_off": {"f1": [value, value - 1, value + 1]}}
        for pair, value in differences.items()
    }
    systems = {"ce": {"averages": {"gxlt_off": {"f1": [30.0 + seed, 29.0, 31.0]}}, "cells": {}}}
    sets = {"mlqa": {"metrics": ["f1"], "systems": systems, "comparisons": comparisons}}
    return {"version": 1, "seed": seed, "primary": list(primary), "judged_by": "mlqa/gxlt_off/f1", "sets": sets}


def make_draws(**by_pair):
    count = len(next(iter(by_pair.values())))
    return {f"seed={i}": make_record(i, **{pair: values[i] for pair, values in by_pair.items()}) for i in range(count)}


def test_the_interval_is_that_of_students_t():
    values = [1.2, -0.4, 2.2, 0.9, 1.1]
    mean, low, high, p = draws.compute_t_interval(values)
    expected = stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose([mean, low, high, p], [np.mean(values), interval.low, interval.high, expected.pvalue])


def test_one_draw_has_no_interval_and_decides_nothing():
    (difference, *_), _ = draws.judge_draws(make_draws(skd_over_ce=[5.0], skd_map_over_ce=[4.0]))
    assert (difference.mean, difference.low, difference.p) == (5.0, None, None)
    assert difference.verdict == "not tested"
    assert draws.compute_t_interval([0.0, 0.0])[1:] == (0.0, 0.0, 1.0)
    assert draws.compute_t_interval([1.0, 1.0])[3] == 0.0
    assert draws.judge_draws({}) == ([], [])


def test_primary_differences_are_one_holm_family_and_others_have_no_verdict():
    # p of the first is about 0.02, of the second about 0.04: alone each would be significant
    values = {
        "skd_over_ce": [1.0, 2.0, 1.0, 3.0],
        "skd_map_over_ce": [1.0, 2.0, 0.6, 3.4],
        "ce_over_zs": [9.0, 9.1, 9.2, 9.0],
    }
    family, others = draws.judge_draws(make_draws(**values))
    raw = [stats.ttest_1samp(values[name], 0).pvalue for name in ("skd_over_ce", "skd_map_over_ce")]
    assert raw[0] < 0.05 < 2 * raw[0] or raw[1] < 0.05
    assert [each.adjusted for each in family] == pytest.approx([2 * min(raw), max(2 * min(raw), max(raw))])
    assert [each.verdict for each in family] == [
        "better" if each.adjusted <= 0.05 else "cannot tell" for each in family
    ]
    assert [(each.name, each.verdict, each.adjusted) for each in others] == [("ce:zs", "", None)]
    assert others[0].low > 8.5
    worse, _ = draws.judge_draws(
        make_draws(skd_over_ce=[-3.0, -3.1, -2.9, -3.0], skd_map_over_ce=[0.0, 1.0, -1.0, 0.5])
    )
    assert [each.verdict for each in worse] == ["worse", "cannot tell"]


def test_the_detectable_difference_has_the_power_that_it_says():
    rng = np.random.default_rng(0)
    for count in (5, 6, 10):
        shift = draws.compute_detectable(1.5, count)
        samples = rng.normal(shift, 1.5, size=(4000, count))
        power = np.mean(stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05)
        assert 0.72 < power < 0.88


def test_records_survive_their_file_and_starts_are_left_out(tmp_path):
    for name, record in make_draws(skd_over_ce=[1.0, 2.0], skd_map_over_ce=[0.0, 1.0]).items():
        (tmp_path / f"{name}.json").write_text(draws.format_record(record), encoding="utf-8")
        assert draws.read_record(tmp_path / f"{name}.json") == record
    (tmp_path / "start.json").write_text(draws.format_record(make_record(1, primary=())))
    assert list(draws.read_draws(tmp_path)) == ["seed=0", "seed=1"]
    lines = draws.format_lines(draws.read_draws(tmp_path))
    assert lines[0] == "2 draws, mlqa/gxlt_off/f1"
    assert lines[1].startswith("skd − ce: +1.5 (")
    assert lines[1].endswith("no significant difference; by draw +1.0, +2.0")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 2}', '{"version": 1}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "seed=1.json").write_text(text)
    with pytest.raises(UserError, match=r"seed=1\.json"):
        draws.read_draws(tmp_path)


def test_draws_that_are_judged_differently_are_refused():
    records = {"a": make_record(1, skd_over_ce=1.0), "b": make_record(2, ("skd:ce",), skd_over_ce=1.0)}
    with pytest.raises(UserError, match="other differences"):
        draws.judge_draws(records)
    record = make_record(1, skd_over_ce=1.0) | {"judged_by": "xquad/gxlt/f1"}
    with pytest.raises(UserError, match="no scores of 'xquad/gxlt/f1': 'xquad' is not among them"):
        draws.judge_draws({"a": record})


@pytest.mark.parametrize(
    ("place", "what", "remedy"),
    [
        ("mlqa/gxlt/f1", "'gxlt' is not among them", "name one of gxlt_off"),
        ("mlqa/gxlt_off/em", "'em' is not among them", "name one of f1"),
        ("mlqa", "'' is not among them", "name one of gxlt_off"),
    ],
)
def test_an_unknown_score_is_answered_with_those_that_exist(place, what, remedy):
    with pytest.raises(UserError) as error:
        draws.check_judged_by(make_record(1, skd_over_ce=1.0) | {"judged_by": place})
    assert what in str(error.value)
    assert remedy in str(error.value)
    with pytest.raises(UserError, match=r"report\.compare"):
        draws.check_judged_by(make_record(1))


def test_deviations_are_found_wherever_they_are():
    a, b = make_record(1, skd_over_ce=1.0), make_record(1, skd_over_ce=1.0)
    assert draws.measure_deviation(a, b)[0] == 0
    b["sets"]["mlqa"]["systems"]["ce"]["averages"]["gxlt_off"]["f1"][0] += 0.3
    deviation, text = draws.measure_deviation(a, b)
    assert deviation == pytest.approx(0.3)
    assert text == "averages differ by at most 0.30 points (mlqa, ce, gxlt_off, f1)"
    assert draws.measure_deviation(a, b | {"sets": {}})[0] == math.inf


def test_runs_without_a_score_are_compared_by_their_last_losses():
    def make(**losses):
        return make_record(1) | {"sets": {}, "curves": {stage: {"loss": loss} for stage, loss in losses.items()}}

    a = make(head=[9.0, 4.0], words=[2.0])
    assert draws.measure_deviation(a, make(head=[9.5, 4.0], words=[2.0]))[0] == 0, "what counts is the end"
    deviation, text = draws.measure_deviation(a, make(head=[9.0, 4.1], words=[2.0]))
    assert deviation == pytest.approx(2.5)
    assert text == "last training losses differ by at most 2.50% (head)"
    assert draws.measure_deviation(a, make(head=[9.0, 4.0]))[1].endswith("(words is only in one)")
    assert draws.measure_deviation(make(), make())[0] == 0
    without_curves = {name: value for name, value in a.items() if name != "curves"}
    assert draws.measure_deviation(without_curves, a)[0] == math.inf
    assert draws.measure_deviation(a, make(head=[9.0, None], words=[2.0]))[0] == math.inf, "it was not finite"
