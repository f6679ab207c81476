# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reports of studies: primary differences, the score that decides, and statistics over draws."""

from __future__ import annotations

import json
import pathlib
import re

import numpy as np
import pytest
from reports_toys import (
    draw_questions,
    use_few_resamples,
    write_draw,
    write_grid_run,
    write_json,
    write_label_run,
    write_pair_run,
    write_run,
    write_stage,
)
from scipy import stats
from test_reports_overview import Parser, select_differences, write_page

from xlkd.reports import files, joined, systems


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    use_few_resamples(monkeypatch)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[str, dict]:
    """Returns the page and the numbers of five draws."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        use_few_resamples(patch)
        page = write_page(*(write_draw(folder / f"seed={draw}", draw) for draw in range(1, 6)))
    return page, read_numbers(folder)


def read_numbers(folder: pathlib.Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def change_config(folder: pathlib.Path, **values) -> pathlib.Path:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | values)
    return folder


def score(control: str, share: float, draw: int, *, off_diagonal: bool = True) -> float:
    """Returns the score of a control in a draw, from its rows."""
    rows = draw_questions(share, seed=draw, languages=("en", "de"), tag=control, groups=25)
    return np.mean(
        [row["f1"] for row in rows if not off_diagonal or row["question_language"] != row["context_language"]]
    )


def test_draws_with_their_own_questions_have_a_t_interval_and_primary_ones_are_one_family(study):
    data = study[1]["sets"]["toy"]
    assert data["draws"] == [1, 2, 3, 4, 5]
    assert data["primary"] == ["skd:ce", "skd_map:ce"]
    shares = {"ce": 0.5, "skd": 0.55, "skd_map": 0.6}
    tests = {}
    for name in data["primary"]:
        a, b = name.split(":")
        values = [score(a, shares[a], draw) - score(b, shares[b], draw) for draw in data["draws"]]
        tests[name] = stats.ttest_1samp(values, 0)
        number = data["comparisons"][name]["averages"]["gxlt_off"]["f1"]
        interval = tests[name].confidence_interval(0.95)
        np.testing.assert_allclose(number["by_seed"], values, atol=1e-5)
        np.testing.assert_allclose([number["low"], number["high"]], interval, atol=1e-4)
        assert number["questions"] == 50
    small, large = sorted(test.pvalue for test in tests.values())
    adjusted = sorted(data["comparisons"][name]["averages"]["gxlt_off"]["f1"]["adjusted"] for name in data["primary"])
    np.testing.assert_allclose(adjusted, [2 * small, max(2 * small, large)], rtol=1e-4)


def test_differences_that_are_not_primary_are_not_tested(study):
    data = study[1]["sets"]["toy"]
    verdicts = {
        name: compared["averages"]["gxlt_off"]["f1"]["verdict"] for name, compared in data["comparisons"].items()
    }
    assert verdicts["ce:zs"] == verdicts["skd_map:skd"] == "not tested"
    assert "not tested" not in (verdicts["skd:ce"], verdicts["skd_map:ce"])
    cells = [cell["f1"] for compared in data["comparisons"].values() for cell in compared["cells"].values()]
    assert {cell["verdict"] for cell in cells} == {"not tested"}
    assert all(cell["low"] <= cell["value"] <= cell["high"] for cell in cells)
    excluded = sum(cell["low"] > 0 or cell["high"] < 0 for cell in cells)
    squares = study[0].partition('class="squares')[2].partition("</div><details>")[0]
    assert 0 < excluded <= len(re.findall(r'<td class="(?:[bw]\d )?away"', squares)) < len(cells)


def test_the_first_screen_of_a_study_says_what_is_tested_and_over_what(study):
    text = study[0]
    plot = re.search(r'<ul class="forest">(.*?)</ul>(.*?)</p>', text, re.S)
    said = [text for attributes, text in Parser(plot[1]).select("li") if attributes.get("class") != "axis"]
    assert said[0] == "primary"
    assert [each.partition(":")[0] for each in said[1:3]] == ["skd − ce", "skd_map − ce"]
    assert said[3] == "others"
    assert all(each.endswith("not tested") for each in said[4:])
    assert plot[1].count('class="seed"') == 4 * 5, "a dot for each draw"
    assert "5 draws, each with its own questions: the t-interval covers the draws" in plot[2]
    assert "Only the 2 primary differences are tested, Holm-corrected." in plot[2]
    page = Parser(text.partition("</head>")[2].partition("<script")[0])
    (heading, *_) = [said for _, said in page.select("h3")]
    assert heading.startswith("Differences in F1, G-XLT, without the diagonal: ")
    assert "4 cells with 100 scored rows a draw, 5 draws." in page.select("p", "what")[0][1]
    assert len(page.select("table", "heat")) == 4 + 4 + 2
    assert re.search(r"sd \d+\.\d", page.select("section", "averages")[0][1])
    assert "outlined" not in text.partition("legends")[2].partition("squares")[0]


def test_contamination_of_any_draw_is_shown(study):
    page, numbers = study
    assert numbers["stages"]["ce"]["contamination"]["eval"]["flagged"] == 1
    assert numbers["stages"]["ce"]["contamination"]["eval"]["rows"] == 100
    assert "Contamination</a>: found" in page
    cell = numbers["sets"]["toy"]["systems"]["ce"]["cells"]["en-en"]
    assert "C" in cell["badges"]
    assert cell["met_in_training"] == 1


def test_draws_of_several_settings_are_compared_within_each_draw(tmp_path):
    folders = [
        write_draw(tmp_path / f"t={t} seed={draw}", draw, right=(0.3, 0.5, 0.5 + 0.1 * t, 0.6), temperature=t)
        for t in (1, 2)
        for draw in (1, 2, 3)
    ]
    write_page(*folders)
    compared = read_numbers(tmp_path)["sets"]["toy"]["comparisons"]["t=2/skd:t=1/skd"]
    values = [score("skd", 0.7, draw) - score("skd", 0.6, draw) for draw in (1, 2, 3)]
    np.testing.assert_allclose(compared["averages"]["gxlt_off"]["f1"]["by_seed"], values, atol=1e-5)


def test_a_draw_that_is_not_finished_is_left_out_of_the_differences_it_lacks(tmp_path):
    folders = [write_draw(tmp_path / f"seed={draw}", draw) for draw in (1, 2, 3)]
    for name in ("03-skd", "04-skd_map"):
        (folders[2] / "stages" / name / "done").unlink()
    write_page(*folders)
    comparisons = read_numbers(tmp_path)["sets"]["toy"]["comparisons"]
    sizes = {name: len(each["averages"]["gxlt_off"]["f1"]["by_seed"]) for name, each in comparisons.items()}
    assert sizes == {"skd:ce": 2, "skd_map:ce": 2, "ce:zs": 3, "skd_map:skd": 2}


def test_settings_without_a_common_draw_are_noted(tmp_path):
    write_page(
        *(write_draw(tmp_path / f"t={t} seed={t}{i}", 10 * t + i, temperature=t) for t in (1, 2) for i in (0, 1))
    )
    results = read_numbers(tmp_path)
    assert "t=2/ce against t=1/ce on toy: not compared: no draw in common" in results["notes"]
    assert "t=2/skd:t=2/ce" in results["sets"]["toy"]["comparisons"]


def test_only_runs_of_other_seeds_are_draws_of_one_study(tmp_path):
    write_draw(tmp_path / "1", 1)
    write_draw(tmp_path / "2", 2)
    write_draw(tmp_path / "longer", 3, temperature=2)
    change_config(write_draw(tmp_path / "same seed", 2), seed=1)
    runs = {path.name: files.read_run(path) for path in tmp_path.iterdir()}

    def group(*names: str) -> int:
        return len(systems.group_runs([runs[name] for name in names]))

    assert group("1", "2") == 1
    assert group("1", "longer") == 2
    assert group("1", "same seed") == 2


def test_one_run_is_judged_by_the_average_and_the_primary_differences_of_its_config(tmp_path):
    names = ("zs", "ce", "skd", "map")
    report = {"compare": ["ce:zs", "skd:ce"], "primary": ["skd:ce", "map:ce"], "judged_by": "toy/gxlt_off/em"}
    write_run(tmp_path, names, report=report)
    for number, (name, right) in enumerate(zip(names, (0.3, 0.5, 0.55, 0.6), strict=True), 1):
        write_stage(tmp_path, number, name, {"eval": draw_questions(right, languages=("en", "de"), tag=name)})
    text = write_page(tmp_path)
    data = read_numbers(tmp_path)["sets"]["toy"]
    sentences = select_differences(text)
    assert sentences[0] == "primary"
    assert [each.partition(":")[0] for each in sentences[1:]] == ["skd − ce", "map − ce", "others", "ce − zs"]
    assert data["main"] == "em"
    numbers = [data["comparisons"][name]["averages"]["gxlt_off"]["em"] for name in data["primary"]]
    assert [f"{each['value']:+.1f} EM" in said for each, said in zip(numbers, sentences[1:3], strict=True)] == [
        True
    ] * 2
    small, large = sorted(number["p"] for number in numbers)
    assert sorted(each["adjusted"] for each in numbers) == [min(1, 2 * small), min(1, max(2 * small, large))]


def test_a_score_that_no_set_has_is_noted(tmp_path):
    change_config(write_grid_run(tmp_path), report={"compare": ["skd:ce"], "judged_by": "mlqa/gxlt/f1"})
    write_page(tmp_path)
    assert "report.judged_by: no differences in gxlt, f1 of mlqa" in read_numbers(tmp_path)["notes"]


def test_seeds_on_the_same_questions_keep_their_interval_and_show_that_over_seeds(tmp_path):
    text = write_page(write_label_run(tmp_path / "one"))
    assert 'class="spread"' not in text.partition("<body>")[2]
    for seed in range(3):
        folder = write_label_run(tmp_path / f"seed={seed}", seed=seed)
        change_config(folder, report={"compare": ["mblm:branches"]})
    text = write_page(*(tmp_path / f"seed={seed}" for seed in range(3)))
    assert text.partition("<body>")[2].count('class="spread"') == 2
    assert "questions and seeds" in text
    assert "Small dots: single seeds, with their t-interval." in text


def test_less_is_better_turns_the_verdict_over_draws():
    def make_draw(value):
        number = {"value": value, "low": value - 1, "high": value + 1, "questions": 9, "groups": 9}
        number |= {"p": 0.5, "adjusted": 0.5, "verdict": "cannot tell"}
        averages = {"macro_mean": {"badges": [], "word": "", "error": number}}
        compared = {"a": "x", "b": "y", "primary": ["macro_mean"], "cells": {}, "averages": averages}
        comparisons = {"x:y": compared}
        return {"metrics": ["error"], "lower_is_better": ["error"], "systems": {}, "comparisons": comparisons}

    by_draw = {draw: make_draw(value) for draw, value in enumerate((5.0, 5.1, 4.9))}
    numbers = joined.join_draws(by_draw, [], same_questions=True)
    assert numbers["comparisons"]["x:y"]["averages"]["macro_mean"]["error"]["verdict"] == "worse"
    assert "not the choice of questions" in numbers["comparisons"]["x:y"]["caption"]


@pytest.mark.parametrize(
    ("write", "maps", "columns"),
    [
        (write_grid_run, 3 + 2 + 2, ["G-XLT, diagonal included", "G-XLT, without the diagonal", "XLT"]),
        (write_label_run, 1, ["supervised mean", "zero-shot mean"]),
        (write_pair_run, 1, ["macro mean"]),
    ],
)
def test_every_system_and_its_sweep_has_differences_means_and_maps(tmp_path, write, maps, columns):
    folders = [write(tmp_path / f"seed={seed}", seed=seed) for seed in range(2)]
    for text in (write_page(folders[0]), write_page(*folders)):
        page = Parser(text.partition("</head>")[2].partition("<script")[0])
        assert select_differences(text)
        assert len(page.select("table", "heat")) == maps
        head = re.search(r'<section class="averages">.*?</tr>', text, re.S)[0]
        assert [said for _, said in Parser(head.replace("<section", "<br")[: head.index("</tr>")]).select("th")][
            1:
        ] == columns
