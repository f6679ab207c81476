# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A work directory belongs to one config and one process at a time, and a run ends if its folder is removed."""

import io
import json
import os
import shutil

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from xlkd import settings
from xlkd.errors import UserError
from xlkd.runtime import workdir
from xlkd.runtime.log import Log, Metrics
from xlkd.runtime.saved_steps import SUMS
from xlkd.spec.reading import compute_digest
from xlkd.train.checkpoint import Checkpoints


def make_config(**changes) -> ConfigDict:
    return ConfigDict({"seed": 0, "stages": ("one",), "mesh": {"data": -1}, "log": {"every": 20}} | changes)


def claim(folder, **changes):
    with workdir.claim_folder(make_config(**changes), folder):
        return json.loads((folder / "config.json").read_text())


def begin_stage(folder):
    """Claims a folder and writes what the first stage has written after its first checkpoint."""
    claim(folder)
    stage = folder / "stages" / "01-one"
    (stage / "checkpoints" / "5").mkdir(parents=True)
    digest = compute_digest(settings.to_plain(make_config()))
    (stage / "inputs.json").write_text(json.dumps({"version": 1, "config": digest, "inputs": {}}))
    return stage


def test_the_config_is_saved_and_the_same_one_may_run_again(tmp_path):
    begin_stage(tmp_path / "run")
    assert claim(tmp_path / "run") == {"seed": 0, "stages": ["one"], "mesh": {"data": -1}, "log": {"every": 20}}
    assert claim(tmp_path / "run", mesh={"data": 4}, log={"every": 1})["mesh"] == {"data": 4}


def test_another_config_is_refused_by_the_keys_that_differ(tmp_path):
    begin_stage(tmp_path / "run")
    with pytest.raises(UserError, match="another config \\(seed, stages differ\\)"):
        claim(tmp_path / "run", seed=1, stages=("two",))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 0


def test_a_config_may_change_until_the_first_stage_starts(tmp_path):
    """A mistyped source ends the first start; the second start has the right one."""
    claim(tmp_path / "run", seed=1)
    assert claim(tmp_path / "run", seed=2)["seed"] == 2


def test_a_config_may_change_until_a_stage_has_trained(tmp_path):
    """What the first config wrote before its training is deleted; files of other programs stay."""
    stage = begin_stage(tmp_path / "run")
    (stage / "checkpoints" / "5").rename(stage / "checkpoints" / "0")
    for name in ("checkpoints/0/_CHECKPOINT_METADATA", "evaluation/0-eval.json", "evaluation/notes.txt", "notes.txt"):
        (stage / name).parent.mkdir(exist_ok=True)
        (stage / name).write_text("x")
    assert claim(tmp_path / "run", seed=2)["seed"] == 2
    assert sorted(str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file()) == [
        "evaluation/notes.txt",
        "notes.txt",
    ]
    assert not (stage / "checkpoints" / "0").exists()


@pytest.mark.parametrize("damage", [lambda text: "", lambda text: "\0" * len(text), lambda text: text[:20], None])
def test_a_damaged_config_is_written_again_if_it_is_that_of_the_run(tmp_path, damage):
    begin_stage(tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    intact = file.read_text()
    if damage:
        file.write_text(damage(intact))
    else:
        file.unlink()
    with pytest.raises(UserError, match=r"config\.json is missing or damaged, and nothing says .*this config"):
        claim(tmp_path / "run", seed=1)
    with workdir.claim_folder(make_config(), tmp_path / "run") as (_, note):
        assert note == "config.json was missing or damaged and is written again"
    assert file.read_text() == intact


def test_a_file_of_another_program_is_not_taken_for_a_damaged_config(tmp_path):
    (tmp_path / ".lock").write_text("123")
    (tmp_path / "config.json").write_text("// settings of another program\n{}")
    with pytest.raises(UserError, match=r"contains config\.json, \.lock, which no run wrote"):
        claim(tmp_path)


def test_drafts_of_killed_writes_are_deleted(tmp_path):
    stage = begin_stage(tmp_path / "run")
    names = (".xlkd-draft-0123abcd", ".xlkd-draft-mine", "a.xlkd-draft-0123abcd")
    for name in names:
        (stage / name).write_text("x")
    claim(tmp_path / "run")
    assert [name for name in names if (stage / name).exists()] == list(names[1:])


def test_two_runs_in_one_folder_at_a_time_are_refused(tmp_path):
    with (
        workdir.claim_folder(make_config(), tmp_path),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}; wait, or choose another"),
    ):
        claim(tmp_path)
    claim(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --workdir"):
        claim(tmp_path / "file" / "run")


def test_a_folder_with_notes_may_become_a_work_directory_and_keeps_them(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    begin_stage(tmp_path)
    claim(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["config.json", "log.txt", "report.html", "report.txt", "results.json", "stages", "texts", ".lock"]
)
def test_foreign_files_that_a_run_would_overwrite_are_refused(tmp_path, name):
    """An example is the folder of a model, which has a config.json too."""
    (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=f"contains {name}, which no run wrote"):
        claim(tmp_path)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == '{"model_type": "bert"}'


def test_a_run_that_was_copied_without_its_lock_resumes(tmp_path):
    begin_stage(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / "log.txt").write_text("its log\n")
    claim(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("mine"), "a file, not a folder"),
        (os.mkfifo, "a file, not a folder"),
        (lambda path: path.symlink_to("none"), "a broken symlink"),
        (lambda path: path.symlink_to(path.name), "a broken symlink"),
    ],
)
def test_a_path_that_is_not_a_folder_is_refused(tmp_path, make, message):
    make(tmp_path / "run")
    before = os.lstat(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        claim(tmp_path / "run")
    assert os.lstat(tmp_path / "run").st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["run"]


def test_a_symlink_to_a_work_directory_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "run").symlink_to("there")
    claim(tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "there" / "config.json").exists()


