# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The pages of results say what the files of the studies say, and each study was registered before it ran."""

import importlib
import json
import shutil
import subprocess
import sys

import pytest
import toy_models
from test_draws import make_record

from xlkd.reports import draws

RESULTS = toy_models.ROOT / "docs" / "results"
FILES = sorted(RESULTS.glob("*/*.json"))
sys.path.insert(0, str(toy_models.ROOT / "docs"))


@pytest.fixture(scope="module")
def pages():
    return importlib.import_module("_results")


@pytest.fixture(scope="module")
def benchmarks():
    return importlib.import_module("_benchmarks")


@pytest.fixture
def root(tmp_path):
    """Returns a folder with two draws of a study, and pages with every part of it."""
    for folder in ("docs/results/study", "docs/images"):
        (tmp_path / folder).mkdir(parents=True)
    provenance = {"git": "0" * 40, "processor": "a <processor>", "cores": 2, "packages": ["jax==1.0"]}
    stages = {"ce": {"start": "runs/start/stages/01-english/export", "seconds": 1800.0}}
    for seed, value in enumerate((1.0, 2.0)):
        record = make_record(seed, ("skd:ce",), skd_over_ce=value) | {"provenance": provenance, "stages": stages}
        coefficient = [0.6, 0.8, 0.9 + seed / 100]
        record["curves"] = {"skd_map": {"step": [5, 10, 15], "coefficient": coefficient, "generation": [0.0, 0.0, 1.0]}}
        path = tmp_path / f"docs/results/study/seed={seed}.json"
        path.write_text(draws.format_record(record), encoding="utf-8")
    blocks = [
        f"<!-- results study {part} -->\nold\n<!-- end of results -->"
        for part in ("scores", "differences", "runs", "coefficient")
    ]
    (tmp_path / "docs" / "results.md").write_text("\n".join(["# Title", *blocks, "after"]))
    (tmp_path / "docs" / "which-system.md").write_text("no block")
    (tmp_path / "README.md").write_text("<!-- results study summary -->\n<!-- end of results -->\n")
    return tmp_path


def test_the_pages_are_those_that_the_results_give(pages):
    differing = [path for path, text in pages.make_files().items() if path.read_text(encoding="utf-8") != text]
    assert not differing, "run make results"


def test_a_changed_number_changes_the_page(pages, root):
    made = pages.make_files(root)
    page = made[root / "docs" / "results.md"]
    assert (
        "| **`skd` − `ce`** | +1.5 (−4.9 to 7.9), no significant difference | +1.0 (0.0 to 2.0) | +2.0 (1.0 to 3.0) |"
        in page
    )
    assert "| `ce` | 30.5 (30.0 to 31.0) |" in page
    assert "a <processor>, 2 cores | jax==1.0 | 0.5 h |" in page
    assert page.startswith("# Title\n")
    assert page.endswith("\nafter")
    assert "old" not in page
    assert "`skd` − `ce`: +1.5" in made[root / "README.md"]
    assert "images/results-study-coefficient.svg" in page
    assert made[root / "docs" / "images" / "results-study-coefficient.svg"].count("<polyline") == 2
    assert made[root / "docs" / "images" / "results-study.svg"].count("<circle") == 2
    path = root / "docs" / "results" / "study" / "seed=1.json"
    path.write_text(path.read_text().replace("2.0", "2.6", 1))
    assert pages.make_files(root) != made


def test_pages_stay_as_they_are_when_made_again(pages, root):
    for path, text in pages.make_files(root).items():
        path.write_text(text, encoding="utf-8")
    assert all(path.read_text(encoding="utf-8") == text for path, text in pages.make_files(root).items())


def test_a_page_says_that_a_study_without_draws_has_decided_nothing(pages, root):
    for path in (root / "docs" / "results" / "study").glob("*.json"):
        path.unlink()
    assert "Not decided yet" in pages.make_files(root)[root / "README.md"]


