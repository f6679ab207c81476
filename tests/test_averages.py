# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Averages over a grid, computed by hand; an incomplete grid has no official name."""

import pytest

from xlkd.metrics.averages import LANGUAGES, compute_averages, list_average_cells

THREE = ("de", "en", "es")
SCORES = {
    ("de", "de"): 60.0, ("de", "en"): 50.0, ("de", "es"): 40.0,
    ("en", "de"): 55.0, ("en", "en"): 80.0, ("en", "es"): 45.0,
    ("es", "de"): 35.0, ("es", "en"): 65.0, ("es", "es"): 70.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("xlt", 70.0),
        ("gxlt", 500 / 9),
        ("gxlt_off", 290 / 6),
        ("by_question[es]", 170 / 3),
        ("by_question_off[es]", 50.0),
        ("by_context[es]", 155 / 3),
        ("by_context_off[es]", 42.5),
        ("pivot_question", 50.0),
        ("pivot_context", 57.5),
        ("xlt_seen", 75.0),
        ("xlt_unseen", 60.0),
        ("gxlt_seen", 55.0),
        ("gxlt_mixed", 45.0),
        ("gxlt_unseen", None),
        ("transfer_gap", 15.0),
        ("worst", 35.0),
    ],
)
def test_averages_by_hand(name, value):
    average = compute_averages(SCORES, THREE, seen={"en", "es"})[name]
    assert average.value == (value if value is None else pytest.approx(value))
    assert (average.title, average.missing) == (name, ())


def test_the_lowest_cell_is_named():
    assert compute_averages(SCORES, THREE)["worst"].cells == (("es", "de"),)


def test_averages_without_their_pivot_or_seen_languages_are_left_out():
    averages = compute_averages(SCORES, THREE, pivot="fr")
    assert not {"transfer_gap", "pivot_question", "pivot_context", "xlt_seen", "gxlt_unseen"} & set(averages)
    assert compute_averages({}, THREE)["xlt"].value is None
    assert compute_averages({("de", "de"): 1.0}, ("de",), pivot="de")["transfer_gap"].value is None


def test_an_incomplete_average_has_another_title_that_names_missing_cells():
    averages = compute_averages({k: v for k, v in SCORES.items() if k != ("es", "es")}, THREE)
    assert averages["xlt"].value == 70.0
    assert averages["xlt"].title == "2 of 3 cells of xlt (missing: es-es)"
    assert averages["gxlt_off"].title == "gxlt_off"
    assert averages["transfer_gap"].title == "2 of 3 cells of transfer_gap (missing: es-es)"
    no_pivot = compute_averages({k: v for k, v in SCORES.items() if k != ("en", "en")}, THREE)["transfer_gap"]
    assert (no_pivot.value, no_pivot.missing) == (None, (("en", "en"),))


def test_a_diagonal_has_no_grid_averages():
    averages = compute_averages({(x, x): 50.0 for x in LANGUAGES["xquad"]}, LANGUAGES["xquad"], set="xquad")
    assert {"xlt", "xquad_zs", "xquad_11", "xquad_12", "transfer_gap", "worst"} == set(averages)
    assert [len(averages[name].cells) for name in ("xquad_zs", "xquad_11", "xquad_12")] == [4, 11, 12]


def test_without_romanian_eleven_languages_of_xquad_remain():
    averages = compute_averages(
        {(x, x): 50.0 for x in LANGUAGES["xquad"] if x != "ro"}, LANGUAGES["xquad"], set="xquad"
    )
    assert averages["xquad_11"].title == "xquad_11"
    assert averages["xquad_12"].missing == (("ro", "ro"),)


def test_numbers_of_cells():
    cells_by_average = list_average_cells(LANGUAGES["mlqa"], set="mlqa", seen=("en",))
    sizes = {
        "gxlt": 49,
        "gxlt_off": 42,
        "xlt": 7,
        "gxlt_seen": 0,
        "gxlt_mixed": 12,
        "gxlt_unseen": 30,
        "pivot_context": 6,
    }
    assert {name: len(cells_by_average[name]) for name in sizes} == sizes
    assert len(list_average_cells(LANGUAGES["tydiqa"], set="tydiqa", grid=False)["tydiqa_zs"]) == 7
