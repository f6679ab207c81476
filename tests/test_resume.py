# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A stage that has trained resumes with the same inputs only; before its training the inputs may change."""

import io
import json
import shutil

import numpy as np
import pytest
import stages
import toy_models
from safetensors.numpy import load_file, save_file

from xlkd.errors import UserError
from xlkd.inputs import identity
from xlkd.runtime.log import Log
from xlkd.runtime.workdir import WorkDirectory, claim_folder
from xlkd.settings import apply_flags, read_config
from xlkd.train import finished, run, stage

CONTEXT = "Anna lives in Rome. Ben lives in Oslo. Cleo lives in Kyiv."


def write_questions(path, answers=("Rome", "Oslo", "Kyiv")) -> None:
    """Writes a file of questions in SQuAD's format."""
    questions = [
        {"id": str(i), "question": f"where {i}", "answers": [{"text": text, "answer_start": CONTEXT.index(text)}]}
        for i, text in enumerate(answers)
    ]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": questions}]}]}))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return toy_models.save_span_model(tmp_path_factory.mktemp("model"))


class Start:
    """A stage that is started in a folder of its own with files of its own."""

    def __init__(self, folder, model) -> None:
        self.folder, self.model, self.output = folder, folder / "model", io.StringIO()
        shutil.copytree(model, self.model)
        write_questions(folder / "train.json")
        write_questions(folder / "test.json")
        self.settings = stages.read_stage(
            "configs/finetune.py",
            "",
            f"encoder.path={self.model}",
            f"data.train=squad:{folder / 'train.json'}",
            f"data.eval=squad:{folder / 'test.json'}",
            "task.max_length=64",
            "task.doc_stride=24",
        )
        self.stage = folder / "run" / "stages" / "01-finetune"
        (folder / "run").mkdir()

    def prepare(self):
        """Prepares the stage, as a run does at each start."""
        (self.folder / "run" / ".lock").touch()
        state = (self.folder / "run" / ".lock").stat()
        workdir = WorkDirectory(self.folder / "run", (state.st_dev, state.st_ino))
        return stage.prepare_stage(self.settings, workdir, self.stage, {}, Log(None, self.output))

    def train(self):
        """Writes what says that the stage has trained."""
        self.prepare()
        (self.stage / "checkpoints" / "2").mkdir(parents=True)


@pytest.fixture
def start(tmp_path, model, monkeypatch):
    monkeypatch.setenv("XLKD_CACHE", str(tmp_path / "cache"))
    return Start(tmp_path, model)


def flip_answer(folder):
    write_questions(folder / "train.json", ("Oslo", "Rome", "Kyiv"))


def double_rows(folder):
    write_questions(folder / "train.json", ("Rome", "Oslo", "Kyiv") * 2)


def remove_row(folder):
    write_questions(folder / "train.json", ("Rome", "Oslo"))


def replace_test(folder):
    write_questions(folder / "test.json", ("Rome", "Kyiv", "Oslo"))


def change_weight(folder):
    file = folder / "model" / "model.safetensors"
    tensors = load_file(file)
    name = min(tensors)
    tensors[name] = np.nextafter(tensors[name], np.float32(9))
    save_file(tensors, file)


def change_tokenizer(folder):
    file = folder / "model" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["normalizer"]["lowercase"] = True
    file.write_text(json.dumps(tokenizer))


CHANGES = [
    (flip_answer, r"config\.data\.train"),
    (double_rows, r"config\.data\.train \(3 examples then, 6 now\)"),
    (remove_row, r"config\.data\.train \(3 examples then, 2 now\)"),
    (replace_test, r"config\.data\.eval"),
    (change_weight, "weights of the encoder"),
    (change_tokenizer, "tokenizer of the encoder"),
]


