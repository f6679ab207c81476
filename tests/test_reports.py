# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Reports of runs: numbers, intervals, badges, differences, and refused runs."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from reports_toys import (
    NOTHING,
    draw_labels,
    draw_questions,
    draw_retrieval,
    write_grid_run,
    write_json,
    write_label_run,
    write_pair_run,
    write_run,
    write_stage,
)

from xlkd import reports
from xlkd.errors import UserError
from xlkd.metrics import averages, statistics


def write_report(*folders: pathlib.Path) -> tuple[dict, list[str]]:
    lines: list[str] = []
    folder = folders[0]
    reports.write(folders, lines.append, reports.locate_outputs(folders, folder=folder))
    return json.loads((folder / "results.json").read_text()), lines


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> tuple[dict, list[str]]:
    return write_report(write_grid_run(tmp_path_factory.mktemp("grid")))


def test_cells_and_averages_are_means_of_the_rows(grid):
    shown = grid[0]["sets"]["toy"]["systems"]["ce"]
    rows = draw_questions(0.6)
    cell = [row["f1"] for row in rows if (row["question_language"], row["context_language"]) == ("en", "de")]
    assert shown["cells"]["en-de"]["f1"]["value"] == pytest.approx(sum(cell) / len(cell), abs=1e-6)
    scores = {tuple(name.split("-")): entry["em"]["value"] for name, entry in shown["cells"].items()}
    for name, average in averages.compute_averages(scores, ["ar", "de", "en"], seen={"de", "en"}).items():
        if name != "worst" and average.value is not None:
            assert shown["averages"][name]["em"]["value"] == pytest.approx(average.value, abs=1e-5), name
    lowest = shown["worst"]["f1"]
    assert lowest["value"] == min(entry["f1"]["value"] for entry in shown["cells"].values())
    assert shown["cells"][lowest["cell"]]["f1"]["value"] == lowest["value"]


def test_em_at_k_is_em_at_first_and_never_falls(grid):
    for system in grid[0]["sets"]["toy"]["systems"].values():
        plain = {name for name, entry in system["averages"].items() if "against" not in entry}
        assert system["em_at"].keys() == plain
        for name, values in system["em_at"].items():
            assert values[0] == pytest.approx(system["averages"][name]["em"]["value"], abs=1e-5)
            assert len(values) == 10
            assert values == sorted(values)
        assert values[0] < values[-1] < 100


def write_ranked_run(folder, ranks, seed=0):
    """Writes a run of one stage; `ranks` are those of the questions in each language, None where a row has none."""
    rows = []
    for language, own in ranks.items():
        for row, rank in zip(draw_questions(0, groups=len(own), languages=(language,)), own, strict=True):
            rows.append(row | {"f1": 100.0 * (rank == 1), "em": 100.0 * (rank == 1), "rank": rank})
    write_run(folder, ("ce",), seed=seed)
    write_stage(folder, 1, "ce", {"eval": rows})
    return folder


def test_em_at_k_is_the_mean_over_cells_and_then_over_seeds(tmp_path):
    first = write_ranked_run(tmp_path / "0", {"en": [1, 2, 0, 10], "de": [3, 0]})
    second = write_ranked_run(tmp_path / "1", {"en": [1, 1, 1, 1], "de": [3, 3]}, seed=1)
    values = [12.5, 25, 50, 50, 50, 50, 50, 50, 50, 62.5]
    results, _ = write_report(first)
    assert results["sets"]["toy"]["systems"]["ce"]["em_at"] == {"xlt": values, "xlt_unseen": values}
    table = (first / "report.txt").read_text().splitlines()
    (line,) = [line for line in table if line.startswith("  ce, XLT (question")]
    assert line.split()[-10:] == ["12.5", "25.0", *["50.0"] * 7, "62.5"]
    results, _ = write_report(first, second)
    both = [(a + b) / 2 for a, b in zip(values, [50, 50, *[100] * 8], strict=True)]
    assert results["sets"]["toy"]["systems"]["ce"]["em_at"]["xlt"] == both


def test_means_over_a_row_without_a_rank_have_no_em_at_k(tmp_path):
    """Such rows were written by earlier versions, or belong to cells with unanswerable questions."""
    old = write_ranked_run(tmp_path / "0", {"en": [None] * 4, "de": [None] * 2})
    assert "em_at" not in write_report(old)[0]["sets"]["toy"]["systems"]["ce"]
    assert "EM@" not in (old / "report.txt").read_text() + (old / "report.html").read_text()
    new = write_ranked_run(tmp_path / "1", {"en": [1, 2, 0, 10], "de": [3, 0]}, seed=1)
    assert "em_at" not in write_report(old, new)[0]["sets"]["toy"]["systems"]["ce"], "one seed has no ranks"


