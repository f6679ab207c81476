# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Intervals, p values and verdicts: golden numbers, and the invariants of the protocol."""

import json
import pathlib
import time

import numpy as np
import pytest

from xlkd.errors import UserError
from xlkd.metrics import statistics as st

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "protocol.json").read_text())
TOY, MACRO, SEEDS = GOLDEN["toy"], GOLDEN["macro_mean_over_languages"], GOLDEN["seeds"]
NAMES = [f"q{i}" for i in range(12)]


def make_sample(scores, groups=TOY["paragraph"]):
    return st.Sample([f"q{i}" for i in range(len(scores))], groups, scores)


def make_toy_systems():
    """Returns the systems A and B in two languages; only the differences of the second language are known."""
    second = MACRO["language_2"]
    a = {"one": make_sample(TOY["f1_a"]), "two": make_sample(second["difference"], second["paragraph"])}
    b = {"one": make_sample(TOY["f1_b"]), "two": make_sample([0.0] * 11, second["paragraph"])}
    return a, b


def select_cell(cells, name="one"):
    return {name: cells[name]}


def make_random_cells(rng, groups=30, questions=60, cells=3, shift=0.0):
    group_numbers = rng.integers(0, groups, questions)
    return {
        c: st.Sample(
            [f"q{i}" for i in range(questions)], [f"g{g}" for g in group_numbers], rng.uniform(0, 60, questions) + shift
        )
        for c in range(cells)
    }


def test_golden_toy_comparison():
    a, b = make_toy_systems()
    result = st.compare([select_cell(a)], [select_cell(b)], seed=TOY["clustered"]["seed"]).cells["one"]
    assert result.estimate == pytest.approx(TOY["estimate"], abs=1e-9)
    assert (result.low, result.high) == pytest.approx(TOY["clustered"]["interval_95"], abs=1e-9)
    assert result.p == pytest.approx(TOY["clustered"]["p"], abs=1e-9)
    assert (result.questions, result.groups) == (12, 5)
    assert result.verdict == st.TOO_FEW_GROUPS  # The golden verdict ignores the rule of 20 groups.
    assert TOY["clustered"]["verdict"] == "cannot tell"


def test_golden_resamples_of_the_toy():
    rng = np.random.default_rng(TOY["clustered"]["seed"])
    counts = np.concatenate(list(st.draw_group_counts(rng, 5, 10_000, block=700)))
    golden = TOY["clustered"]
    assert counts[:3].tolist() == [np.bincount(row, minlength=5).tolist() for row in golden["first_resamples"]]
    sums, sizes = (np.array(TOY[k])[:, None] for k in ("cluster_sum_of_differences", "cluster_size"))
    theta = st.ratio(counts, sums, sizes)[:, 0]
    np.testing.assert_allclose(theta[:3], golden["first_theta"], atol=1e-9)
    assert theta.mean() == pytest.approx(golden["bootstrap_mean"], abs=1e-9)
    assert (theta <= st.ZERO).sum() == golden["count_theta_le_0"]
    assert (theta >= -st.ZERO).sum() == golden["count_theta_ge_0"]


def count_groups(resamples):
    return np.stack([np.bincount(row, minlength=5) for row in resamples]).astype(float)


def test_golden_explicit_resamples():
    sums, sizes = (np.array(TOY[k])[:, None] for k in ("cluster_sum_of_differences", "cluster_size"))
    theta = st.ratio(count_groups(TOY["explicit"]["resamples"]), sums, sizes)
    np.testing.assert_allclose(theta[:, 0], TOY["explicit"]["theta"], atol=1e-9)


def test_golden_explicit_resamples_of_two_languages():
    second = MACRO["language_2"]
    groups = np.array([TOY["clusters"].index(p) for p in second["paragraph"]])
    second_language = np.bincount(groups, second["difference"], 5), np.bincount(groups, minlength=5)
    sums = np.stack([TOY["cluster_sum_of_differences"], second_language[0]], axis=1)
    sizes = np.stack([TOY["cluster_size"], second_language[1]], axis=1)
    theta = st.mean_over_cells(st.ratio(count_groups(MACRO["explicit"]["resamples"]), sums, sizes))
    np.testing.assert_allclose(theta, MACRO["explicit"]["theta"], atol=1e-9)