def move_away(folder):
    folder.rename(folder.with_name("elsewhere"))


def replace_folder(folder):
    """Replaces the folder, as another run that starts there does."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".lock").write_text("1")
    (folder / "stages").mkdir()


@pytest.mark.parametrize("change", [move_away, shutil.rmtree, replace_folder])
def test_every_write_of_a_run_fails_if_its_folder_is_gone(tmp_path, change):
    folder = tmp_path / "run"
    with workdir.claim_folder(make_config(), folder) as (directory, _):
        stage = folder / "stages" / "01-one"
        directory.make_folder(stage)
        log, metrics = Log(folder / "log.txt", io.StringIO(), directory.check), Metrics(stage, 0, directory.check)
        checkpoints = Checkpoints(stage / "checkpoints", lambda: None, directory.check)
        state = {"x": jnp.ones(3)}
        checkpoints.save(1, state, wait=True)
        change(folder)
        before = sorted(tmp_path.rglob("*"))
        for write in (
            directory.check,
            lambda: directory.make_folder(stage),
            lambda: directory.write_json(folder / "results.json", {}),
            lambda: directory.write_lines(folder / "rows.jsonl", []),
            lambda: log("a line"),
            lambda: log.event("train"),
            lambda: metrics.write(1, {"loss": 1.0}),
            lambda: Metrics(stage, 0, directory.check),
            lambda: Checkpoints(stage / "checkpoints", lambda: None, directory.check),
            lambda: checkpoints.save(2, state),
            checkpoints._store._seal,
        ):
            with pytest.raises(UserError, match="no longer the folder that this run started in"):
                write()
        with pytest.raises(UserError, match="no longer the folder"), directory.explain_loss():
            (folder / "results.json").read_text()  # Any other failure is explained by the loss of the folder.
        metrics.close()
        checkpoints.close()
        assert sorted(tmp_path.rglob("*")) == before


def test_other_processes_of_a_run_write_nothing(tmp_path):
    other = workdir.WorkDirectory(tmp_path, None)
    other.check()
    other.make_folder(tmp_path / "stages")
    other.write_json(tmp_path / "results.json", {})
    assert not os.listdir(tmp_path)


def test_foreign_folders_among_the_checkpoints_are_not_deleted(tmp_path):
    """Incomplete checkpoints of killed processes are recognised by their name and deleted."""
    foreign = ["notes.txt", "my-tmp/a", "backup/a", "7/a", "damaged-tmp/a"]
    for name in foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()
    checkpoints = Checkpoints(tmp_path, lambda: None)
    for step in range(1, 5):
        checkpoints.save(step, {"x": jnp.ones(3)}, wait=True)
    checkpoints.close()
    assert not (tmp_path / "3.orbax-checkpoint-tmp").exists()
    assert {(tmp_path / name).read_text() for name in foreign} == {"mine"}
    assert (tmp_path / "4" / SUMS).exists()