def test_both_forms_of_gxlt_are_shown_and_named(grid):
    averages = grid[0]["sets"]["toy"]["systems"]["skd"]["averages"]
    assert [len(averages[name]["cells"]) for name in ("gxlt", "gxlt_off", "xlt")] == [9, 6, 3]
    text = "\n".join(grid[1])
    assert "G-XLT, diagonal included" in text
    assert "G-XLT, without the diagonal" in text


def test_the_terminal_gets_a_summary_and_the_file_all_tables(tmp_path):
    folder = write_grid_run(tmp_path)
    _, brief = write_report(folder)
    full = (folder / "report.txt").read_text().splitlines()
    assert len(brief) < 60 < len(full)
    assert any(line.startswith("skd − ce") for line in full)
    assert not any(line.startswith("skd − ce") for line in brief)
    better = "significantly better (Holm-corrected)."
    assert [line for line in full if line.endswith(better)] == [line for line in brief if line.endswith(better)]


def test_intervals_and_verdicts_equal_those_of_the_statistics_module(grid):
    def cells(rows):
        by_cell: dict = {}
        for row in rows:
            by_cell.setdefault(f"{row['question_language']}-{row['context_language']}", []).append(row)
        return {
            name: statistics.Sample(
                [r["id"] for r in cell_rows], [r["group"] for r in cell_rows], [r["f1"] for r in cell_rows]
            )
            for name, cell_rows in sorted(by_cell.items())
        }

    expected = statistics.compare([cells(draw_questions(0.65, tag="skd"))], [cells(draw_questions(0.6))])
    shown = grid[0]["sets"]["toy"]["comparisons"]["skd:ce"]["cells"]
    for name, result in expected.cells.items():
        assert shown[name]["f1"]["low"] == pytest.approx(result.low, abs=1e-6)
        assert shown[name]["f1"]["adjusted"] == result.adjusted
        assert shown[name]["f1"]["verdict"] == result.verdict


def test_the_transfer_gap_lies_in_its_interval_and_its_difference_has_no_direction(grid):
    data = grid[0]["sets"]["toy"]
    gap = data["systems"]["ce"]["averages"]["transfer_gap"]["f1"]
    assert gap["low"] < gap["value"] < gap["high"]
    for compared in data["comparisons"].values():
        assert compared["averages"]["transfer_gap"]["f1"]["verdict"] not in ("better", "worse")


def test_badges_combine_both_languages_and_contaminated_rows_are_not_zero_shot(grid):
    systems = grid[0]["sets"]["toy"]["systems"]
    assert systems["english"]["cells"]["en-de"]["badges"] == ["T"]
    assert systems["english"]["cells"]["de-ar"]["word"] == "zero-shot"
    assert systems["english"]["cells"]["en-ar"]["word"] == "transferred"
    assert systems["english"]["cells"]["en-en"]["word"] == "supervised"
    assert systems["ce"]["cells"]["en-de"]["badges"] == ["T", "K", "C"]
    assert systems["ce"]["cells"]["ar-ar"]["badges"] == []
    assert any("30 of 270 examples of eval occur in the training data" in line for line in grid[1])


def test_a_difference_is_described_in_words_with_its_interval(grid):
    number = grid[0]["sets"]["toy"]["comparisons"]["skd:ce"]["averages"]["gxlt"]["f1"]
    assert number["verdict"] == "cannot tell"
    sentences = [line for line in grid[1] if line.startswith("self-distillation [skd] against cross-entropy [ce]")]
    assert any(
        "diagonal included: +1.1 (95% interval −5.3 to 7.5): no significant difference." in line for line in sentences
    )
    assert any("no significant difference on the primary means" in line for line in sentences)


def test_unequal_budgets_are_shown(grid):
    differences = {(pair["a"], pair["b"]): pair["differ"] for pair in grid[0]["budgets"]}
    assert differences["ce", "english"] == {"rows": [100, 500]}
    assert differences["skd", "ce"] == {"steps": [12, 10]}


def test_means_over_other_languages_are_not_compared(grid):
    compared = grid[0]["sets"]["toy"]["comparisons"]["ce:english"]
    assert "xlt_seen" in compared["not_compared"]
    assert "xlt_seen" not in compared["averages"]


