# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Damaged files of a run: a report says what is damaged, in one line or on its page; no traceback, no hang, no markup."""

import copy
import json
import os
import pathlib
import shutil

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from reports_toys import (
    draw_questions,
    question_texts,
    use_few_resamples,
    write_json,
    write_label_run,
    write_lines,
    write_pair_run,
    write_run,
    write_stage,
)

from xlkd import reports
from xlkd.errors import UserError, escape_controls
from xlkd.reports import files

MARKUP = "<i onload=x>\"'&<!--</script>"
LANGUAGES = ("en", "de")
ODD_VALUES = (
    None, True, False, 0, 1, -1, -5, 2**63, 10**400, 1.5, float("nan"), float("inf"), 1e308, -1e308, 5e-324, 1e-310, "",
    MARKUP, "\ud800", "\x00", "a\nb", "\u202e", [], {}, [[]], [None], {"": None}, [MARKUP], {MARKUP: MARKUP},
    {"a": {"a": {"a": [1]}}}, "de", "en", "qa", "f1", "english", "../../../etc", json.loads("[" * 400 + "]" * 400),
)  # fmt: skip
KEYS = (MARKUP, "x", "\ud800", "f1", "step", "language", "question", "set", "task", "metrics", "links")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, pathlib.Path]:
    """Writes a small run of each kind; the first one has every file that a report reads."""
    folder = tmp_path_factory.mktemp("runs")
    draw = {"languages": LANGUAGES, "groups": 2}
    first = draw_questions(0.3, **draw)
    write_run(folder / "qa", ("english", "ce", "skd"), compare=("ce:english", "skd:ce"), controls=("ce", "skd"))
    seen = {"training": ["en"], "selection": [], "teacher": []}
    contamination = {"eval": {"flagged": 2, "rows": 8, "kinds": {"parallel id": 2}, "by_language": {"de": 2},
                     "keys": {"parallel id": [first[0]["key"]]},
                     "examples": [{"kind": "parallel id", "id": "q1", "language": "de", "text": "…"}]}}  # fmt: skip
    describe = {"label": "F1", "over": "example", "higher_is_better": True}
    scores = {"step": 10, "main": "f1", "mean": 45.0, "cells": {"toy en-en": {"f1": 45.0, "n": 8}}}
    plain = scores | {"task": "masked", "main": "loss", "metrics": {"loss": describe | {"over": "cell"}}}
    sets = {"eval": scores | {"task": "qa", "metrics": {"f1": describe, "em": describe}}, "plain": plain}
    write_stage(folder / "qa", 1, "english", {"eval": first}, seen=seen)
    write_stage(folder / "qa", 2, "ce", {"eval": draw_questions(0.6, **draw)}, seen=seen, start="english", sets=sets,
                contamination=contamination, ceilings={"eval": {"en": {"f1": 99.5, "em": 98.0}}})  # fmt: skip
    unfinished = write_stage(folder / "qa", 3, "skd", {"eval": draw_questions(0.65, **draw)}, seen=seen)
    (unfinished / "done").unlink()
    write_lines(folder / "qa" / "texts" / "eval.jsonl", question_texts(first))
    events = [("start", {}), ("train", {"stage": "ce", "step": 0}), ("save", {"step": 5, "waited": 0.1}), ("end", {})]
    lines = [{"time": 1e9 + i, "kind": kind, **more} for i, (kind, more) in enumerate(events)]
    write_lines(folder / "qa" / "events.jsonl", lines)
    return {
        "qa": folder / "qa",
        "labels": write_label_run(folder / "labels", groups=2),
        "pairs": write_pair_run(folder / "pairs"),
    }


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    use_few_resamples(monkeypatch)