def test_golden_macro_mean():
    a, b = make_toy_systems()
    comparison = st.compare([a], [b], averages={"macro": ["one", "two"]}, primary=["macro"], seed=MACRO["seed"])
    assert comparison.cells["two"].estimate == pytest.approx(MACRO["estimate_language_2"], abs=1e-9)
    macro = comparison.averages["macro"]
    assert macro.estimate == pytest.approx(MACRO["estimate_macro"], abs=1e-9)
    assert (macro.low, macro.high) == pytest.approx(MACRO["interval_95"], abs=1e-9)
    assert macro.p == pytest.approx(MACRO["p"], abs=1e-9) == macro.adjusted


def test_golden_comparison_without_groups():
    golden = TOY["by_question_unclustered_for_contrast"]
    ids = [f"{i:02d}" for i in range(12)]
    a, b = ({"one": st.Sample(ids, ids, TOY[k])} for k in ("f1_a", "f1_b"))
    result = st.compare([a], [b], seed=golden["seed"]).cells["one"]
    assert (result.low, result.high) == pytest.approx(golden["interval_95"], abs=1e-9)
    assert result.p == pytest.approx(golden["p"], abs=1e-9)


def make_seed_runs():
    """Returns runs with the golden sums by group; one question has the sum of its group, the others 0."""
    groups = [g for g, n in zip(TOY["clusters"], SEEDS["cluster_size"], strict=True) for _ in range(int(n))]
    first = {g: groups.index(g) for g in TOY["clusters"]}
    runs = []
    for sums in SEEDS["cluster_sum_of_differences_by_seed"]:
        scores = np.zeros(len(groups))
        scores[list(first.values())] = sums
        runs.append({"one": st.Sample(NAMES, groups, scores)})
    return runs, [{"one": st.Sample(NAMES, groups, np.zeros(12))}] * 3


def test_golden_seeds():
    comparison = st.compare(*make_seed_runs(), seed=SEEDS["seed"])
    result = comparison.cells["one"]
    assert result.by_seed == pytest.approx(SEEDS["estimate_by_seed"], abs=1e-9)
    assert result.estimate == pytest.approx(SEEDS["estimate"], abs=1e-9)
    assert np.std(result.by_seed, ddof=1) == pytest.approx(SEEDS["standard_deviation_over_seeds_ddof1"], abs=1e-9)
    assert (result.low, result.high) == pytest.approx(SEEDS["interval_95"], abs=1e-9)
    assert result.p == pytest.approx(SEEDS["p"], abs=1e-9)
    assert "3 seeds" in comparison.caption


def test_intervals_of_two_seeds_cover_questions_only():
    a, b = make_seed_runs()
    comparison = st.compare(a[:2], b[:2])
    assert "questions only" in comparison.caption
    mean = {"one": st.Sample(NAMES, a[0]["one"].groups, (a[0]["one"].scores + a[1]["one"].scores) / 2)}
    single_run = st.compare([mean], b[:1])
    assert comparison.cells["one"].low == pytest.approx(single_run.cells["one"].low, abs=1e-9)


def test_seeds_may_be_unpaired():
    a, b = make_seed_runs()
    unpaired = st.compare(a, b[:1], paired=False).cells["one"]
    assert unpaired.estimate == pytest.approx(SEEDS["estimate"], abs=1e-9)
    ten = {"one": st.Sample(NAMES, b[0]["one"].groups, [10.0] * 12)}
    shifted = st.compare(a, [ten], paired=False).cells["one"]
    assert (shifted.low, shifted.high) == pytest.approx((unpaired.low - 10, unpaired.high - 10), abs=1e-9)
    with pytest.raises(ValueError, match="3 runs against 1"):
        st.compare(a, b[:1])


