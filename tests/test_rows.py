# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Cells: `parse` reads back what `str` writes, for any language tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlkd.rows import Cell, Labelled, Pair, Question

TAGS = st.from_regex(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?(-[a-z]{5,8})?", fullmatch=True)


@given(st.sampled_from(["", "mlqa", "my set"]), st.lists(TAGS, min_size=1, max_size=2))
def test_a_cell_is_parsed_back_from_its_string(name, tags):
    cell = Cell(name, tuple(tags))
    assert Cell.parse(str(cell)) == cell


@pytest.mark.parametrize(
    ("example", "written"),
    [
        (Question("1", "k", "g", "mlqa", "Q?", "C", (), "en", "zh-Hant"), "mlqa en-zh-Hant"),
        (Labelled("1", "k", "g", "xnli", "text", None, None, "sr-Latn"), "xnli sr-Latn"),
        (Pair("1", "k", "g", "ntrex", "a", "b", "zh-Hant", "de"), "ntrex zh-Hant-de"),
    ],
)
def test_the_cell_of_an_example_has_its_set_and_languages(example, written):
    assert str(Cell.from_example(example)) == written
