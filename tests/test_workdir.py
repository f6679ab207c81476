# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""A work directory belongs to one config and to one process at a time, and a run ends where its folder is gone."""

import io
import json
import os
import shutil

import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from xlkd.errors import UserError
from xlkd.runtime import workdir
from xlkd.runtime.log import Log, Metrics
from xlkd.train import checkpoint
from xlkd.train.checkpoint import Checkpoints


def config(**changes) -> ConfigDict:
    return ConfigDict({"seed": 0, "stages": ("one",), "mesh": {"data": -1}, "log": {"every": 20}} | changes)


def claim(folder, **changes):
    with workdir.claim_folder(config(**changes), folder):
        return json.loads((folder / "config.json").read_text())


def begin(folder):
    """What the first stage does as soon as its data was read."""
    claim(folder)
    (folder / "stages" / "01-one").mkdir(parents=True)


def test_the_config_is_there_and_the_same_one_may_come_again(tmp_path):
    begin(tmp_path / "run")
    assert claim(tmp_path / "run") == {"seed": 0, "stages": ["one"], "mesh": {"data": -1}, "log": {"every": 20}}
    assert claim(tmp_path / "run", mesh={"data": 4}, log={"every": 1})["mesh"] == {"data": 4}


def test_another_config_is_refused_by_the_keys_that_differ(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(UserError, match="another config \\(seed, stages differ\\)"):
        claim(tmp_path / "run", seed=1, stages=("two",))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 0


def test_what_was_mended_before_anything_began_is_not_another_run(tmp_path):
    """A source that was mistyped ends the first start; the second has the right one."""
    claim(tmp_path / "run", seed=1)
    assert claim(tmp_path / "run", seed=2)["seed"] == 2


def test_two_runs_in_one_folder(tmp_path):
    with (
        workdir.claim_folder(config(), tmp_path),
        pytest.raises(UserError, match=f"in use by process {os.getpid()}; wait, or choose another"),
    ):
        claim(tmp_path)
    claim(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --workdir"):
        claim(tmp_path / "file" / "run")


def test_a_folder_with_notes_may_become_a_work_directory_and_keeps_them(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    begin(tmp_path)
    claim(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["config.json", "log.txt", "report.html", "report.txt", "results.json", "stages", "texts", ".lock"]
)
def test_files_of_others_that_a_run_would_write_are_refused(tmp_path, name):
    """A model's folder given by mistake, for example: it has a config.json too."""
    (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=f"contains {name}, which no run wrote"):
        claim(tmp_path)
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == '{"model_type": "bert"}'


def test_a_run_that_was_copied_without_its_lock_goes_on(tmp_path):
    begin(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / "log.txt").write_text("its log\n")
    claim(tmp_path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_text("mine"), "a file, not a folder"),
        (os.mkfifo, "a file, not a folder"),
        (lambda path: path.symlink_to("none"), "a broken symlink"),
        (lambda path: path.symlink_to(path.name), "a broken symlink"),
    ],
)
def test_what_is_no_folder_is_refused(tmp_path, make, says):
    make(tmp_path / "run")
    before = os.lstat(tmp_path / "run")
    with pytest.raises(UserError, match=says):
        claim(tmp_path / "run")
    assert os.lstat(tmp_path / "run").st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["run"]


def test_a_symlink_to_a_work_directory_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "run").symlink_to("there")
    claim(tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "there" / "config.json").exists()


def move(folder):
    folder.rename(folder.with_name("elsewhere"))


def replace(folder):
    """What another run does that begins there."""
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / ".lock").write_text("1")
    (folder / "stages").mkdir()


@pytest.mark.parametrize("change", [move, shutil.rmtree, replace])
def test_whoever_writes_for_a_run_notices_that_its_folder_is_gone(tmp_path, change):
    folder = tmp_path / "run"
    with workdir.claim_folder(config(), folder) as lock:
        mine = workdir.WorkDirectory(folder, lock)
        stage = folder / "stages" / "01-one"
        mine.make_folder(stage)
        log, metrics = Log(folder / "log.txt", io.StringIO(), mine.check), Metrics(stage, 0, mine.check)
        checkpoints = Checkpoints(stage / "checkpoints", lambda: None, mine.check)
        state = {"x": jnp.ones(3)}
        checkpoints.save(1, state, wait=True)
        change(folder)
        before = sorted(tmp_path.rglob("*"))
        for write in (
            mine.check,
            lambda: mine.make_folder(stage),
            lambda: mine.write_json(folder / "results.json", {}),
            lambda: mine.write_lines(folder / "rows.jsonl", []),
            lambda: log("a line"),
            lambda: log.event("train"),
            lambda: metrics.write(1, {"loss": 1.0}),
            lambda: Metrics(stage, 0, mine.check),
            lambda: Checkpoints(stage / "checkpoints", lambda: None, mine.check),
            lambda: checkpoints.save(2, state),
            checkpoints._seal,
        ):
            with pytest.raises(UserError, match="no longer the folder that this run started in"):
                write()
        with pytest.raises(UserError, match="no longer the folder"), mine.explain_loss():
            (folder / "results.json").read_text()  # whatever else fails by it
        metrics.close()
        checkpoints.close()
        assert sorted(tmp_path.rglob("*")) == before


def test_other_processes_of_a_run_write_nothing(tmp_path):
    other = workdir.WorkDirectory(tmp_path, None)
    other.check()
    other.make_folder(tmp_path / "stages")
    other.write_json(tmp_path / "results.json", {})
    assert not os.listdir(tmp_path)


def test_no_folder_of_the_users_among_the_checkpoints_is_deleted(tmp_path):
    """Half saves of killed processes are cleared away by the name that they have."""
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
    assert (tmp_path / "4" / checkpoint.SUMS).exists()