@pytest.mark.parametrize("case", [GOLDEN["holm"], GOLDEN["holm"]["capped_example"]])
def test_golden_holm(case):
    adjusted = st.adjust_holm(case["p"])
    assert adjusted == pytest.approx(case["adjusted"], abs=1e-12)
    if "rejected_at_0.05" in case:
        assert [p <= 0.05 for p in adjusted] == case["rejected_at_0.05"]


def test_holm_equals_step_down_rejection():
    rng = np.random.default_rng(1)
    for _ in range(200):
        p = rng.uniform(0, 0.2, 6).round(2)
        adjusted = st.adjust_holm(p)
        assert all(b >= a for a, b in zip(p, adjusted, strict=True))
        for level in (0.01, 0.05, 0.1):
            rejected = [False] * 6
            for rank, i in enumerate(np.argsort(p, kind="stable")):
                if p[i] > level / (6 - rank):
                    break
                rejected[i] = True
            assert [x <= level + 1e-12 for x in adjusted] == rejected


def test_swapping_the_systems_mirrors_the_results():
    rng = np.random.default_rng(2)
    a, b = make_random_cells(rng), make_random_cells(np.random.default_rng(2), shift=3.0)
    averages = {"all": [0, 1, 2]}
    forward, backward = st.compare([a], [b], averages=averages), st.compare([b], [a], averages=averages)
    for x, y in zip(
        [*forward.cells.values(), *forward.averages.values()],
        [*backward.cells.values(), *backward.averages.values()],
        strict=True,
    ):
        assert (x.estimate, x.low, x.high) == pytest.approx((-y.estimate, -y.high, -y.low), abs=1e-9)
        assert x.p == y.p
        assert {x.verdict, y.verdict} in ({"better", "worse"}, {"cannot tell"})


def test_order_of_rows_does_not_matter():
    a, b = make_toy_systems()
    order = np.random.default_rng(0).permutation(12)
    turned = {
        "one": st.Sample(
            [NAMES[i] for i in order], [TOY["paragraph"][i] for i in order], [TOY["f1_a"][i] for i in order]
        )
    }
    assert st.compare([turned], [select_cell(b)]) == st.compare([select_cell(a)], [select_cell(b)])


def test_the_block_size_of_resampling_changes_nothing():
    once = np.concatenate(list(st.draw_group_counts(np.random.default_rng(7), 33, 501, block=501)))
    for block in (1, 100, 333):
        assert (
            np.concatenate(list(st.draw_group_counts(np.random.default_rng(7), 33, 501, block=block))) == once
        ).all()


def test_a_system_against_itself_is_identical():
    a, _ = make_toy_systems()
    comparison = st.compare([a], [a], averages={"macro": ["one", "two"]})
    for result in (*comparison.cells.values(), comparison.averages["macro"]):
        assert (result.verdict, result.low, result.high, result.estimate) == ("identical", None, None, 0.0)


def test_equal_means_are_not_identical_answers():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 100, 40)
    groups = [f"g{i // 2}" for i in range(40)]
    a, b = ({0: make_sample(s, groups)} for s in (scores, scores.reshape(-1, 2)[:, ::-1].ravel()))
    assert st.compare([a], [b]).cells[0].verdict == "cannot tell"


@pytest.mark.parametrize(("shift", "expected"), [(8.0, "better"), (-8.0, "worse"), (0.0, "cannot tell")])
def test_verdicts_follow_the_true_difference(shift, expected):
    rng = np.random.default_rng(3)
    b = make_random_cells(rng, groups=40, questions=200)
    a = {
        c: st.Sample(sample.ids, sample.groups, sample.scores + shift + np.random.default_rng(c).normal(0, 20, 200))
        for c, sample in b.items()
    }
    assert {r.verdict for r in st.compare([a], [b]).cells.values()} == {expected}


