# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The output of a run: a live line or plain lines, and files that survive restarts and kills."""

import io
import json
import os

import pytest

from xlkd.files import write_json
from xlkd.runtime import log as log_module
from xlkd.runtime.log import Clock, Log, Metrics, format_duration


def test_a_pipe_gets_only_lines(capsys, tmp_path):
    log = Log(tmp_path / "log.txt")
    log("start")
    log.live("step 1")
    log.show(stages=("one",), step=3, steps=4)
    log("step 10")
    log.close()
    assert capsys.readouterr().out == "start\nstep 10\n"
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["start", "step 10"]


def test_a_restart_appends_to_the_log(tmp_path):
    Log(tmp_path / "log.txt")("first")
    Log(tmp_path / "log.txt")("second")
    assert [line.split()[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["first", "second"]


def test_a_closed_pipe_does_not_stop_the_run(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        log = Log(tmp_path / "log.txt", stream)
        log("still here")
        log("and here")
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2


def test_a_restart_cuts_metrics_to_the_restored_step(tmp_path):
    metrics = Metrics(tmp_path, 0)
    for step in (5, 10, 15):
        metrics.write(step, {"loss": 1.0 / step})
    metrics.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')  # a kill in the middle of a line
    metrics = Metrics(tmp_path, 10)
    metrics.write(15, {"loss": 0.5})
    metrics.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 5, "loss": 0.2}, {"step": 10, "loss": 0.1}, {"step": 15, "loss": 0.5}]


@pytest.mark.parametrize(
    ("content", "message", "steps"),
    [
        ('{"step": 1}\n\0\0\0\n{"step": 3}\n', "1 damaged lines are left out", [1, 3]),
        ('{"step": 1}\n[]\n{"step": null}\n{"step": 3}\n', "2 damaged lines are left out", [1, 3]),
        ('{"step": 1}\n\0\0\0', "1 damaged lines are left out", [1]),
        ("\0\0\0", "1 damaged lines are left out", []),
        ("", "the lines before step 3 are lost", []),
        (None, "the lines before step 3 are lost", []),
        ('{"step": 1}\n{"step": 3}\n{"st', "", [1, 3]),
        (b'{"step": 1}\n\xff\xfe[\n', "1 damaged lines are left out", [1]),
    ],
)
def test_damaged_metrics_are_left_out_and_announced(tmp_path, content, message, steps):
    path, announced = tmp_path / "metrics.jsonl", []
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    Metrics(tmp_path, 3, log=announced.append, every=1).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == steps
    assert announced == ([f"{path}: {message}"] if message else [])


def test_new_lines_do_not_join_a_line_that_was_cut(tmp_path):
    (tmp_path / "log.txt").write_text("a line that was c")
    Log(tmp_path / "log.txt", io.StringIO())("the next")
    assert (tmp_path / "log.txt").read_text().splitlines()[1].endswith("the next")


def test_values_that_are_not_finite_are_null(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.write(5, {"loss": 1.0, "agreement": float("nan"), "scale": float("inf")})
    metrics.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"step": 5, "loss": 1.0, "agreement": None, "scale": None}


def test_a_killed_restart_keeps_the_metrics(tmp_path, monkeypatch):
    """The shortened metrics are written to another file, which then replaces the former one."""
    metrics = Metrics(tmp_path, 0)
    metrics.write(5, {"loss": 1.0})
    metrics.close()

    def raise_interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(log_module.pathlib.Path, "replace", raise_interrupt)
    with pytest.raises(KeyboardInterrupt):
        Metrics(tmp_path, 5)
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 5


def test_json_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"ü": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "ü": [\n  1\n ]\n}\n'
    for bad, error in (({"x": float("nan")}, ValueError), ({"x": object()}, TypeError)):
        with pytest.raises(error):
            write_json(path, bad)
    assert json.loads(path.read_text(encoding="utf-8")) == {"ü": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_the_clock_measures_kinds_of_time_separately(monkeypatch):
    now = iter([0.0, 2.0, 5.0, 6.0, 10.0, 10.0, 10.0])
    monkeypatch.setattr(log_module.time, "perf_counter", lambda: next(now))
    clock = Clock()
    clock.switch_to("train")  # 2 s of start
    former = clock.switch_to("evaluate")  # 3 s of training
    assert former == "train"
    clock.switch_to(former)  # 1 s of evaluation
    assert clock.seconds("train") == 3 + 4, "the running interval counts too"
    assert clock.seconds("evaluate") == 1
    assert clock.seconds("save") == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (90061, "25:01:01")]
)
def test_durations_are_formatted(seconds, text):
    assert format_duration(seconds) == text
