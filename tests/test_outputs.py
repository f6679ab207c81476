# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The output options of all commands with every kind of path: files that the command did not write are unchanged."""

import contextlib
import json
import os
import pathlib
import threading

import pytest
from reports_toys import use_few_resamples, write_grid_run
from test_files import list_files, make_device, take_snapshot
from toy_models import save_span_model

from xlkd import check, evaluate, files, main, plan, report, sweep, trim
from xlkd.errors import UserError

QUESTION = {"id": "q", "question": "Who?", "answers": [{"text": "Anna", "answer_start": 0}]}
SQUAD = {"data": [{"title": "t", "paragraphs": [{"context": "Anna went.", "qas": [QUESTION]}]}]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> pathlib.Path:
    """Writes what the commands read: data, answers, a run, a model."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "data.json").write_text(json.dumps(SQUAD))
    (folder / "answers.json").write_text('{"q": "Anna"}')
    write_grid_run(folder / "run")
    save_span_model(folder)
    return folder


COMMANDS = {
    "evaluate --json": lambda at, out: evaluate.main(
        [f"--predictions={at}/answers.json", f"--data=squad:{at}/data.json", f"--json={out}"]
    ),
    "check --json": lambda at, out: check.main([f"--data=squad:{at}/data.json", f"--json={out}"]),
    "plan --json": lambda at, out: plan.main(["--config=configs/gxlt.py", f"--json={out}"]),
    "report --out": lambda at, out: report.main([f"{at}/run", f"--out={out}", f"--json={at}/numbers.json"]),
    "report --json": lambda at, out: report.main([f"{at}/run", f"--out={at}/page.html", f"--json={out}"]),
}
FOLDERS = {
    "trim --out": lambda at, out: trim.main([f"--model={at}/model", "--layers=1", f"--out={out}"]),
    "main --workdir": lambda at, out: main.main(["--config=configs/gxlt.py", f"--workdir={out}"]),
    "sweep --workdir": lambda at, out: sweep.main(["--config=configs/gxlt.py", "--over=seed=0,1", f"--workdir={out}"]),
}


@pytest.fixture(autouse=True)
def _skip_compilation(monkeypatch, tmp_path_factory):
    """Replaces planning, which would compile the stages; only the written file is tested here."""
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(plan, "plan_run", lambda config, flags: {"fits": True})
    monkeypatch.setattr(plan, "format_plan", lambda plan: [])
    use_few_resamples(monkeypatch)


def make_link(target: str):
    return lambda path: path.symlink_to(target)


def make_folder_with_a_file(path: pathlib.Path) -> None:
    path.mkdir()
    (path / "thesis.docx").write_text("mine")


KINDS = {
    "nothing": lambda path: None,
    "file": lambda path: path.write_text("mine"),
    "empty folder": lambda path: path.mkdir(),
    "folder": make_folder_with_a_file,
    "link to a file": make_link("neighbour"),
    "link to nothing": make_link("nothing"),
    "link to a folder": make_link("documents"),
    "link to itself": make_link("out"),
    "pipe": os.mkfifo,
    "device": lambda path: make_device(path, 0o020000, 1, 3),
    "full device": make_link("/dev/full"),
    "in no folder": make_link("none/out"),
}
WRITTEN = {  # The file that is written; other kinds of paths are refused.
    "nothing": "out",
    "file": "out",
    "link to a file": "neighbour",
    "link to nothing": "nothing",
    "pipe": None,
    "device": None,
}


@pytest.fixture
def place(tmp_path) -> pathlib.Path:
    """Returns a folder with files of the user; the output is written beside them."""
    (tmp_path / "neighbour").write_text("mine")
    make_folder_with_a_file(tmp_path / "documents")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_output_changes_no_other_file(inputs, place, command, kind):
    KINDS[kind](place / "out")
    before, run_before = take_snapshot(place), take_snapshot(inputs / "run")
    if kind not in WRITTEN:
        with pytest.raises(UserError) as error:
            COMMANDS[command](inputs, place / "out")
        assert str(place) in str(error.value)
        assert take_snapshot(place) == before
        return
    piped: list[str] = []
    reader = threading.Thread(target=lambda: piped.append((place / "out").read_text()), daemon=True)
    if kind == "pipe":
        reader.start()
    COMMANDS[command](inputs, place / "out")
    after = take_snapshot(place)
    if kind == "pipe":
        reader.join(timeout=60)
        assert piped[0].strip()
    written = WRITTEN[kind]
    new = after.pop(written, b"")
    before.pop(written, None)
    if command == "report --out" and kind not in ("pipe", "device"):
        assert after.pop("out.txt"), "the tables of the page"
    assert after == before
    assert new != b"mine"
    assert take_snapshot(inputs / "run") == run_before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_output_changes_no_other_file(inputs, place, command, kind):
    KINDS[kind](place / "out")
    before = take_snapshot(place)
    training = command != "trim --out"
    if training and kind in ("nothing", "empty folder", "folder", "link to a folder"):
        pytest.skip("a run starts there and leaves other files alone: tests/test_workdir.py")
    accepted = kind in ("nothing", "empty folder", "link to nothing", "in no folder") and not training
    with contextlib.nullcontext() if accepted else pytest.raises(UserError):
        FOLDERS[command](inputs, place / "out")
    after = take_snapshot(place)
    assert {name: after[name] for name in before} == before
    target = pathlib.Path(os.path.realpath(place / "out"))
    if accepted:
        assert {files.MARKER, "config.json", "model.safetensors"} <= set(list_files(target))
    else:
        assert after == before


ODD_NAMES = {"too long": "x" * 300, "line end": "a\nb", "no text": os.fsdecode(b"\xff")}


@pytest.mark.parametrize("kind", ODD_NAMES)
@pytest.mark.parametrize("command", COMMANDS | FOLDERS)
def test_any_name_is_written_or_refused(inputs, place, capfd, command, kind):
    if command not in COMMANDS and command != "trim --out" and kind != "too long":
        pytest.skip("a run starts there")
    path, before = place / ODD_NAMES[kind], take_snapshot(place)
    with pytest.raises(UserError, match="File name too long") if kind == "too long" else contextlib.nullcontext():
        (COMMANDS | FOLDERS)[command](inputs, path)
    assert (kind == "too long") == (take_snapshot(place) == before)
    assert kind == "too long" or path.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_without_a_reader_is_refused_soon(inputs, place, monkeypatch, command):
    monkeypatch.setattr(files, "PATIENCE", 0.1)
    os.mkfifo(place / "out")
    with pytest.raises(UserError, match=r"no process has opened this pipe for reading in 0\.1 seconds"):
        COMMANDS[command](inputs, place / "out")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hyphen_is_standard_output_and_a_name_with_a_slash_a_folder(inputs, place, monkeypatch, capfd, command):
    monkeypatch.chdir(place)
    before = take_snapshot(place)
    COMMANDS[command](inputs, "-")
    assert capfd.readouterr().out.startswith(("{\n", "<!doctype"))
    with pytest.raises(UserError, match="a folder, not a file"):
        COMMANDS[command](inputs, "new/")
    assert take_snapshot(place) == before


def test_an_earlier_export_is_replaced_and_other_files_stay(inputs, place):
    FOLDERS["trim --out"](inputs, place / "out")
    (place / "out" / "thesis.docx").write_text("mine")
    FOLDERS["trim --out"](inputs, place / "out")
    assert (place / "out" / "thesis.docx").read_text() == "mine"
    assert (place / "documents" / "thesis.docx").read_text() == "mine"


def test_the_current_folder_is_not_replaced_by_an_export(inputs, place, monkeypatch):
    monkeypatch.chdir(place)
    before = take_snapshot(place)
    with pytest.raises(UserError, match=r"^\.: contains documents, neighbour, which no export wrote"):
        FOLDERS["trim --out"](inputs, ".")
    assert take_snapshot(place) == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("evaluate --json", "data.json"),
        ("evaluate --json", "answers.json"),
        ("check --json", "data.json"),
        ("report --out", "run/config.json"),
        ("report --json", "run/stages/01-english/results.json"),
        ("report --json", "run/texts/new.json"),
        ("trim --out", "model"),
        ("trim --out", "model/smaller"),
    ],
)
def test_no_output_replaces_an_input(inputs, command, name):
    before = take_snapshot(inputs)
    with pytest.raises(UserError, match="would overlap with"):
        (COMMANDS | FOLDERS)[command](inputs, inputs / name)
    assert take_snapshot(inputs) == before


@pytest.mark.parametrize(("page", "numbers"), [("a.html", "a.html"), ("a.txt", "b"), ("a.html", "a.txt"), ("l", "b")])
def test_two_outputs_of_a_report_must_be_two_files(inputs, place, page, numbers):
    (place / "l").symlink_to("b")
    with pytest.raises(UserError, match="have the same name"):
        report.main([f"{inputs}/run", f"--out={place / page}", f"--json={place / numbers}"])
    assert not (place / "a.txt").exists()


def test_a_report_replaces_only_an_earlier_report(inputs, place, monkeypatch):
    """A report of several runs is written to the current folder, with its tables beside the page."""
    folders = [str(inputs / "run"), str(write_grid_run(place / "other", seed=1))]
    monkeypatch.chdir(place / "documents")
    for _ in range(2):
        report.main(folders)
    assert list_files(pathlib.Path()) == ["report.html", "report.txt", "results.json", "thesis.docx"]
    for name in ("report.html", "report.txt", "results.json"):
        for filename in ("report.html", "report.txt", "results.json"):
            pathlib.Path(filename).unlink(missing_ok=True)
        pathlib.Path(name).write_text("mine")
        with pytest.raises(UserError, match=f"{name}: exists"):
            report.main(folders)
        assert pathlib.Path(name).read_text() == "mine"