def test_too_few_groups_give_no_verdict():
    ids = [f"q{i}" for i in range(19)]
    a, b = ({0: st.Sample(ids, ids, [value] * 19)} for value in (100.0, 0.0))
    result = st.compare([a], [b]).cells[0]
    assert result.verdict == st.TOO_FEW_GROUPS
    assert result.p < 0.001


def test_primary_averages_are_corrected_as_a_separate_family():
    rng = np.random.default_rng(4)
    b = make_random_cells(rng, cells=6)
    a = {
        c: st.Sample(sample.ids, sample.groups, sample.scores + np.random.default_rng(c).normal(2, 12, 60))
        for c, sample in b.items()
    }
    comparison = st.compare([a], [b], averages={"all": range(6), "x": [0, 1], "y": [2, 3]}, primary=["all"])
    assert comparison.averages["all"].adjusted == comparison.averages["all"].p
    assert comparison.averages["x"].adjusted == pytest.approx(
        st.adjust_holm([comparison.averages["x"].p, comparison.averages["y"].p])[0]
    )
    assert [r.adjusted for r in comparison.cells.values()] == st.adjust_holm([r.p for r in comparison.cells.values()])


def test_scores_of_one_system_have_intervals_and_no_p_value():
    a, _ = make_toy_systems()
    comparison = st.estimate([select_cell(a)], averages={"mean": ["one"]})
    result = comparison.cells["one"]
    assert result.estimate == TOY["mean_a"]
    assert result.low < 71.75 < result.high
    assert (result.p, result.verdict) == (None, "")
    assert comparison.averages["mean"] == result


def test_comparisons_of_other_questions_are_refused_by_id():
    a, b = make_toy_systems()
    fewer = {"one": st.Sample(NAMES[:11], TOY["paragraph"][:11], TOY["f1_b"][:11])}
    with pytest.raises(UserError, match=r"one: 1 questions were answered by one of the two compared runs alone: q11"):
        st.compare([select_cell(a)], [fewer])
    with pytest.raises(UserError, match="only one side has two"):
        st.compare([a], [select_cell(b)])
    with pytest.raises(
        UserError, match=r"13 questions were answered by one of the two compared runs alone: q0, .*, q7 and 3 more"
    ):
        st.compare([select_cell(a)], [{"one": st.Sample(["q99"], ["p1"], [1.0])}])
    with pytest.raises(UserError, match="1 ids occur twice"):
        st.estimate([{"one": st.Sample(["a", "a"], ["g", "g"], [0.0, 1.0])}])
    moved = {"one": st.Sample(NAMES, ["p9", *TOY["paragraph"][1:]], TOY["f1_b"])}
    with pytest.raises(UserError, match="different groups: q0"):
        st.compare([select_cell(a)], [moved])


def test_a_large_grid_takes_seconds():
    rng = np.random.default_rng(0)
    ids, groups = [f"q{i}" for i in range(1148)], [f"g{i * 933 // 1148}" for i in range(1148)]
    a, b = ({c: st.Sample(ids, groups, rng.uniform(0, 100, 1148)) for c in range(49)} for _ in range(2))
    start = time.process_time()
    st.compare([a], [b], averages={"gxlt": range(49)}, primary=["gxlt"])
    assert time.process_time() - start < 10


def test_the_error_rate_without_a_true_difference_is_about_five_percent():
    rng = np.random.default_rng(11)
    groups = [f"g{i:02d}" for i in np.repeat(np.arange(60), 3)]
    ids = [f"q{i}" for i in range(180)]
    zero = dict.fromkeys(range(100), st.Sample(ids, groups, [0.0] * 180))
    p = []
    for seed in range(10):  # 1,000 trials, a hundred from each draw
        scores = np.repeat(rng.normal(0, 10, (100, 60)), 3, axis=1) + rng.normal(0, 20, (100, 180))
        a = {trial: st.Sample(ids, groups, row) for trial, row in enumerate(scores)}
        p += [result.p for result in st.compare([a], [zero], seed=seed).cells.values()]
    assert 0.03 <= np.mean(np.array(p) <= 0.05) <= 0.085
