# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The pages of results say what the files of the studies say, and each study was registered before it ran."""

import importlib.util
import json
import shutil
import subprocess

import pytest
import toy_models
from test_draws import make_record

from xlkd.reports import draws

RESULTS = toy_models.ROOT / "docs" / "results"
FILES = sorted(RESULTS.glob("*/*.json"))


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("results_pages", toy_models.ROOT / "docs" / "_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