def test_data_sets_joined_in_one_evaluation_set_are_reported_separately(tmp_path):
    write_run(tmp_path, ("one",))
    rows = draw_questions(0.5, set="mlqa", languages=("en", "de")) + draw_questions(0.9, set="xquad", languages=("en",))
    write_stage(tmp_path, 1, "one", {"eval": rows})
    results, lines = write_report(tmp_path)
    assert set(results["sets"]) == {"mlqa", "xquad"}
    gxlt = results["sets"]["mlqa"]["systems"]["one"]["averages"]["gxlt"]
    assert gxlt["title"].startswith("4 of 49 cells of gxlt")
    assert any("4 of 49 cells of gxlt" in line for line in lines)


def test_supervised_and_zero_shot_languages_are_averaged_separately(tmp_path):
    results, _ = write_report(write_label_run(tmp_path))
    data = results["sets"]["xnli"]
    assert list(data["systems"]) == ["branches", "mblm"]
    means = data["systems"]["mblm"]["averages"]
    assert means["supervised_mean"]["cells"] == ["de", "en"]
    assert means["zero_shot_mean"]["cells"] == ["sw"]
    assert data["comparisons"]["mblm:branches"]["averages"]["zero_shot_mean"]["accuracy"]["verdict"] == "better"
    assert data["majority"]["sw"] == 35.0


def test_macro_f1_has_an_interval_and_a_difference(tmp_path):
    results, _ = write_report(write_label_run(tmp_path))
    data = results["sets"]["xnli"]
    rows = [row for row in draw_labels({"en": 0.8, "de": 0.7, "sw": 0.9}, groups=40) if row["language"] == "de"]
    f1_by_label = []
    for label in ("entailment", "neutral", "contradiction"):
        right = sum(row["gold"] == row["prediction"] == label for row in rows)
        f1_by_label.append(2 * right / sum((row["gold"] == label) + (row["prediction"] == label) for row in rows))
    number = data["systems"]["mblm"]["cells"]["de"]["macro_f1"]
    assert number["value"] == pytest.approx(100 * sum(f1_by_label) / 3, abs=1e-5)
    assert number["low"] < number["value"] < number["high"]
    a, b = (data["systems"][name]["cells"]["sw"]["macro_f1"]["value"] for name in ("mblm", "branches"))
    assert data["comparisons"]["mblm:branches"]["cells"]["sw"]["macro_f1"]["value"] == pytest.approx(a - b, abs=1e-5)


def test_a_language_used_for_selection_is_not_zero_shot(tmp_path):
    write_run(tmp_path, ("one",))
    rows = draw_labels({"en": 0.8, "sw": 0.5}, languages=("en", "sw"))
    seen = {"training": ["en"], "selection": ["en", "sw"], "teacher": []}
    write_stage(tmp_path, 1, "one", {"eval": rows}, seen=seen, task="classify")
    results, _ = write_report(tmp_path)
    shown = results["sets"]["xnli"]["systems"]["one"]
    assert (shown["cells"]["sw"]["word"], shown["cells"]["sw"]["badges"]) == ("transferred", ["S"])
    assert "zero_shot_mean" not in shown["averages"]


def test_without_a_contamination_record_no_language_is_called_zero_shot(tmp_path):
    write_run(tmp_path, ("one",))
    write_stage(
        tmp_path, 1, "one", {"eval": draw_labels({"sw": 0.5}, languages=("sw",))}, contamination={}, task="classify"
    )
    cell = write_report(tmp_path)[0]["sets"]["xnli"]["systems"]["one"]["cells"]["sw"]
    assert (cell["word"], cell["badges"]) == ("transferred", ["?"])


def test_retrieval_is_reported_in_both_directions_before_and_after_training(tmp_path):
    results, _ = write_report(write_pair_run(tmp_path))
    data = results["sets"]["ntrex"]
    assert list(data["comparisons"]) == ["align:start"]
    rows = [row["to_target"] for row in draw_retrieval(0.8) if row["target_language"] == "de"]
    assert data["systems"]["align"]["cells"]["en-de"]["to_target"]["value"] == pytest.approx(sum(rows) / len(rows))
    assert data["comparisons"]["align:start"]["averages"]["macro_mean"]["retrieval"]["verdict"] == "better"