def test_an_unknown_study_or_part_is_named(pages, root):
    (root / "README.md").write_text("<!-- results stady summary -->\n<!-- end of results -->\n")
    with pytest.raises(SystemExit, match="stady"):
        pages.make_files(root)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_kept_numbers_come_from_a_commit_that_had_the_registration(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    if not record["primary"]:
        pytest.skip("a start, from which the compared runs begin")
    assert not record["provenance"]["git_changes"]
    commit = record["provenance"]["git"]
    if not shutil.which("git") or subprocess.run(["git", "cat-file", "-e", commit], cwd=toy_models.ROOT).returncode:
        pytest.skip("no history")
    registration = f"{commit}:configs/studies/{path.parent.name.partition('_')[0]}.md"
    assert subprocess.run(["git", "cat-file", "-e", registration], cwd=toy_models.ROOT).returncode == 0


def write_benchmark(root, machine, others=0.0, quick=False, **ratios):
    folder = root / "bench" / "results" / "step"
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for name, ratio in ratios.items():
        times = {"ours": [ratio] * 5, "eager": [3.0] * 5, "compiled": [1.0] * 5, "peer": "compiled"}
        judged = {"ratio": ratio, "ratios": [ratio - 0.1, ratio], "bar": 1.0, "gain": False, "others": others}
        cases.append({"name": name, **times, **judged})
    about = {"processor": f"{machine}'s", "cores": 2, "python": "3.11", "versions": {"jax": "1"}, "git": "0" * 40}
    measured = {"quick": quick, **about, "cases": cases}
    (folder / f"{machine}.json").write_text(json.dumps(measured), encoding="utf-8")


@pytest.fixture
def benchmark_root(tmp_path):
    (tmp_path / "docs").mkdir()
    text = "before\n<!-- benchmarks step -->\nold\n<!-- end of benchmarks -->\nafter\n"
    (tmp_path / "docs" / "performance.md").write_text(text)
    write_benchmark(tmp_path, "amd", forward=1.2, train=0.7)
    write_benchmark(tmp_path, "intel", forward=0.8, train=0.9)
    return tmp_path


def make_page(benchmarks, root):
    return benchmarks.make_files(root)[root / "docs" / "performance.md"]


def test_a_target_is_met_only_if_it_is_met_on_every_machine(benchmarks, benchmark_root):
    page = make_page(benchmarks, benchmark_root)
    assert "| forward | **1.20** (amd) | ≤ 1, missed | 1.20 (1.10–1.20), 1.20 s to 1.00 s compiled |" in page
    assert "| train | **0.90** (intel) | ≤ 1, met |" in page
    assert "- amd: amd's, 2 cores, 5 rounds, Python 3.11, jax 1, commit `000000000`" in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "old" not in page
    (benchmark_root / "docs" / "performance.md").write_text(page)
    assert make_page(benchmarks, benchmark_root) == page


def test_times_on_a_machine_that_was_not_idle_decide_nothing(benchmarks, benchmark_root):
    write_benchmark(benchmark_root, "busy", others=0.5, forward=9.0, train=0.1, other=1.0)
    page = make_page(benchmarks, benchmark_root)
    assert "| forward | **1.20** (amd) |" in page
    assert "9.00 (8.90–9.00), 9.00 s to 1.00 s compiled; not idle, 0.5 cores |" in page
    assert "| other | – | not measured on an idle machine | – |" in page


def test_quick_runs_are_no_measurements(benchmarks, benchmark_root):
    write_benchmark(benchmark_root, "quick", quick=True, forward=1.0)
    with pytest.raises(SystemExit, match="measured with --quick: quick"):
        make_page(benchmarks, benchmark_root)


def test_growth_is_relative_to_the_first_point_of_an_axis(benchmarks, benchmark_root):
    folder = benchmark_root / "bench" / "results" / "growth"
    folder.mkdir()
    points = [
        {"axis": "rows", "value": 2, "seconds": [1.0, 2.0, 1.0], "counted": 10.0},
        {"axis": "rows", "value": 4, "seconds": [3.0, 3.0, 3.0], "counted": 20.0},
        {"axis": "vocabulary", "value": 7500, "seconds": [0.5, 0.5, 0.5], "counted": 4.0},
    ]
    about = {"processor": "a", "cores": 2, "python": "3.11", "versions": {"jax": "1"}, "git": "0" * 40}
    measured = {"quick": False, **about, "others": 0.3, "points": points}
    (folder / "amd.json").write_text(json.dumps(measured), encoding="utf-8")
    table = benchmarks.write_growth(benchmark_root / "bench" / "results")
    assert "| rows | 4 | 2.00 (FLOPs) | **3.00** (1.50–3.00), 3.000 s |" in table
    assert "| vocabulary | 7,500 | 1.00 (bytes of AdamW) | **1.00**, 0.500 s |" in table
    assert "Not idle: amd: 0.3 cores by others." in table
    assert "3 rounds" in table


def write_programs(results, name, programs):
    (results / f"{name}.json").write_text(json.dumps({"programs": programs}), encoding="utf-8")


def test_devices_are_relative_to_one_chip(benchmarks, tmp_path):
    programs = {f"v5e-{n}": {"chips": n, "flops": 10.0, "bytes": 4.0 + n, "sent": 1e6 * (n - 1)} for n in (16, 1)}
    write_programs(tmp_path, "devices", programs)
    lines = benchmarks.write_devices(tmp_path).splitlines()
    assert lines[2:] == ["| 1 | 1.000 | 1.000 | 0 |", "| 16 | 1.000 | 4.000 | 15 |"]


def test_a_step_is_bound_by_memory_left_of_the_ridge_and_by_products_right_of_it(benchmarks, tmp_path):
    programs = {
        "a": {"system": "<few>", "device": "v5e", "flops": 1e12, "bytes": 1e11},  # 10 FLOP per byte
        "b": {"system": "many", "device": "v5e", "flops": 197e9, "bytes": 197e6},
        "c": {"system": "many", "device": "v6e", "flops": 197e9, "bytes": 1.97e9},
    }
    write_programs(tmp_path, "roofline", programs)
    table = benchmarks.write_roofline(tmp_path)
    assert "| 1: <few> | 1,000 | 10 | 122.1 ms, memory | 61.1 ms, memory † | 29.9 ms, memory † |" in table
    assert "| 2: many | 197 | 1000 | 1.0 ms, products | 1.2 ms, memory |" in table
    plot = benchmarks.draw_roofline(benchmarks.list_bounds(tmp_path))
    assert plot.count("<title>") == 8
    assert "&lt;few&gt;, H100: 34 TFLOP/s, memory" in plot


def test_an_unknown_benchmark_is_named(benchmarks, benchmark_root):
    page = benchmark_root / "docs" / "performance.md"
    page.write_text("<!-- benchmarks stap -->\n<!-- end of benchmarks -->\n")
    with pytest.raises(SystemExit, match="stap"):
        benchmarks.make_files(benchmark_root)


def test_the_files_of_the_benchmarks_are_those_that_the_kept_results_give(benchmarks):
    differing = [path for path, text in benchmarks.make_files().items() if path.read_text(encoding="utf-8") != text]
    assert not differing, "run make results"
