# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Random choices of whole groups from a source: the options `draw`, `after` and `limit`."""

import collections
import json

import pytest

from xlkd.data import sources
from xlkd.errors import UserError

SIZES = [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 3, 3]  # questions of each paragraph


@pytest.fixture(scope="module")
def xquad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xquad")
    for language in ("de", "en"):
        paragraphs = [
            {
                "context": f"{language} {place} Anna",
                "qas": [
                    {"id": f"{place}-{i}", "question": "?", "answers": [{"text": language, "answer_start": 0}]}
                    for i in range(size)
                ],
            }
            for place, size in enumerate(SIZES)
        ]
        document = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (folder / f"xquad.{language}.json").write_text(json.dumps(document))
    return folder


def choose(folder, options):
    return sources.read(f"xquad:{folder}?{options}", "qa")


def count_groups(rows):
    return collections.Counter((row.context_language, row.group) for row in rows)


def test_a_draw_takes_whole_groups_the_same_in_all_languages(xquad):
    rows = choose(xquad, "draw=3&limit=12")
    by_language = {tag: [row.group for row in rows if row.context_language == tag] for tag in ("de", "en")}
    assert by_language["de"] == by_language["en"]
    assert len(by_language["en"]) == 12
    for (_, group), size in count_groups(rows).items():
        assert size == SIZES[int(group.rpartition("/")[2])]


def test_each_seed_draws_other_groups_and_always_the_same(xquad):
    draws = {seed: [row.key for row in choose(xquad, f"draw={seed}&limit=12")] for seed in range(6)}
    assert len({tuple(keys) for keys in draws.values()}) == 6
    assert draws[2] == [row.key for row in choose(xquad, "limit=12&draw=2")]
    # What is drawn of some languages does not depend on which others are read
    assert draws[2][len(draws[2]) // 2 :] == [row.key for row in choose(xquad, "languages=en&draw=2&limit=12")]
    everything = choose(xquad, "draw=2")
    assert sorted(row.key for row in everything) == sorted(row.key for row in choose(xquad, "pairs=diagonal"))


def test_every_group_is_drawn_about_equally_often(xquad):
    drawn = collections.Counter()
    for seed in range(200):
        drawn.update({row.group for row in choose(xquad, f"languages=en&draw={seed}&limit=18")})
    assert len(drawn) == len(SIZES)
    assert all(60 < count < 160 for count in drawn.values())  # half of the 36 questions each time; small groups fit in


def test_groups_of_the_first_rows_of_any_cell_can_be_left_out(xquad):
    first = {row.group for row in choose(xquad, "limit=4")}
    rows = choose(xquad, "after=4")
    assert {row.group for row in rows} == {row.group for row in choose(xquad, "pairs=all")} - first
    assert not first & {row.group for row in choose(xquad, "pairs=all&after=4&draw=1&limit=9")}
    # In the file's order without a draw, and at most `limit` rows of each cell
    assert [row.key for row in choose(xquad, "after=4&limit=2")] == [
        row.key for language in ("de", "en") for row in [r for r in rows if r.context_language == language][:2]
    ]


def test_a_draw_works_for_labels_and_translations(tmp_path):
    lines = [f"premise {i // 3}\thypothesis {i}\tneutral" for i in range(30)]
    for language in ("de", "en"):
        (tmp_path / f"dev-{language}.tsv").write_text("".join(f"{language} {line}\n" for line in lines))
    rows = sources.read(f"xnli:{tmp_path}?split=dev&draw=1&limit=9", "classify")
    assert collections.Counter(row.group for row in rows) == {group: 6 for group in {row.group for row in rows}}

    (tmp_path / "newstest2019-src.eng.txt").write_text("".join(f"s{i}\n" for i in range(20)))
    (tmp_path / "newstest2019-ref.deu.txt").write_text("".join(f"t{i}\n" for i in range(20)))
    (tmp_path / "DOCUMENT_IDS.tsv").write_text("".join(f"document{i // 4}\n" for i in range(20)))
    pairs = sources.read(f"ntrex:{tmp_path}?draw=1&limit=9", "parallel")
    assert len(pairs) == 8
    assert len({pair.group for pair in pairs}) == 2


@pytest.mark.parametrize(
    ("source", "task", "message"),
    [
        ("xquad:{}?draw=x", "qa", "draw=x is not a whole number"),
        ("xquad:{}?after=-1", "qa", "after=-1 is not a whole number"),
        ("xquad:{}?after=1000", "qa", "no rows"),
        ("atlas?draw=1", "qa", "unknown option 'draw'"),
        ("moses:{}?draw=1", "parallel", "unknown option 'draw'"),
    ],
)
def test_impossible_draws_are_refused(xquad, source, task, message):
    with pytest.raises(UserError) as error:
        sources.read(source.format(xquad), task)
    assert message in str(error.value)
