# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Averages over a grid, by hand; no official name on an incomplete one."""

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
def test_values(name, value):
    found = compute_averages(SCORES, THREE, seen={"en", "es"})[name]
    assert found.value == (value if value is None else pytest.approx(value))
    assert (found.title, found.missing) == (name, ())


def test_the_lowest_cell_is_named():
    assert compute_averages(SCORES, THREE)["worst"].cells == (("es", "de"),)


def test_what_names_a_language_or_labels_that_are_not_there_is_left_out():
    found = compute_averages(SCORES, THREE, pivot="fr")
    assert not {"transfer_gap", "pivot_question", "pivot_context", "xlt_seen", "gxlt_unseen"} & set(found)
    assert compute_averages({}, THREE)["xlt"].value is None
    assert compute_averages({("de", "de"): 1.0}, ("de",), pivot="de")["transfer_gap"].value is None


def test_an_incomplete_set_loses_its_name_and_says_what_is_missing():
    found = compute_averages({k: v for k, v in SCORES.items() if k != ("es", "es")}, THREE)
    assert found["xlt"].value == 70.0
    assert found["xlt"].title == "2 of 3 cells of xlt (missing: es-es)"
    assert found["gxlt_off"].title == "gxlt_off"
    assert found["transfer_gap"].title == "2 of 3 cells of transfer_gap (missing: es-es)"
    no_pivot = compute_averages({k: v for k, v in SCORES.items() if k != ("en", "en")}, THREE)["transfer_gap"]
    assert (no_pivot.value, no_pivot.missing) == (None, (("en", "en"),))


def test_a_diagonal_has_no_grid_averages():
    found = compute_averages({(x, x): 50.0 for x in LANGUAGES["xquad"]}, LANGUAGES["xquad"], set="xquad")
    assert {"xlt", "xquad_zs", "xquad_11", "xquad_12", "transfer_gap", "worst"} == set(found)
    assert [len(found[name].cells) for name in ("xquad_zs", "xquad_11", "xquad_12")] == [4, 11, 12]


def test_without_romanian_eleven_stay():
    found = compute_averages({(x, x): 50.0 for x in LANGUAGES["xquad"] if x != "ro"}, LANGUAGES["xquad"], set="xquad")
    assert found["xquad_11"].title == "xquad_11"
    assert found["xquad_12"].missing == (("ro", "ro"),)


def test_counts_of_cells():
    named = list_average_cells(LANGUAGES["mlqa"], set="mlqa", seen=("en",))
    sizes = {
        "gxlt": 49,
        "gxlt_off": 42,
        "xlt": 7,
        "gxlt_seen": 0,
        "gxlt_mixed": 12,
        "gxlt_unseen": 30,
        "pivot_context": 6,
    }
    assert {name: len(named[name]) for name in sizes} == sizes
    assert len(list_average_cells(LANGUAGES["tydiqa"], set="tydiqa", grid=False)["tydiqa_zs"]) == 7
