# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Trackers get each step once over all restarts, and none of their failures changes or stops a run."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_loop import finish_run, load_export, start_run

from xlkd.errors import UserError
from xlkd.evaluation import tags
from xlkd.metrics.entries import Metric
from xlkd.rows import Cell
from xlkd.runtime import trackers
from xlkd.runtime.trackers import Place, Trackers
from xlkd.tasks import Scores

RECORDER = """
import json, os, time

class Recorder:
    def __init__(self, file):
        self.file = file
    def log(self, step, values):
        fault = os.environ.get("FAULT", "")
        if fault == "log":
            raise OSError("the disk is full")
        if fault == "hang":
            time.sleep(10_000)
        self.file.write(json.dumps({"step": step, "values": values}) + "\\n")
        self.file.flush()
    def close(self):
        if os.environ.get("FAULT") == "close":
            raise SystemExit("closed by itself")
        self.file.close()

def open_tracker(place):
    if os.environ.get("FAULT") == "open":
        raise ConnectionError("no server\\nat all")
    return Recorder(open(place.folder / f"calls-{place.id}.jsonl", "a"))
"""


@pytest.fixture(scope="module")
def folder_of_modules(tmp_path_factory):
    """Writes a tracker as a module of a folder that is added to the package's."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "recorder.py").write_text(RECORDER)
    (folder / "needy.py").write_text("PACKAGE = 'a_package_that_nobody_has'\n")
    trackers.__path__.append(str(folder))
    yield folder
    trackers.__path__.remove(str(folder))


def open_trackers(folder, log, names=("recorder",)):
    return Trackers(names, folder, Place(folder, "run", "one", {"seed": 3}), log)


def read_calls(folder) -> list[dict]:
    files = list(folder.glob("recorder/calls-*.jsonl"))
    assert len(files) <= 1, "a restart has the id of the first start"
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_restart_sends_no_step_again(tmp_path, folder_of_modules):
    for first in (1, 3):
        opened = open_trackers(tmp_path, pytest.fail)
        for step in range(first, first + 4):
            opened.send("train", step, {"train/loss": step / 2})
            if step == 4:
                opened.send("eval", step, {"eval/xquad/de/f1": 50.0 + first})
        opened.close()
    calls = read_calls(tmp_path)
    assert [call["step"] for call in calls] == [1, 2, 3, 4, 4, 5, 6]
    assert calls[4]["values"] == {"eval/xquad/de/f1": 51.0}, "values of another group at the same step"


def test_a_record_with_damaged_lines_keeps_the_others(tmp_path, folder_of_modules):
    opened = open_trackers(tmp_path, pytest.fail)
    opened.send("train", 5, {"train/loss": 1.0})
    opened.close()
    with (tmp_path / "recorder" / "sent.jsonl").open("a") as file:
        file.write('\0\0\n[]\n3\n{"step": "x", "group": "train"}\n{"step": 9, "gro')
    opened = open_trackers(tmp_path, pytest.fail)
    for step in (5, 6):
        opened.send("train", step, {"train/loss": 1.0})
    opened.close()
    assert [call["step"] for call in read_calls(tmp_path)] == [5, 6]


@pytest.mark.parametrize(
    ("fault", "message"),
    [("open", "ConnectionError: no server"), ("log", "OSError: the disk is full"), ("close", "SystemExit: closed by")],
)
def test_a_tracker_that_fails_is_announced_once_and_left_alone(
    tmp_path, folder_of_modules, monkeypatch, fault, message
):
    monkeypatch.setenv("FAULT", fault)
    lines = []
    opened = open_trackers(tmp_path, lines.append, ("recorder", "tensorboard"))
    for step in range(1, 4):
        opened.send("train", step, {"train/loss": 1.0})
    opened.close()
    (line,) = lines
    assert line.startswith(f"warning: the tracker recorder gets nothing more, the run continues: {message}")
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    assert [event.step for event in read_events(events.read_bytes())[1:]] == [1, 2, 3]


def test_a_tracker_that_hangs_delays_nothing(tmp_path, folder_of_modules, monkeypatch):
    monkeypatch.setenv("FAULT", "hang")
    monkeypatch.setattr(trackers, "PATIENCE", 0.2)
    lines, since = [], time.monotonic()
    opened = open_trackers(tmp_path, lines.append)
    for step in range(1, 100):
        opened.send("train", step, {"train/loss": 1.0})
    opened.close()
    assert time.monotonic() - since < 2
    assert [line.rpartition(": ")[2] for line in lines] == ["no answer for 0 s"]


def test_a_tracker_that_never_keeps_up_fills_no_memory(tmp_path, folder_of_modules, monkeypatch):
    monkeypatch.setenv("FAULT", "hang")
    monkeypatch.setattr(trackers, "MOST_WAITING", 10)
    lines = []
    opened = open_trackers(tmp_path, lines.append)
    for step in range(1, 100):
        opened.send("train", step, {"train/loss": 1.0})
    assert [line.rpartition(": ")[2] for line in lines] == ["10 calls are waiting"]


def test_unknown_trackers_and_missing_packages_are_refused(folder_of_modules):
    trackers.check_names(("tensorboard", "recorder"))
    with pytest.raises(UserError, match=r"no tracker 'tensorbord': config\.log\.to|known: .*tensorboard, wandb"):
        trackers.check_names(("tensorbord",))
    with pytest.raises(UserError, match="needs the package a_package_that_nobody_has, which is not installed"):
        trackers.check_names(("needy",))


def test_event_files_are_right_although_the_clock_goes_back(tmp_path, monkeypatch):
    from xlkd.runtime.trackers import tensorboard

    times = iter(range(2_000_000_000, 0, -30_000_000))
    monkeypatch.setattr(tensorboard.time, "time", lambda: float(next(times)))
    threads = threading.active_count()
    opened = open_trackers(tmp_path, pytest.fail, ("tensorboard",))
    for step in range(5, 25):
        opened.send("train", step, {"train/loss": step / 4})
    assert threading.active_count() == threads
    opened.close()
    (file,) = (tmp_path / "tensorboard").glob("events.*")
    first, *scalars = read_events(file.read_bytes())
    assert first.file_version == "brain.Event:2"
    assert [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in scalars] == [
        (step, "train/loss", step / 4) for step in range(5, 25)
    ]


def read_events(data: bytes) -> list:
    """Parses a file of records: eight bytes of length, four of checksum, the record, four of checksum."""
    from tensorboardX.proto.event_pb2 import Event

    parsed = []
    while data:
        size = int.from_bytes(data[:8], "little")
        parsed.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return parsed


def test_event_files_do_not_import_pytorch(tmp_path):
    code = (
        "import sys, pathlib; from xlkd.runtime.trackers.tensorboard import EventFile\n"
        "file = EventFile(sys.argv[1] + '/events'); file.log(1, {'train/loss': 1.0}); file.close()\n"
        "print('torch' in sys.modules, 'tensorboardX' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert process.stdout == "False True\n"


def test_scores_have_the_usual_tags():
    metrics = (Metric("f1", "F1", len),)
    cells = {
        Cell("xquad", ("de", "de")): {"f1": 40.0, "n": 7},
        Cell("mlqa", ("en", "de")): {"f1": 50.0, "n": 7},
        Cell("mlqa", ("de", "de")): {"f1": 60.0, "n": 7},
    }
    assert tags.list_values("eval", Scores(cells, "f1", metrics)) == {
        "eval/xquad/de/f1": 40.0,
        "eval/xquad/mean/f1": 40.0,
        "eval/mlqa/en-de/f1": 50.0,
        "eval/mlqa/de/f1": 60.0,
        "eval/mlqa/mean/f1": 55.0,
    }


def test_averages_are_sent_only_where_no_cell_is_missing():
    languages = ("ar", "de", "en", "es", "hi", "vi", "zh")
    cells = {Cell("mlqa", (q, c)): {"f1": float(q == c)} for q in languages for c in languages}
    values = tags.list_values("dev", Scores(cells, "f1"))
    assert values["dev/mlqa/xlt/f1"] == 1
    assert values["dev/mlqa/gxlt_off/f1"] == 0
    assert values["dev/mlqa/gxlt/f1"] == values["dev/mlqa/mean/f1"] == pytest.approx(1 / 7)
    assert not [tag for tag in values if "[" in tag or "xquad" in tag]


def run_with_tracker(folder_of_modules) -> list[str]:
    """Returns the arguments of Python for a run whose package has one more tracker."""
    code = (
        "import sys\nfrom xlkd import cli, main\nfrom xlkd.runtime import trackers\n"
        f"trackers.__path__.append({str(folder_of_modules)!r})\ntrackers.PATIENCE = 3.0\nsys.exit(cli.run(main.main))"
    )
    return ["-c", code]


@pytest.mark.long
def test_kills_and_resumes_double_no_step_in_a_tracker(tmp_path, folder_of_modules):
    entry, flag = run_with_tracker(folder_of_modules), "--config.log.to=recorder,tensorboard"
    plain = tmp_path / "plain"
    finish_run(plain, "--config.log.to=")
    workdir = tmp_path / "run"
    stage = workdir / "stages" / "01-all"
    for kill, until in ((signal.SIGKILL, 6), (signal.SIGKILL, 11), (signal.SIGTERM, 14)):
        process = start_run(workdir, flag, entry=entry)
        while process.poll() is None and max((call["step"] for call in read_calls(stage)), default=0) < until:
            time.sleep(0.05)
        process.send_signal(kill)
        output = process.communicate()[0]
        assert process.returncode in (-signal.SIGKILL, 75), output
    finish_run(workdir, flag, entry=entry)
    calls = read_calls(stage)
    train = [call["step"] for call in calls if "train/loss" in call["values"]]
    assert len(train) == len(set(train)), "no step twice"
    assert len(set(range(1, 25)) - set(train)) <= 2, "a kill loses at most the step that was being sent"
    assert train == sorted(train)
    evaluated = [call["step"] for call in calls if "eval/de/accuracy" in call["values"]]
    assert evaluated == sorted(set(evaluated))
    assert {0, 24} <= set(evaluated)
    in_events = [
        (event.step, value.tag)
        for file in (stage / "tensorboard").glob("events.*")
        for event in read_events(file.read_bytes())
        for value in event.summary.value
    ]
    assert len(in_events) == len(set(in_events))
    before, after = load_export(plain), load_export(workdir)
    assert all((before[name] == after[name]).all() for name in before), "a tracker changes nothing"


@pytest.fixture(scope="module")
def weights_without_tracker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "run"
    finish_run(folder, "--config.log.to=", "--config.budget.steps=8")
    return load_export(folder)


@pytest.mark.long
@pytest.mark.parametrize("fault", ["open", "log", "hang", "close"])
def test_a_dead_tracker_stops_no_run_and_changes_no_weights(
    tmp_path, folder_of_modules, weights_without_tracker, monkeypatch, fault
):
    monkeypatch.setenv("FAULT", fault)
    output = finish_run(
        tmp_path / "run",
        "--config.log.to=recorder",
        "--config.budget.steps=8",
        entry=run_with_tracker(folder_of_modules),
    )
    assert output.count("warning: the tracker recorder gets nothing more, the run continues") == 1
    before, after = weights_without_tracker, load_export(tmp_path / "run")
    assert all((before[name] == after[name]).all() for name in before)