def test_scores_without_rows_are_listed_without_intervals(tmp_path):
    write_run(tmp_path, ("one",))
    scores = {"step": 10, "main": "aer", "mean": 20.0, "cells": {"en-de": {"aer": 20.0, "n": 3}}}
    stage_folder = write_stage(tmp_path, 1, "one", {}, sets={"links": scores})
    before = scores | {"step": 0, "mean": 30.0, "cells": {"en-de": {"aer": 30.0, "n": 3}}}
    write_json(stage_folder / "evaluation" / "0-links.json", before)
    results, lines = write_report(tmp_path)
    assert results["sets"] == {}
    assert results["plain"]["links"]["one"]["after"]["en-de"]["aer"] == 20.0
    assert any("en-de" in line and "30.0 → 20.0" in line for line in lines)


def test_results_without_a_record_of_the_labels_seen_are_not_shown(tmp_path):
    write_run(tmp_path, ("one",))
    write_stage(tmp_path, 1, "one", {"eval": draw_questions(0.5)}, seen=None)
    results, lines = write_report(tmp_path)
    assert results["sets"] == {}
    assert any("does not say which labels were seen" in line for line in lines)


def test_rows_that_contradict_the_stage_are_noted(tmp_path):
    write_run(tmp_path, ("one",))
    sets = {"eval": {"step": 10, "main": "f1", "mean": 1.0, "cells": {"toy en-en": {"f1": 1.0, "em": 0.0}}}}
    write_stage(tmp_path, 1, "one", {"eval": draw_questions(0.5)}, sets=sets)
    assert any("toy en-en, f1: rows say" in note for note in write_report(tmp_path)[0]["notes"])


def test_an_unfinished_run_shows_finished_stages_and_its_progress(tmp_path):
    write_grid_run(tmp_path)
    last = tmp_path / "stages" / "03-skd"
    (last / "done").unlink()
    (last / "checkpoints" / "8").mkdir(parents=True)
    config = json.loads((tmp_path / "config.json").read_text())
    write_json(
        tmp_path / "config.json", config | {"stages": [*config["stages"], "later"], "skd": {"budget": {"steps": 40}}}
    )
    with (last / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # A killed process leaves such a line.
    results, lines = write_report(tmp_path)
    stages = results["runs"][0]["stages"]
    assert results["state"] == "unfinished"
    assert (stages["skd"]["step"], stages["skd"]["of"], stages["skd"]["checkpoint"]) == (10, 40, 8)
    assert stages["skd"]["scores"]["eval"] == {"step": 10, "main": "f1", "mean": 45.0}
    assert stages["later"] == {"state": "to come"}
    assert list(results["sets"]["toy"]["systems"]) == ["english", "ce"]
    assert any("stage skd: unfinished, step 10 of 40" in line for line in lines)


def test_controls_that_were_not_selected_are_not_listed_as_to_come(tmp_path):
    write_grid_run(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", config | {"method": {"variant": "ce"}, "stages": ["english", "ce", "skd", "zs", "after"],
                                              "controls": ["ce", "skd", "zs"], "after": {"start": "zs"}})  # fmt: skip
    assert not {"zs", "after"} & set(write_report(tmp_path)[0]["runs"][0]["stages"])