@pytest.mark.parametrize(("change", "name"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_stage_that_has_trained_refuses_other_inputs_and_names_them(start, change, name):
    start.train()
    before = (start.stage / "inputs.json").read_bytes()
    change(start.folder)
    with pytest.raises(UserError, match=f"trained with other inputs than these: {name}; restore them"):
        start.prepare()
    assert (start.stage / "inputs.json").read_bytes() == before


def test_the_same_inputs_in_other_files_are_accepted(start):
    """A fresh machine has copies with other times and another indentation."""
    start.train()
    file = start.folder / "train.json"
    file.write_text(json.dumps(json.loads(file.read_text()), indent=4))
    start.prepare()


def test_a_stage_that_has_not_trained_begins_again_with_other_inputs(start):
    start.prepare()
    (start.stage / "evaluation").mkdir()
    (start.stage / "evaluation" / "0-eval.json").write_text("{}")
    flip_answer(start.folder)
    start.prepare()
    assert not (start.stage / "evaluation" / "0-eval.json").exists()
    start.prepare()


def test_a_missing_record_of_the_inputs_is_announced(start):
    start.train()
    for damaged in ("", '{"inputs": [1]}', '{"inputs": {"config.data.train": 3}}'):
        (start.stage / "inputs.json").write_text(damaged)
        start.prepare()
    assert "inputs.json is missing or damaged: nothing says that the inputs are those of before" in (
        start.output.getvalue()
    )
    assert json.loads((start.stage / "inputs.json").read_text())["version"] == 1


def test_a_damaged_sample_of_texts_is_written_again(start):
    start.prepare()
    file = start.folder / "run" / "texts" / "eval.jsonl"
    intact = file.read_text()
    for damaged in ("", "\0" * len(intact), intact[:30], "[]\n"):
        file.write_text(damaged)
        start.prepare()
        assert file.read_text() == intact


def test_hashes_of_examples_cover_word_alignments_and_order(tmp_path):
    from xlkd.data import sources
    from xlkd.rows import Pair

    pairs = [Pair(str(i), str(i), "g", "s", "a b", "c d", "en", "de", ((0, 1),)) for i in range(3)]
    plain = sources.Rows((tuple(pairs),)).compute_hash()
    other_links = [*pairs[:2], Pair("2", "2", "g", "s", "a b", "c d", "en", "de", ((1, 0),))]
    assert sources.Rows((tuple(pairs),)).compute_hash() == plain
    assert sources.Rows((tuple(other_links),)).compute_hash() != plain
    assert sources.Rows((tuple(pairs[::-1]),)).compute_hash() != plain


def test_inputs_that_come_and_go_are_named():
    before = {"config.data.train": {"examples": 3, "sha256": "a"}, "teacher x": {"sha256": "b"}}
    now = {"config.data.train": {"examples": 3, "sha256": "c"}, "config.data.dev": {"examples": 1, "sha256": "d"}}
    assert identity.describe_changes(before, now) == "config.data.dev, config.data.train, teacher x"
    assert identity.describe_changes(before, before) == ""


def finish(folder):
    """Writes the files of a finished stage, and its marker."""
    config = apply_flags(read_config("configs/finetune.py"), [])
    with claim_folder(config, folder / "run") as (workdir, _):
        stage_folder = folder / "run" / "stages" / "01-one"
        (folder / "run" / "texts").mkdir()
        (folder / "run" / "texts" / "eval.jsonl").write_text('{"key": "k"}\n')
        names = ("export/model.safetensors", "export/README.md", "evaluation/4-eval.json", "rows/eval.jsonl")
        for name in (*names, "stage.json", "inputs.json", "data_report.json", "metrics.jsonl", "checkpoints/4/x"):
            (stage_folder / name).parent.mkdir(parents=True, exist_ok=True)
            (stage_folder / name).write_text(name)
        finished.mark_finished(workdir, stage_folder, ["eval"])
    return workdir, stage_folder


def test_a_finished_stage_is_checked_file_by_file(tmp_path):
    workdir, folder = finish(tmp_path)
    assert finished.describe_damage(workdir, folder) == ""
    (folder / "export" / "README.md").write_text("edited by its user")
    (folder / "export" / "notes.txt").write_text("of its user")
    assert finished.describe_damage(workdir, folder) == ""
    names = json.loads((folder / "done").read_text())["files"]
    assert sorted(names) == [
        "data_report.json",
        "evaluation/4-eval.json",
        "export/README.md",
        "export/model.safetensors",
        "inputs.json",
        "metrics.jsonl",
        "rows/eval.jsonl",
        "stage.json",
    ]
    for file in (*(folder / name for name in names), folder / "done", tmp_path / "run" / "texts" / "eval.jsonl"):
        intact = file.read_text()
        for damage in ("", "\0" * len(intact), intact[:-2], None):
            if (damage, file.name) in ((None, "done"), (intact[:-2], "README.md")):
                continue
            file.unlink() if damage is None else file.write_text(damage)
            assert file.name in (finished.describe_damage(workdir, folder) or ""), (file, damage)
        file.write_text(intact)
    assert finished.describe_damage(workdir, folder) == ""
    (folder / "done").unlink()
    assert finished.describe_damage(workdir, folder) is None


def test_a_damaged_stage_without_checkpoints_is_refused(tmp_path):
    """It would be trained anew, which nobody who deleted the checkpoints expects."""
    workdir, folder = finish(tmp_path)
    shutil.rmtree(folder / "checkpoints" / "4")
    assert finished.describe_damage(workdir, folder) == ""
    (folder / "stage.json").write_text("")
    with pytest.raises(UserError, match=r"stage\.json does not match its checksum, and no checkpoint is left"):
        finished.describe_damage(workdir, folder)


def test_a_finished_stage_of_version_01_has_an_empty_marker(tmp_path):
    workdir, folder = finish(tmp_path)
    (folder / "done").write_text("")
    assert finished.describe_damage(workdir, folder) == "done is damaged"
    (folder / "inputs.json").unlink()
    assert finished.describe_damage(workdir, folder) == ""


def test_other_package_versions_are_named_and_recorded():
    before = {"packages": {"jax": "0.10.0", "numpy": "2.0", "gone": "1"}}
    now = run.describe_environment(["command"], before)
    assert now["earlier_packages"] == [before["packages"]]
    changes = run.describe_environment_changes(before, now)
    assert changes.startswith(f"jax 0.10.0 → {now['packages']['jax']}")
    assert "gone" not in changes
    assert run.describe_environment(["command"], now)["earlier_packages"] == [before["packages"]]
    for same in (now, {"packages": 3, "flags": None}):
        assert run.describe_environment_changes(same, now) == ""


def test_other_flags_and_another_runtime_of_the_devices_are_named(monkeypatch):
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_a=1")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/one")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    before = run.describe_environment(["command"], {})
    assert before["flags"]["LIBTPU_INIT_ARGS"] == "--xla_a=1"
    monkeypatch.setenv("XLA_FLAGS", "--xla_b")
    monkeypatch.delenv("LIBTPU_INIT_ARGS")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/two")
    now = run.describe_environment(["command"], before) | {"runtime": "TFRT TPU v6e"}
    changes = (
        f"runtime {before['runtime']} → TFRT TPU v6e, LIBTPU_INIT_ARGS --xla_a=1 → unset, XLA_FLAGS unset → --xla_b"
    )
    assert run.describe_environment_changes(before, now) == changes


def test_damaged_scores_and_pictures_are_recognized(tmp_path):
    """They are set aside and made again; reading them would end every start with a traceback."""
    from xlkd.evaluation import sets

    file = tmp_path / "0-eval.json"
    scores = '{"step": 1, "main": "f1", "cells": {"squad en": {"f1": 50.0}}}'
    picture = '{"axes": {"middle": [0], "directions": [[0], [1]]}}'
    for content in ("", "\0" * 9, "[]", "{}", scores[:30], scores.replace("50.0", "null"), picture.replace("{", "[")):
        file.write_text(content)
        assert not sets._is_record(file)
        assert sets._read_picture(file) is None
    file.write_text(scores)
    assert sets._is_record(file)
    file.write_text(picture)
    assert sets._read_picture(file) == json.loads(picture)