def list_files(run: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of JSON that a report reads."""
    return sorted(path for path in run.rglob("*.json*") if path.name != "results.json")


def list_places(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from list_places(item, (*place, key))


def change_value(data, value):
    """Returns a value with one part replaced, removed, renamed, added or repeated."""
    place = data.draw(st.sampled_from(list(list_places(value))))
    odd = copy.deepcopy(data.draw(st.sampled_from(ODD_VALUES)))
    if not place:
        return odd
    parent, key = value, place[-1]
    for part in place[:-1]:
        parent = parent[part]
    change = data.draw(st.sampled_from(("replace", "replace", "remove", "rename", "add")))
    if change == "replace":
        parent[key] = odd
    elif change == "remove":
        del parent[key]
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    else:
        parent[data.draw(st.sampled_from(KEYS))] = odd if change == "add" else parent.pop(key)
    return value


def change_file(data, path: pathlib.Path) -> None:
    """Changes a value in a file, in a line of it, or in all its lines."""
    if path.suffix == ".json":
        value = change_value(data, json.loads(path.read_bytes()))
        path.write_bytes(json.dumps(value).encode())
        return
    lines = path.read_bytes().splitlines()
    changed = json.dumps(change_value(data, json.loads(lines[0]))).encode()
    path.write_bytes(b"\n".join([changed] * len(lines) if data.draw(st.booleans()) else [changed, *lines[1:]]) + b"\n")


def write_report(run: pathlib.Path, out: pathlib.Path) -> str | None:
    """Returns the page of a report; None where it was refused in one line that names the folder of the run."""
    lines: list[str] = []
    try:
        reports.write(run, lines.append, reports.locate_outputs(run, page=out / "page.html", data=out / "numbers.json"))
    except UserError as error:
        line = str(error)
        assert line == escape_controls(line)
        assert str(run) in line
        return None
    assert all(line == escape_controls(line) for line in lines)
    json.loads((out / "numbers.json").read_bytes(), parse_constant=pytest.fail)
    page = (out / "page.html").read_text(encoding="utf-8")
    assert "<i onload" not in page
    assert "<!--<" not in page
    return page


def check_changed_run(data, runs, folder: pathlib.Path) -> None:
    name = data.draw(st.sampled_from(("qa", "qa", "labels", "pairs")))
    path = data.draw(st.sampled_from(list_files(runs[name])))
    before = path.read_bytes()
    try:
        change_file(data, path)
        write_report(runs[name], folder)
    finally:
        path.write_bytes(before)


def generate(examples: int):
    """Returns the settings of a property that is checked with the same examples each time."""
    checks = list(HealthCheck)
    return settings(
        max_examples=examples, derandomize=True, phases=[Phase.generate], deadline=None, database=None,
        suppress_health_check=checks,
    )  # fmt: skip


@generate(10)
@given(data=st.data())
def test_a_report_of_a_changed_run_is_written_or_refused_in_one_line(data, runs, tmp_path):
    check_changed_run(data, runs, tmp_path)


@pytest.mark.long
@generate(2000)
@given(data=st.data())
def test_a_report_of_a_changed_run_is_written_or_refused_in_one_line_long(data, runs, tmp_path):
    check_changed_run(data, runs, tmp_path)


DAMAGE = {
    "empty": lambda path, data: path.write_bytes(b""),
    "zeros": lambda path, data: path.write_bytes(bytes(len(data))),
    "cut off": lambda path, data: path.write_bytes(data[: len(data) // 2] + b"\n"),
    "no text": lambda path, data: path.write_bytes(b"\xff\xfe\n"),
    "too deep": lambda path, data: path.write_bytes(b"[" * 100_000 + b"\n"),
    "a list": lambda path, data: path.write_bytes(b"[1]\n"),
    "a pipe": lambda path, data: os.mkfifo(path),
    "a folder": lambda path, data: path.mkdir(),
    "a link to itself": lambda path, data: path.symlink_to(path.name),
}
NEEDED = {"config.json", "stages/02-ce/stage.json", "stages/02-ce/rows/eval.jsonl"}
OPTIONAL = {
    "environment.json",
    "texts/eval.jsonl",
    "stages/02-ce/metrics.jsonl",
    "stages/02-ce/evaluation/5-eval.json",
    "stages/02-ce/report/before.json",
}


@pytest.mark.parametrize("name", sorted(NEEDED | OPTIONAL))
def test_a_damaged_file_is_named_in_the_error_or_in_the_notes(runs, tmp_path, name):
    run = shutil.copytree(runs["qa"], tmp_path / "run")
    write_json(run / "stages/02-ce/report/before.json", {"title": "before", "points": []})
    path, data = run / name, (run / name).read_bytes()
    for damage, write_damaged in DAMAGE.items():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_damaged(path, data)
        if name in NEEDED:
            with pytest.raises(UserError) as error:
                files.read_run(run).stages[1].rows("eval")
            assert error.value.where == str(path), damage
        elif not (damage == "empty" and path.suffix == ".jsonl"):  # a run may have written no lines yet
            (line,) = files.read_run(run).damaged
            assert line.startswith(f"{path}: left out: "), damage
    if name == "environment.json":
        assert f"{path}: left out: " in (write_report(run, tmp_path) or "")


@pytest.mark.parametrize("rank", [-1, 11, 10**12, 1.5, True, "1"])
def test_a_rank_that_no_candidate_can_have_is_an_error(runs, tmp_path, rank):
    run = shutil.copytree(runs["qa"], tmp_path / "run")
    path = run / "stages/02-ce/rows/eval.jsonl"
    write_lines(path, [json.loads(line) | {"rank": rank} for line in path.read_text().splitlines()])
    with pytest.raises(UserError, match=r"rank is .*, not a whole number from 0 to 10"):
        reports.write(run, print)


def test_rows_that_a_stage_scored_and_that_are_lost_are_an_error(runs, tmp_path):
    run = shutil.copytree(runs["qa"], tmp_path / "run")
    path = run / "stages/02-ce/rows/eval.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="has 7 rows, but the stage scored 8"):
        reports.write(run, print)


@pytest.mark.parametrize("name", ["stages/02-ce/stage.json", "stages/02-ce/rows/eval.jsonl"])
def test_the_remedy_of_a_damaged_stage_is_to_start_the_run_again(runs, tmp_path, name):
    """A missing record of a finished stage is an error too: nothing else would ever write it again."""
    run = shutil.copytree(runs["qa"], tmp_path / "run")
    remedy = f"start the run again, which writes it again; without checkpoints delete {run / 'stages/02-ce'} first"
    if name.endswith("stage.json"):
        (run / name).unlink()
        with pytest.raises(UserError, match=remedy):
            reports.write(run, print)
    (run / name).write_text("x\n")
    with pytest.raises(UserError, match=remedy):
        reports.write(run, print)
    shutil.rmtree(run / "stages/02-ce")
    assert "stage ce: to come" in (write_report(run, tmp_path) or "")


def test_a_record_of_a_newer_release_is_refused(runs, tmp_path):
    run = shutil.copytree(runs["labels"], tmp_path / "run")
    path = run / "stages/02-mblm/stage.json"
    write_json(path, json.loads(path.read_text()) | {"version": 2})
    with pytest.raises(UserError, match="a record of version 2; this release reads version 1"):
        reports.write(run, print)
