# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Goodput: how the time of a run was spent, from its events, with restarts and kills; test_loop.py measures a real run."""

import json

import reports_toys as toys

from xlkd import reports
from xlkd.reports import goodput
from xlkd.runtime.log import Log, time_values


def write_events(folder, *lines, cut=""):
    """Appends lines of (time, kind, other fields) to the events of a folder, then the text `cut`."""
    text = "".join(json.dumps({"time": at, "kind": kind, **more}) + "\n" for at, kind, more in lines)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "events.jsonl").open("a") as file:
        file.write(text + cut)
    return folder


FIRST = (
    (0.0, "start", {}),
    (2.0, "prepare", {"stage": "one"}),
    (5.0, "begin", {}),
    (6.0, "compile", {}),
    (10.0, "begin", {}),
    (10.0, "train", {"step": 0}),
    (30.0, "train", {"step": 20, "waited": 1.0}),
    (30.0, "save", {"step": 20}),
    (31.0, "train", {}),
)
ENDED = (
    (51.0, "train", {"step": 40, "waited": 0.0}),
    (51.0, "evaluate", {"step": 40}),
    (54.0, "save", {"step": 40}),
    (55.0, "train", {}),
    (55.0, "finish", {}),
    (57.0, "report", {}),
    (60.0, "end", {}),
)


def test_every_second_of_a_complete_run_is_attributed(tmp_path):
    measured = goodput.measure(write_events(tmp_path, *FIRST, *ENDED))
    assert measured["parts"] == {
        "steps": 39.0,
        "data": 1.0,
        "evaluate": 3.0,
        "save": 2.0,
        "compile": 4.0,
        "prepare": 3.0,
        "start": 3.0,
        "finish": 5.0,
    }
    assert sum(measured["parts"].values()) == measured["seconds"] == 60.0
    assert measured["share"] == 0.65
    assert (measured["starts"], measured["steps_again"]) == (1, 0)


def test_steps_lost_by_a_kill_are_not_goodput(tmp_path):
    """The run is killed after it printed step 40 and saved step 20, where the next process starts."""
    write_events(tmp_path, *FIRST, (51.0, "train", {"step": 40, "waited": 2.0}), cut='{"time": 52.0, "ki')
    write_events(tmp_path, cut="\n")
    second = [(at + 70.0, kind, more) for at, kind, more in FIRST[:6]]
    second += [(80.0, "train", {"step": 20}), (100.0, "train", {"step": 40, "waited": 0.0}), (101.0, "end", {})]
    measured = goodput.measure(write_events(tmp_path, *(e for e in second if e[1] != "train" or e[2]["step"] >= 20)))
    assert measured["steps_again"] == 20
    assert measured["parts"]["again"] == 20.0, "from 31 to 51, with the waiting time in between"
    assert measured["parts"]["steps"] == 19.0 + 20.0 + 1.0
    assert measured["parts"]["data"] == 1.0
    assert measured["seconds_between_starts"] == 70.0 - 51.0
    assert measured["starts"] == 2


def test_part_of_an_interval_may_be_lost(tmp_path):
    write_events(tmp_path, *FIRST[:6], (30.0, "train", {"step": 20}))
    write_events(tmp_path, (40.0, "start", {}), (41.0, "prepare", {"stage": "one"}), (42.0, "train", {"step": 15}))
    write_events(tmp_path, (50.0, "train", {"step": 20}), (50.0, "end", {}))
    measured = goodput.measure(tmp_path)
    assert measured["steps_again"] == 5
    assert measured["parts"]["again"] == 5.0
    assert measured["parts"]["steps"] == 15.0 + 8.0


def test_steps_are_repeated_after_a_restart_that_never_trained(tmp_path):
    write_events(tmp_path, *FIRST, (51.0, "train", {"step": 40}))
    write_events(tmp_path, (60.0, "start", {}), (61.0, "prepare", {"stage": "one"}), (62.0, "compile", {}))
    write_events(tmp_path, (70.0, "start", {}), (71.0, "prepare", {"stage": "one"}), (72.0, "train", {"step": 20}))
    assert goodput.measure(tmp_path)["steps_again"] == 20


def test_completed_stages_lose_no_steps(tmp_path):
    """The second stage starts at step 0, which does not mean that steps of the first are repeated."""
    write_events(tmp_path, *FIRST, *ENDED[:5])
    write_events(
        tmp_path, (56.0, "prepare", {"stage": "two"}), (58.0, "train", {"step": 0}), (60.0, "train", {"step": 2})
    )
    write_events(tmp_path, (70.0, "start", {}), (71.0, "prepare", {"stage": "two"}), (72.0, "train", {"step": 2}))
    assert goodput.measure(tmp_path)["steps_again"] == 0


def test_a_folder_without_events_has_no_goodput(tmp_path):
    assert goodput.measure(tmp_path) is None
    assert goodput.measure(write_events(tmp_path, cut="not JSON\n[1]\n")) is None


def test_the_line_names_the_largest_parts_first(tmp_path):
    line = goodput.format_line(goodput.measure(write_events(tmp_path, *FIRST, *ENDED)))
    assert line == (
        "goodput: 65% of 60 s were productive steps; export and report 8%, compilation 7%, start-up and restoring 5%, "
        "reading and tokenizing 5%, evaluation 5%, saving 3%, waiting for data 2%"
    )


def test_the_report_shows_goodput(tmp_path, capsys):
    folder = toys.write_run(tmp_path / "run", ["one"])
    toys.write_stage(folder, 1, "one", {"eval": toys.draw_questions(0.8)})
    write_events(folder, *FIRST, *ENDED)
    reports.write(folder, print)
    assert "goodput: 65% of 60 s" in capsys.readouterr().out
    assert json.loads((folder / "results.json").read_text())["runs"][0]["goodput"]["share"] == 0.65
    assert "<td>39.0 s, 65%</td>" in (folder / "report.html").read_text()


def test_events_are_written_as_complete_lines(tmp_path):
    log = Log(tmp_path / "log.txt")
    log.event("start", at=5.0)
    log.event("train", step=3)
    first, second = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert first == {"time": 5.0, "kind": "start"}
    assert (second["kind"], second["step"]) == ("train", 3)
    assert second["time"] > 1.7e9
    Log(None).event("train")


def test_waiting_is_timed():
    waited: list[float] = []
    assert list(time_values(iter("abc"), waited)) == ["a", "b", "c"]
    assert len(waited) == 3
    assert min(waited) >= 0