def test_runs_that_differ_in_seed_only_are_seeds_of_one_system(tmp_path):
    folders = [write_grid_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    results, _ = write_report(*folders)
    data = results["sets"]["toy"]
    assert list(data["systems"]) == ["english", "ce", "skd"]
    number = data["comparisons"]["skd:ce"]["averages"]["gxlt"]["f1"]
    assert len(number["by_seed"]) == 3
    assert number["value"] == pytest.approx(sum(number["by_seed"]) / 3, abs=1e-5)
    assert "3 seeds" in data["comparisons"]["skd:ce"]["caption"]
    assert results["stages"]["ce"]["seeds"] == [0, 1, 2]


def test_macro_f1_over_seeds_is_shown_without_a_difference(tmp_path):
    results, _ = write_report(*(write_label_run(tmp_path / str(seed), seed=seed) for seed in range(2)))
    data = results["sets"]["xnli"]
    assert len(data["systems"]["mblm"]["cells"]["de"]["macro_f1"]["by_seed"]) == 2
    assert "macro_f1" not in data["comparisons"]["mblm:branches"]["cells"]["de"]


def test_runs_of_other_configs_are_compared_with_the_first(tmp_path):
    for name, right in (("a", 0.4), ("b", 0.9)):
        write_run(tmp_path / name, ("english",), optim={"lr": right})
        write_stage(tmp_path / name, 1, "english", {"eval": draw_questions(right)}, lr=right)
    results, _ = write_report(tmp_path / "a", tmp_path / "b")
    assert results["sets"]["toy"]["comparisons"]["b/english:a/english"]["averages"]["gxlt"]["f1"]["verdict"] == "better"
    assert results["budgets"] == [{"a": "b/english", "b": "a/english", "differ": {"lr": [0.9, 0.4]}}]


def test_runs_that_answered_other_questions_are_refused(tmp_path):
    for name, groups in (("a", 30), ("b", 29)):
        write_run(tmp_path / name, ("english",), groups=groups)
        write_stage(tmp_path / name, 1, "english", {"eval": draw_questions(0.5, groups=groups)})
    with pytest.raises(UserError, match="questions were answered by one of the two"):
        write_report(tmp_path / "a", tmp_path / "b")


def test_runs_without_a_common_data_set_are_refused(tmp_path):
    for name in ("mlqa", "xquad"):
        write_run(tmp_path / name, ("english",), data={"eval": name})
        write_stage(tmp_path / name, 1, "english", {"eval": draw_questions(0.5, set=name)})
    with pytest.raises(UserError, match="no data set in common"):
        write_report(tmp_path / "mlqa", tmp_path / "xquad")


def test_stages_of_one_run_with_other_questions_are_shown_but_not_compared(tmp_path):
    write_run(tmp_path, ("a", "b"), compare=("b:a", "b:nothing"))
    write_stage(tmp_path, 1, "a", {"eval": draw_questions(0.5)})
    write_stage(tmp_path, 2, "b", {"eval": draw_questions(0.5, groups=20)})
    results, _ = write_report(tmp_path)
    assert results["sets"]["toy"]["comparisons"] == {}
    assert any("not compared" in note for note in results["notes"])
    assert any("b:nothing is not a pair of stages" in note for note in results["notes"])


def test_a_pair_with_a_stage_of_the_config_that_did_not_run_is_left_out_without_a_note(tmp_path):
    write_run(tmp_path, ("a", "b"), compare=("b:a", "b:mt"), mt={"budget": {}})
    for number, name in enumerate(("a", "b"), 1):
        write_stage(tmp_path, number, name, {"eval": draw_questions(0.5)})
    results, _ = write_report(tmp_path)
    assert [(pair["a"], pair["b"]) for pair in results["sets"]["toy"]["comparisons"].values()] == [("b", "a")]
    assert results["notes"] == []


@pytest.mark.parametrize("damage", ["nothing", "no config", "broken rows"])
def test_an_unreadable_run_is_refused_in_one_line(tmp_path, damage):
    folder = tmp_path / "run"
    if damage != "nothing":
        write_grid_run(folder)
    if damage == "no config":
        (folder / "config.json").unlink()
    if damage == "broken rows":
        path = folder / "stages" / "02-ce" / "rows" / "eval.jsonl"
        path.write_text(path.read_text() + "{\n")
    with pytest.raises(UserError, match="line 271" if damage == "broken rows" else str(folder)):
        write_report(folder)


def test_the_same_config_and_seed_twice_are_refused(tmp_path):
    with pytest.raises(UserError, match="the same config and seed"):
        write_report(write_grid_run(tmp_path / "a"), write_grid_run(tmp_path / "b"))


def test_the_order_of_rows_does_not_matter(tmp_path):
    a, b = write_grid_run(tmp_path / "a"), write_grid_run(tmp_path / "b")
    path = b / "stages" / "03-skd" / "rows" / "eval.jsonl"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    assert write_report(a)[0]["sets"] == write_report(b)[0]["sets"]


def test_rows_with_equal_ids_in_a_cell_are_distinguished_by_key(tmp_path):
    write_run(tmp_path, ("one",))
    rows = [row | {"id": "same"} for row in draw_questions(0.5)]
    write_stage(tmp_path, 1, "one", {"eval": rows}, seen=NOTHING)
    assert write_report(tmp_path)[0]["sets"]["toy"]["systems"]["one"]["cells"]["en-en"]["n"] == 30


def test_language_tags_may_contain_hyphens(tmp_path):
    write_run(tmp_path, ("one",))
    sides = ("question_language", "context_language")
    rows = [
        row | {side: "zh-Hant" if row[side] == "de" else row[side] for side in sides}
        for row in draw_questions(0.5, languages=("en", "de"))
    ]
    write_stage(tmp_path, 1, "one", {"eval": rows})
    cells = write_report(tmp_path)[0]["sets"]["toy"]["systems"]["one"]["cells"]
    assert {name: cell["languages"] for name, cell in cells.items()} == {
        "en-en": ["en", "en"],
        "en-zh-Hant": ["en", "zh-Hant"],
        "zh-Hant-en": ["zh-Hant", "en"],
        "zh-Hant-zh-Hant": ["zh-Hant", "zh-Hant"],
    }


# --- metrics from the record of a stage


def make_metric_record(name: str, label: str, *, over: str = "example", higher: bool = True) -> dict:
    return {name: {"label": label, "over": over, "higher_is_better": higher}}


def test_a_recorded_metric_gets_tables_intervals_and_verdicts_in_its_direction(tmp_path):
    """The report reads name, label and direction of a metric from the record of the stage alone."""
    write_run(tmp_path, ("a", "b"), compare=("b:a",))
    metrics = make_metric_record("f1", "F1") | make_metric_record("edits", "edit <distance>", higher=False)
    for number, (name, right) in enumerate((("a", 0.2), ("b", 0.8)), 1):
        rows = [row | {"edits": 100.0 - row["em"]} for row in draw_questions(right)]
        sets = {"eval": {"step": 10, "main": "f1", "mean": 1.0, "cells": {}, "metrics": metrics}}
        write_stage(tmp_path, number, name, {"eval": rows}, sets=sets)
    results, _ = write_report(tmp_path)
    data = results["sets"]["toy"]
    assert (data["metrics"], data["lower_is_better"]) == (["f1", "edits"], ["edits"])
    cell = data["comparisons"]["b:a"]["cells"]["en-de"]
    assert cell["edits"]["value"] < 0 < cell["f1"]["value"]
    assert cell["edits"]["high"] < 0
    assert cell["f1"]["verdict"] == cell["edits"]["verdict"] == "better"
    worst = data["systems"]["a"]["worst"]["edits"]["value"]
    assert worst == max(cell["edits"]["value"] for cell in data["systems"]["a"]["cells"].values())
    assert "edit <distance> (lower is better) by cell" in (tmp_path / "report.txt").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "edit &lt;distance&gt; (lower is better): question language × context language" in page
    assert "<distance>" not in page


def test_a_metric_that_only_one_system_has_is_left_out(tmp_path):
    write_run(tmp_path, ("old", "new"), compare=("new:old",))
    sets = {"eval": {"step": 10, "main": "f1", "mean": 1.0, "cells": {},
                     "metrics": make_metric_record("f1", "F1") | make_metric_record("em", "EM") | make_metric_record("inside", "inside")}}  # fmt: skip
    write_stage(tmp_path, 1, "old", {"eval": draw_questions(0.4)})
    write_stage(tmp_path, 2, "new", {"eval": [row | {"inside": row["em"]} for row in draw_questions(0.6)]}, sets=sets)
    results, _ = write_report(tmp_path)
    assert results["sets"]["toy"]["metrics"] == ["f1", "em"]


def test_a_metric_over_cells_is_resampled_from_confusion_matrices(tmp_path, monkeypatch):
    """Errors in percent of all examples, as a metric over cells: 100 − accuracy, with the same interval, mirrored."""
    from xlkd.metrics.entries import Metric
    from xlkd.reports import results
    from xlkd.tasks import metrics

    def errors(counts):
        return 1 - np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-1, -2))

    entry = Metric("errors", "errors", errors, over="cell", higher_is_better=False)
    monkeypatch.setitem(results._METRICS, "classify", (*metrics.CLASSIFICATION, entry))
    monkeypatch.setitem(metrics.ALL, "errors", entry)
    numbers, _ = write_report(write_label_run(tmp_path))
    data = numbers["sets"]["xnli"]
    assert data["metrics"] == ["accuracy", "macro_f1", "errors"]
    cell = data["systems"]["mblm"]["cells"]["sw"]
    assert cell["errors"]["value"] == pytest.approx(100 - cell["accuracy"]["value"], abs=1e-5)
    assert cell["errors"]["low"] == pytest.approx(100 - cell["accuracy"]["high"], abs=1e-5)
    compared = data["comparisons"]["mblm:branches"]["cells"]["sw"]
    assert compared["errors"]["value"] < 0
    assert compared["errors"]["verdict"] == compared["accuracy"]["verdict"] == "better"
